"""Pooling by maxima with the ReLU after it, over a quarter of the numbers, and without the places of the maxima."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def max_pool_relu(x: Tensor, ceil_mode: bool = False) -> Tensor:
    """ReLU of the maxima of the 2x2 blocks of ``x``: (B, C, H, W) to (B, C, H / 2, W / 2), rounded up for
    ``ceil_mode``, where a last odd row or column is pooled on its own."""
    height, width = x.shape[-2:]
    if torch.is_grad_enabled() or x.device.type != "cpu" or (ceil_mode and (height % 2 or width % 2)):
        return plain_max_pool_relu(x, ceil_mode)
    # torch's pooling also finds out which pixel won; in bfloat16 that costs four times the pooling.
    height, width = height - height % 2, width - width % 2
    rows = torch.maximum(x[..., :height:2, :width], x[..., 1:height:2, :width])
    return F.relu_(torch.maximum(rows[..., ::2], rows[..., 1::2]))


def plain_max_pool_relu(x: Tensor, ceil_mode: bool = False) -> Tensor:
    """The reference of :func:`max_pool_relu`."""
    return F.relu_(F.max_pool2d(x, 2, 2, ceil_mode=ceil_mode))
