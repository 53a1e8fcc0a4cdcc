"""Frames of a film made of photographs, and the loss that keeps a network's results together along them.

A photograph and the same one moved, by a motion that is therefore known exactly, are two frames: no films and no flow
network are needed (ReReVST: Wang, Yang, Liu, Liu, *Consistent Video Style Transfer via Relaxation and Regularization*,
TIP 2020, section III-C). The loss is the second frame's distance to the first one's result moved alike (Huang et al.,
*Real-Time Neural Style Transfer for Videos*, CVPR 2017, eq. 5); luminance-aware, what changed in brightness between
the frames may change in the result (Gao et al., *ReCoNet*, ACCV 2018, eq. 6).

| paper | here | why |
|---|---|---|
| pairs of frames of films, flow estimated (Huang, Gao) | photographs, known motion | any folder of them will do |
| a warp of 8 pixels, shifts of 10 (ReReVST's code) | the same, smooth over a quarter of the side | as the code |
| brightness as films have it (Gao) | a factor of 0.8 to 1.25, a shade across the picture | photographs stay |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.video.flow import warp

# daooshee/ReReVST-Code: strength of the warp and of the shift in pixels, deviation of the noise.
_WARP, _SHIFT, _NOISE = 8.0, 10.0, 0.001
_DARKEST = 0.8
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # Gao et al.: BT.709


@dataclass(frozen=True)
class Moved:
    """Second frames ``images`` (B, 3, H, W) of given first ones: the flow ``backward`` (B, 2, H, W) that leads from
    them to the first, and ``trusted`` (B, 1, H, W), 1 where it stays inside."""

    images: Tensor
    backward: Tensor
    trusted: Tensor


def move(images: Tensor, *, brightness: bool = False) -> Moved:
    """Return second frames of ``images`` (B, 3, H, W) in [0, 1], moved at random, with ``brightness`` shaded too.

    Numbers are drawn from the global generator of the CPU.
    """
    count, _, height, width = images.shape
    field = F.interpolate(torch.rand(count, 2, 5, 5) * 2 - 1, (height, width), mode="bicubic", align_corners=True)
    backward = (_WARP * field + _SHIFT * (torch.rand(count, 2, 1, 1) * 2 - 1)).to(images)
    noise = _NOISE * torch.randn(images.shape)
    moved = warp(images, backward) + noise.to(images)
    if brightness:
        corners = torch.empty(count, 1, 2, 2).uniform_(_DARKEST, 1 / _DARKEST)
        moved = moved * F.interpolate(corners, (height, width), mode="bilinear", align_corners=True).to(images)
    x = torch.arange(width).to(backward) + backward[:, 0]
    y = torch.arange(height).to(backward)[:, None] + backward[:, 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return Moved(moved.clamp(0, 1), backward, inside[:, None].to(images))


def temporal_loss(first: Tensor, second: Tensor, images: Tensor, moved: Moved, *, luminance: bool = False) -> Tensor:
    """Return the mean squared change of the results ``first`` and ``second`` of ``images`` and ``moved`` along the
    motion, per trusted pixel and channel; with ``luminance``, of what exceeds the change of the frames' luminance."""
    change = second.float() - warp(first.float(), moved.backward)
    if luminance:
        weights = torch.tensor(_LUMINANCE, device=images.device).view(3, 1, 1)
        change = change - ((moved.images - warp(images, moved.backward)) * weights).sum(1, keepdim=True)
    return (change.square() * moved.trusted).sum() / (3 * moved.trusted.sum()).clamp_min(1)


__all__ = ["Moved", "move", "temporal_loss"]
