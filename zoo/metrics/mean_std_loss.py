"""Mean/std loss: how far the output's channel means and deviations are from the style's.

Huang and Belongie, "Arbitrary style transfer in real-time with adaptive instance normalization", ICCV 2017, equation
13: at relu1_1, relu2_1, relu3_1 and relu4_1 of the normalised VGG-19 (padding by reflection, as they run it) the mean
and the standard deviation of every channel over positions, compared with the style's. Squared differences are summed
over channels and layers, as the authors' code does.

| elsewhere | here | why |
|---|---|---|
| the paper prints norms, not their squares | squares | what the authors' code minimises |
| the mean over channels (naoto0804/pytorch-AdaIN) | the sum | the paper's norm is over all channels |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.config import Config, option
from zoo.encoders import load_encoder
from zoo.metrics.base import Metric

STRIP = 1 << 17  # numbers, 1 MiB in float64
EPS = 1e-5  # added to the variance (AdaIN-style, lib/AdaptiveInstanceNormalization.lua)


@dataclass(frozen=True)
class MeanStdLossConfig(Config):
    """Options of :class:`MeanStdLoss`."""

    encoder: str = option("vgg19.normalised", "Feature network.")
    taps: tuple[str, ...] = option(("relu1_1", "relu2_1", "relu3_1", "relu4_1"), "Layers compared.")


class MeanStdLoss(Metric):
    """Squared distance of channel means and deviations of output and style, summed; 0 for equal statistics.

    Symmetric in output and style.
    """

    Config = MeanStdLossConfig
    config: MeanStdLossConfig

    def _build(self) -> None:
        # A backbone of timm pads as it was trained.
        padding = "zeros" if self.config.encoder.startswith("timm:") else "reflect"
        self.encoder = load_encoder(self.config.encoder, taps=self.config.taps, padding=padding, device=self.device)

    def _statistics(self, image: Tensor) -> Tensor:
        """Means and deviations of all channels of all layers, one vector."""
        found = []
        for features in self.encoder(image).values():
            mean, variance = _moments(features)
            found += [mean, (variance + EPS).sqrt()]
        return torch.cat(found)

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        return (self._statistics(output) - self.remember(style, self._statistics)).square().sum()


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over positions (C,), float64, of features (1, C, H, W).

    In float64 the sums of squares have digits to spare; in strips they stay in the processor's cache.
    """
    channels = features.shape[1]
    total = torch.zeros(2, channels, dtype=torch.float64, device=features.device)
    rows = features[0].permute(1, 2, 0).reshape(-1, channels)
    for strip in rows.split(max(1, STRIP // channels)):
        exact = strip.double()
        total[0] += exact.sum(dim=0)
        total[1] += exact.square_().sum(dim=0)
    mean, square = total / len(rows)
    return mean, (square - mean.square()).clamp_min(0)
