"""Reading: a file, bytes or a stream becomes an :class:`Image`, upright and in sRGB."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from zoo.errors import ImageError
from zoo.images.decode import as_float, decode, fetch
from zoo.images.resample import resize, resize_array
from zoo.images.sizes import MAX_PIXELS, SizePolicy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Image:
    """A picture as the methods take it, and what is needed to put the result back and to cite its source.

    pixels       (1, 3, H, W) float32 RGB in [0, 1], sRGB; transparent parts composited over white. uint8 only where
                 :func:`read` was asked for levels
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
    levels: bool = False,
) -> Image:
    """Read one image: a path, ``builtin:NAME``, the bytes of a file, or a binary stream (read to its end).

    JPEG, PNG, WebP, TIFF, BMP and GIF; of several frames or pages the first. ``size`` is a :class:`SizePolicy` or its
    text; without one the size is kept. A header that announces more than ``max_pixels`` is refused before decoding.
    With ``levels`` the pixels of an opaque file of 8 bits that keeps its size stay uint8, a quarter of the memory.

    Raises :class:`ImageError` (missing, a folder, empty, damaged, no image, too large), :class:`UnknownNameError` for
    an unknown built-in name and :class:`ConfigError` for a size that is not understood.
    """
    import torch

    policy = SizePolicy.parse(size)
    data, label, name = fetch(source)
    arrays = decode(data, label, max_pixels)
    height, width = arrays[0].shape[-2:]
    keep = levels and arrays[1] is None and policy.output_size(height, width) == (height, width)
    rgb, alpha = (
        None if array is None else torch.from_numpy(array if keep else as_float(array))[None] for array in arrays
    )
    assert rgb is not None
    del arrays
    if alpha is not None:
        rgb = rgb * alpha + (1 - alpha)
    if not keep:
        try:
            rgb = resize(rgb if alpha is None else torch.cat([rgb, alpha], 1), policy, max_pixels=max_pixels)
        except ImageError as error:
            raise ImageError(f"{label}: {error}") from None
    return Image(
        pixels=rgb[:, :3].contiguous(),
        alpha=None if alpha is None else rgb[:, 3:].contiguous(),
        name=name,
        sha256=hashlib.sha256(data).hexdigest(),
        source_size=(height, width),
    )


def read_array(
    source: str | os.PathLike[str] | bytes | BinaryIO, *, size: SizePolicy | int | str | None, max_pixels: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """:func:`read` without torch: (3, H, W) float32 in [0, 1] over white, and alpha (1, H, W) or None."""
    policy = SizePolicy.parse(size)
    data, label, _ = fetch(source)
    rgb, alpha = (None if array is None else as_float(array) for array in decode(data, label, max_pixels))
    assert rgb is not None
    try:
        if alpha is None:
            return resize_array(rgb, policy, max_pixels=max_pixels), None
        both = resize_array(np.concatenate([rgb * alpha + (1 - alpha), alpha]), policy, max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from None
    return both[:3], both[3:]


__all__ = ["Image", "read", "read_array"]
