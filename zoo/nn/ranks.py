"""Values moved to a given distribution by their ranks: exact histogram matching of every channel.

The k-th smallest of a channel becomes the k-th smallest of the wanted distribution (Zhang et al., *Exact Feature
Distribution Matching*, CVPR 2022, equation 7), so that the two distribution functions are equal, ties included.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from zoo.nn.fast import in_order, ranked


def quantiles(features: Tensor, region: Tensor | None = None) -> Tensor:
    """Return each channel's values in order, (C, n) float32, of features (1, C, h, w).

    ``region`` (h, w) in [0, 1] restricts them to the positions of at least half its largest weight.
    """
    return in_order(values_in(features, region))


def values_in(features: Tensor, region: Tensor | None) -> Tensor:
    """Return the values (C, n), float32, of features (1, C, h, w) in a region, as :func:`quantiles` takes it."""
    values = features[0].flatten(1).float().contiguous()
    return values if region is None else values[:, selected(region)]


def selected(region: Tensor) -> Tensor:
    """Return which positions (h * w,) of a region (h, w) count as inside; none where it is empty."""
    weights = region.flatten()
    return (weights >= 0.5 * weights.max()) & (weights > 0)


def by_rank(values: Tensor, wanted: Tensor) -> Tensor:
    """Return ``values`` (C, n) with the distribution ``wanted`` (C, m), sorted, and each channel's order kept.

    Of equals the earlier gets the smaller value. Where ``m`` is not ``n``, quantiles are interpolated linearly.
    """
    count = values.shape[1]
    if wanted.shape[1] != count:
        wanted = F.interpolate(wanted[None], size=count, mode="linear", align_corners=True)[0]
    return ranked(values, wanted.to(values.dtype))
