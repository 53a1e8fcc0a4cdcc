"""zoo.images: colour, depth, orientation, sizes, atomic writing, and a clear sentence for every bad file."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from PIL import ImageCms
from torch import Tensor

from zoo import images
from zoo.errors import ConfigError, ImageError, InputError, UnknownNameError
from zoo.images import SizePolicy, read, read_array, resize, write
from zoo.images.decode import as_float

LEVEL = 1 / 255


def photo(height: int = 24, width: int = 36, seed: int = 0) -> np.ndarray:
    """Smooth colours with a little noise, (H, W, 3) uint8, so that lossy formats have something fair to keep."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([40 + 150 * x / width, 60 + 150 * y / height, 200 - 100 * x / width], -1)
    return (smooth + np.random.default_rng(seed).integers(0, 8, smooth.shape)).astype(np.uint8)


def file_of(image: PILImage.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tiff_of(samples: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def hwc(pixels: Tensor) -> np.ndarray:
    """(1, C, H, W) -> (H, W, C)."""
    return pixels[0].permute(1, 2, 0).numpy()


def png(width: int, height: int, bits: int, color: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, for depths that Pillow does not write; rows carry their filter bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in body)


# --- colour profiles written by hand ---------------------------------------------------------------------------------


def icc(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A minimal ICC version 2 profile."""
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", offset + len(body), b"\0" * 4, 0x02400000, kind, space, connection)
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + fixed(0.9642, 1, 0.8249) + b"\0" * 48
    assert len(header) == 128
    return header + struct.pack(">I", len(tags)) + table + body


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + fixed(*values)


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def text(words: bytes) -> bytes:
    return b"desc\0\0\0\0" + struct.pack(">I", len(words) + 1) + words + b"\0" + b"\0" * 78


# Columns are the primaries' XYZ adapted to D50: Adobe RGB (1998) and sRGB.
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
WIDE_PROFILE = icc(
    b"RGB ",
    b"mntr",
    b"XYZ ",
    {
        b"desc": text(b"wide"),
        b"wtpt": xyz(0.9642, 1, 0.8249),
        **{name + b"XYZ": xyz(*ADOBE[:, i]) for i, name in enumerate((b"r", b"g", b"b"))},
        **{name + b"TRC": curve(2.2) for name in (b"r", b"g", b"b")},
    },
)
LINEAR_GRAY_PROFILE = icc(
    b"GRAY",
    b"mntr",
    b"XYZ ",
    {b"desc": text(b"linear grey"), b"wtpt": xyz(0.9642, 1, 0.8249), b"kTRC": curve(1.0)},
)


def ink_profile() -> bytes:
    """CMYK whose first ink prints red (Lab 53, 80, 67), so that a reader without the profile shows cyan instead."""
    identity = bytes(range(256))
    table = b""
    for corner in range(16):  # the first ink varies slowest
        cyan, other = corner >> 3, corner & 7
        lightness, a, b = (0, 0, 0) if other else ((53, 80, 67) if cyan else (100, 0, 0))
        table += bytes([round(lightness * 2.55), 128 + a, 128 + b])
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + identity * 4 + table + identity * 3
    return icc(
        b"CMYK", b"prtr", b"Lab ", {b"desc": text(b"ink"), b"wtpt": xyz(0.9642, 1, 0.8249), b"A2B0": lut, b"A2B1": lut}
    )


def srgb_encode(linear: np.ndarray) -> np.ndarray:
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def wide_to_srgb(encoded: np.ndarray) -> np.ndarray:
    return srgb_encode((encoded**2.2) @ ADOBE.T @ np.linalg.inv(SRGB).T)


# --- reading: sources and the record ---------------------------------------------------------------------------------


def test_every_source_gives_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "cat.at.home.png"
    data = file_of(PILImage.fromarray(photo()), "PNG")
    path.write_bytes(data)
    with path.open("rb") as stream:
        found = [read(str(path)), read(path), read(data), read(io.BytesIO(data)), read(stream)]
    assert [image.name for image in found] == ["cat.at.home", "cat.at.home", "image", "image", "cat.at.home"]
    for image in found:
        assert image.pixels.shape == (1, 3, 24, 36)
        assert image.pixels.dtype == torch.float32
        assert image.pixels.is_contiguous()
        assert image.alpha is None
        assert image.size == image.source_size == (24, 36)
        assert image.sha256 == hashlib.sha256(data).hexdigest()
        assert np.array_equal(hwc(image.pixels), photo().astype(np.float32) / 255)


def test_size_applies_to_pixels_and_alpha_and_the_source_size_stays() -> None:
    rgba = np.dstack([photo(), np.full((24, 36), 128, np.uint8)])
    image = read(file_of(PILImage.fromarray(rgba), "PNG"), size=SizePolicy("long", 18))
    assert image.pixels.shape == (1, 3, 12, 18)
    assert image.alpha is not None
    assert image.alpha.shape == (1, 1, 12, 18)
    assert image.source_size == (24, 36)
    assert read(file_of(PILImage.fromarray(rgba), "PNG"), size="exact:8").size == (8, 8)


# --- reading: formats and modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 12),
        ("JPEG", {"quality": 95, "subsampling": 0}, 8),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 8),
    ],
)
def test_formats(format: str, options: dict[str, object], tolerance: int) -> None:
    found = read(file_of(PILImage.fromarray(photo()), format, **options))
    assert np.abs(hwc(found.pixels) * 255 - photo()).max() <= tolerance + 1e-3


def test_first_of_several_frames_pages_and_phone_pictures() -> None:
    first, second = (PILImage.new("RGB", (16, 12), color) for color in ("#c02040", "#10d030"))
    expected = np.array([0xC0, 0x20, 0x40]) / 255
    for format in ("GIF", "TIFF", "WEBP", "MPO"):
        data = file_of(first, format, save_all=True, append_images=[second])
        found = hwc(read(data).pixels)
        assert found.shape == (12, 16, 3)
        assert np.abs(found - expected).max() < 4 * LEVEL, format


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_modes_keep_their_colour(mode: str) -> None:
    gray = mode in ("1", "L", "LA")
    original = PILImage.fromarray(np.kron([[0, 255], [255, 0]], np.ones((8, 8))).astype(np.uint8))
    if not gray:
        original = PILImage.merge("RGB", [original, original.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT), original])
    format = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    # Pillow 12 cannot read an uncompressed YCbCr file of its own.
    found = read(file_of(original.convert(mode), format, **({"compression": "tiff_lzw"} if mode == "YCbCr" else {})))
    assert np.abs(hwc(found.pixels) - np.array(original.convert("RGB")) / 255).max() <= 2.01 * LEVEL
    assert (found.alpha is not None) == mode.endswith("A")


def test_cmyk_jpeg_without_a_profile() -> None:
    inks = [(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0)]
    colors = [(0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 0), (1, 1, 1)]
    for ink, color in zip(inks, colors, strict=True):
        found = read(file_of(PILImage.new("CMYK", (16, 16), ink), "JPEG", quality=100))
        assert np.abs(hwc(found.pixels) - color).max() < 3 * LEVEL


def test_lab_tiff() -> None:
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB", ImageCms.Intent.PERCEPTUAL
    )
    muted = 110 + photo() // 8
    lab = ImageCms.applyTransform(PILImage.fromarray(muted), transform)
    assert lab is not None
    found = read(file_of(lab, "TIFF"))
    assert np.abs(hwc(found.pixels) * 255 - muted).max() < 5  # Lab in 8 bits is that coarse


# --- reading: depth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "TIFF", "TIFF-LZW", "TIFF-big-endian", "TIFF-int32"])
def test_16_bit_grey_keeps_every_level(format: str) -> None:
    levels = np.arange(0, 65536, 97, dtype=np.uint16)[:672].reshape(24, 28)
    if format == "TIFF-big-endian":
        data = tiff_of(levels, byteorder=">", photometric="minisblack")
    elif format == "TIFF-int32":
        data = file_of(PILImage.fromarray(levels.astype(np.int32)), "TIFF")
    else:
        options = {"compression": "tiff_lzw"} if format == "TIFF-LZW" else {}
        data = file_of(PILImage.fromarray(levels), format[:4].rstrip("-"), **options)
    found = read(data)
    assert np.array_equal(hwc(found.pixels), np.repeat((levels.astype(np.float32) / 65535)[..., None], 3, -1))


def test_16_bit_grey_tiff_with_white_as_zero() -> None:
    levels = np.arange(0, 65536, 128, dtype=np.uint16).reshape(16, 32)
    for order in "<>":
        found = read(tiff_of(levels, photometric="miniswhite", byteorder=order))
        assert np.abs(hwc(found.pixels)[..., 0] - (1 - levels / 65535)).max() < 1e-6


def test_16_bit_rgb_png_is_read_with_8_bits() -> None:
    wide = np.random.default_rng(1).integers(0, 65536, (6, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    assert np.abs(hwc(read(png(5, 6, 16, 2, rows)).pixels) - wide / 65535).max() <= LEVEL


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"planarconfig": "separate"}])
def test_16_bit_rgb_tiff_keeps_every_level(options: dict[str, str]) -> None:
    wide = np.random.default_rng(2).integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    stored = wide.transpose(2, 0, 1) if "planarconfig" in options else wide
    found = read(tiff_of(np.ascontiguousarray(stored), photometric="rgb", **options))
    assert np.array_equal(hwc(found.pixels), wide.astype(np.float32) / 65535)


def test_16_bit_rgb_tiff_that_only_pillow_understands_is_read_with_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.random.default_rng(3).integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    data = tiff_of(wide, photometric="rgb")

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("this compression requires another package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    found = hwc(read(data).pixels)
    assert 0 < np.abs(found - wide / 65535).max() <= LEVEL


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_16_bit_rgba_tiff(kind: str) -> None:
    generator = np.random.default_rng(4)
    color, alpha = generator.uniform(0, 1, (9, 7, 3)), generator.uniform(0.2, 1, (9, 7, 1))
    stored = np.concatenate([color * alpha if kind == "assocalpha" else color, alpha], -1)
    data = tiff_of(np.round(stored * 65535).astype(np.uint16), photometric="rgb", extrasamples=[kind])
    found = read(data)
    assert found.alpha is not None
    assert np.abs(hwc(found.alpha) - alpha).max() < 1e-4
    assert np.abs(hwc(found.pixels) - (color * alpha + 1 - alpha)).max() < 2e-4


@pytest.mark.parametrize(("dtype", "shape"), [("float32", (8, 6)), ("float16", (8, 6)), ("float32", (8, 6, 3))])
def test_floating_point_tiff(dtype: str, shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(5).uniform(0, 1, shape).astype(dtype)
    kind = "rgb" if len(shape) == 3 else "minisblack"
    expected = samples if len(shape) == 3 else np.repeat(samples[..., None], 3, -1)
    assert np.array_equal(hwc(read(tiff_of(samples, photometric=kind)).pixels), expected.astype(np.float32))
    for wrong in (samples * 255, samples - 1, np.where(samples > 0.5, np.nan, samples).astype(dtype)):
        with pytest.raises(ImageError, match=r"floating-point samples from .* scale them to 0 to 1"):
            read(tiff_of(wrong, photometric=kind))


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
def test_integers_wider_than_16_bits_are_refused(dtype: str) -> None:
    for shape, kind in (((8, 6), "minisblack"), ((8, 6, 3), "rgb")):
        samples = np.full(shape, 70_000, dtype)
        with pytest.raises(ImageError, match="save it with 8 or 16 bits"):
            read(tiff_of(samples, photometric=kind))


# --- reading: transparency -------------------------------------------------------------------------------------------


def test_alpha_is_composited_over_white_and_kept() -> None:
    rgba = np.dstack([photo(), np.tile(np.linspace(0, 255, 36).astype(np.uint8), (24, 1))])
    alpha = rgba[..., 3:] / 255
    for format, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        found = read(file_of(PILImage.fromarray(rgba), format, **options))
        assert found.alpha is not None
        assert np.allclose(hwc(found.alpha), alpha, atol=1e-6)
        assert np.allclose(hwc(found.pixels), photo() / 255 * alpha + 1 - alpha, atol=1e-6)


def test_grey_with_alpha() -> None:
    la = np.dstack([photo()[..., 0], photo()[..., 1]])
    found = read(file_of(PILImage.fromarray(la, "LA"), "PNG"))
    alpha = la[..., 1:] / 255
    assert found.alpha is not None
    assert np.allclose(hwc(found.alpha), alpha, atol=1e-6)
    assert np.allclose(hwc(found.pixels), la[..., :1] / 255 * alpha + 1 - alpha, atol=1e-6)


def test_palette_with_partial_transparency() -> None:
    image = PILImage.fromarray(np.arange(3, dtype=np.uint8).repeat(4).reshape(3, 4), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    found = read(file_of(image, "PNG", transparency=bytes([0, 51, 255])))
    assert found.alpha is not None
    assert np.allclose(found.alpha[0, 0, :, 0], [0, 0.2, 1])
    assert np.allclose(hwc(found.pixels)[:, 0], [[1, 1, 1], [0.8, 1, 0.8], [0, 0, 1]])


def test_transparent_colour_of_gif_rgb_and_16_bit_grey() -> None:
    palette = PILImage.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    rgb = PILImage.fromarray(np.array([[[10, 20, 30], [200, 100, 50]], [[200, 100, 50], [10, 20, 30]]], np.uint8))
    gray = np.array([[500, 40000], [40000, 500]], ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in gray)
    for data, color in (
        (file_of(palette, "GIF", transparency=0), np.array([200, 100, 50]) / 255),
        (file_of(rgb, "PNG", transparency=(10, 20, 30)), np.array([200, 100, 50]) / 255),
        (png(2, 2, 16, 0, rows, (b"tRNS", struct.pack(">H", 500))), np.full(3, 40000 / 65535)),
    ):
        found = read(data)
        assert found.alpha is not None
        assert found.alpha[0, 0].tolist() == [[0, 1], [1, 0]]
        assert np.allclose(hwc(found.pixels)[0], [[1, 1, 1], color])


# --- reading: orientation --------------------------------------------------------------------------------------------

# What a camera did to the upright picture before storing it, by EXIF orientation.
STORED_AS = {
    2: PILImage.Transpose.FLIP_LEFT_RIGHT,
    3: PILImage.Transpose.ROTATE_180,
    4: PILImage.Transpose.FLIP_TOP_BOTTOM,
    5: PILImage.Transpose.TRANSPOSE,
    6: PILImage.Transpose.ROTATE_90,
    7: PILImage.Transpose.TRANSVERSE,
    8: PILImage.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "TIFF-16"])
def test_orientation_is_undone(format: str, orientation: int) -> None:
    upright = PILImage.fromarray(photo(16, 32))
    stored = upright.transpose(STORED_AS[orientation]) if orientation > 1 else upright
    if format == "TIFF-16":
        sixteen = np.array(stored).astype(np.uint16) * 257
        data = tiff_of(sixteen, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = PILImage.Exif()
        exif[274] = orientation
        options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
        data = file_of(stored, format, exif=exif, **options)
    found = read(data)
    assert found.source_size == (16, 32)
    assert np.abs(hwc(found.pixels) * 255 - photo(16, 32)).max() < 6


def test_alpha_turns_with_the_picture() -> None:
    rgba = PILImage.fromarray(np.dstack([photo(16, 32), photo(16, 32, seed=1)[..., 0]]))
    exif = PILImage.Exif()
    exif[274] = 6
    found = read(file_of(rgba.transpose(PILImage.Transpose.ROTATE_90), "PNG", exif=exif))
    assert found.alpha is not None
    assert np.allclose(hwc(found.alpha)[..., 0] * 255, photo(16, 32, seed=1)[..., 0])


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense"])
def test_damaged_metadata_does_not_spoil_the_picture(exif: bytes) -> None:
    assert read(file_of(PILImage.fromarray(photo()), "JPEG", exif=exif)).size == (24, 36)


# --- reading: colour profiles ----------------------------------------------------------------------------------------


def test_wide_gamut_profile_is_converted() -> None:
    generator = np.random.default_rng(6)
    muted = (110 + generator.integers(-40, 41, (16, 16, 3))).astype(np.uint8)  # inside both gamuts
    data = file_of(PILImage.fromarray(muted), "PNG", icc_profile=WIDE_PROFILE)
    found, expected = hwc(read(data).pixels), wide_to_srgb(muted / 255)
    assert np.abs(expected - muted / 255).max() > 10 * LEVEL
    assert np.abs(found - expected).max() < 1.6 * LEVEL


def test_profile_and_alpha_and_depth_together() -> None:
    color = np.full((8, 8, 3), (150, 110, 90), np.uint8)
    expected = wide_to_srgb(color / 255)
    rgba = PILImage.fromarray(np.dstack([color, np.full((8, 8), 51, np.uint8)]))
    found = read(file_of(rgba, "PNG", icc_profile=WIDE_PROFILE))
    assert np.abs(hwc(found.pixels) - (expected * 0.2 + 0.8)).max() < LEVEL
    for samples in (color.astype(np.uint16) * 257, color.astype(np.float32) / 255):
        found = read(tiff_of(samples, photometric="rgb", iccprofile=WIDE_PROFILE))
        assert np.abs(hwc(found.pixels) - expected).max() < 1.6 * LEVEL


def test_grey_profile() -> None:
    levels = np.linspace(6553, 65535, 128).astype(np.uint16).reshape(8, 16)
    expected = srgb_encode(levels / 65535)
    found = hwc(read(file_of(PILImage.fromarray(levels), "PNG", icc_profile=LINEAR_GRAY_PROFILE)).pixels)
    assert np.abs(found - expected[..., None]).max() < LEVEL
    eight = file_of(PILImage.fromarray((levels >> 8).astype(np.uint8)), "PNG", icc_profile=LINEAR_GRAY_PROFILE)
    assert np.abs(hwc(read(eight).pixels) - srgb_encode((levels >> 8) / 255)[..., None]).max() < LEVEL


def test_grey_picture_with_the_profile_of_a_colour_one() -> None:
    gray = np.arange(30, 230, 4, dtype=np.uint8).reshape(5, 10)
    found = hwc(read(file_of(PILImage.fromarray(gray), "PNG", icc_profile=WIDE_PROFILE)).pixels)
    assert np.abs(found - wide_to_srgb(np.repeat(gray[..., None] / 255, 3, -1))).max() < 1.6 * LEVEL


def test_cmyk_profile() -> None:
    for format in ("TIFF", "JPEG"):
        inked = PILImage.new("CMYK", (16, 16), (255, 0, 0, 0))
        red = hwc(read(file_of(inked, format, icc_profile=ink_profile())).pixels)[8, 8]
        assert red[0] > 0.95, format
        assert red[1:].max() < 0.15, format
        blank = PILImage.new("CMYK", (16, 16), 0)
        assert hwc(read(file_of(blank, format, icc_profile=ink_profile())).pixels).min() > 0.98


def test_srgb_profile_leaves_the_pixels_alone() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = read(file_of(PILImage.fromarray(photo()), "PNG", icc_profile=profile))
    assert np.array_equal(hwc(found.pixels), photo().astype(np.float32) / 255)
    wide = np.random.default_rng(7).integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    found = read(tiff_of(wide, photometric="rgb", iccprofile=profile))
    assert np.array_equal(hwc(found.pixels), wide.astype(np.float32) / 65535)


@pytest.mark.parametrize("profile", [b"not a profile", WIDE_PROFILE[:200], LINEAR_GRAY_PROFILE, ink_profile()])
def test_damaged_or_foreign_profile_is_ignored(profile: bytes) -> None:
    found = read(file_of(PILImage.fromarray(photo()), "PNG", icc_profile=profile))
    assert np.array_equal(hwc(found.pixels), photo().astype(np.float32) / 255)


# --- reading: what is refused ----------------------------------------------------------------------------------------


def is_one_sentence(message: str) -> bool:
    return message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("name", ["photo.png", "zoo/../gone.jpg"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="does not exist") as caught:
        read(tmp_path / name)
    assert str(tmp_path) in str(caught.value)
    assert is_one_sentence(str(caught.value))


def test_folder_empty_file_null_character_and_text_stream(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for source, words in (
        (tmp_path / "empty.png", "empty.png' is empty"),
        (tmp_path / "folder.png", "folder.png' is a folder"),
        (tmp_path / "empty.png" / "inside.png", "inside.png' cannot be read"),
        ("nul\0l.png", "cannot be read"),
        (b"", "is empty"),
        (io.StringIO("text"), "binary mode"),
    ):
        with pytest.raises(ImageError, match=words) as caught:
            read(source)  # type: ignore[arg-type]
        assert is_one_sentence(str(caught.value))


@pytest.mark.parametrize("source", [None, 3, np.zeros((8, 8, 3)), PILImage.new("RGB", (8, 8))])
def test_what_is_no_source_is_named(source: object) -> None:
    with pytest.raises(InputError, match=rf"binary stream, not {type(source).__name__}\.$"):
        read(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("GIF", {}),
    ],
)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97])
def test_truncated_file(tmp_path: Path, format: str, options: dict[str, str], kept: float) -> None:
    noise = np.random.default_rng(8).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = file_of(PILImage.fromarray(noise), format, **options)
    path = tmp_path / "cut.image"
    path.write_bytes(data[: max(12, int(len(data) * kept))])
    with pytest.raises(ImageError, match=r"cut.image' is damaged or cut short") as caught:
        read(path)
    assert is_one_sentence(str(caught.value))


@pytest.mark.parametrize(
    "data", [b"hello, this is text", b"%PDF-1.7 ...", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\0" * 99]
)
def test_not_an_image(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "notes.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"notes.jpg' is not an image that the zoo reads: use JPEG") as caught:
        read(path)
    assert is_one_sentence(str(caught.value))


def test_tiff_of_no_pixels_or_of_countless_planes_is_damaged() -> None:
    data = bytearray(tiff_of(np.full((4, 4, 3), 0.5, np.float32), photometric="rgb"))
    for tag, kind, size, value in ((256, 4, 4, 0), (277, 3, 2, 60_000)):  # no columns; then 60,000 planes
        start = data.index(struct.pack("<HHI", tag, kind, 1)) + 8
        broken = data[:start] + value.to_bytes(size, "little") + data[start + size :]
        with pytest.raises(ImageError, match="damaged or cut short"):
            read(bytes(broken))


def bomb(format: str) -> bytes:
    """A header of 40,000 x 40,000 (WebP: 16,383 x 16,383, its largest) with next to nothing behind it."""
    side = 40_000
    if format == "PNG":
        return png(side, side, 8, 2, b"\0")
    if format == "BMP":
        return b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 45
    if format == "GIF":
        frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0)
        return b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0" * 6 + frame + b"\2\2\x4c\1\0;"
    if format == "WEBP":
        data = bytearray(file_of(PILImage.new("RGB", (8, 8)), "WEBP", lossless=True))
        start = data.index(b"VP8L") + 9  # after the chunk's name, length and signature: 14 bits each, less one
        data[start : start + 4] = struct.pack("<I", 16_382 | 16_382 << 14)
        return bytes(data)
    if format == "JPEG":
        data = bytearray(file_of(PILImage.new("RGB", (8, 8)), "JPEG"))
        start = data.index(b"\xff\xc0") + 5  # the frame header: length, precision, then height and width
        data[start : start + 4] = struct.pack(">HH", side, side)
        return bytes(data)
    depth = {"TIFF": 8, "TIFF-float": 32}[format]
    entries = [(256, side), (257, side), (258, depth), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 9)]
    entries += [(339, 3)] if depth == 32 else []
    if depth == 32:  # RGB in floating point, which only the second reader knows
        entries[4], entries[6] = (262, 2), (277, 3)
    tags = b"".join(struct.pack("<HHII", tag, 4 if value > 65535 else 3, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + b"\0" * 40


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "TIFF-float"])
def test_enormous_header_is_refused_before_decoding(tmp_path: Path, format: str) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bomb(format))
    side = "16,383" if format == "WEBP" else "40,000"
    with pytest.raises(ImageError, match=f"bomb' announces {side} x {side} pixels.*178,956,970.*max_pixels") as caught:
        read(path)
    assert is_one_sentence(str(caught.value))


def test_the_pixel_limit_is_ours_and_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(PILImage.fromarray(photo(20, 30)), "PNG")
    monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 10)
    assert read(data, max_pixels=600).size == (20, 30)
    assert read(file_of(PILImage.fromarray(photo(20, 30)), "TIFF"), max_pixels=600).size == (20, 30)
    with pytest.raises(ImageError, match="above the limit of 599"):
        read(data, max_pixels=599)


def test_reading_leaves_pillow_and_warnings_as_they_were() -> None:
    data = file_of(PILImage.fromarray(photo()), "JPEG")
    limit, filters = PILImage.MAX_IMAGE_PIXELS, list(warnings.filters)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                read(data)
                with pytest.raises(ImageError):
                    read(data[:200])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert limit == PILImage.MAX_IMAGE_PIXELS
    assert filters == list(warnings.filters)


def test_one_pixel_reads() -> None:
    assert read(file_of(PILImage.new("RGB", (1, 1), "#ff0000"), "PNG")).pixels.flatten().tolist() == [1, 0, 0]


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "policy", "label"),
    [
        ("long:512", SizePolicy("long", 512), "long-512"),
        ("512", SizePolicy("long", 512), "long-512"),
        (512, SizePolicy("long", 512), "long-512"),
        (" Short:256 ", SizePolicy("short", 256), "short-256"),
        ("short-256", SizePolicy("short", 256), "short-256"),
        ("exact:256", SizePolicy("exact", (256, 256)), "exact-256"),
        ("exact:320x256", SizePolicy("exact", (256, 320)), "exact-320x256"),
        ("320x256", SizePolicy("exact", (256, 320)), "exact-320x256"),
        ("0", SizePolicy("keep", 0), "keep"),
        (0, SizePolicy(), "keep"),
        (None, SizePolicy(), "keep"),
        ("keep", SizePolicy(), "keep"),
    ],
)
def test_policy_texts(words: str | int | None, policy: SizePolicy, label: str) -> None:
    assert SizePolicy.parse(words) == policy
    assert policy.label == label


def test_number_alone_takes_the_mode_asked_for() -> None:
    assert SizePolicy.parse("256", default="short") == SizePolicy("short", 256)
    assert SizePolicy.parse(256, default="exact") == SizePolicy("exact", 256)
    assert SizePolicy.parse("long:256", default="short") == SizePolicy("long", 256)


@pytest.mark.parametrize(
    "words", ["", "big", "long", "long:", "long:0", "-5", "1.5", "long:3x4", "exact:0x5", "exact:3x", "wide:9", "99999"]
)
def test_policy_texts_refused(words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SizePolicy.parse(words)
    assert is_one_sentence(str(caught.value))


@pytest.mark.parametrize(
    ("mode", "value"), [("tall", 5), ("long", 0), ("long", (3, 4)), ("keep", 5), ("exact", (3, 4, 5)), ("short", 2.5)]
)
def test_policies_refused(mode: str, value: object) -> None:
    with pytest.raises(ConfigError):
        SizePolicy(mode, value)  # type: ignore[arg-type]


POLICIES = st.one_of(
    st.builds(SizePolicy, st.sampled_from(["long", "short"]), st.integers(1, 40)),
    st.builds(SizePolicy, st.just("exact"), st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.just(SizePolicy()),
)


@settings(deadline=None, max_examples=150)
@given(policy=POLICIES, height=st.integers(1, 40), width=st.integers(1, 40))
def test_the_size_is_what_the_label_says(policy: SizePolicy, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(height * 41 + width)
    image = torch.rand(1, 4, height, width, generator=generator)
    result = resize(image, policy)
    tall, wide = result.shape[-2:]
    assert result.shape[:2] == (1, 4)
    assert (tall, wide) == policy.output_size(height, width)
    assert float(result.min()) >= 0
    assert float(result.max()) <= 1
    assert SizePolicy.parse(policy.label) == SizePolicy.parse(str(policy)) == policy
    mode, _, value = policy.label.partition("-")
    if mode == "keep":
        assert result is image
    elif mode == "exact":
        assert f"{wide}x{tall}" == (value if "x" in value else f"{value}x{value}")
        covered = policy.cover_size(height, width)
        assert covered[0] >= tall
        assert covered[1] >= wide
        assert covered[0] == tall or covered[1] == wide
    else:
        side, other = (max, min) if mode == "long" else (min, max)
        assert side(tall, wide) == int(value)
        exact = other(height, width) * int(value) / side(height, width)
        assert abs(other(tall, wide) - exact) <= (0.5 if exact >= 0.5 else 1)


def test_exact_crops_at_the_centre() -> None:
    ramp = torch.linspace(0, 1, 101).expand(1, 3, 41, 101)
    result = resize(ramp, "exact:41")
    assert torch.equal(result, ramp[..., 30:71])
    halved = resize(torch.linspace(0, 1, 200).expand(1, 3, 80, 200), "exact:40")
    assert abs(float(halved.mean()) - 0.5) < 1e-3
    assert float(halved.max() - halved.min()) == pytest.approx(0.4, abs=0.01)


def test_a_pair_is_height_and_width_without_a_crop() -> None:
    ramp = torch.linspace(0, 1, 100).expand(1, 3, 40, 100)
    result = resize(ramp, (30, 20))
    assert result.shape == (1, 3, 30, 20)
    assert float(result[..., 0].mean()) < 0.06
    assert float(result[..., -1].mean()) > 0.94


def test_downscaling_a_checkerboard_gives_grey() -> None:
    # By a third, so that the new pixels' centres fall on old ones: picking instead of averaging gives black and white.
    board = (torch.arange(255)[:, None] + torch.arange(255)[None]).remainder(2).float().expand(1, 3, 255, 255)
    assert (resize(board, "long:85")[..., 2:-2, 2:-2] - 0.5).abs().max() < 0.02


def test_resampling_is_pillows_bicubic() -> None:
    image = torch.rand(1, 1, 57, 83, generator=torch.Generator().manual_seed(0))
    for size in ((20, 31), (100, 120)):
        expected = PILImage.fromarray(image[0, 0].numpy()).resize(size[::-1], PILImage.Resampling.BICUBIC)
        assert np.abs(resize(image, size)[0, 0].numpy() - np.array(expected).clip(0, 1)).max() < 1e-4


@pytest.mark.parametrize("size", [(20, 1), (1, 20), (1, 1), (90, 1)])
def test_a_result_one_pixel_wide_is_pillows_too(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, 50, 40)
    for part in (image, image[..., :1]):
        planes = [
            PILImage.fromarray(plane.numpy()).resize(size[::-1], PILImage.Resampling.BICUBIC) for plane in part[0]
        ]
        expected = torch.from_numpy(np.stack(planes)).clamp(0, 1)[None]
        assert torch.allclose(resize(part, size), expected, atol=1e-5)


def test_resize_keeps_the_dtype_and_takes_batches() -> None:
    batch = torch.rand(3, 5, 20, 30)
    assert torch.allclose(resize(batch, 10)[1:2], resize(batch[1:2], 10))
    assert resize(batch.to(torch.bfloat16), 10).dtype == torch.bfloat16


def test_resize_refusals() -> None:
    for wrong in (torch.rand(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.rand(1, 3, 0, 8)):
        with pytest.raises(InputError):
            resize(wrong, 4)
    with pytest.raises(InputError, match="at least 1 x 1"):
        resize(torch.rand(1, 3, 8, 8), (0, 5))
    for size in ((4.5, 4), ("a", 4), (4,), (4, 4, 4)):
        with pytest.raises(InputError, match=r"\(height, width\) in whole pixels, not \("):
            resize(torch.rand(1, 3, 8, 8), size)
    with pytest.raises(ImageError, match="short:4000 takes 2,000,000 x 4,000 pixels"):
        resize(torch.rand(1, 3, 2, 1000), "short:4000")
    with pytest.raises(ImageError, match="The image given as bytes: Resizing"):
        read(file_of(PILImage.fromarray(photo()), "PNG"), size="long:1000", max_pixels=24 * 36)


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".JPEG"])
def test_what_is_written_is_read_back(tmp_path: Path, extension: str) -> None:
    original = torch.from_numpy(photo()).permute(2, 0, 1)[None].float() / 255
    path = tmp_path / f"out{extension}"
    assert write(path, original, quality=100) == path
    found = read(path).pixels
    lossy = extension.lower() in (".jpg", ".jpeg")
    assert (found - original).abs().max() <= (4 * LEVEL if lossy else 0)
    assert write(str(path), original[0], quality=60) == path  # over the older file, and (3, H, W)
    assert (read(path).pixels - original).abs().mean() < 4 * LEVEL
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("extension", "kept"), [(".png", True), (".tif", True), (".webp", True), (".jpg", False)])
def test_alpha_is_put_back_where_it_can_be(tmp_path: Path, extension: str, kept: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 12, 17, generator=generator)
    alpha = torch.randint(0, 256, (1, 1, 12, 17), generator=generator).float() / 255
    path = write(tmp_path / f"out{extension}", image, alpha=alpha)
    found = read(path)
    if kept:
        assert found.alpha is not None
        assert torch.allclose(found.alpha, alpha, atol=1e-6)
    else:
        assert found.alpha is None
    flat = images.encode(image, extension, alpha=alpha[0, 0])
    assert flat == path.read_bytes()


def test_rounding_and_clamping() -> None:
    values = torch.tensor([-1.0, 0.0, 0.49 / 255, 0.51 / 255, 127.4 / 255, 127.6 / 255, 254.6 / 255, 1.0, 7.0])
    image = values.view(1, 1, 1, 9).expand(1, 3, 1, 9)
    found = np.array(PILImage.open(io.BytesIO(images.encode(image))))
    assert found[0, :, 0].tolist() == [0, 0, 0, 1, 127, 128, 255, 255, 255]


def test_what_no_float32_holds_is_clamped_all_the_same() -> None:
    assert images.encode(np.full((3, 2, 2), 1e300)) == images.encode(torch.ones(1, 3, 2, 2))


def test_jpeg_keeps_full_chroma_and_quality_counts() -> None:
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[:, 0, :, ::2] = 1
    stripes[:, 2, :, 1::2] = 1
    assert (read(images.encode(stripes, "jpg")).pixels - stripes).abs().max() < 0.1
    noise = torch.rand(1, 3, 32, 32)
    assert len(images.encode(noise, "jpg", quality=30)) < len(images.encode(noise, "jpg", quality=95))
    assert len(images.encode(noise, "webp", quality=30)) < len(images.encode(noise, "webp", quality=95))


def test_levels_stay_where_nothing_changes_them(tmp_path: Path) -> None:
    data = file_of(PILImage.fromarray(photo(300, 20)), "PNG")
    kept, plain = read(data, levels=True).pixels, read(data).pixels
    assert (kept.dtype, plain.dtype) == (torch.uint8, torch.float32)
    assert torch.equal(kept.float() / 255, plain)
    assert images.encode(kept) == images.encode(plain)
    clear = file_of(PILImage.fromarray(np.dstack([photo(), photo()[..., :1]])), "PNG")
    gray = tiff_of(photo(seed=2)[..., 0].astype(np.uint16) * 257)
    for source, size in ((data, "long:16"), (clear, None), (gray, None)):
        assert torch.equal(read(source, size=size, levels=True).pixels, read(source, size=size).pixels)
    opaque = file_of(PILImage.fromarray(np.dstack([photo(), np.full_like(photo()[..., :1], 255)])), "PNG")
    kept, floats = read(opaque, levels=True), read(opaque)
    for levels, values in ((kept.pixels, floats.pixels), (kept.alpha, floats.alpha)):
        assert levels is not None
        assert levels.dtype == torch.uint8
        assert values is not None
        assert torch.equal(levels.float() / 255, values)
    assert images.encode(kept.pixels, alpha=kept.alpha) == images.encode(floats.pixels, alpha=floats.alpha)
    plain[0, 2, 299, 3] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        write(tmp_path / "out.png", plain)


@pytest.mark.parametrize("size", ["long:16", "exact:20x9"])
@pytest.mark.parametrize("clear", [False, True])
def test_a_large_picture_is_made_smaller_plane_by_plane(
    size: str, clear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.dstack([photo(), photo(seed=3)[..., :1]]) if clear else photo()
    data = file_of(PILImage.fromarray(pixels), "PNG")
    whole, made = read(data), list[tuple[int, ...]]()

    def watched(planes: np.ndarray) -> np.ndarray:
        made.append(planes.shape)
        return as_float(planes)

    monkeypatch.setattr(importlib.import_module("zoo.images.read"), "as_float", watched)
    found, (array, alpha) = read(data, size=size), read_array(data, size=size, max_pixels=images.MAX_PIXELS)
    assert torch.equal(found.pixels, resize(whole.pixels, size))
    assert np.abs(array - found.pixels[0].numpy()).max() < 5e-5
    if whole.alpha is not None:
        assert found.alpha is not None
        assert alpha is not None
        assert torch.equal(found.alpha, resize(whole.alpha, size))
        assert np.abs(alpha - found.alpha[0].numpy()).max() < 5e-5
    assert all(np.prod(shape) == np.prod(pixels.shape[:2]) for shape in made)


def test_tensors_that_are_no_single_image_are_refused(tmp_path: Path) -> None:
    image = torch.rand(1, 3, 8, 8)
    bad = image.clone()
    bad[0, 1, 2, 3] = float("nan")
    for wrong, words in (
        (torch.rand(2, 3, 8, 8), "A batch of 2 images does not fit one file"),
        (torch.rand(1, 1, 8, 8), "float tensor"),
        (torch.rand(8, 8), "float tensor"),
        (torch.rand(1, 3, 0, 8), "float tensor"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "float tensor"),
        (bad, "not finite"),
        (torch.full((1, 3, 8, 8), float("inf")), "not finite"),
        (None, "is NoneType: give a float tensor"),
        (PILImage.new("RGB", (8, 8)), "is Image: give a float tensor"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            write(tmp_path / "out.png", wrong)
        assert is_one_sentence(str(caught.value))
    with pytest.raises(InputError, match="resize one of them first"):
        write(tmp_path / "out.png", image, alpha=torch.rand(1, 1, 8, 9))
    with pytest.raises(InputError, match="alpha holds values that are not finite"):
        write(tmp_path / "out.png", image, alpha=torch.full((1, 1, 8, 8), float("nan")))
    for quality in (0, 101, 9.5):
        with pytest.raises(InputError, match="1 to 100"):
            write(tmp_path / "out.png", image, quality=quality)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("format", "side"), [("jpg", 65_501), ("webp", 16_384)])
def test_side_that_the_format_cannot_hold(format: str, side: int) -> None:
    with pytest.raises(ImageError, match="write PNG or TIFF"):
        images.encode(torch.zeros(1, 3, 1, side), format)
    assert images.encode(torch.zeros(1, 3, 1, side - 1), format)


@pytest.mark.parametrize("writer", [images.check_writable, lambda path: write(path, torch.rand(1, 3, 8, 8))])
def test_places_that_cannot_be_written(tmp_path: Path, writer: object) -> None:
    assert callable(writer)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    for name, words in (
        ("folder.png", "is a folder: name the file"),
        ("missing/out.png", "missing' does not exist: create it first"),
        ("file/out.png", "is a file: choose another"),
        ("out.gif", r"out.gif' is not a format that the zoo writes: use .*\.png"),
        ("out", "is not a format"),
        ("nul\0l.png", "cannot be written"),
        ("x" * 300 + ".png", "cannot be written"),
    ):
        with pytest.raises(ImageError, match=words) as caught:
            writer(tmp_path / name)
        assert is_one_sentence(str(caught.value))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc, in which nobody can create files")
def test_folder_without_permission() -> None:
    for writer in (images.check_writable, lambda path: write(path, torch.rand(1, 3, 8, 8))):
        with pytest.raises(ImageError, match="cannot be written"):
            writer(Path("/proc/out.png"))


def test_check_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    assert images.check_writable(str(tmp_path / "out.png")) == tmp_path / "out.png"
    assert not list(tmp_path.iterdir())
    (tmp_path / "old.jpg").write_bytes(b"old")
    images.check_writable(tmp_path / "old.jpg")
    assert (tmp_path / "old.jpg").read_bytes() == b"old"


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["replace", "write"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, step: str
) -> None:
    path = write(tmp_path / "out.png", torch.zeros(1, 3, 8, 8))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise failure

    if step == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        whole = Path.write_bytes

        def broken_off(target: Path, data: bytes) -> None:
            whole(target, data[:20])
            raise failure

        monkeypatch.setattr(Path, "write_bytes", broken_off)
    expected = ImageError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if isinstance(failure, OSError) else None):
        write(path, torch.ones(1, 3, 8, 8))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_keeps_pointing_and_permissions_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "real" / "out.png")
    write(link, torch.rand(1, 3, 8, 8))
    assert link.is_symlink()
    assert [entry.name for entry in (tmp_path / "real").iterdir()] == ["out.png"]
    (tmp_path / "plain").touch()
    assert (tmp_path / "real" / "out.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- contact sheets --------------------------------------------------------------------------------------------------


def test_sheet_geometry_without_labels() -> None:
    reds, blue = torch.zeros(1, 3, 10, 20), torch.zeros(3, 20, 10)
    reds[:, 0], blue[2] = 1, 1
    sheet = images.contact_sheet([[reds, blue], [None, reds]], cell=40, gutter=5)
    # The first column holds an image 40 wide, the second both widths; row heights 40 and (blank cell) 40.
    assert sheet.shape == (1, 3, 5 + 40 + 5 + 40 + 5, 5 + 40 + 5 + 40 + 5)
    red, other, white = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1]), torch.ones(3)
    picture = sheet[0].permute(1, 2, 0)
    assert torch.allclose(picture[15:35, 5:45], red)
    assert torch.allclose(picture[5:45, 60:80], other)
    assert torch.allclose(picture[60:80, 50:90], red)
    covered = torch.zeros(95, 95, dtype=torch.bool)
    covered[15:35, 5:45] = covered[5:45, 60:80] = covered[60:80, 50:90] = True
    assert torch.allclose(picture[~covered], white)


def test_sheet_labels_stand_outside_the_images() -> None:
    gray = torch.full((1, 3, 32, 32), 0.5)
    grid = [[gray] * 3] * 2
    bare = images.contact_sheet(grid, cell=64)
    labeled = images.contact_sheet(
        grid,
        row_labels=["é", "two"],
        column_labels=["content", "style " * 30, "日本"],
        captions=[["a", "b", "c"], ["d", "", "f"]],
        cell=64,
    )
    assert labeled.shape[-1] > bare.shape[-1]
    assert labeled.shape[-2] > bare.shape[-2]
    assert int(((bare - 0.5).abs() < 1e-6).all(1).sum()) == 6 * 64 * 64
    mid = ((labeled - 0.5).abs() < 1e-6).all(1)[0]
    rows, columns = mid.sum(1), mid.sum(0)
    assert int((rows >= 3 * 64).sum()) == 2 * 64  # every image is whole: nothing is drawn over it
    assert int((columns >= 2 * 64).sum()) == 3 * 64
    top = int((rows >= 3 * 64).nonzero()[0])
    left = int((columns >= 2 * 64).nonzero()[0])
    assert float(labeled[..., :top, :].min()) < 0.3  # column labels
    assert float(labeled[..., :left].min()) < 0.3  # row labels
    assert float(labeled[..., top + 64 : top + 64 + 9, :].min()) < 0.3  # captions
    gutters = labeled[..., :top, left + 64 : left + 66]
    assert float(gutters.min()) == 1  # the long label was cut inside its column


def test_sheet_of_ragged_rows_fits_every_column() -> None:
    tall, wide = torch.zeros(1, 3, 60, 15), torch.zeros(1, 3, 15, 60)
    sheet = images.contact_sheet([[tall], [tall, wide, tall]], cell=32, gutter=2)
    assert sheet.shape == (1, 3, 2 + 32 + 2 + 32 + 2, 2 + 8 + 2 + 32 + 2 + 8 + 2)


def test_sheet_refusals() -> None:
    image = torch.rand(1, 3, 8, 8)
    for rows, options, words in (
        ([], {}, "at least one image"),
        ([[]], {}, "at least one image"),
        ([[image]], {"row_labels": ["a", "b"]}, "1 rows has 2 row labels"),
        ([[image]], {"column_labels": []}, "column labels"),
        ([[image]], {"captions": [["a", "b"]]}, "captions"),
        ([[image]], {"cell": 4}, "cell is 8 to 65500 whole pixels, not 4"),
        ([[image]], {"cell": 10**6}, "cell is 8 to"),
        ([[image]], {"gutter": -3}, "gutter is 0 to 65500 whole pixels, not -3"),
        ([[image]], {"gutter": 1.5}, "gutter is 0 to"),
        ([[torch.rand(2, 3, 8, 8)]], {}, r"takes images \(1, 3, H, W\)"),
    ):
        with pytest.raises(InputError, match=words):
            images.contact_sheet(rows, **options)


# --- what to read ----------------------------------------------------------------------------------------------------


def test_list_images(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "inside").mkdir(parents=True)
    for name in ("frame10.png", "frame2.PNG", "b.webp", "A.jpeg", "notes.txt", ".hidden.png", "inside/deep.png"):
        (folder / name).touch()
    (folder / "z.png").symlink_to(folder / "A.jpeg")
    (tmp_path / "upload").touch()
    names = ["A.jpeg", "b.webp", "frame2.PNG", "frame10.png"]
    assert images.list_images(folder) == images.list_images([str(folder)]) == [folder / name for name in names]
    mixed = [tmp_path / "upload", folder / "b.webp", folder, "builtin:coffee", folder / "A.jpeg", "builtin:coffee"]
    assert [path.name for path in images.list_images(mixed)] == [
        "upload",
        "b.webp",
        "A.jpeg",
        "frame2.PNG",
        "frame10.png",
        "builtin:coffee",
    ]
    assert images.list_images([]) == []


def test_list_images_refusals(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match="holds no images"):
        images.list_images(tmp_path)
    with pytest.raises(ImageError, match=r"gone.png' does not exist"):
        images.list_images([tmp_path / "gone.png"])
    with pytest.raises(ImageError, match="path is empty"):
        images.list_images([""])


# --- built-in images -------------------------------------------------------------------------------------------------


def test_builtin_photographs_are_all_there() -> None:
    found = images.builtin_contents()
    assert list(found) == ["astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "camera"]
    for name, entry in found.items():
        assert entry.name == name
        assert entry.kind == "content"
        assert entry.title
        assert entry.author
        assert entry.license
        assert "scikit-image" in entry.source
        assert "://" not in entry.source
        image = read(f"builtin:{name}", size=64)
        assert image.name == name
        assert max(image.size) == 64
        assert min(image.source_size) >= 300
        assert image.sha256 == hashlib.sha256(entry.path.read_bytes()).hexdigest()
    camera = read("builtin:camera").pixels
    assert torch.equal(camera[:, 0], camera[:, 2])


def test_finding_the_photographs_does_not_import_scikit_image() -> None:
    code = "import sys; from zoo import images; images.builtin_contents(); assert 'skimage' not in sys.modules"
    root = Path(images.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=120)


def test_missing_scikit_image_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImageError, match="scikit-image, which is not installed"):
        images.builtin_contents()


@pytest.fixture
def styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two styles in place of the shipped one."""
    entries = []
    for index, name in enumerate(("waves", "marbling")):
        data = file_of(PILImage.fromarray(photo(seed=index)), "PNG")
        (tmp_path / f"{name}.png").write_bytes(data)
        entries.append(
            {
                "name": name,
                "file": f"{name}.png",
                "title": name.title(),
                "license": "CC0-1.0",
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
    (tmp_path / "styles.json").write_text(json.dumps(entries))
    monkeypatch.setattr(sys.modules["zoo.images.builtin"], "_STYLES", tmp_path)
    return tmp_path


def test_builtin_styles(styles: Path) -> None:
    assert list(images.builtin_styles()) == ["waves", "marbling"]
    image = read("builtin:marbling")
    assert image.name == "marbling"
    assert np.array_equal(hwc(image.pixels), photo(seed=1).astype(np.float32) / 255)
    with pytest.raises(UnknownNameError, match="did you mean marbling") as caught:
        read("builtin:marbeling")
    assert caught.value.suggestions == ["marbling"]
    with pytest.raises(UnknownNameError, match="did you mean astronaut"):
        images.list_images(["builtin:astronout"])


def test_damaged_installation_of_styles(styles: Path) -> None:
    (styles / "waves.png").write_bytes((styles / "marbling.png").read_bytes())
    with pytest.raises(ImageError, match="'waves' is not the file it was shipped as"):
        read("builtin:waves")
    (styles / "marbling.png").unlink()
    with pytest.raises(ImageError, match="'marbling' is missing from this installation"):
        read("builtin:marbling")
    for content in ("[{]", "[1]", '[{"name": "waves"}]'):
        (styles / "styles.json").write_text(content)
        with pytest.raises(ImageError, match="malformed"):
            images.builtin_styles()
    (styles / "styles.json").unlink()
    with pytest.raises(ImageError, match="is missing"):
        images.builtin_styles()


def test_published_photographs_read(shared: Path) -> None:
    """Real files of many origins: every fifteenth photograph and painting of the reference set."""
    files = sorted((shared / "images/benchmark").rglob("*.jpg")) + sorted((shared / "images/benchmark").rglob("*.png"))
    assert files
    for path in files[::15]:
        image = read(path, size=64)
        assert max(image.size) == 64
        assert torch.isfinite(image.pixels).all()
        assert float(image.pixels.std()) > 0.01 or "mask" in str(path)
