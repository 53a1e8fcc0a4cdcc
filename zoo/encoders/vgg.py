"""VGG-16 and VGG-19 read by the names of their taps: Simonyan and Zisserman, Very Deep Convolutional Networks, 2015.

Nothing is computed beyond the deepest tap and nothing is kept but the taps. The preprocessing (channel order, range,
division by a deviation) is folded into the first convolution; only the mean is subtracted on its own, because the
zero padding of the first layer happens after that subtraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.encoders import sources
from zoo.encoders.base import Encoder
from zoo.encoders.catalog import EncoderInfo, vgg_layers
from zoo.errors import UnsupportedError
from zoo.nn.fast import conv_relu, fusible, max_pool_relu, reflected

Pool = Literal["max", "avg"]
Padding = Literal["zeros", "reflect"]


class VGG(Encoder):
    """A VGG cut behind its deepest tap.

    ``pool``: ``max`` as trained, or ``avg`` (Gatys et al. 2016, section 2). ``padding``: of the convolutions, zeros as
    trained, or reflection (as AdaIN and WCT run it). ``ceil_mode``: a last odd row or column is pooled on its own
    instead of dropped.
    """

    def __init__(
        self,
        info: EncoderInfo,
        taps: Sequence[str],
        *,
        pool: Pool = "max",
        padding: Padding = "zeros",
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.info, self.name, self.taps = info, info.name, tuple(dict.fromkeys(taps))
        self.pool, self.padding, self.ceil_mode = pool, padding, ceil_mode
        if pool == "avg" and any(tap.startswith("switch") for tap in taps):
            raise UnsupportedError(f"Encoder {info.name} has switches only where it pools by maxima: use pool max.")
        layers = vgg_layers(info.architecture)
        depth = max(layers.index(info.layer(tap)) for tap in self.taps)
        self._layers = layers[: depth + 1]
        source = sources.read(info, [x.label for x in self._layers if x.kind == "conv"])
        self.digest = source.digest
        self._constants = {"mean": torch.tensor(source.mean).view(1, 3, 1, 1)}
        for label, (weight, bias) in source.layers.items():
            self.add_module(f"conv{label}", _frozen_conv(weight, bias, padding))
        self.eval()

    def channels(self, tap: str) -> int:
        return self.info.channels(tap)

    def stride(self, tap: str) -> int:
        return self.info.stride(tap)

    def reach(self, tap: str) -> int:
        last = self._layers.index(self.info.layer(tap))
        return sum(layer.stride for layer in self._layers[: last + 1] if layer.kind == "conv")

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def min_size(self) -> int:
        stride = max(layer.stride for layer in self._layers if layer.kind == "conv")
        if self.padding == "reflect":  # mirrors the second row, so the deepest convolution must see two
            return stride + 1 if self.ceil_mode else 2 * stride
        return 1 if self.ceil_mode else self._layers[-1].stride

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self._check(images)
        return self._run((images - self._constants["mean"].to(images.dtype)).to(self._dtype))

    def resume(self, tap: str, features: Tensor) -> dict[str, Tensor]:
        """The deeper taps from the ``features`` (B, C, h, w) at ``tap``, which is behind a ReLU."""
        first = 1 + next(i for i, layer in enumerate(self._layers) if layer.kind == "conv" and layer.taps[1] == tap)
        return self._run(features.to(self._dtype), first)

    def _run(self, x: Tensor, first: int = 0) -> dict[str, Tensor]:
        """Features at every tap, from the input ``x`` of layer number ``first``."""
        features: dict[str, Tensor] = {}
        for index, layer in enumerate(self._layers[first:], first):
            if layer.kind == "pool":
                pooled, switch = layer.taps
                if switch in self.taps:
                    x, features[switch] = F.max_pool2d(x, 2, 2, ceil_mode=self.ceil_mode, return_indices=True)
                else:
                    x = self._pooled(x)
                if pooled in self.taps:
                    features[pooled] = x
                continue
            conv = self.get_submodule(f"conv{layer.label}")
            assert isinstance(conv, nn.Conv2d)
            before, after = layer.taps
            later = self.pool == "max" and after not in self.taps and self._pool_follows(index)
            rectified = before not in self.taps and not later
            if self.padding == "reflect":
                x = reflected(conv, x, relu=rectified)
            elif rectified and fusible(x) and not (conv._forward_pre_hooks or conv._forward_hooks):
                x = conv_relu(x, conv.weight, conv.bias, padding=1)
            else:
                # In place also under autograd: a convolution's gradient does not need its own output.
                x = F.relu_(conv(x)) if rectified else conv(x)
            if before in self.taps:
                features[before] = x
                if layer is self._layers[-1] and after not in self.taps:
                    break
                x = F.relu(x)
            if after in self.taps:
                features[after] = x
        return {tap: features[tap] for tap in self.taps}

    def _pool_follows(self, index: int) -> bool:
        """Whether a pooling comes next that may run before the ReLU; one asked for its switches may not, as of nothing
        but negative values it would find another maximum."""
        following = self._layers[index + 1 : index + 2]
        return bool(following) and following[0].kind == "pool" and following[0].taps[1] not in self.taps

    def _pooled(self, x: Tensor) -> Tensor:
        """``x`` at half the size. The ReLU that nobody has read yet comes after a maximum, over a quarter as much."""
        if self.pool == "avg":
            return F.avg_pool2d(x, 2, 2, ceil_mode=self.ceil_mode)
        return max_pool_relu(x, self.ceil_mode)


def _frozen_conv(weight: Tensor, bias: Tensor, padding: Padding) -> nn.Conv2d:
    """A 3x3 convolution around given tensors: shared with other encoders, so never changed in place."""
    outputs, inputs = weight.shape[:2]
    conv = nn.Conv2d(inputs, outputs, 3, padding=1 if padding == "zeros" else 0, device="meta")
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv
