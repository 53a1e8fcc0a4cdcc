"""How steady a film is: errors along the motion of the original film, and how measures of its style move.

The warping error is the stability error of Huang et al. (*Real-Time Neural Style Transfer for Videos*, CVPR 2017,
section 4.2): the root of the mean squared difference of a frame and an earlier one warped to it, where the motion can
be trusted. Motion is that of the original film, whose own error tells what part is the estimator's and the scene's.

| paper | here | why |
|---|---|---|
| mean over all pixels | over trusted ones (Lai et al., ECCV 2018, eq. 9) | large occlusions make no film steady |
| values in [0, 1] | levels of 255 | readable |
| ground-truth motion of MPI Sintel | DIS, reliability as Ruder et al. 2016 | needs no download, works on any film |
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.video import flow

LONG = 8  # frames between the two of the long-term error: a third of a second


@dataclass(frozen=True)
class Link:
    """How frame ``late`` of a film follows from ``early``: backward flow and where it can be trusted."""

    early: int
    late: int
    backward: Tensor
    trusted: Tensor


def links(frames: Sequence[Tensor], gap: int = 1, estimator: flow.Estimator = "dis") -> list[Link]:
    """Return the links between frames ``gap`` apart of a film, each (1, 3, H, W) in [0, 1]; none across cuts."""
    found: list[Link] = []
    motion = flow.Estimated(estimator)
    for early in range(len(frames) - gap):
        before, now = frames[early], frames[early + gap]
        forward, backward = motion(before, now)
        trusted = flow.reliability(forward, backward)
        if not flow.is_cut(before, now, backward, trusted):
            found.append(Link(early, early + gap, backward, trusted))
    return found


def errors(frames: Sequence[Tensor], along: Iterable[Link]) -> list[float]:
    """Return the root mean squared error of each link, in levels of 255."""
    return [255 * math.sqrt(_square(frames, link)) for link in along]


def warping_error(frames: Sequence[Tensor], along: Iterable[Link]) -> float:
    """Return the root of the mean over all links of the squared error, in levels of 255; 0 without any link."""
    squares = [_square(frames, link) for link in along]
    return 255 * math.sqrt(statistics.fmean(squares)) if squares else 0.0


def _square(frames: Sequence[Tensor], link: Link) -> float:
    now, before = frames[link.late], frames[link.early]
    if now.shape[-2:] != link.backward.shape[-2:]:
        raise InputError("Motion and frames must have one size.")
    apart = (flow.warp(before, link.backward) - now).square().mean(1, keepdim=True)
    return float((apart * link.trusted).sum() / link.trusted.sum())


def flow_picture(motion: Tensor) -> Tensor:
    """Return a flow (1, 2, H, W) as colors (1, 3, H, W) in [0, 1]: hue its direction, saturation its length."""
    x, y = motion[0]
    length = torch.hypot(x, y)
    share = length / length.max().clamp_min(1.0)
    turn = (torch.atan2(y, x) / (2 * math.pi)) % 1.0
    channels = [(turn * 6 + shift) % 6 for shift in (5.0, 3.0, 1.0)]
    # HSV to RGB with value 1.
    return torch.stack([1 - share * torch.minimum(c, 4 - c).clamp(0, 1) for c in channels])[None]


__all__ = ["LONG", "Link", "errors", "flow_picture", "links", "warping_error"]
