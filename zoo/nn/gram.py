"""The Gram matrix of a layer's features: which channels are active together, wherever in the image.

Gatys, Ecker, Bethge, *Image Style Transfer Using Convolutional Neural Networks*, CVPR 2016, eq. 3:
G_ij = sum_k F_ik F_jk over the M = H W positions k. Papers differ only in what they divide it by.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from zoo.nn.fast import channel_products

Divisor = Literal["none", "hw", "chw"]

# bfloat16 products come back rounded to 8 bits; sums of this many of them, added in float32, average that out.
_CHUNKS = 8


def gram(features: Tensor, divide_by: Divisor = "hw", region: Tensor | None = None) -> Tensor:
    """Gram matrices (B, C, C), float32 (float64 for float64), of features (B, C, H, W) in any float format and layout.

    ``divide_by``: ``none`` as in the papers' eq. 3, ``hw`` (positions), ``chw`` (all elements of one image).
    Differentiable once; the gradient has the features' format. Channels-last features are read in place.

    ``region`` (H, W) in [0, 1] guides it (Gatys et al. 2017, section 4.1): features are multiplied by it, and sums are
    as large as if its positions, of squares summing to 1, stood for all. Zero where the region is empty.
    """
    channels, height, width = features.shape[1:]
    if region is not None:
        features = features * region.to(features.dtype)
    product: Tensor = _Product.apply(features)
    return product / divisor_of(channels, (height, width), divide_by, region)


def divisor_of(channels: int, size: tuple[int, int], divide_by: Divisor, region: Tensor | None) -> Tensor | float:
    """Return what the products of a map of ``size`` are divided by, in :func:`gram`, which has the other arguments."""
    divisor = {"none": 1, "hw": size[0] * size[1], "chw": channels * size[0] * size[1]}[divide_by]
    return divisor if region is None else divisor * region.square().mean().clamp_min(1e-12)


class _Product(torch.autograd.Function):
    """F F^T, with the backward pass as one product with a symmetric matrix where autograd would make two."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        with torch.autocast(features.device.type, enabled=False):
            return _product(features)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch types ctx by position
        ctx: Any, *grad_outputs: Tensor
    ) -> Tensor:
        (features,), (gradient,) = ctx.saved_tensors, grad_outputs
        matrix = gradient + gradient.mT
        shift = _headroom(matrix, features) if features.dtype == torch.float16 else None
        if shift is not None:
            matrix = torch.ldexp(matrix, shift)
        matrix = matrix.to(features.dtype)
        with torch.autocast(features.device.type, enabled=False):
            # A 1x1 convolution is this product without leaving the features' layout.
            images = [
                F.conv2d(image, weight[:, :, None, None])
                for image, weight in zip(features.split(1), matrix, strict=True)
            ]
        found = images[0] if len(images) == 1 else torch.cat(images)
        return found if shift is None else torch.ldexp(found, -shift[..., None]).to(found.dtype)


def _headroom(matrix: Tensor, features: Tensor) -> Tensor:
    """Powers of two (B, 1, 1) by which ``matrix`` (B, C, C) uses all of float16 and its product with features (B, C, H,
    W) still fits: its entries are gradients of a mean over millions of numbers, most of which float16 takes for zero.
    """
    largest = features.abs().amax(dim=(2, 3)).float()
    bound = torch.maximum((matrix.abs() @ largest[..., None]).amax(dim=(1, 2)), matrix.abs().amax(dim=(1, 2)))
    room = torch.finfo(torch.float16).max / 2
    return torch.log2(room / bound.clamp_min(2.0**-100)).floor()[:, None, None]


def _product(features: Tensor) -> Tensor:
    batch, channels, height, width = features.shape
    if features.dtype in (torch.float32, torch.float64):
        return channel_products(features)
    positions = features.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    if features.device.type == "cuda" and "dtype" in torch.ops.aten.bmm.overloads():  # from torch 2.8
        return torch.bmm(positions.mT, positions, out_dtype=torch.float32)
    total = features.new_zeros((batch, channels, channels), dtype=torch.float32)
    for part in positions.chunk(_CHUNKS, dim=1):
        # A product that comes back in float16 overflows: hundreds, squared, over thousands of positions.
        part = part.float() if part.dtype == torch.float16 else part
        total += part.mT @ part
    return total
