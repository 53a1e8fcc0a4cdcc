"""Mean and covariance of features, and the affine maps that change one pair into another.

Li et al., *Universal Style Transfer via Feature Transforms*, NIPS 2017, section 3.2: whitening removes the content's
covariance, colouring gives it the style's. Both are symmetric square roots of C x C covariances, so a whole transform is
one C x C matrix and one offset; the feature map itself is never decomposed. A region (a mask) restricts the statistics
to the positions inside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.gram import gram

# Directions with less variance are dropped from whitening and colouring: the threshold of the authors' code
# (UniversalStyleTransfer, lib/utils.lua), in units of the normalised VGG's features, whose mean is 1.
SMALLEST_EIGENVALUE = 1e-5
# Centred float32 copies are made for so many bytes of positions at a time: a map of relu1_1 at 1024 x 1024 is 268 MB.
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (C,) and covariance (C, C), float64, of one feature map or region, and how many positions it has."""

    mean: Tensor
    covariance: Tensor
    count: float


def moments(features: Tensor, mask: Tensor | None = None) -> Moments:
    """Moments over the positions of ``features`` (1, C, h, w), weighted by ``mask`` (h, w) in [0, 1] where given.

    The covariance is divided by count - 1, as in the authors' code; where fewer than two positions count it is zero,
    and so is the mean where none does. Sums within a chunk are float32, of centred values; across chunks float64.
    """
    channels, height, width = features.shape[1:]
    rows = max(1, _CHUNK_BYTES // (4 * channels * width))
    weights = None if mask is None else mask.to(torch.float32)[None, None]
    count = float(height * width) if weights is None else float(weights.double().sum())

    total = torch.zeros(channels, dtype=torch.float64, device=features.device)
    for top in range(0, height, rows):
        part = features[:, :, top : top + rows].float()
        total += (part if weights is None else part * weights[:, :, top : top + rows]).sum(dim=(0, 2, 3)).double()
    mean = total / max(count, 1e-12)

    covariance = torch.zeros(channels, channels, dtype=torch.float64, device=features.device)
    if count >= 2:
        centre = mean.float()[None, :, None, None]
        for top in range(0, height, rows):
            part = features[:, :, top : top + rows].float() - centre
            if weights is not None:
                part *= weights[:, :, top : top + rows].sqrt()
            covariance += gram(part, "none")[0].double()
        covariance /= count - 1
    return Moments(mean, covariance, count)


def whitening(covariance: Tensor) -> Tensor:
    """Symmetric W (C, C) with W S W = I on the directions that S (C, C, float64) really has; zero on the others."""
    return _power(covariance, -0.5)


def colouring(covariance: Tensor) -> Tensor:
    """Symmetric square root of a covariance (C, C, float64)."""
    return _power(covariance, 0.5)


def _power(covariance: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    powers = torch.where(values > SMALLEST_EIGENVALUE, values.clamp_min(SMALLEST_EIGENVALUE) ** exponent, 0.0)
    # Rounding of float32 sums leaves directions that a map does not have (fewer positions than channels) with
    # eigenvalues of a few 1e-7 of the largest, sometimes above the threshold: they are no part of the map either.
    powers = torch.where(values > 1e-7 * values[-1], powers, 0.0)
    return (vectors * powers) @ vectors.mT


def apply_affine(features: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """``matrix`` (C, C) times every position of ``features`` (B, C, h, w), plus ``offset`` (C,), in float32.

    Never in 16 bits: entries of a whitening matrix reach 300 and cancel, so that products must be exact beyond the
    features' own rounding. Returns the features' format.
    """
    weight = matrix.to(torch.float32)[:, :, None, None]
    with torch.autocast(features.device.type, enabled=False):
        return F.conv2d(features.float(), weight, offset.to(torch.float32)).to(features.dtype)
