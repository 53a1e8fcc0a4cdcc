"""Convolutions by phases against the convolutions that they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.nn.phases import in_phases, upsampled, upsampled_twice_convolved

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(8, 6), (1, 5)])
@torch.no_grad()
def test_upsampled(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 3, bias=bias)
    features = torch.randn(2, 5, *size)
    large = F.interpolate(features, scale_factor=2, mode="nearest")
    wanted = conv(F.pad(large, (1, 1, 1, 1), mode="reflect"))
    torch.testing.assert_close(upsampled(conv, features), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(8, 6), (1, 5), (1, 1)])
@torch.no_grad()
def test_upsampled_with_a_relu_and_a_reflected_border(size: tuple[int, int]) -> None:
    torch.manual_seed(2)
    conv = nn.Conv2d(5, 7, 3)
    features = torch.randn(2, 5, *size)
    wanted = F.pad(upsampled(conv, features).clamp(min=0), (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(upsampled(conv, features, relu=True, border="reflect"), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(8, 6), (1, 5), (1, 1)])
@torch.no_grad()
def test_upsampled_twice_convolved(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(3)
    conv, last = nn.Conv2d(5, 7, 3, bias=bias).double(), nn.Conv2d(7, 3, 3, bias=bias).double()
    features = torch.randn(2, 5, *size, dtype=torch.float64)
    wanted = last(F.pad(upsampled(conv, features, relu=True), (1, 1, 1, 1), mode="reflect"))
    torch.testing.assert_close(upsampled_twice_convolved(conv, last, features), wanted)
    channels_last = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(upsampled_twice_convolved(conv, last, channels_last), wanted)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [9, 3])
@torch.no_grad()
def test_in_phases(kernel: int, bias: bool) -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(6, 3, kernel, bias=bias)
    features = torch.randn(2, 6, 13 + kernel, 7 + kernel)
    torch.testing.assert_close(in_phases(conv, features), conv(features), atol=1e-5, rtol=1e-5)
    channels_last = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(in_phases(conv, channels_last), conv(features), atol=1e-5, rtol=1e-5)
