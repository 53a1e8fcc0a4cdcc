"""An image as its Laplacian pyramid (Burt and Adelson 1983): differences of neighbouring sizes, and the smallest one.

A gradient step on the pyramid's coefficients moves all scales of an image at once, so that large shapes change as
easily as grain (Kolkin et al. 2019, section 2.5; 2022, section 3). Sizes are halved and doubled bilinearly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]


def _scaled(image: Tensor, size: Size) -> Tensor:
    return F.interpolate(image, size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class LaplacianPyramid:
    """The pyramid of images (1, C, H, W) of one ``size`` with ``levels`` levels; fewer where a side would be under 1.

    Its coefficients are one vector, finest level first: :meth:`pack` and :meth:`unpack` are each other's inverse.
    """

    size: Size
    levels: int

    @property
    def sizes(self) -> list[Size]:
        """Height and width of every level, the finest first."""
        sizes = [self.size]
        while len(sizes) < self.levels and min(sizes[-1]) > 1:
            sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
        return sizes

    def pack(self, image: Tensor) -> Tensor:
        """The coefficients of ``image`` (1, C, H, W) as one vector."""
        bands = []
        for smaller in self.sizes[1:]:
            small = _scaled(image, smaller)
            bands.append(image - _scaled(small, (image.shape[-2], image.shape[-1])))
            image = small
        return torch.cat([band.flatten() for band in (*bands, image)])

    def unpack(self, vector: Tensor) -> Tensor:
        """The image (1, C, H, W) behind a vector of coefficients; differentiable."""
        sizes = self.sizes
        channels = vector.numel() // sum(height * width for height, width in sizes)
        bands = vector.split([channels * height * width for height, width in sizes])
        image = bands[-1].view(1, channels, *sizes[-1])
        for band, size in zip(bands[-2::-1], sizes[-2::-1], strict=True):
            image = _scaled(image, size) + band.view(1, channels, *size)
        return image
