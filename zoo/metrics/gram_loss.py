"""Style loss: how far the output's Gram matrices are from the style's.

Gatys, Ecker and Bethge, "Image style transfer using convolutional neural networks", CVPR 2016, section 2.2, on
relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of the original VGG-19 with its own preprocessing. The Gram matrix of a
layer with C channels and N = H x W positions is G = F F^T / (C N), and the loss is the squared Frobenius norm of the
difference, summed over the layers with equal weights (Johnson, Alahi and Fei-Fei 2016, section 3.2).

| paper | here | why |
|---|---|---|
| F F^T, divided by 2 C N in the loss | F F^T / (C N), as Johnson et al. | output and style may differ in size |
| average pooling | max pooling, as the network was trained | a metric needs one fixed network |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.config import Config, option
from zoo.metrics.base import FeatureMetric
from zoo.nn.gram import gram


@dataclass(frozen=True)
class GramLossConfig(Config):
    """Options of :class:`GramLoss`."""

    encoder: str = option("vgg19", "Feature network.")
    taps: tuple[str, ...] = option(("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), "Layers compared.")
    pool: Literal["max", "avg"] = option("max", "Pooling of the feature network.")


class GramLoss(FeatureMetric):
    """Squared distance of the Gram matrices of output and style, summed over layers; 0 for equal statistics."""

    Config = GramLossConfig
    config: GramLossConfig

    def _grams(self, image: Tensor) -> list[Tensor]:
        features = self.encoder(image)
        return [gram(features[tap].float(), "chw")[0].double() for tap in self.config.taps]

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        wanted, found = self.remember(style, self._grams), self._grams(output)
        return torch.stack([(a - b).square().sum() for a, b in zip(found, wanted, strict=True)]).sum()
