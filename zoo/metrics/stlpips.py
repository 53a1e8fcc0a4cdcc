"""ST-LPIPS: how different output and content look, to networks that do not mind a shift nobody sees.

Ghildyal and Liu, "Shift-tolerant perceptual similarity metric", ECCV 2022: the distance of LPIPS (Zhang et al. 2018,
equation 1: features of five layers at unit length over channels, squared differences weighed per channel, averaged over
positions, summed over layers) on AlexNet or VGG-16 rebuilt so that a pixel of shift costs little. Nothing is
subsampled but by a blur, [1, 2, 1] / 4 along both axes at every second pixel of a border reflected by two: after the
first convolution of AlexNet, which the paper takes at every pixel, and after each max-pooling, which moves by one.
Trunk and heads were trained together on the human judgements of BAPPS, from random weights. The numbers are not those
of LPIPS and must not stand in one column with them.

The weights are the authors' own, in their package stlpips-pytorch 0.0.2 (BSD-2-Clause; the network below is written
anew, because parts of the package's code may not be used commercially), so nothing is downloaded for this metric.
Images in [0, 1] are mapped to [-1, 1] and then to the networks' input, whose shift and scale lie beside the weights.

| reference | here | why |
|---|---|---|
| the mean over positions in float32 | float64 | values down to 1e-3 matter |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.config import Config, option
from zoo.errors import InputError
from zoo.metrics.base import Metric
from zoo.weights import read_network

# The convolutions of each slice by their number in the weights, and the border of zeros of the slice's own.
SLICES = {
    "alex": (((0,), 2), ((5,), 2), ((9,), 1), ((11,), 1), ((13,), 1)),
    "vgg": (((0, 2), 1), ((6, 8), 1), ((12, 14, 16), 1), ((20, 22, 24), 1), ((28, 30, 32), 1)),
}
# Which slices begin with a max-pooling, and over how many pixels.
POOLED = {"alex": ((1, 2), 3), "vgg": ((1, 2, 3, 4), 2)}
MIN_SIZE = {"alex": 21, "vgg": 18}  # pixels a side for which every blur has a border to reflect
EPS = 1e-10  # beside the length of a position's features, as in the authors' code


@dataclass(frozen=True)
class STLPIPSConfig(Config):
    """Options of :class:`STLPIPS`."""

    net: Literal["alex", "vgg"] = option("alex", "Trunk: AlexNet or VGG-16, each with its own heads.")


class STLPIPS(Metric):
    """Perceptual distance of output and content, 0 for equal pictures; symmetric.

    Raises DownloadRequiredError where the package that brings the weights is not installed.
    """

    Config = STLPIPSConfig
    config: STLPIPSConfig

    def _build(self) -> None:
        state = read_network(f"stlpips.{self.config.net}")
        self.state = {name: value.to(self.device) for name, value in state.items()}

    def _features(self, image: Tensor) -> list[Tensor]:
        """What each slice gives of ``image`` (1, 3, H, W), at unit length over channels."""
        state, (pooled, window) = self.state, POOLED[self.config.net]
        x = (image * 2 - 1 - state["scaling_layer.shift"]) / state["scaling_layer.scale"]
        found = []
        for index, (numbers, border) in enumerate(SLICES[self.config.net]):
            if index in pooled:
                x = halved(F.max_pool2d(x, window, stride=1))
            for number in numbers:
                name = f"net.slice{index + 1}.{number}"
                x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=border)
                if self.config.net == "alex" and number == 0:
                    x = halved(x)
                x = x.relu()
            found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + EPS))
        return found

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        smallest = MIN_SIZE[self.config.net]
        if min(output.shape[-2:]) < smallest:
            raise InputError(f"ST-LPIPS with {self.config.net} needs images of at least {smallest} pixels a side.")
        pairs = zip(self._features(output), self.remember(content, self._features), strict=True)
        layers = [
            F.conv2d((a - b).square(), self.state[f"lin{index}.model.1.weight"]).double().mean()
            for index, (a, b) in enumerate(pairs)
        ]
        return torch.stack(layers).sum()


def halved(x: Tensor) -> Tensor:
    """``x`` blurred by [1, 2, 1] / 4 along both axes, two means of two, and every second pixel of it."""
    return F.avg_pool2d(F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), 2, stride=1), 2)
