"""Chroma apart from lightness, and its smoothing along the edges of the lightness.

Oklab (Ottosson, *A perceptual color space for image processing*, 2020) has a lightness and two axes of chroma that a
change of the others leaves as they look. It is made for linear values. Here, as in the code of Kolkin et al. 2022, sRGB
values are taken as they are encoded: saturated colors lie less far out, and an affine map of them stays in gamut.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# RGB to the responses of the cones, and their cube roots to L, a, b (Ottosson 2020).
_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_AXES = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def to_oklab(images: Tensor) -> Tensor:
    """Return Oklab (B, 3, H, W) of encoded values (B, 3, H, W) in [0, 1]: L in [0, 1], a and b within 0.4 of 0."""
    return _mixed(_AXES, _mixed(_CONES, images.clamp(0, 1)) ** (1 / 3))


def from_oklab(lab: Tensor) -> Tensor:
    """Return the images behind Oklab (B, 3, H, W), clamped to [0, 1]."""
    return _solved(_CONES, _solved(_AXES, lab) ** 3).clamp(0, 1)


def smoothed(chroma: Tensor, lightness: Tensor, passes: int = 5, steepness: float = 10.0) -> Tensor:
    """Return ``chroma`` (B, 2, H, W) averaged over 3 x 3 pixels, ``passes`` times, along ``lightness`` (B, 1, H, W): a
    neighbor counts by exp(-steepness |difference of lightness|)."""
    shifts = [(dy, dx) for dy in range(3) for dx in range(3)]
    height, width = chroma.shape[-2:]

    def neighbors(image: Tensor) -> list[Tensor]:
        padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
        return [padded[..., dy : dy + height, dx : dx + width] for dy, dx in shifts]

    weights = [torch.exp(-steepness * (other - lightness).abs()) for other in neighbors(lightness)]
    norm = torch.stack(weights).sum(0)
    for _ in range(passes):
        chroma = sum((w * c for w, c in zip(weights, neighbors(chroma), strict=True)), torch.zeros_like(chroma)) / norm
    return chroma


def _mixed(rows: tuple[tuple[float, ...], ...], images: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", images.new_tensor(rows), images)


def _solved(rows: tuple[tuple[float, ...], ...], images: Tensor) -> Tensor:
    inverse = torch.linalg.inv(torch.tensor(rows, dtype=torch.float64)).to(images)
    return torch.einsum("ij,bjhw->bihw", inverse, images)
