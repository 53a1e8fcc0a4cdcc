"""Two convolutions at image size, done at half of it: a pixel of each 2 x 2 block is a phase, and phases are channels.

Both are exact, up to rounding, and cheaper where the image has few channels, as at the ends of a feed-forward network:

- a 3x3 convolution of a map upsampled to twice its size sees only 2 x 2 different positions of the small map, so that
  four 2x2 convolutions there, one per phase, do it with 4/9 of the products;
- vector units work on 16 channels at a time, of which a convolution to 3 (RGB) uses 3. Its four phases are 12, by one
  convolution of stride 2 whose kernel is one larger and holds the small one in its four corners.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Which of the two rows of the small map, k - 1 and k, each of three taps falls on: above for the large map's row
# 2k - 1, below for its row 2k.
_ROWS = ((0, 0, 1), (0, 1, 1))


def upsampled(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """``conv`` (3x3, stride 1, no padding of its own) of ``features`` upsampled to nearest neighbours and reflected.

    (B, C, h, w) to (B, D, 2h, 2w), as of ``conv(pad(interpolate(features, scale_factor=2), (1, 1, 1, 1), "reflect"))``.
    """
    falls = torch.tensor(_ROWS, device=conv.weight.device)
    # (phase, tap, row): 1 where the tap of the phase falls on the row.
    onto = F.one_hot(falls, 2).to(conv.weight.dtype)
    weight = torch.einsum("atu,bsv,oits->oabiuv", onto, onto, conv.weight)
    # One line reflected on the large map is one repeated on the small one.
    phases = F.conv2d(F.pad(features, (1, 1, 1, 1), mode="replicate"), weight.flatten(0, 2), _repeated(conv.bias))
    # The first and last line of phases belong to the repeated lines.
    return F.pixel_shuffle(phases, 2)[..., 1:-1, 1:-1]


def in_phases(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """``conv`` (square, stride 1, no padding of its own) of ``features``, where the result has even sides."""
    corners = [F.pad(conv.weight, (right, 1 - right, low, 1 - low)) for low in (0, 1) for right in (0, 1)]
    weight = torch.stack(corners, 1).flatten(0, 1)
    return F.pixel_shuffle(F.conv2d(features, weight, _repeated(conv.bias), stride=2), 2)


def _repeated(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.repeat_interleave(4)


__all__ = ["in_phases", "upsampled"]
