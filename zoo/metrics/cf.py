"""CF: content fidelity, the cosine between the deep features of output and content.

Wang et al., "Evaluate and improve the quality of neural style transfer", Computer Vision and Image Understanding 207,
2021: features of relu4_1 and relu5_1 of VGG-19 with average pooling, each flattened to one vector; the
mean of the two cosines.

| authors' code (EndyWon/StyleEval) | here | why |
|---|---|---|
| means of blue, green, red taken from red, green, blue | every channel its own mean | what the network was trained on |
| another size is resized, to [0, 1] instead of 0 to 255 | sizes must agree | the value would mean nothing |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.config import Config, option
from zoo.metrics.base import FeatureMetric, cosine


@dataclass(frozen=True)
class CFConfig(Config):
    """Options of :class:`CF`."""

    encoder: str = option("vgg19", "Feature network.")
    taps: tuple[str, ...] = option(("relu4_1", "relu5_1"), "Layers compared.")
    pool: Literal["max", "avg"] = option("avg", "Pooling of the feature network.")


class CF(FeatureMetric):
    """Mean cosine of the features of output and content, in [0, 1]; 1 for equal pictures. Symmetric."""

    Config = CFConfig
    config: CFConfig

    def _features(self, image: Tensor) -> list[Tensor]:
        features = self.encoder(image)
        return [features[tap].double().flatten() for tap in self.config.taps]

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        pairs = zip(self._features(output), self.remember(content, self._features), strict=True)
        return torch.stack([cosine(a, b) for a, b in pairs]).mean()
