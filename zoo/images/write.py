"""Writing: a tensor becomes the bytes of a file, and a file appears whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PILImage

from zoo import files
from zoo.errors import ImageError, InputError, reason

if TYPE_CHECKING:
    from torch import Tensor

WRITE_FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}

_ALPHA_FORMATS = ("PNG", "TIFF", "WEBP")
_LARGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # limits of the formats' encoders
_COUNTED = ("BMP", "TIFF")  # whose lengths have 32 bits
_ROWS = 256  # that are rounded at a time, so that of a large picture there is no copy in float32


def encode(
    image: Tensor | np.ndarray, format: str = "png", *, alpha: Tensor | np.ndarray | None = None, quality: int = 95
) -> bytes:
    """(1, 3, H, W) or (3, H, W), a tensor or an array -> the bytes of a file, for standard output.

    Values are clamped to [0, 1] and rounded to 8 bits; uint8 is taken as it is. ``format`` is an extension with or
    without its dot (png, jpg, webp, tiff, bmp). ``alpha``, (1, 1, H, W) with the image's size, is put back in PNG, WebP
    and TIFF; elsewhere it is dropped, and the picture is the one composited over white. ``quality`` 1 to 100 is for
    JPEG (never with reduced chroma, which smears strokes of saturated colour) and WebP (lossless at 100).

    Raises :class:`InputError` on a batch, another shape, dtype or size, or values that are not finite;
    :class:`ImageError` on an unknown format or an image too large for it.
    """
    kind = _format_of("." + format.lower().lstrip("."), f"The format '{format}'")
    if type(quality) is not int or not 1 <= quality <= 100:
        raise InputError(f"quality is {quality!r}: give a whole number from 1 to 100.")
    pixels = eight_bits(image, 3, "image")
    if alpha is not None:
        mask = eight_bits(alpha, 1, "alpha")
        if mask.shape[:2] != pixels.shape[:2]:
            raise InputError(
                f"alpha is {mask.shape[1]} x {mask.shape[0]} pixels and the image {pixels.shape[1]} x "
                f"{pixels.shape[0]}: resize one of them first."
            )
        if kind in _ALPHA_FORMATS:
            pixels = np.concatenate([pixels, mask], -1)
    _check_size(kind, *pixels.shape[:2])
    options: dict[str, Any] = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "lossless": quality == 100, "exact": quality == 100},
        "TIFF": {"compression": "tiff_adobe_deflate"},
    }.get(kind, {})
    buffer = io.BytesIO()
    try:
        PILImage.fromarray(pixels).save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        raise ImageError(f"The image cannot be encoded as {kind} ({reason(error)}): choose another format.") from error
    return buffer.getvalue()


def write(
    path: str | os.PathLike[str],
    image: Tensor | np.ndarray,
    *,
    alpha: Tensor | np.ndarray | None = None,
    quality: int = 95,
) -> Path:
    """Write one image in the format of its extension; arguments and errors as :func:`encode`. Returns the path.

    Encoded in memory and written in one move, so a failure leaves an older file as it was. Raises :class:`ImageError`
    also where the place cannot be written.
    """
    path = files.check_place(path, ImageError)
    _format_of(path.suffix.lower(), f"'{path}'")
    data = encode(image, path.suffix, alpha=alpha, quality=quality)
    with files.replacing(path, ImageError, flush=False) as work:
        work.write_bytes(data)
    return path


def check_writable(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> Path:
    """Fail now, and not after minutes of optimisation, where :func:`write` could not write there. Returns the path.

    Raises :class:`ImageError` on an unknown extension, a folder in place of a file, or a folder that does not exist or
    in which no file can be created (tried, since permissions do not tell of read-only and full file systems); also
    where the format holds no image of ``size`` (height, width), if that is known.
    """
    path = files.check_writable(path, ImageError)
    kind = _format_of(path.suffix.lower(), f"'{path}'")
    if size is not None:
        _check_size(kind, *size)
    return path


def _format_of(extension: str, label: str) -> str:
    if extension not in WRITE_FORMATS:
        raise ImageError(f"{label} is not a format that the zoo writes: use {', '.join(WRITE_FORMATS)}.")
    return WRITE_FORMATS[extension]


def largest_side(path: Path) -> int:
    """Return how many pixels a side of an image may have in the format of ``path``, one that the zoo writes."""
    return _LARGEST_SIDE.get(WRITE_FORMATS[path.suffix.lower()], 2**31 - 1)


def _check_size(kind: str, height: int, width: int) -> None:
    side = _LARGEST_SIDE.get(kind, 2**31 - 1)
    if max(height, width) > side:
        raise ImageError(
            f"{kind} holds at most {side} pixels per side and the image is {width} x {height}: write PNG or TIFF."
        )
    if kind in _COUNTED and 4 * height * width >= 2**32:
        raise ImageError(f"{kind} holds at most 4 GiB and the image is {width} x {height} pixels: write PNG.")


def eight_bits(image: Tensor | np.ndarray, channels: int, what: str) -> np.ndarray:
    """(1, C, H, W), (C, H, W), or (H, W) for one channel, in [0, 1] or uint8 -> (H, W, C) uint8, rounded half up."""
    wanted = f"give a float tensor (1, {channels}, H, W) in [0, 1]."
    if not hasattr(image, "dtype"):
        raise InputError(f"The {what} is {type(image).__name__}: {wanted}")
    shape, kind = tuple(image.shape), image.dtype
    if not isinstance(image, np.ndarray) and image.is_floating_point():
        image = image.detach().cpu().float()  # of bfloat16 there is no array
    array = np.asarray(image)
    if channels == 1 and array.ndim == 2:
        array = array[None]
    if array.ndim == 4 and array.shape[0] > 1:
        raise InputError(f"A batch of {shape[0]} images does not fit one file: write them one by one.")
    if array.ndim == 4 and array.shape[0]:
        array = array[0]
    known = array.dtype.kind == "f" or array.dtype == np.uint8
    if array.ndim != 3 or array.shape[0] != channels or 0 in shape or not known:
        raise InputError(f"The {what} is {kind} of shape {shape}: {wanted}")
    pixels = np.empty((*array.shape[1:], channels), np.uint8)
    for at in range(0, len(pixels), _ROWS):
        part = array[:, at : at + _ROWS]
        if part.dtype != np.uint8:
            if not np.isfinite(part).all():
                raise InputError(f"The {what} holds values that are not finite (NaN or infinity) and was not written.")
            part = part.clip(0, 1).astype(np.float32, copy=False)
            part *= np.float32(255)
            part += np.float32(0.5)
            part = part.astype(np.uint8)
        for channel, plane in enumerate(part):
            pixels[at : at + _ROWS, :, channel] = plane
    return pixels
