"""Pictures that every viewer opens, with damaged metadata beside whole pixels; streams that are none."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tifffile
from PIL import Image as PILImage
from PIL import ImageCms, PngImagePlugin
from torch import Tensor

from zoo.errors import ImageError
from zoo.images import read

PHOTO = PILImage.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 1) -> bytes:
    tags = PILImage.Exif()
    tags[274], tags[271], tags[282], tags[283], tags[296] = orientation, "maker", 72.0, 72.0, 2
    tags.get_ifd(0x8769).update({33434: 0.01, 37510: b"ASCII\0\0\0hello"})
    tags.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
    return tags.tobytes()


def saved(format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PHOTO.save(buffer, format, **options)
    return buffer.getvalue()


def png() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("k", "v" * 50, zip=True)
    info.add_itxt("XML:com.adobe.xmp", "<x/>" * 9, zip=True)
    info.add_text("plain", "text")
    for name, body in ((b"tIME", bytes(7)), (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", bytes(32))):
        info.add(name, body)
    return saved("PNG", exif=exif(), icc_profile=PROFILE, pnginfo=info, dpi=(72, 72))


def png_spans(data: bytes) -> Iterator[tuple[int, int]]:
    """Contents and checksums of the chunks that are no pixels."""
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if not data[at + 4 : at + 5].isupper():
            yield at + 8, at + 12 + length
        at += 12 + length


def jpeg_spans(data: bytes) -> Iterator[tuple[int, int]]:
    at = 2
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        if 0xE0 <= data[at + 1] <= 0xEF or data[at + 1] == 0xFE:
            yield at + 4, at + 2 + length
        at += 2 + length


def webp_spans(data: bytes) -> Iterator[tuple[int, int]]:
    at = 12
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] in (b"EXIF", b"ICCP", b"XMP "):
            yield at + 8, at + 8 + length
        at += 8 + length + length % 2


def tiff_spans(data: bytes) -> Iterator[tuple[int, int]]:
    """Type, count and value of the tags that no pixel needs, and the values that stand elsewhere."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number, value = struct.unpack_from("<HHII", data, at)
        if tag in (270, 282, 283, 296, 305, 306, 34675):
            yield at + 2, at + 12
            if kind in (2, 5, 7) and number > 4:
                yield value, value + number


TIFF = {"icc_profile": PROFILE, "dpi": (72, 72), "description": "d" * 30, "software": "s" * 20}
FILES: dict[str, tuple[bytes, Callable[[bytes], Iterator[tuple[int, int]]]]] = {
    "PNG": (png(), png_spans),
    "JPEG": (saved("JPEG", exif=exif(), icc_profile=PROFILE, xmp=b"<x/>", comment=b"c" * 30, quality=95), jpeg_spans),
    "MPO": (saved("MPO", exif=exif(), icc_profile=PROFILE, save_all=True, append_images=[PHOTO]), jpeg_spans),
    "WebP": (saved("WEBP", lossless=True, exif=exif(), icc_profile=PROFILE, xmp=b"<x/>"), webp_spans),
    "TIFF": (saved("TIFF", **TIFF), tiff_spans),
    "TIFF-LZW": (saved("TIFF", compression="tiff_lzw", **TIFF), tiff_spans),
}


def spoil(data: bytes, span: tuple[int, int], chance: random.Random) -> bytes:
    start, end = span
    spoiled = bytearray(data)
    how = chance.randrange(4)
    if how == 0:
        spoiled[chance.randrange(start, end)] ^= 1 << chance.randrange(8)
    elif how == 1:
        for _ in range(chance.randrange(1, 12)):
            spoiled[chance.randrange(start, end)] = chance.randrange(256)
    elif how == 2:
        spoiled[start:end] = bytes(end - start)
    else:
        begin = chance.randrange(start, end)
        spoiled[begin:end] = b"\xff" * (end - begin)
    if data.startswith(b"\x89PNG") and chance.random() < 0.5:  # wrong, and by its checksum right
        spoiled[end - 4 : end] = struct.pack(">I", zlib.crc32(spoiled[start - 4 : end - 4]))
    return bytes(spoiled)


def close(found: Tensor, wanted: Tensor) -> bool:
    """The same picture, turned where a spoiled orientation still is one, and moved in colour by a spoiled profile."""
    same = found.shape == wanted.shape or found.shape == wanted.transpose(-1, -2).shape
    return same and abs(float(found.mean() - wanted.mean())) < 0.25


@pytest.mark.parametrize("format", FILES)
def test_a_picture_survives_its_metadata(format: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, spans = FILES[format]
    wanted, places, chance = read(data).pixels, list(spans(data)), random.Random(1)
    assert len(places) >= 3
    for _ in range(25):
        assert close(read(spoil(data, chance.choice(places), chance)).pixels, wanted)
    assert capfd.readouterr() == ("", "")


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def compressed_text(length: int) -> bytes:
    """A PNG with a text as generators of pictures write their whole workflow into it."""
    data = saved("PNG")
    return data[:33] + chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * length, 1)) + data[33:]


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


JPEG = saved("JPEG", quality=95)
ODD = {
    "text of 3 MB": compressed_text(3_000_000),
    "text of 90 MB": compressed_text(90_000_000),
    "broken checksum at the end": saved("PNG")[:-4] + bytes(4),
    "no end": saved("PNG")[:-12],
    "short Adobe marker": JPEG[:2] + segment(0xEE, b"Adobe") + JPEG[2:],
    "profile of which a part is missing": JPEG[:2] + segment(0xE2, b"ICC_PROFILE\0\2\5" + bytes(9)) + JPEG[2:],
    "broken Photoshop resources": JPEG[:2] + segment(0xED, b"Photoshop 3.0\0008BIM\4\4\0\0\xff\xff") + JPEG[2:],
    "a film behind the photograph": JPEG + bytes(9) + b"ftypmp42" + bytes(99),
    "BMP of another length": b"BM" + struct.pack("<I", 7) + saved("BMP")[6:],
    "GIF without its end": saved("GIF")[:-1],
}


@pytest.mark.parametrize("case", ODD)
def test_what_viewers_open_is_opened(case: str) -> None:
    assert read(ODD[case]).size == (24, 36)


def test_a_spoiled_text_costs_neither_orientation_nor_profile() -> None:
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    info = PngImagePlugin.PngInfo()
    info.add_text("k", "v" * 50, zip=True)
    for data in (
        saved("PNG", exif=exif(6), icc_profile=wide, pnginfo=info),
        saved("JPEG", exif=exif(6), quality=95)[:2]
        + segment(0xEE, b"Adobe")
        + saved("JPEG", exif=exif(6), quality=95)[2:],
    ):
        spoiled = bytearray(data)
        if b"zTXt" in data:
            spoiled[data.index(b"zTXt") + 9] ^= 255
        assert read(bytes(spoiled)).size == (36, 24)


def test_a_damaged_directory_entry_of_16_bits_per_channel() -> None:
    buffer = io.BytesIO()
    levels = np.asarray(PHOTO).astype(np.uint16) * 257
    tifffile.imwrite(buffer, levels, photometric="rgb", description="d" * 30, metadata=None)
    data = bytearray(buffer.getvalue())
    at = data.index(struct.pack("<HH", 270, 2))
    data[at + 2 : at + 12] = b"\xff" * 10
    assert np.array_equal(read(bytes(data)).pixels[0].permute(1, 2, 0).numpy(), levels.astype(np.float32) / 65535)


class Endless(io.RawIOBase):
    """Zeros without end, a few at a time."""

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "nobody reads this to its end"
        return bytes(min(size, 16))


class Drops(io.BytesIO):
    """A stream that hands out three bytes at a time while it is asked for few."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, 3))


def test_a_stream_without_end_is_refused_by_its_first_bytes() -> None:
    with pytest.raises(ImageError, match="is not an image that the zoo reads"):
        read(Endless())  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="/dev/zero' is not an image that the zoo reads"):
        read("/dev/zero")


def test_a_stream_in_drops() -> None:
    assert read(Drops(saved("PNG"))).size == (24, 36)
