"""Reading: a file, bytes or a stream becomes an :class:`Image`, upright and in sRGB."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from zoo.errors import ImageError
from zoo.images.decode import as_float, decode, fetch
from zoo.images.resample import resize, resize_array
from zoo.images.sizes import MAX_PIXELS, SizePolicy, planned

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Image:
    """A picture as the methods take it, and what is needed to put the result back and to cite its source.

    pixels       (1, 3, H, W) float32 RGB in [0, 1], sRGB; transparent parts composited over white
    alpha        (1, 1, H, W) float32 in [0, 1], or None where the file has no transparency. Both are uint8 only where
                 :func:`read` was asked for levels
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
    levels: bool = False,
) -> Image:
    """Read one image: a path, ``builtin:NAME``, the bytes of a file, or a binary stream (read to its end).

    JPEG, PNG, WebP, TIFF, BMP and GIF; of several frames or pages the first. ``size`` is a :class:`SizePolicy` or its
    text; without one the size is kept. A header that announces more than ``max_pixels`` is refused before decoding.
    With ``levels`` an opaque picture of 8 bits that keeps its size stays uint8, a quarter of the memory.

    Raises :class:`ImageError` (missing, a folder, empty, damaged, no image, too large), :class:`UnknownNameError` for
    an unknown built-in name, :class:`ConfigError` for a size that is not understood and :class:`InputError` for a
    source of another kind.
    """
    import torch

    policy = SizePolicy.parse(size)
    data, label, name = fetch(source)
    rgb, alpha = decode(data, label, max_pixels)
    shape = (rgb.shape[-2], rgb.shape[-1])
    opaque = alpha is None or (alpha.dtype == np.uint8 and int(alpha.min()) == 255)
    if not (levels and opaque and policy.output_size(*shape) == shape):

        def fit(plane: np.ndarray) -> np.ndarray:
            return resize(torch.from_numpy(plane)[None, None], policy, max_pixels=max_pixels)[0, 0].numpy()

        rgb, alpha = _fitted((rgb, alpha), policy, fit, label, max_pixels)
    return Image(
        pixels=torch.from_numpy(rgb)[None],
        alpha=None if alpha is None else torch.from_numpy(alpha)[None],
        name=name,
        sha256=hashlib.sha256(data).hexdigest(),
        source_size=shape,
    )


def _fitted(
    decoded: tuple[np.ndarray, np.ndarray | None],
    size: SizePolicy,
    fit: Callable[[np.ndarray], np.ndarray],
    label: str,
    max_pixels: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A decoded picture over white and its alpha, float32 in [0, 1], each plane (H, W) brought to ``size`` by ``fit``.

    Plane by plane: of a panorama that is made smaller no more than one is float32 at its own size.
    """
    rgb, alpha = decoded
    opacity = None if alpha is None else as_float(alpha)[0]
    try:
        _, wanted = planned((rgb.shape[-2], rgb.shape[-1]), size, max_pixels)
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from None
    pixels = np.empty((3, *wanted), np.float32)
    for plane, found in zip(rgb, pixels, strict=True):
        over = as_float(plane)
        if opacity is not None:
            over = over * opacity
            over += 1 - opacity
        found[:] = fit(over)
    return pixels, None if opacity is None else fit(opacity)[None]


def read_array(
    source: str | os.PathLike[str] | bytes | BinaryIO, *, size: SizePolicy | int | str | None, max_pixels: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """:func:`read` without torch: (3, H, W) float32 in [0, 1] over white, and alpha (1, H, W) or None."""
    policy = SizePolicy.parse(size)
    data, label, _ = fetch(source)

    def fit(plane: np.ndarray) -> np.ndarray:
        return resize_array(plane[None], policy, max_pixels=max_pixels)[0]

    return _fitted(decode(data, label, max_pixels), policy, fit, label, max_pixels)


__all__ = ["Image", "read", "read_array"]
