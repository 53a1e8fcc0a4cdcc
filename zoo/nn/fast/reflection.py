"""3x3 convolutions over reflected borders, without a padded copy of the whole map.

Reflection padding keeps dark frames out of the picture (AdaIN and WCT pad every layer so), but as an operation of its
own it reads and writes every map once more: a fifth of the time of a forward pass in bfloat16. Here the convolution
runs with zeros outside, and the four border lines, the only ones that see the padding, are computed again from the few
lines that they need.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.fast.fused import conv_relu, fusible

# Bytes of a map from which a padded copy is slow: larger blocks than glibc's largest mmap threshold come from the
# system page by page every time. Below it, the extra calls for the border cost more than the copy that they save.
_WORTHWHILE = 32 << 20


def reflect(features: Tensor, width: int = 1) -> Tensor:
    """Reflection padding; a side too short to reflect (one pixel, deep in a small image) repeats its edge instead."""
    # Not min(), which would tie a graph that is traced (export) to the order of height and width.
    mode = "reflect" if all(side > width for side in features.shape[-2:]) else "replicate"
    # Under autocast on the CPU torch would pad in float32: twice the bytes, then a cast back.
    with torch.autocast(features.device.type, enabled=False):
        return F.pad(features, (width, width, width, width), mode=mode)


def reflected(conv: nn.Conv2d, features: Tensor, *, relu: bool = False) -> Tensor:
    """``conv`` (3x3, without padding of its own) of ``features`` (B, C, H, W) reflected by one pixel, (B, D, H, W).

    ``relu``: with a ReLU after it, which on the CPU costs nothing that way. Without gradients the border is done on its
    own; with them, or where a hook wants to see the padded input, a padded copy is made. Both agree up to rounding.
    """
    if torch.compiler.is_compiling():
        return plain_reflected(conv, features, relu=relu)  # one graph for all sizes
    small = features.numel() * features.element_size() < _WORTHWHILE or min(features.shape[-2:]) < 2
    hooked = bool(conv._forward_pre_hooks or conv._forward_hooks)
    if torch.is_grad_enabled() or features.device.type != "cpu" or small or hooked:
        padded = reflect(features)
        if relu and fusible(padded) and not hooked:
            return conv_relu(padded, conv.weight, conv.bias)
        output = conv(padded)
        if not relu:
            return output
        # In place also under autograd: a convolution's gradient does not need its own output. A hook may.
        return F.relu(output) if hooked else F.relu_(output)
    convolve = conv_relu if relu else F.conv2d
    weight, bias = conv.weight, conv.bias
    output = convolve(features, weight, bias, padding=1)
    # Lines -1, 0, 1 of the reflected map are lines 1, 0, 1; the last three likewise. Both ends go as one batch.
    lines = torch.cat([features[..., [1, 0, 1], :], features[..., [-2, -1, -2], :]])
    first, last = convolve(F.pad(lines, (1, 1, 0, 0), mode="reflect"), weight, bias).chunk(2)
    output[..., :1, :], output[..., -1:, :] = first, last
    columns = torch.cat([features[..., [1, 0, 1]], features[..., [-2, -1, -2]]])
    first, last = convolve(F.pad(columns, (0, 0, 1, 1), mode="reflect"), weight, bias).chunk(2)
    output[..., :1], output[..., -1:] = first, last
    return output


def plain_reflected(conv: nn.Conv2d, features: Tensor, *, relu: bool = False) -> Tensor:
    """The reference of :func:`reflected`, of a padded copy."""
    output = conv(reflect(features))
    return F.relu_(output) if relu else output
