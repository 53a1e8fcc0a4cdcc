"""Regions of an image, carried from pixels down to the positions of a feature map."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from zoo.device import exact


def feature_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (K, H, W) in [0, 1] as weights (K, h, w) at ``size``, by area.

    Where regions overlap they share a position in proportion; where no region covers one, all weights are zero there
    and the caller leaves the content as it is.
    """
    # On the CPU beside an MPS device, which pools only where one size divides the other.
    weights = F.adaptive_avg_pool2d(exact(masks)[None], size)[0].to(masks.device)
    return weights / weights.sum(dim=0, keepdim=True).clamp_min(1.0)


def bounding_box(region: Tensor, reach: int | None, cell: int = 1) -> tuple[slice, slice]:
    """Rows and columns of all that the features of a region (h, w) depend on: its bounding box, ``reach`` wider on
    every side, from a multiple of ``cell``; everything for None. Empty where the region is."""
    height, width = region.shape
    if reach is None:
        return slice(0, height), slice(0, width)
    slices = []
    for axis, length in ((1, height), (0, width)):
        used = region.amax(dim=axis).nonzero()
        if not len(used):
            return slice(0, 0), slice(0, 0)
        slices.append(slice(max(0, int(used[0]) - reach) // cell * cell, min(length, int(used[-1]) + 1 + reach)))
    return slices[0], slices[1]


def label_masks(labels: Tensor) -> dict[int, Tensor]:
    """The region (1, H, W) of each label in ``labels`` (1, 1, H, W) int64: float32, 1 inside and 0 outside."""
    return {int(label): (labels[0] == label).float() for label in labels.unique()}
