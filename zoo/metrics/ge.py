"""GE: global effects, how alike output and style are in colours and in which features occur together.

Wang et al., "Evaluate and improve the quality of neural style transfer", Computer Vision and Image Understanding 207,
2021: half the mean cosine of the Gram matrices of relu2_1, relu3_1, relu4_1 and relu5_1 of VGG-19 with average pooling,
and half the mean cosine of the histograms of R, G and B in 128 bins.

| authors' code (EndyWon/StyleEval) | here | why |
|---|---|---|
| bins between a picture's own darkest and brightest level | between 0 and 1 | bins of two pictures correspond |
| means of blue, green, red taken from red, green, blue | every channel its own mean | what the network was trained on |
| a style of another size is resized | it keeps its size | both statistics are of proportions |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.config import Config, option
from zoo.metrics.base import FeatureMetric, cosine
from zoo.nn.gram import gram

BINS = 128


@dataclass(frozen=True)
class GEConfig(Config):
    """Options of :class:`GE`."""

    encoder: str = option("vgg19", "Feature network.")
    taps: tuple[str, ...] = option(("relu2_1", "relu3_1", "relu4_1", "relu5_1"), "Layers of the Gram matrices.")
    pool: Literal["max", "avg"] = option("avg", "Pooling of the feature network.")


class GE(FeatureMetric):
    """Mean of Gram cosine and histogram cosine of output and style, in [0, 1]; 1 for equal statistics. Symmetric."""

    Config = GEConfig
    config: GEConfig

    def _statistics(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        features = self.encoder(image)
        grams = [gram(features[tap].float(), "hw")[0].double() for tap in self.config.taps]
        return grams, list(histograms(image[0]))

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        ours, theirs = self._statistics(output), self.remember(style, self._statistics)
        parts = [
            torch.stack([cosine(a, b) for a, b in zip(mine, wanted, strict=True)]).mean()
            for mine, wanted in zip(ours, theirs, strict=True)
        ]
        return (parts[0] + parts[1]) / 2


def histograms(image: Tensor) -> Tensor:
    """Shares of the pixels of ``image`` (3, H, W) in 128 equal bins of [0, 1], by channel: (3, 128), float64."""
    bins = (image.flatten(1) * BINS).long().clamp(0, BINS - 1)  # 1 belongs to the last bin
    counts = torch.stack([torch.bincount(channel, minlength=BINS) for channel in bins])
    return counts.double() / bins.shape[1]
