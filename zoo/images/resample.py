"""The one resampling of the zoo, bicubic and antialiased: of tensors, and of arrays where torch is not wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage

from zoo.errors import InputError
from zoo.images.sizes import MAX_PIXELS, SizePolicy, centered, planned

if TYPE_CHECKING:
    from torch import Tensor


def resize(image: Tensor, size: SizePolicy | int | str | tuple[int, int], *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Resample (B, C, H, W) in [0, 1] to a policy or to (height, width): bicubic, antialiased, clamped to [0, 1].

    An image that already has the size is returned as it is. Raises :class:`InputError` on another shape or dtype and
    :class:`ImageError` where the result would have more than ``max_pixels``.
    """
    from torch.nn import functional as F

    from zoo.device import exact

    if image.ndim != 4 or not image.is_floating_point() or 0 in image.shape:
        raise InputError(
            f"resize takes floating-point images (B, C, H, W), not {image.dtype} of shape {tuple(image.shape)}."
        )
    shape = (image.shape[-2], image.shape[-1])
    cover, wanted = planned(shape, size, max_pixels)
    if cover != shape:
        # In float32, because half precision has no antialiased kernel everywhere and would round before the clamp.
        # On the CPU beside an MPS device, which has no antialiased bicubic kernel before torch 2.8.
        source = exact(image).float()
        # On its side where it becomes one pixel wide: torch 2.14's kernel for the CPU then takes wrong rows.
        narrow = cover[1] == 1
        source, target = (source.mT, cover[::-1]) if narrow else (source, cover)
        resampled = F.interpolate(source, size=target, mode="bicubic", antialias=True, align_corners=False).clamp_(0, 1)
        image = (resampled.mT.contiguous() if narrow else resampled).to(image.dtype).to(image.device)
    return image if wanted == cover else centered(image, cover, wanted).contiguous()


def resize_array(
    image: np.ndarray, size: SizePolicy | int | str | tuple[int, int], *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """:func:`resize` of (C, H, W) float32, by Pillow, whose filter torch's is: equal up to rounding."""
    shape = (image.shape[-2], image.shape[-1])
    cover, wanted = planned(shape, size, max_pixels)
    if cover != shape:
        height, width = cover
        planes = [PILImage.fromarray(plane).resize((width, height), PILImage.Resampling.BICUBIC) for plane in image]
        image = np.stack([np.asarray(plane) for plane in planes]).clip(0, 1)
    return image if wanted == cover else np.ascontiguousarray(centered(image, cover, wanted))


__all__ = ["resize", "resize_array"]
