"""Mean and covariance of features, and the affine maps that change one pair into another.

Li et al., *Universal Style Transfer via Feature Transforms*, NIPS 2017, section 3.2: whitening removes the content's
covariance, colouring gives it the style's. Both are symmetric square roots of C x C covariances, so a whole transform
is one C x C matrix and one offset; the feature map itself is never decomposed. A region (a mask) restricts the
statistics to the positions inside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import device as devices
from zoo.errors import NumericalError
from zoo.nn.gram import gram

# Directions with less variance are dropped from whitening and colouring: the threshold of the authors' code
# (UniversalStyleTransfer, test_wct.lua), in units of the normalised VGG's features, whose mean is 1.
SMALLEST_EIGENVALUE = 1e-5
# Relative error of an entry of a covariance from float32 sums. As noise in a symmetric C x C matrix it is a variance of
# up to 2 sqrt(C) entries in directions that have none. Of photographs at 384 pixels that is about the threshold above;
# where features are larger, one processor would keep a direction that another drops.
_ROUNDING = 2.0**-24
# Positions from which a covariance is taken. Weights of a mask are float32, so that two may come as a little less.
_PAIR = 2 * (1 - 1e-6)
# Positions per channel up to which sums are float64.
_FEW = 4
# Features pass through float32 in strips of so many bytes, which stay in the processor's cache: a float32 copy of
# relu1_1 at 1024 x 1024 would be 268 MB, and writing it costs more than the sums over it.
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (C,) and covariance (C, C), float64, of one feature map or region, and how many positions it has.

    ``rounding`` is the variance, a scalar, that the sums' rounding may leave in a direction that has none.
    """

    mean: Tensor
    covariance: Tensor
    count: float
    rounding: Tensor | float = 0.0


def moments(features: Tensor, mask: Tensor | None = None) -> Moments:
    """Moments over the positions of ``features`` (1, C, h, w), weighted by ``mask`` (h, w) in [0, 1] where given; see
    :class:`MomentSums`."""
    sums = MomentSums()
    sums.add(features, mask)
    return sums.moments()


class MomentSums:
    """Gathers the moments of features that come in parts, each with the weights of its positions.

    The covariance is divided by count - 1, as in the authors' code; where fewer than two positions count it is zero,
    and so is the mean where none does. Sums within a strip are float32 (float64 where few positions count, and of
    float32 features at relu1_1), of centred values; across strips float64.
    """

    def __init__(self) -> None:
        self._count = 0.0
        self._mean, self._square = torch.zeros(()), torch.zeros(())
        self._flat = True

    def add(self, features: Tensor, mask: Tensor | None = None) -> None:
        """Count in ``features`` (1, C, h, w), weighted by ``mask`` (h, w) in [0, 1] where given."""
        features, mask = devices.exact(features), None if mask is None else devices.exact(mask)
        channels, height, width = features.shape[1:]
        weights = None if mask is None else mask.to(torch.float32)[None, None]
        count = float(height * width) if weights is None else float(weights.double().sum())
        # With few positions some directions have no variance at all; rounding of float32 sums would give them some.
        # At relu1_1 the flattest direction of a photograph has a hundred-thousandth of the steepest one's variance, and
        # products in float32 whiten it to 0.3 %. There are no digits to save in features of 16 bits.
        flat = channels <= 64 and features.dtype == torch.float32
        exact = torch.float64 if flat or count <= _FEW * channels else torch.float32
        # Sums are taken about a rough mean, of every eighth line, and corrected in the end: one pass instead of two.
        shift = features[:, :, ::8].float().mean(dim=(0, 2, 3)).to(exact)
        total = torch.zeros(channels, dtype=torch.float64, device=features.device)
        square = torch.zeros(channels, channels, dtype=torch.float64, device=features.device)
        for strip in _strips(features):
            part = features[:, :, strip].to(exact) - shift[None, :, None, None]
            if weights is not None:
                root = weights[:, :, strip].to(exact).sqrt()
                total += (part * root.square()).sum(dim=(0, 2, 3)).double()
                part *= root
            else:
                total += part.sum(dim=(0, 2, 3)).double()
            square += gram(part, "none")[0].double()
        offset = total / max(count, 1e-12)
        mean = shift.double() + offset if count > 0 else torch.zeros_like(offset)
        self._join(count, mean, square - count * torch.outer(offset, offset))
        self._flat &= flat

    def _join(self, count: float, mean: Tensor, square: Tensor) -> None:
        """Chan, Golub, LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*, 1979."""
        if self._count == 0:
            self._count, self._mean, self._square = count, mean, square
        elif count > 0:
            total = self._count + count
            apart = mean - self._mean
            self._square = self._square + square + torch.outer(apart, apart) * (self._count * count / total)
            self._mean = self._mean + apart * (count / total)
            self._count = total

    def moments(self) -> Moments:
        """Return the moments of all that was added."""
        if self._count < _PAIR:
            return Moments(self._mean, torch.zeros_like(self._square), self._count)
        covariance, channels = self._square / (self._count - 1), len(self._mean)
        # By the count of all: a map in small parts has the same directions as in one.
        rounds = not self._flat and self._count > _FEW * channels
        entry = _ROUNDING * covariance.trace() / channels if rounds else 0.0
        return Moments(self._mean, covariance, self._count, 2 * math.sqrt(channels) * entry)


def _strips(features: Tensor) -> list[slice]:
    channels, height, width = features.shape[1:]
    rows = max(1, _CHUNK_BYTES // (4 * channels * width))
    return [slice(top, top + rows) for top in range(0, height, rows)]


def whitening(covariance: Tensor, rounding: Tensor | float = 0.0) -> Tensor:
    """Symmetric W (C, C) with W S W = I on the directions that S (C, C, float64) really has; zero on the others.

    ``rounding`` is :attr:`Moments.rounding`. Raises NumericalError where S is not finite.
    """
    return _power(covariance, -0.5, rounding)


def coloring(covariance: Tensor, rounding: Tensor | float = 0.0) -> Tensor:
    """Symmetric square root of a covariance (C, C, float64); ``rounding`` as for :func:`whitening`.

    Raises NumericalError where it is not finite.
    """
    return _power(covariance, 0.5, rounding)


def _power(covariance: Tensor, exponent: float, rounding: Tensor | float) -> Tensor:
    if not torch.isfinite(covariance).all():
        raise NumericalError("The features' covariance is not finite, so it has no square root; try --precision fp32.")
    values, vectors = torch.linalg.eigh(covariance)
    smallest = torch.as_tensor(rounding, dtype=values.dtype, device=values.device).clamp_min(SMALLEST_EIGENVALUE)
    powers = torch.where(values > smallest, values.clamp_min(SMALLEST_EIGENVALUE) ** exponent, 0.0)
    return (vectors * powers) @ vectors.mT


def apply_affine_(features: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """``matrix`` (C, C) times every position of ``features`` (B, C, h, w), plus ``offset`` (C,), in float32; in place.

    Never in 16 bits: entries of a whitening matrix reach 300 and cancel, so that products must be exact beyond the
    features' own rounding. In place because memory that is new to the process comes page by page, which at relu1_1
    takes as long as the products.
    """
    for strip, mapped in _affine_strips(features, matrix, offset):
        features[:, :, strip] = mapped
    return features


def add_affine(total: Tensor, features: Tensor, matrix: Tensor, offset: Tensor, weight: Tensor) -> None:
    """Add that map of ``features`` (B, C, h, w), times ``weight`` (h, w) >= 0, to ``total`` (B, C, h, w, float32).

    Nothing is added where the weight is zero: a map made for the few positions of one region may be beyond the range
    of 16 bits, or infinite, at all others.
    """
    for strip, mapped in _affine_strips(features, matrix, offset):
        share = weight[strip]
        total[:, :, strip] += torch.where(share > 0, mapped * share, 0.0)


def _affine_strips(features: Tensor, matrix: Tensor, offset: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Strips of the mapped features, float32, and the rows where each belongs."""
    kernel, offset = (x.to(torch.float32).to(features.device) for x in (matrix[:, :, None, None], offset))
    for strip in _strips(features):
        with torch.autocast(features.device.type, enabled=False):
            mapped = F.conv2d(features[:, :, strip].float(), kernel, offset)
        yield strip, mapped
