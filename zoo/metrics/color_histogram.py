"""Colour histogram distance: how different the colours of output and style are, wherever they stand.

Afifi, Brubaker and Brown, "HistoGAN", CVPR 2021, section 3.1 and equations 1 to 4, used as a metric of style by StyleID
(evaluation/eval_histogan.py): for each of R, G and B a histogram over the logarithms of its ratios to the two other
channels, 64 x 64 bins in [-3, 3], every pixel counted into all bins with an inverse-quadratic kernel of width 0.02 and
weighed by its intensity; the three together sum to 1. The distance of two such histograms is Hellinger's,
|sqrt(H_output) - sqrt(H_style)| / sqrt(2). Pictures larger than 256 are first scaled (bilinear) to 256 x 256.

| authors' code | here | why |
|---|---|---|
| float32 | float64 | the order of pixels must not matter |
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.metrics.base import Metric

BINS, LIMIT, SIGMA, LARGEST = 64, 3.0, 0.02, 256
EPS = 1e-6  # inside logarithms, roots and the sum that normalises, as in the authors' code


class ColorHistogram(Metric):
    """Hellinger distance of the RGB-uv histograms of output and style, in [0, 1]; 0 for equal colours. Symmetric."""

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        difference = histogram(output).sqrt() - self.remember(style, histogram).sqrt()
        return difference.square().sum().sqrt() / math.sqrt(2)


def histogram(image: Tensor) -> Tensor:
    """RGB-uv histogram (3, 64, 64), float64, of ``image`` (1, 3, H, W)."""
    image = image.double().clamp(0, 1)
    if max(image.shape[-2:]) > LARGEST:
        image = F.interpolate(image, size=(LARGEST, LARGEST), mode="bilinear", align_corners=False)
    pixels = image[0].flatten(1)
    intensity = (pixels.square().sum(dim=0) + EPS).sqrt()
    logarithms = (pixels + EPS).log()
    centers = torch.linspace(-LIMIT, LIMIT, BINS, dtype=torch.float64, device=image.device)
    planes = []
    for channel, (first, second) in enumerate(((1, 2), (0, 2), (0, 1))):
        u, v = (_kernel(logarithms[channel] - logarithms[other], centers) for other in (first, second))
        planes.append((intensity[:, None] * u).T @ v)
    counts = torch.stack(planes)
    return counts / (counts.sum() + EPS)


def _kernel(values: Tensor, centers: Tensor) -> Tensor:
    """How much each of ``values`` (N,) counts into each bin, (N, bins)."""
    return 1 / (1 + ((values[:, None] - centers) / SIGMA).square())
