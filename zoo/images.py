"""Images: reading, writing and resizing with one colour and range convention.

Everywhere in the zoo an image is a float32 tensor (B, 3, H, W), RGB, sRGB-encoded, in [0, 1]. This module is the only
door between that and files:

    read    file, bytes or stream -> Image     orientation applied, embedded profile converted to sRGB
    resize  tensor -> tensor                   antialiased bicubic, the only resampling in the zoo
    write   tensor -> file                     rounded to 8 bits, atomic; ``encode`` gives the bytes alone

Transparency. A method sees the picture composited over white (in the encoded values, as browsers do); the alpha channel
is kept beside it in ``Image.alpha`` and ``write`` puts it back where the format can hold it.

Colour profiles. An embedded ICC profile is converted by LittleCMS (relative colorimetric, black point compensation). A
profile that moves no colour by more than one 8-bit level is sRGB up to rounding and the pixels stay as they are; a
damaged profile, or one for another kind of pixels than the file holds, is ignored, as viewers do. Without a profile,
RGB and grey are taken as sRGB, and CMYK by the plain ink formula.

Depth. 16-bit grey (PNG, TIFF), 16-bit RGB TIFF and floating-point TIFF keep their precision, except that a conversion
of RGB by an ICC profile works on 8 bits. 16-bit RGB PNG, and TIFF compressed in a way that only Pillow can undo, are
read with 8 bits per channel.

Sizes are (height, width), except where people write them: ``"exact:640x480"`` is width x height, as on a screen.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import os
import re
import threading
import unicodedata
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from PIL import ImageCms, ImageDraw, ImageFont, UnidentifiedImageError
from torch import Tensor

from zoo.errors import ConfigError, ImageError, InputError, UnknownNameError

# Twice Pillow's own warning level: the size from which Pillow takes a header for a decompression bomb. As float32 RGB
# that is 2.1 GB, and it lets the largest medium-format photographs (150 megapixels) through.
MAX_PIXELS = 178_956_970

# The largest side of a JPEG; a typing error such as long:5120000 should not allocate before it fails.
MAX_SIDE = 65_500

READ_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
WRITE_FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
BUILTIN_PREFIX = "builtin:"

_ALPHA_FORMATS = ("PNG", "TIFF", "WEBP")
_LARGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # limits of the formats' encoders
# Named, so that a file of another kind never reaches Pillow's rarer decoders (EPS would start Ghostscript).
_PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|II[*+]\x00|MM\x00[*+]|BM|GIF8[79]a", re.DOTALL)
_READABLE = "JPEG, PNG, WebP, TIFF, BMP and GIF"


# --- size policies and resampling ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SizePolicy:
    """How large an image is made before a method sees it; sizes are honoured exactly, upwards too.

    mode   ``long``: the longer side becomes ``value``, the other follows;
           ``short``: the shorter side becomes ``value``;
           ``exact``: resized until it just covers ``value`` = (height, width), then cropped at the centre;
           ``keep``: as it is (``value`` is 0).

    Raises :class:`ConfigError` on a mode or value outside these.
    """

    mode: Literal["long", "short", "exact", "keep"] = "keep"
    value: int | tuple[int, int] = 0

    def __post_init__(self) -> None:
        if self.mode not in ("long", "short", "exact", "keep"):
            raise ConfigError(f"Size mode {self.mode!r} does not exist: use long, short, exact or keep.")
        if self.mode == "exact" and isinstance(self.value, int):
            object.__setattr__(self, "value", (self.value, self.value))
        wanted = 2 if self.mode == "exact" else 1
        sides = self.value if isinstance(self.value, tuple) else (self.value,)
        low, high = (0, 0) if self.mode == "keep" else (1, MAX_SIDE)
        if len(sides) != wanted or not all(type(side) is int and low <= side <= high for side in sides):
            raise ConfigError(
                f"Size {self.value!r} does not fit mode {self.mode!r}: give "
                + ("no value." if self.mode == "keep" else f"whole pixels from 1 to {MAX_SIDE}.")
            )

    @classmethod
    def parse(
        cls, text: str | int | SizePolicy | None, *, default: Literal["long", "short", "exact"] = "long"
    ) -> SizePolicy:
        """``long:512``, ``short:256``, ``exact:256``, ``exact:640x480`` (width x height), ``0`` or ``keep``.

        A number alone takes the mode ``default`` and width x height alone is ``exact``; labels parse too, and None
        keeps. Raises :class:`ConfigError`.
        """
        if isinstance(text, SizePolicy):
            return text
        plain = "keep" if text is None else str(text).strip().lower()
        if plain in ("0", "keep"):
            return cls()
        match = re.fullmatch(r"(?:(long|short|exact)[:-])?([0-9]{1,9})(?:x([0-9]{1,9}))?", plain)
        if not match or (match[3] and match[1] in ("long", "short")):
            raise ConfigError(
                f"Size {text!r} is not understood: write long:512, short:256, exact:256, exact:640x480 "
                "(width x height), a number alone, or 0 to keep the size."
            )
        if match[3]:
            return cls("exact", (int(match[3]), int(match[2])))
        return cls(cast(Literal["long", "short", "exact"], match[1] or default), int(match[2]))

    @property
    def label(self) -> str:
        """For result rows: ``long-512``, ``short-256``, ``exact-256``, ``exact-640x480`` (width x height), ``keep``."""
        if isinstance(self.value, tuple):
            height, width = self.value
            return f"exact-{width}" if height == width else f"exact-{width}x{height}"
        return "keep" if self.mode == "keep" else f"{self.mode}-{self.value}"

    def __str__(self) -> str:
        return self.label.replace("-", ":", 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of an image of that size under this policy."""
        return self.value if isinstance(self.value, tuple) else self.cover_size(height, width)

    def cover_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing, before the crop of ``exact``."""
        if isinstance(self.value, tuple):
            tall, wide = self.value
            # Whichever side needs the larger factor is met exactly; the other comes out at least as large.
            if tall * width >= wide * height:
                return tall, max(wide, _scaled(width, tall, height))
            return max(tall, _scaled(height, wide, width)), wide
        if self.mode == "keep":
            return height, width
        side = (max if self.mode == "long" else min)(height, width)
        return _scaled(height, self.value, side), _scaled(width, self.value, side)


def _scaled(length: int, numerator: int, denominator: int) -> int:
    """length * numerator / denominator, rounded half up in whole numbers, at least one pixel."""
    return max(1, (2 * length * numerator + denominator) // (2 * denominator))


def resize(image: Tensor, size: SizePolicy | int | str | tuple[int, int], *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Resample (B, C, H, W) in [0, 1] to a policy or to (height, width): bicubic, antialiased, clamped to [0, 1].

    An image that already has the size is returned as it is. Raises :class:`InputError` on another shape or dtype and
    :class:`ImageError` where the result would have more than ``max_pixels``.
    """
    if image.ndim != 4 or not image.is_floating_point() or 0 in image.shape:
        raise InputError(
            f"resize takes floating-point images (B, C, H, W), not {image.dtype} of shape {tuple(image.shape)}."
        )
    height, width = image.shape[-2:]
    if isinstance(size, tuple):  # as when a result goes back to its content's shape: all of it, no crop
        cover = wanted = size
        asked = f"{size[1]} x {size[0]}"
    else:
        policy = SizePolicy.parse(size)
        cover, wanted = policy.cover_size(height, width), policy.output_size(height, width)
        asked = str(policy)
    if min(cover) < 1:
        raise InputError(f"An image cannot be resized to {asked} pixels: give at least 1 x 1.")
    if cover != (height, width) and cover[0] * cover[1] > max_pixels:
        raise ImageError(
            f"Resizing {width:,} x {height:,} pixels to {asked} takes {cover[1]:,} x {cover[0]:,} pixels, above the "
            f"limit of {max_pixels:,}: choose a smaller size, or raise max_pixels (--max-pixels)."
        )
    if cover != (height, width):
        # In float32, because half precision has no antialiased kernel everywhere and would round before the clamp.
        resampled = F.interpolate(image.float(), size=cover, mode="bicubic", antialias=True, align_corners=False)
        image = resampled.clamp(0, 1).to(image.dtype)
    if wanted != cover:
        top, left = (cover[0] - wanted[0]) // 2, (cover[1] - wanted[1]) // 2
        image = image[..., top : top + wanted[0], left : left + wanted[1]].contiguous()
    return image


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Image:
    """A picture as the methods take it, and what is needed to put the result back and to cite its source.

    pixels       (1, 3, H, W) float32 RGB in [0, 1], sRGB; transparent parts composited over white
    alpha        (1, 1, H, W) float32 in [0, 1], or None where the file has no transparency
    name         file stem, name of the built-in image, or "stdin"/"image" for a stream/bytes
    sha256       of the bytes of the file, hexadecimal
    source_size  (height, width) of the file once upright, before any resizing
    """

    pixels: Tensor
    alpha: Tensor | None
    name: str
    sha256: str
    source_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of ``pixels``."""
        return self.pixels.shape[-2], self.pixels.shape[-1]


def read(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    size: SizePolicy | int | str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image:
    """Read one image: a path, ``builtin:NAME``, the bytes of a file, or a binary stream (read to its end).

    JPEG, PNG, WebP, TIFF, BMP and GIF; of several frames or pages the first. ``size`` is a :class:`SizePolicy` or its
    text; without one the size is kept. A header that announces more than ``max_pixels`` is refused before decoding.

    Raises :class:`ImageError` (missing, a folder, empty, damaged, no image, too large), :class:`UnknownNameError` for
    an unknown built-in name and :class:`ConfigError` for a size that is not understood.
    """
    policy = SizePolicy.parse(size)
    data, label, name = _fetch(source)
    if not data:
        raise ImageError(f"{label} is empty (zero bytes): give a file that holds an image.")
    rgb, alpha = _decode(data, label, max_pixels)
    height, width = rgb.shape[-2:]
    if alpha is not None:
        rgb = rgb * alpha + (1 - alpha)
    try:
        resized = resize(rgb if alpha is None else torch.cat([rgb, alpha], 1), policy, max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from None
    return Image(
        pixels=resized[:, :3].contiguous(),
        alpha=None if alpha is None else resized[:, 3:].contiguous(),
        name=name,
        sha256=hashlib.sha256(data).hexdigest(),
        source_size=(height, width),
    )


def _fetch(source: str | os.PathLike[str] | bytes | BinaryIO) -> tuple[bytes, str, str]:
    """(bytes, label for messages, name) of a source."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), "The image given as bytes", "image"
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if text.startswith(BUILTIN_PREFIX):
            return _fetch_builtin(builtin(text.removeprefix(BUILTIN_PREFIX)))
        return _read_bytes(Path(text)), f"'{text}'", Path(text).stem
    name = getattr(source, "name", None)
    stem = Path(name.strip("<>")).stem if isinstance(name, str) else "image"
    label = f"The stream '{stem}'"
    try:
        data = source.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"{label} cannot be read ({_reason(error)}): give a file or an open binary stream.") from error
    if not isinstance(data, bytes):
        raise ImageError(f"{label} gives text: open it in binary mode ('rb').")
    return data, label, stem


def _fetch_builtin(entry: BuiltinImage) -> tuple[bytes, str, str]:
    label = f"The built-in image '{entry.name}'"
    if not entry.path.is_file():
        raise ImageError(f"{label} is missing from this installation ('{entry.path}'): install the zoo again.")
    data = _read_bytes(entry.path)
    if entry.sha256 and hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ImageError(f"{label} is not the file it was shipped as ('{entry.path}'): install the zoo again.")
    return data, label, entry.name


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ImageError(f"'{path}' is a folder, not an image: name a file in it.")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"'{path}' does not exist: check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"'{path}' cannot be read ({_reason(error)}): check the path and its permissions.") from error


def _decode(data: bytes, label: str, max_pixels: int) -> tuple[Tensor, Tensor | None]:
    """Bytes of a file -> upright (1, 3, H, W) in [0, 1], sRGB, not composited, and alpha (1, 1, H, W) or None."""
    with _pillow_at_ease():
        try:
            with PILImage.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as image:
                _check_pixels(image.size, label, max_pixels)
                image.load()
                orientation = _orientation(image)
                deep = _decode_tiff(data, label, max_pixels) if _is_deep_tiff(image) else None
                if deep is not None:
                    rgb, alpha, orientation = deep
                else:
                    rgb, alpha = _decode_pillow(image, label)
        except (ImageError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            deep = _decode_tiff(data, label, max_pixels) if data[:2] in (b"II", b"MM") else None
            if deep is None and _SIGNATURE.match(data):
                raise _damaged(label, "its header cannot be understood") from error
            if deep is None:
                raise ImageError(f"{label} is not an image that the zoo reads: use {_READABLE}.") from error
            rgb, alpha, orientation = deep
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise _damaged(label, _reason(error)) from error
    return _upright(_to_tensor(rgb), orientation), None if alpha is None else _upright(_to_tensor(alpha), orientation)


def _damaged(label: str, reason: str) -> ImageError:
    return ImageError(f"{label} is damaged or cut short ({reason}): fetch or export it again.")


def _check_pixels(size: tuple[int, int], label: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{label} announces {width:,} x {height:,} pixels, above the limit of {max_pixels:,}: shrink it first, or "
            "raise max_pixels (--max-pixels) if you trust the file."
        )


def _decode_pillow(image: PILImage.Image, label: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A loaded Pillow image -> (H, W, 3) and alpha (H, W) or None, each uint8, or float32 in [0, 1]."""
    profile = image.info.get("icc_profile")
    if image.mode == "F" or image.mode.startswith("I"):
        grey, alpha = _deep_grey(image, label)
        return _grey_to_srgb(grey, profile), alpha
    alpha = None
    if image.has_transparency_data:
        alpha = np.array(image.convert("RGBA").getchannel("A"))
    if image.mode in ("1", "L", "LA", "La"):
        image = (image.convert("LA") if image.mode == "La" else image).convert("L")
    elif image.mode not in ("RGB", "CMYK", "LAB"):
        # Through RGBA, because Pillow converts a palette with partial transparency only that way.
        image = image.convert("RGBA").convert("RGB") if alpha is not None else image.convert("RGB")
    return np.array(_to_srgb(image, profile)), alpha


def _deep_grey(image: PILImage.Image, label: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Modes I;16 (and its byte orders), I and F -> (H, W) float32 in [0, 1], and the alpha of a transparent level."""
    raw = np.array(image)
    tags: Any = getattr(image, "tag_v2", {})
    bits = max(tags.get(258, (16,))) if image.mode.startswith("I;16") else 16  # 258: BitsPerSample; 12-bit TIFF exists
    grey = _unit_range(raw, label, full_scale=2**bits - 1)
    if tags.get(262) == 0:  # PhotometricInterpretation: WhiteIsZero, which Pillow leaves to us at these depths
        grey = 1 - grey
    key = image.info.get("transparency")
    return grey, np.where(raw == key, np.float32(0), np.float32(1)) if isinstance(key, int) else None


def _unit_range(raw: np.ndarray, label: str, full_scale: int) -> np.ndarray:
    """Samples deeper than 8 bits -> float32 in [0, 1]; a range that would have to be guessed is refused."""
    low, high = (float(raw.min()), float(raw.max())) if np.isfinite(raw).all() else (float("nan"), float("nan"))
    if raw.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise ImageError(
                f"{label} holds floating-point samples from {low:.4g} to {high:.4g}: scale them to 0 to 1 (or save it "
                "with 8 or 16 bits), so that nobody has to guess what is white."
            )
        return raw.astype(np.float32)
    if low < 0 or high > full_scale:
        raise ImageError(
            f"{label} holds integers wider than 16 bits or below zero: save it with 8 or 16 bits per channel."
        )
    return raw.astype(np.float32) / np.float32(full_scale)


def _is_deep_tiff(image: PILImage.Image) -> bool:
    """RGB with more than 8 bits per channel, of which Pillow keeps the upper 8."""
    tags: Any = getattr(image, "tag_v2", {})
    return image.format == "TIFF" and image.mode in ("RGB", "RGBA") and max(tags.get(258, (8,))) > 8


def _decode_tiff(data: bytes, label: str, max_pixels: int) -> tuple[np.ndarray, np.ndarray | None, int] | None:
    """Grey or RGB TIFF through tifffile: (H, W, 3) float32, alpha or None, orientation; None where it cannot."""
    import tifffile

    logger = logging.getLogger("tifffile")
    if not logger.handlers:  # without one, Python prints the library's remarks to standard error
        logger.addHandler(logging.NullHandler())
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            return _decode_tiff_page(tiff.pages[0], label, max_pixels)
    except (ImageError, MemoryError):
        raise
    except Exception:  # an unknown compression or a damaged file: Pillow's answer stands
        return None


def _decode_tiff_page(page: Any, label: str, max_pixels: int) -> tuple[np.ndarray, np.ndarray | None, int] | None:
    _check_pixels((page.imagewidth, page.imagelength), label, max_pixels)
    if page.photometric not in (0, 1, 2) or page.imagedepth != 1:  # WhiteIsZero, BlackIsZero, RGB
        return None
    height, width, count = page.imagelength, page.imagewidth, page.samplesperpixel
    colours = 3 if page.photometric == 2 else 1
    if not colours <= count <= 6:  # Pillow's own limit; a damaged count would allocate thousands of planes
        return None
    if page.planarconfig == 2:  # one plane after the other
        samples = page.asarray().reshape(count, height, width).transpose(1, 2, 0)
    else:
        samples = page.asarray().reshape(height, width, count)
    if samples.dtype.kind not in "uif" or samples.size == 0:
        return None
    unit = _unit_range(samples, label, full_scale=2 ** min(page.bitspersample, 16) - 1)
    colour, alpha = unit[..., :colours], None
    if page.photometric == 0:
        colour = 1 - colour
    extra = page.extrasamples[0] if page.extrasamples and count > colours else 0
    if extra in (1, 2):  # ExtraSamples: 1 is premultiplied alpha, 2 is plain alpha
        alpha = unit[..., colours]
        if extra == 1:
            colour = np.minimum(colour / np.maximum(alpha, np.float32(1e-6))[..., None], np.float32(1))
    orientation, profile = int(page.tags.valueof(274, default=1)), page.tags.valueof(34675, default=None)
    if colours == 1:
        return _grey_to_srgb(colour[..., 0], profile), alpha, orientation
    transform = _transform(profile, "RGB")
    if transform is not None:
        eight = PILImage.fromarray((colour * 255 + 0.5).astype(np.uint8))
        return np.array(ImageCms.applyTransform(eight, transform[1])), alpha, orientation
    return colour, alpha, orientation


def _to_tensor(samples: np.ndarray) -> Tensor:
    """(H, W, 3) or (H, W), uint8 or float32 in [0, 1] -> (1, C, H, W) float32 in [0, 1]."""
    planes = torch.from_numpy(np.ascontiguousarray(samples))
    planes = (planes.permute(2, 0, 1) if samples.ndim == 3 else planes[None])[None].contiguous()
    return planes.float().div_(255) if samples.dtype == np.uint8 else planes


def _orientation(image: PILImage.Image) -> int:
    """EXIF orientation 1 to 8; 1 where it is absent or damaged. Asked after loading: Pillow turns TIFF by itself."""
    try:
        value = image.getexif().get(274, 1)
    except Exception:  # damaged metadata does not spoil the picture
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: Tensor, orientation: int) -> Tensor:
    """Undo an EXIF orientation: 5 to 8 swap the axes first; then mirrored top to bottom and left to right as told."""
    if orientation >= 5:
        image = image.transpose(-1, -2)
    flipped = [axis for axis, orientations in ((-2, (3, 4, 7, 8)), (-1, (2, 3, 6, 7))) if orientation in orientations]
    return image.flip(flipped).contiguous() if flipped else image.contiguous()


_ease_lock = threading.Lock()
_ease_users = 0
_ease_stack = contextlib.ExitStack()


@contextlib.contextmanager
def _pillow_at_ease() -> Iterator[None]:
    """Lift Pillow's pixel limit (ours is checked instead) and hush its remarks on metadata, then restore both.

    Both are settings of the whole process, so nested and parallel readers share one change: the first makes it and the
    last undoes it.
    """
    global _ease_users, _ease_stack
    with _ease_lock:
        if _ease_users == 0:
            _ease_stack = contextlib.ExitStack()
            _ease_stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _ease_stack.callback(setattr, PILImage, "MAX_IMAGE_PIXELS", PILImage.MAX_IMAGE_PIXELS)
            PILImage.MAX_IMAGE_PIXELS = None
        _ease_users += 1
    try:
        yield
    finally:
        with _ease_lock:
            _ease_users -= 1
            if _ease_users == 0:
                _ease_stack.close()


def _reason(error: BaseException) -> str:
    """The error's own words, short enough to stand in a sentence."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().rstrip(".").splitlines()[0][:120]


# --- colour ----------------------------------------------------------------------------------------------------------


def _to_srgb(image: PILImage.Image, profile: bytes | None) -> PILImage.Image:
    """L, RGB, CMYK or LAB, with its embedded profile or None -> RGB in sRGB."""
    if image.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb_profile(), "LAB", "RGB")
        converted = ImageCms.applyTransform(image, transform)
    else:
        found = _transform(profile, image.mode)
        converted = ImageCms.applyTransform(image.convert(found[0]), found[1]) if found else image.convert("RGB")
    assert converted is not None  # None only for in-place transforms
    return converted


def _grey_to_srgb(grey: np.ndarray, profile: bytes | None) -> np.ndarray:
    """(H, W) float32 in [0, 1] -> (H, W, 3). LittleCMS is asked for 256 levels and the rest is interpolated."""
    if _transform(profile, "L") is None:
        return np.repeat(grey[..., None], 3, axis=-1)
    ramp = np.array(_to_srgb(_ramp(), profile))[0].astype(np.float64) / 255
    levels = np.arange(256) / 255
    return np.stack([np.interp(grey, levels, ramp[:, channel]) for channel in range(3)], -1).astype(np.float32)


def _transform(profile: bytes | None, mode: str) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """(mode to convert to first, transform to sRGB), or None where the pixels should stay as they are."""
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        core: Any = source.profile
        space = core.xcolor_space.strip()
        if mode == "L" and space == "RGB":  # a grey picture that kept the profile of the colour one
            mode = "RGB"
        if mode != {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space):
            return None
        transform = ImageCms.buildTransform(
            source,
            _srgb_profile(),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode == "CMYK":
            return mode, transform
        probe = _ramp() if mode == "L" else _lattice()
        moved = np.array(ImageCms.applyTransform(probe, transform)).astype(int) - np.array(probe.convert("RGB"))
        return None if np.abs(moved).max() <= 1 else (mode, transform)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


def _srgb_profile() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _ramp() -> PILImage.Image:
    """All 256 grey levels in one row."""
    return PILImage.fromarray(np.arange(256, dtype=np.uint8)[None])


def _lattice() -> PILImage.Image:
    """RGB on a lattice of 18 levels per channel (0, 15, ... 255), ends included."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    return PILImage.fromarray(colours.reshape(len(levels), -1, 3))


# --- writing ---------------------------------------------------------------------------------------------------------


def encode(image: Tensor, format: str = "png", *, alpha: Tensor | None = None, quality: int = 95) -> bytes:
    """(1, 3, H, W) or (3, H, W) -> the bytes of a file, for standard output.

    Values are clamped to [0, 1] and rounded to 8 bits. ``format`` is an extension with or without its dot (png, jpg,
    webp, tiff, bmp). ``alpha``, (1, 1, H, W) with the image's size, is put back in PNG, WebP and TIFF; elsewhere it is
    dropped, and the picture is the one composited over white. ``quality`` 1 to 100 is for JPEG (never with reduced
    chroma, which smears strokes of saturated colour) and WebP (lossless at 100).

    Raises :class:`InputError` on a batch, another shape, dtype or size, or values that are not finite;
    :class:`ImageError` on an unknown format or an image too large for it.
    """
    kind = _format_of("." + format.lower().lstrip("."), f"The format '{format}'")
    if type(quality) is not int or not 1 <= quality <= 100:
        raise InputError(f"quality is {quality!r}: give a whole number from 1 to 100.")
    pixels = _eight_bits(image, 3, "image")
    if alpha is not None:
        mask = _eight_bits(alpha, 1, "alpha")
        if mask.shape[:2] != pixels.shape[:2]:
            raise InputError(
                f"alpha is {mask.shape[1]} x {mask.shape[0]} pixels and the image {pixels.shape[1]} x "
                f"{pixels.shape[0]}: resize one of them first."
            )
        if kind in _ALPHA_FORMATS:
            pixels = np.concatenate([pixels, mask], -1)
    if max(pixels.shape[:2]) > _LARGEST_SIDE.get(kind, MAX_PIXELS):
        raise ImageError(
            f"{kind} holds at most {_LARGEST_SIDE[kind]} pixels per side and the image is {pixels.shape[1]} x "
            f"{pixels.shape[0]}: write PNG or TIFF."
        )
    options: dict[str, Any] = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "lossless": quality == 100, "exact": quality == 100},
        "TIFF": {"compression": "tiff_adobe_deflate"},
    }.get(kind, {})
    buffer = io.BytesIO()
    try:
        PILImage.fromarray(pixels).save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        raise ImageError(f"The image cannot be encoded as {kind} ({_reason(error)}): choose another format.") from error
    return buffer.getvalue()


def write(path: str | os.PathLike[str], image: Tensor, *, alpha: Tensor | None = None, quality: int = 95) -> Path:
    """Write one image in the format of its extension; arguments and errors as :func:`encode`. Returns the path.

    Atomic: encoded in memory, written to a temporary file in the same folder, then renamed, so a failure leaves an
    older file as it was and no temporary one. Raises :class:`ImageError` also where the place cannot be written.
    """
    path = _check_place(path)
    data = encode(image, path.suffix, alpha=alpha, quality=quality)
    target = Path(os.path.realpath(path))  # a link keeps pointing where it did
    temporary = _temporary_for(target)
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(data)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(f"'{path}' cannot be written ({_reason(error)}): choose another place.") from error
    return path


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Fail now, and not after minutes of optimisation, where :func:`write` could not write there. Returns the path.

    Raises :class:`ImageError` on an unknown extension, a folder in place of a file, or a folder that does not exist or
    in which no file can be created (tried, since permissions do not tell of read-only and full file systems).
    """
    path = _check_place(path)
    probe = _temporary_for(Path(os.path.realpath(path)))
    try:
        try:
            probe.touch(exist_ok=False)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(
            f"'{path}' cannot be written ({_reason(error)}): choose a folder in which you may create files."
        ) from error
    return path


def _check_place(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError(f"'{path}' is a folder: name the file to write in it, such as '{path / 'out.png'}'.")
        _format_of(path.suffix.lower(), f"'{path}'")
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise ImageError(
                f"'{path}' cannot be written because its folder '{folder}' "
                + ("is a file: choose another." if folder.exists() else "does not exist: create it first.")
            )
    except (OSError, ValueError) as error:
        raise ImageError(f"'{path}' cannot be written ({_reason(error)}): choose another place.") from error
    return path


def _format_of(extension: str, label: str) -> str:
    if extension not in WRITE_FORMATS:
        raise ImageError(f"{label} is not a format that the zoo writes: use {', '.join(WRITE_FORMATS)}.")
    return WRITE_FORMATS[extension]


def _temporary_for(target: Path) -> Path:
    return target.with_name(f".{uuid.uuid4().hex}.tmp")


def _eight_bits(image: Tensor, channels: int, what: str) -> np.ndarray:
    """(1, C, H, W), (C, H, W), or (H, W) for one channel, in [0, 1] -> (H, W, C) uint8, rounded half up."""
    shape = tuple(image.shape)
    if channels == 1 and image.ndim == 2:
        image = image[None]
    if image.ndim == 4 and image.shape[0] > 1:
        raise InputError(f"A batch of {shape[0]} images does not fit one file: write them one by one.")
    if image.ndim == 4:
        image = image.flatten(0, 1)
    if image.ndim != 3 or image.shape[0] != channels or 0 in image.shape or not image.is_floating_point():
        raise InputError(
            f"The {what} is {image.dtype} of shape {shape}: give a float tensor (1, {channels}, H, W) in [0, 1]."
        )
    image = image.detach().to("cpu", torch.float32)
    if not torch.isfinite(image).all():
        raise InputError(f"The {what} holds values that are not finite (NaN or infinity) and was not written.")
    return image.clamp(0, 1).mul(255).add_(0.5).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


# --- contact sheets --------------------------------------------------------------------------------------------------


def contact_sheet(
    rows: Sequence[Sequence[Tensor | None]],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    cell: int = 256,
    gutter: int | None = None,
) -> Tensor:
    """Lay images out in a labelled grid on white: (1, 3, H, W) in [0, 1].

    rows           images (1, 3, H, W) or (3, H, W), or None for an empty place; rows may differ in length
    row_labels     one per row, at its left; ``column_labels`` one per column, above
    captions       one per image, below it, in the shape of ``rows``
    cell           the longer side of every image, in pixels; rows and columns shrink around images that are narrower
    gutter         white between and around the images; a 32nd of ``cell`` unless given

    Text that does not fit its place is cut with "...". Raises :class:`InputError` on no images, labels of another
    number or a cell below 8 pixels.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise InputError("A contact sheet needs at least one image.")
    for labels, count, what in ((row_labels, len(rows), "row"), (column_labels, columns, "column")):
        if labels is not None and len(labels) != count:
            raise InputError(f"A contact sheet of {count} {what}s has {len(labels)} {what} labels: give one for each.")
    if captions is not None and [len(line) for line in captions] != [len(row) for row in rows]:
        raise InputError("The captions of a contact sheet must have the shape of its rows of images.")
    if cell < 8:
        raise InputError(f"A contact sheet's cell is {cell} pixels: give at least 8.")
    gap = max(2, cell // 32) if gutter is None else gutter
    font = ImageFont.load_default(max(9, cell // 14))

    fitted = [[None if image is None else _fit(image, cell) for image in row] for row in rows]
    line = sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else 12
    shapes = [[(cell, cell) if image is None else tuple(image.shape[-2:]) for image in row] for row in fitted]
    heights = [max([line, *(height for height, _ in row)]) for row in shapes]
    widths = [max(row[i][1] for row in shapes if i < len(row)) for i in range(columns)]
    side = min(cell, max(_text_width(text, font) for text in row_labels)) + gap if row_labels else 0
    head = line + gap if column_labels else 0
    foot = line if captions else 0

    sheet = torch.ones(3, gap + head + sum(h + foot + gap for h in heights), gap + side + sum(w + gap for w in widths))
    lefts = [gap + side + sum(widths[:i]) + gap * i for i in range(columns)]
    for left, width, text in zip(lefts, widths, column_labels or (), strict=False):
        sheet[:, gap : gap + line, left : left + width] = _text(text, font, line, width)
    top = gap + head
    for i, (row, height) in enumerate(zip(fitted, heights, strict=True)):
        if row_labels:
            middle = top + (height - line) // 2
            sheet[:, middle : middle + line, gap:side] = _text(row_labels[i], font, line, side - gap)
        for j, (image, (tall, wide)) in enumerate(zip(row, shapes[i], strict=True)):
            y, x = top + (height - tall) // 2, lefts[j] + (widths[j] - wide) // 2
            if image is not None:
                sheet[:, y : y + tall, x : x + wide] = image
            if captions:
                strip = _text(captions[i][j], font, line, widths[j])
                sheet[:, y + tall : y + tall + line, lefts[j] : lefts[j] + widths[j]] = strip
        top += height + foot + gap
    return sheet[None]


def _fit(image: Tensor, cell: int) -> Tensor:
    """(3, H, W) whose longer side is ``cell``."""
    if image.ndim == 3:
        image = image[None]
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise InputError(f"A contact sheet takes images (1, 3, H, W), not {tuple(image.shape)}.")
    return resize(image.detach().to("cpu", torch.float32), SizePolicy("long", cell))[0].clamp(0, 1)


def _text_width(text: str, font: Any) -> int:
    return int(font.getlength(text)) + 1


def _text(text: str, font: Any, height: int, width: int) -> Tensor:
    """Black on white, (1, height, width), cut with "..." where it is too long."""
    # Pillow's own font knows ASCII alone: accents are dropped and anything else is shown as a question mark.
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = " ".join(plain.encode("ascii", "replace").decode().split())
    if _text_width(text, font) > width:
        while text and _text_width(text + "...", font) > width:
            text = text[:-1]
        text += "..."
    strip = PILImage.new("L", (max(1, width), height), 255)
    ImageDraw.Draw(strip).text((0, 0), text, fill=0, font=font)
    return torch.from_numpy(np.array(strip))[None].float().div_(255)


# --- what to read ----------------------------------------------------------------------------------------------------


def list_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files and folders -> the image files they stand for, each once.

    Named files stay in the order given, since style weights refer to it; a folder gives its own image files (not those
    of folders inside it, and no hidden ones), numbers in their names in numerical order. ``builtin:NAME`` passes
    through. A file reached twice, also through a link, is kept the first time.

    Raises :class:`ImageError` on a path that does not exist or a folder without images, :class:`UnknownNameError` on
    an unknown built-in name.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        if str(path).startswith(BUILTIN_PREFIX):
            builtin(str(path).removeprefix(BUILTIN_PREFIX))
            found.setdefault(str(path), path)
            continue
        try:
            files = [path]
            if path.is_dir():
                files = sorted((entry for entry in path.iterdir() if _is_listed(entry)), key=_natural_order)
                if not files:
                    raise ImageError(f"The folder '{path}' holds no images: put {_READABLE} files into it.")
            elif not path.exists():
                raise ImageError(f"'{path}' does not exist: check the path.")
            for file in files:
                found.setdefault(os.path.realpath(file), file)
        except (OSError, ValueError) as error:
            raise ImageError(f"'{path}' cannot be read ({_reason(error)}): check its permissions.") from error
    return list(found.values())


def _is_listed(path: Path) -> bool:
    return path.suffix.lower() in READ_EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _natural_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Orders frame2 before frame10; the name itself decides between equals, so the order is total."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", path.name.casefold())
    return [(0, int(digits), "") if digits else (1, 0, text) for digits, text in parts], path.name


@dataclass(frozen=True)
class BuiltinImage:
    """An image that comes with the installation, and what may be said about it.

    ``kind`` is ``content`` or ``style``; ``sha256`` is checked on reading where it is recorded (the styles; the
    photographs belong to scikit-image, which may compress them anew); ``source`` says where it comes from.
    """

    name: str
    kind: Literal["content", "style"]
    title: str
    author: str
    licence: str
    source: str
    path: Path
    sha256: str | None = None


# As scikit-image's own docstrings (skimage.data) tell them; each file lies in its wheel.
_CONTENTS = (
    (
        "astronaut",
        "astronaut.png",
        "Portrait of the astronaut Eileen Collins",
        "NASA",
        "Public domain (no known copyright restrictions)",
        "NASA Great Images database",
    ),
    ("coffee", "coffee.png", "Coffee cup", "Rachel Michetti", "CC0", "Courtesy of Pikolo Espresso Bar"),
    ("chelsea", "chelsea.png", "Chelsea the cat", "Stéfan van der Walt", "CC0", "The photographer"),
    (
        "rocket",
        "rocket.jpg",
        "Launch of DSCOVR on Falcon 9, Cape Canaveral",
        "SpaceX",
        "Public domain (released by SpaceX)",
        "SpaceX Photos",
    ),
    (
        "hubble_deep_field",
        "hubble_deep_field.jpg",
        "Hubble eXtreme Deep Field",
        "NASA",
        "Public domain",
        "HubbleSite, release 2012-37",
    ),
    ("camera", "camera.png", "Photographer with a camera (greyscale)", "Lav Varshney", "CC0", "The photographer"),
)
_STYLES = Path(__file__).parent / "assets" / "styles"


def builtin_contents() -> dict[str, BuiltinImage]:
    """The six photographs shipped in scikit-image's wheel, found without importing it.

    Raises :class:`ImageError` where scikit-image is not installed.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ImageError("The built-in photographs come with scikit-image, which is not installed: install it.")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    return {
        name: BuiltinImage(name, "content", title, author, licence, f"{source}; in scikit-image", folder / file)
        for name, file, title, author, licence, source in _CONTENTS
    }


def builtin_styles() -> dict[str, BuiltinImage]:
    """The style images drawn by the zoo's own generator, as listed in assets/styles/styles.json.

    Raises :class:`ImageError` where that list is missing or malformed.
    """
    listing = _STYLES / "styles.json"
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
        return {entry["name"]: _builtin_style(entry) for entry in entries}
    except OSError as error:
        raise ImageError(f"The list of built-in styles '{listing}' is missing: install the zoo again.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"The list of built-in styles '{listing}' is malformed: install the zoo again.") from error


def _builtin_style(entry: dict[str, str]) -> BuiltinImage:
    return BuiltinImage(
        name=entry["name"],
        kind="style",
        title=entry["title"],
        author="the zoo's style generator",
        licence=entry["licence"],
        source="drawn by the zoo's own seeded generator",
        path=_STYLES / entry["file"],
        sha256=entry["sha256"],
    )


def builtin(name: str) -> BuiltinImage:
    """A built-in photograph or style by its name; raises :class:`UnknownNameError` with the nearest names."""
    contents = builtin_contents()
    if name in contents:
        return contents[name]
    styles = builtin_styles()
    if name not in styles:
        raise UnknownNameError("built-in image", name, [*contents, *styles])
    return styles[name]
