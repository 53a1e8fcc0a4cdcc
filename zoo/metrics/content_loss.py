"""Content loss: how far the output's deep features are from the content's.

Gatys, Ecker and Bethge, "Image style transfer using convolutional neural networks", CVPR 2016, section 2.1 and
equation 1: squared error of the features at relu4_2 of the original VGG-19 with its own preprocessing.

| paper | here | why |
|---|---|---|
| half the sum of squares | mean of squares | does not grow with the picture, so sizes can be compared |
| average pooling | max pooling, as the network was trained | a metric needs one fixed network |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from zoo.config import Config, option
from zoo.encoders import load_encoder
from zoo.metrics.base import Metric


@dataclass(frozen=True)
class ContentLossConfig(Config):
    """Options of :class:`ContentLoss`."""

    encoder: str = option("vgg19", "Feature network.")
    tap: str = option("relu4_2", "Layer compared.")
    pool: Literal["max", "avg"] = option("max", "Pooling of the feature network.")


class ContentLoss(Metric):
    """Mean squared error of the features of output and content; 0 for equal pictures."""

    Config = ContentLossConfig
    config: ContentLossConfig

    def _build(self) -> None:
        self.encoder = load_encoder(
            self.config.encoder, taps=[self.config.tap], pool=self.config.pool, device=self.device
        )

    def _features(self, image: Tensor) -> Tensor:
        return self.encoder(image)[self.config.tap]

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        return (self._features(output) - self.remember(content, self._features)).double().square().mean()
