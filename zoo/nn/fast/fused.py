"""A convolution and its ReLU in one pass over memory, on the CPU.

A ReLU of its own reads and writes the whole map once more: at 512 x 512 that is a tenth of the time of a VGG. oneDNN
applies it to every block of the convolution's result while that is still in the processor's cache; torch's compiler
uses the same operator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def _operator() -> Any:
    """oneDNN's convolution with a following function, None in a torch that was built without it."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_convolution_pointwise", None)


OPERATOR = _operator()


def _takes_bf16() -> bool:
    """Whether oneDNN has bfloat16 on this processor; where not, torch's own convolution emulates it."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def conv_relu(features: Tensor, weight: Tensor, bias: Tensor | None, padding: int = 0) -> Tensor:
    """ReLU of ``conv2d(features, weight, bias, padding=padding)``, stride 1: (B, C, H, W) to (B, D, H', W')."""
    if fusible(features):
        return OPERATOR(features, weight, bias, [padding] * 2, [1, 1], [1, 1], 1, "relu", [], "")
    return plain_conv_relu(features, weight, bias, padding)


def plain_conv_relu(features: Tensor, weight: Tensor, bias: Tensor | None, padding: int = 0) -> Tensor:
    """The reference of :func:`conv_relu`."""
    # In place also under autograd: a convolution's gradient does not need its own output.
    return F.relu_(F.conv2d(features, weight, bias, padding=padding))


def fusible(features: Tensor) -> bool:
    """Whether the operator can be used: it has no gradient, knows no autocast, and other devices have their own."""
    return (
        OPERATOR is not None
        and features.device.type == "cpu"
        and (features.dtype == torch.float32 or (features.dtype == torch.bfloat16 and _takes_bf16()))
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
