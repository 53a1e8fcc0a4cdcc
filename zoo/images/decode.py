"""Decoding: a path, bytes or a stream becomes arrays, upright and in sRGB. No torch, whose import takes two seconds."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image as PILImage
from PIL import ImageCms, PngImagePlugin, UnidentifiedImageError

from zoo.errors import ImageError, InputError, reason
from zoo.images.builtin import BUILTIN_PREFIX, BuiltinImage, builtin
from zoo.images.profiles import gray_to_srgb, to_srgb, transform_to_srgb
from zoo.images.repair import without_metadata, without_tiff_metadata
from zoo.names import on_disk

# Named, so that a file of another kind never reaches Pillow's rarer decoders (EPS would start Ghostscript).
_PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|II[*+]\x00|II\x00\*|MM\x00[*+]|MM\*\x00|BM|GIF8[79]a", re.DOTALL
)
_HEAD = 16  # bytes that tell what a file is
READABLE = "JPEG, PNG, WebP, TIFF, BMP and GIF"


def fetch(source: str | os.PathLike[str] | bytes | BinaryIO) -> tuple[bytes, str, str]:
    """(bytes, label for messages, name) of a source."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        label = "The image given as bytes"
        return _drain(io.BytesIO(source), label), label, "image"
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if text.startswith(BUILTIN_PREFIX):
            return _fetch_builtin(builtin(text.removeprefix(BUILTIN_PREFIX)))
        return _read_file(on_disk(text)), f"'{text}'", Path(text).stem
    if not hasattr(source, "read"):
        kind = type(source).__name__
        raise InputError(f"An image is read of a path, the bytes of a file or an open binary stream, not {kind}.")
    name = getattr(source, "name", None)
    stem = Path(name.strip("<>")).stem if isinstance(name, str) else "image"
    label = f"The stream '{stem}'"
    try:
        return _drain(source, label), label, stem
    except (OSError, ValueError) as error:
        raise ImageError(f"{label} cannot be read ({reason(error)}): give a file or an open binary stream.") from error


def _drain(stream: BinaryIO, label: str) -> bytes:
    """All bytes of a stream; what is no image is refused by its first bytes, since it may never end (/dev/zero)."""
    head = stream.read(_HEAD)
    if not isinstance(head, bytes):
        raise ImageError(f"{label} gives text: open it in binary mode ('rb').")
    if not head:
        raise ImageError(f"{label} is empty (zero bytes): give a file that holds an image.")
    if len(head) < _HEAD:  # the end, or a pipe that hands out what it has
        head += stream.read()
    if not _SIGNATURE.match(head):
        raise ImageError(f"{label} is not an image that the zoo reads: use {READABLE}.")
    return head + stream.read()


def _fetch_builtin(entry: BuiltinImage) -> tuple[bytes, str, str]:
    label = f"The built-in image '{entry.name}'"
    if not entry.path.is_file():
        raise ImageError(f"{label} is missing from this installation ('{entry.path}'): install the zoo again.")
    data = _read_file(entry.path)
    if entry.sha256 and hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ImageError(f"{label} is not the file it was shipped as ('{entry.path}'): install the zoo again.")
    return data, label, entry.name


def _read_file(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ImageError(f"'{path}' is a folder, not an image: name a file in it.")
        with path.open("rb") as stream:
            return _drain(stream, f"'{path}'")
    except FileNotFoundError:
        raise ImageError(f"'{path}' does not exist: check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"'{path}' cannot be read ({reason(error)}): check the path and its permissions.") from error


class _DamagedError(ImageError):
    """The bytes are of a known format, and a decoder gave them up."""


def decode(data: bytes, label: str, max_pixels: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Bytes of a file -> upright (3, H, W), sRGB, not composited, and alpha (1, H, W) or None; each uint8, or
    float32 in [0, 1] where the file has more bits."""
    try:
        return _decode_whole(without_tiff_metadata(data), label, max_pixels)
    except _DamagedError:
        lean = without_metadata(data)
        if lean is None:
            raise
    return _decode_whole(lean, label, max_pixels)


def _decode_whole(data: bytes, label: str, max_pixels: int) -> tuple[np.ndarray, np.ndarray | None]:
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
            if deep is None:
                raise _damaged(label, "its header cannot be understood") from error
            rgb, alpha, orientation = deep
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise _damaged(label, reason(error)) from error
    return _turned(rgb, alpha, orientation)


def from_pillow(image: PILImage.Image, label: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A Pillow image of any mode -> what :func:`decode` gives of a file that holds it."""
    with _pillow_at_ease():
        try:
            image.load()
            rgb, alpha = _decode_pillow(image, label)
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # of a file that was opened and is damaged further on
            raise _damaged(label, reason(error)) from error
    return _turned(rgb, alpha, _orientation(image))


def _damaged(label: str, why: str) -> _DamagedError:
    return _DamagedError(f"{label} is damaged or cut short ({why}): fetch or export it again.")


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
        gray, alpha = _deep_gray(image, label)
        return gray_to_srgb(gray, profile), alpha
    image, alpha = image.convert("LA") if image.mode == "La" else image, None
    if image.has_transparency_data:
        alpha = np.array(image.convert("RGBA").getchannel("A"))
    if image.mode in ("1", "L", "LA"):
        image = image.convert("L")
    elif image.mode not in ("RGB", "CMYK", "LAB"):
        # Through RGBA, because Pillow converts a palette with partial transparency only that way.
        image = image.convert("RGBA").convert("RGB") if alpha is not None else image.convert("RGB")
    return np.array(to_srgb(image, profile)), alpha


def _deep_gray(image: PILImage.Image, label: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Modes I;16 (and its byte orders), I and F -> (H, W) float32 in [0, 1], and the alpha of a transparent level."""
    raw = np.array(image)
    tags: Any = getattr(image, "tag_v2", {})
    bits = max(tags.get(258, (16,))) if image.mode.startswith("I;16") else 16  # 258: BitsPerSample; 12-bit TIFF exists
    gray = _unit_range(raw, label, full_scale=2**bits - 1)
    if tags.get(262) == 0:  # PhotometricInterpretation: WhiteIsZero, which Pillow leaves to us at these depths
        gray = 1 - gray
    key = image.info.get("transparency")
    return gray, np.where(raw == key, np.float32(0), np.float32(1)) if isinstance(key, int) else None


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
    return np.divide(raw, np.float32(full_scale), dtype=np.float32)


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
    colors = 3 if page.photometric == 2 else 1
    if not colors <= count <= 6:  # Pillow's own limit; a damaged count would allocate thousands of planes
        return None
    if page.planarconfig == 2:  # one plane after the other
        samples = page.asarray().reshape(count, height, width).transpose(1, 2, 0)
    else:
        samples = page.asarray().reshape(height, width, count)
    if samples.dtype.kind not in "uif" or samples.size == 0:
        return None
    unit = _unit_range(samples, label, full_scale=2 ** min(page.bitspersample, 16) - 1)
    color, alpha = unit[..., :colors], None
    if page.photometric == 0:
        color = 1 - color
    extra = page.extrasamples[0] if page.extrasamples and count > colors else 0
    if extra in (1, 2):  # ExtraSamples: 1 is premultiplied alpha, 2 is plain alpha
        alpha = unit[..., colors]
        if extra == 1:
            color = np.minimum(color / np.maximum(alpha, np.float32(1e-6))[..., None], np.float32(1))
    orientation, profile = int(page.tags.valueof(274, default=1)), page.tags.valueof(34675, default=None)
    if colors == 1:
        return gray_to_srgb(color[..., 0], profile), alpha, orientation
    transform = transform_to_srgb(profile, "RGB")
    if transform is not None:
        eight = PILImage.fromarray((color * 255 + 0.5).astype(np.uint8))
        return np.array(ImageCms.applyTransform(eight, transform[1])), alpha, orientation
    return color, alpha, orientation


def _turned(rgb: np.ndarray, alpha: np.ndarray | None, orientation: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, 3) and (H, W) or None as they lie in a file -> (3, H, W) and (1, H, W), upright."""
    return _upright(_planes(rgb), orientation), None if alpha is None else _upright(_planes(alpha), orientation)


def _planes(samples: np.ndarray) -> np.ndarray:
    """(H, W, 3) or (H, W), uint8 or float32 in [0, 1] -> (C, H, W) of the same."""
    return np.ascontiguousarray(samples.transpose(2, 0, 1) if samples.ndim == 3 else samples[None])


def as_float(planes: np.ndarray) -> np.ndarray:
    """uint8, or float32 in [0, 1] -> float32 in [0, 1]."""
    return np.divide(planes, np.float32(255), dtype=np.float32) if planes.dtype == np.uint8 else planes


def _orientation(image: PILImage.Image) -> int:
    """EXIF orientation 1 to 8; 1 where it is absent or damaged. Asked after loading: Pillow turns TIFF by itself."""
    try:
        value = image.getexif().get(274, 1)
    except Exception:  # damaged metadata does not spoil the picture
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: 5 to 8 swap the axes first; then mirrored top to bottom and left to right as told."""
    if orientation >= 5:
        image = image.swapaxes(-1, -2)
    mirrors = ((-2, (3, 4, 7, 8)), (-1, (2, 3, 6, 7)))
    return np.ascontiguousarray(np.flip(image, tuple(axis for axis, told in mirrors if orientation in told)))


_ease_lock = threading.Lock()
_ease_users = 0
_ease_stack = contextlib.ExitStack()


@contextlib.contextmanager
def _pillow_at_ease() -> Iterator[None]:
    """Lift Pillow's pixel limit (ours is checked instead) and its limit of one PNG text, hush its remarks on metadata,
    and restore all of them.

    They are settings of the whole process, so nested and parallel readers share one change: the first makes it and the
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
            # Of a PNG's compressed texts and profile together; one profile of a printer exceeds the single megabyte.
            _ease_stack.callback(setattr, PngImagePlugin, "MAX_TEXT_CHUNK", PngImagePlugin.MAX_TEXT_CHUNK)
            PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
        _ease_users += 1
    try:
        yield
    finally:
        with _ease_lock:
            _ease_users -= 1
            if _ease_users == 0:
                _ease_stack.close()


__all__ = ["READABLE", "as_float", "decode", "fetch", "from_pillow"]
