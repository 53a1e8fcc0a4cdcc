"""Two convolutions at image size, done at half of it: a pixel of each 2 x 2 block is a phase, and phases are channels.

Both are exact, up to rounding, and cheaper where the image has few channels, as at the ends of a feed-forward network:

- a 3x3 convolution of a map upsampled to twice its size sees only 2 x 2 different positions of the small map, so that
  four 2x2 convolutions there, one per phase, do it with 4/9 of the products;
- vector units work on 16 channels at a time, of which a convolution to 3 (RGB) uses 3. Its four phases are 12, by one
  convolution of stride 2 whose kernel is one larger and holds the small one in its four corners.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.fast.fused import conv_relu
from zoo.nn.fast.reflection import plain_reflected, reflect

# Which of the two rows of the small map, k - 1 and k, each of three taps falls on: above for the large map's row
# 2k - 1, below for its row 2k.
_ROWS = ((0, 0, 1), (0, 1, 1))


def upsampled(
    conv: nn.Conv2d, features: Tensor, *, relu: bool = False, border: Literal["none", "reflect"] = "none"
) -> Tensor:
    """``conv`` (3x3, stride 1, no padding of its own) of ``features`` upsampled to nearest neighbours and reflected.

    (B, C, h, w) to (B, D, 2h, 2w), with a ReLU after it where ``relu``. ``border``: ``reflect`` for the result as
    (B, D, 2h + 2, 2w + 2), reflected by one pixel, which takes no copy of it.
    """
    # One line reflected on the large map is one repeated on the small one.
    padded = F.pad(features, (1, 1, 1, 1), mode="replicate")
    # A ReLU makes the same of a value, wherever in the map it comes to lie.
    phases = (conv_relu if relu else F.conv2d)(padded, *_phases_of(conv, "oab"))
    large = F.pixel_shuffle(phases, 2)
    # The first and last line of phases belong to the repeated lines.
    if border == "none":
        return large[..., 1:-1, 1:-1]
    large[..., 0, :], large[..., -1, :] = large[..., 2, :], large[..., -3, :]
    large[..., 0], large[..., -1] = large[..., 2], large[..., -3]
    return large


def plain_upsampled(
    conv: nn.Conv2d, features: Tensor, *, relu: bool = False, border: Literal["none", "reflect"] = "none"
) -> Tensor:
    """The reference of :func:`upsampled`."""
    large = plain_reflected(conv, F.interpolate(features, scale_factor=2, mode="nearest"), relu=relu)
    return large if border == "none" else reflect(large)


def upsampled_twice_convolved(conv: nn.Conv2d, last: nn.Conv2d, features: Tensor) -> Tensor:
    """``last`` of the ReLU of ``conv`` of upsampled features, (B, C, h, w) to (B, D, 2h, 2w), without the map between.

    Both are 3x3, stride 1, and see their inputs reflected. Where ``last`` has few outputs (RGB) it costs less on the
    phases of its input than putting them where they belong; its own phases are put there.
    """
    phases = conv_relu(F.pad(features, (1, 1, 1, 1), mode="replicate"), *_phases_of(conv, "abo"))
    (batch, _, height, width), channels = phases.shape, conv.out_channels
    # Cell k holds rows 2k - 1 and 2k. The outermost rows lie beyond the map: reflection makes them rows 1 and 2h - 2,
    # which are in the neighbouring cells, in the same phase.
    cells = phases.view(batch, 2, 2, channels, height, width)
    cells[:, 0, ..., 0, :], cells[:, 1, ..., -1, :] = cells[:, 0, ..., 1, :], cells[:, 1, ..., -2, :]
    cells[:, :, 0, ..., 0], cells[:, :, 1, ..., -1] = cells[:, :, 0, ..., 1], cells[:, :, 1, ..., -2]
    # (output row 2k or 2k + 1, tap, input phase, cell k or k + 1): 1 where that row of that cell is under the tap.
    onto = torch.zeros(2, 3, 2, 2, dtype=last.weight.dtype, device=last.weight.device)
    for row, phase, cell in product((0, 1), repeat=3):
        tap = 2 * cell + phase - row
        if tap in (0, 1, 2):
            onto[row, tap, phase, cell] = 1
    weight = torch.einsum("ptau,qsbv,oits->opqabiuv", onto, onto, last.weight).flatten(3, 5).flatten(0, 2)
    return F.pixel_shuffle(F.conv2d(phases, weight, _repeated(last.bias)), 2)


def plain_upsampled_twice_convolved(conv: nn.Conv2d, last: nn.Conv2d, features: Tensor) -> Tensor:
    """The reference of :func:`upsampled_twice_convolved`."""
    return plain_reflected(last, plain_upsampled(conv, features, relu=True))


def in_phases(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """``conv`` (square, stride 1, no padding of its own) of ``features``, where the result has even sides."""
    corners = [F.pad(conv.weight, (right, 1 - right, low, 1 - low)) for low in (0, 1) for right in (0, 1)]
    weight = torch.stack(corners, 1).flatten(0, 1)
    return F.pixel_shuffle(F.conv2d(features, weight, _repeated(conv.bias), stride=2), 2)


def plain_in_phases(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """The reference of :func:`in_phases`."""
    return conv(features)


def _phases_of(conv: nn.Conv2d, order: Literal["oab", "abo"]) -> tuple[Tensor, Tensor | None]:
    """Weight (4 D, C, 2, 2) and bias (4 D,) of the four phases of ``conv`` of an upsampled map: o output, a b phase."""
    falls = torch.tensor(_ROWS, device=conv.weight.device)
    # (phase, tap, row): 1 where the tap of the phase falls on the row.
    onto = F.one_hot(falls, 2).to(conv.weight.dtype)
    weight = torch.einsum(f"atu,bsv,oits->{order}iuv", onto, onto, conv.weight).flatten(0, 2)
    if conv.bias is None:
        return weight, None
    return weight, conv.bias.repeat(4) if order == "abo" else _repeated(conv.bias)


def _repeated(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.repeat_interleave(4)
