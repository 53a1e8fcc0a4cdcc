"""Stray hue: the share of the output's pixels whose hue the style hardly has.

A metric of the zoo's own, for a fault that no distance of features shows: a photograph's orange that stays under a blue
style, blue lips in a brown drawing. In CIE L*a*b* (D65, from sRGB) a pixel of chroma above 12 has a hue, in one of 24
bins of 15 degrees that begin at the axis of a*; a greyer pixel has none. A hue is stray where its bin and both
neighbours, around the circle, together hold under 0.4 % of the style's pixels.

Both shares are of all pixels of their picture, grey ones among them: a drawing in ink whose one red seal is less than
0.4 % of the sheet has no hue of its own, and an output of which a tenth strays has the value 0.1 however grey the rest.
The style's pixels do not count by how much of a hue they have, so the value says nothing of how a palette is used.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from skimage.color import rgb2lab
from torch import Tensor

from zoo.metrics.base import Metric

BINS, CHROMA, LEAST = 24, 12.0, 0.004


class StrayHue(Metric):
    """Share of the output's pixels in hues that the style lacks, in [0, 1]; 0 for the style itself. Not symmetric."""

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        return hues(output)[self.remember(style, lacking)].sum()


def hues(image: Tensor) -> Tensor:
    """Share (24,) of the pixels of ``image`` (1, 3, H, W) in each bin of hue, float64 on the CPU; grey ones in none."""
    lab = rgb2lab(image[0].cpu().double().clamp(0, 1).numpy(), channel_axis=0)
    colored = np.hypot(lab[1], lab[2]) > CHROMA
    angles = np.arctan2(lab[2][colored], lab[1][colored]) % math.tau
    # An angle just below zero becomes the whole circle.
    bins = (angles * (BINS / math.tau)).astype(int) % BINS
    return torch.from_numpy(np.bincount(bins, minlength=BINS) / colored.size)


def lacking(image: Tensor) -> Tensor:
    """Which bins (24,) hold, with both neighbours, under 0.4 % of the pixels of ``image``."""
    shares = hues(image)
    # Exactly 0.4 % is not under it, however the three shares round.
    return shares.roll(1) + shares + shares.roll(-1) < LEAST - 1e-9
