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
