"""The generator of texture networks: a pyramid of scales, each with noise, a photograph, or both as its input.

Ulyanov, Lebedev, Vedaldi, Lempitsky, *Texture Networks: Feed-forward Synthesis of Textures and Stylized Images*, ICML
2016, figure 2 (v1 below), and *Improved Texture Networks*, CVPR 2017 (v2); drawn in :mod:`zoo.methods.texture_nets`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.contract import require_tensors
from zoo.errors import UnsupportedError, WeightsError
from zoo.nn.fast import instance_norm
from zoo.nn.tiles import Local, Map, Normalized, Whole, kept

Norm = Literal["batch", "instance"]

CHANNELS = 8  # per scale (section 4.1 of the first paper; pyramid.lua)
NOISE = 3  # channels of noise per scale
_LEAK = 0.01  # of v1's ReLU (Torch7's default, as pyramid.lua leaves it)


class Normalization(nn.Module):
    """Normalisation with a scale and shift per channel: in training over the batch (v1) or each image (v2).

    A trained network normalises every image by itself. The authors' code never leaves training mode and gives the v1
    network one photograph at a time, so its batch is that image. The running statistics tell a checkpoint of v1 from
    one of v2; nothing is computed from them.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        if norm == "batch":
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and hasattr(self, "running_mean")):
            return instance_norm(x, self.weight, self.bias)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=True)

    def by_tiles(self, x: Map, side: int) -> Map:
        """The same of a map of one picture, not in training."""
        return Normalized(x, self.weight, self.bias, side)


class Block(nn.Module):
    """3x3, 3x3, 1x1 convolutions, each with normalisation and ReLU (leaky by ``leak``)."""

    def __init__(self, inputs: int, channels: int, norm: Norm, leak: float, circular: bool) -> None:
        super().__init__()
        self.leak, self.circular = leak, circular
        widths = ((inputs, 3), (channels, 3), (channels, 1))
        # Any, because torch's ModuleList does not say of what it is one; so below.
        self.conv: Any = nn.ModuleList(nn.Conv2d(wide, channels, side) for wide, side in widths)
        self.norm: Any = nn.ModuleList(Normalization(channels, norm) for _ in widths)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.conv, self.norm, strict=True):
            x = F.leaky_relu_(norm(self._convolved(conv, x)), self.leak)
        return x

    def by_tiles(self, x: Map, side: int) -> Map:
        """The same of a map, by tiles of ``side`` pixels."""
        for conv, norm in zip(self.conv, self.norm, strict=True):
            x = Local(functools.partial(self._convolved, conv), x, halo=conv.kernel_size[0] // 2)
            x = Local(functools.partial(F.leaky_relu, negative_slope=self.leak), norm.by_tiles(kept(x, side), side))
        return x

    def _convolved(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        return conv(pad(x, self.circular) if conv.kernel_size == (3, 3) else x)


class Pyramid(nn.Module):
    """The generator. ``scales`` K, coarsest 2^(K-1) times smaller than the image.

    ``inputs``: channels at every scale: 3 of noise (``texture``), 3 of image (``stylise`` in v2), or both (v1).
    ``norm`` ``batch`` goes with leaky ReLU and no bound on the output (v1), ``instance`` with ReLU (v2). ``circular``
    padding, or replication.
    """

    def __init__(self, scales: int, inputs: int, norm: Norm, circular: bool) -> None:
        super().__init__()
        self.scales, self.inputs = scales, inputs
        leak = _LEAK if norm == "batch" else 0.0
        # Level 1 is the coarsest. Normalisation before every join evens out the two sides (section 4.1).
        self.enter: Any = nn.ModuleList(Block(inputs, CHANNELS, norm, leak, circular) for _ in range(scales))
        self.below: Any = nn.ModuleList(Normalization(CHANNELS * i, norm) for i in range(1, scales))
        self.beside: Any = nn.ModuleList(Normalization(CHANNELS, norm) for _ in range(1, scales))
        self.join: Any = nn.ModuleList(
            Block(CHANNELS * (i + 1), CHANNELS * (i + 1), norm, leak, circular) for i in range(1, scales)
        )
        self.out = nn.Conv2d(CHANNELS * scales, 3, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None  # made with one
                nn.init.zeros_(module.bias)
        # Faint structure on mid grey: from saturated pixels the first updates go astray.
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            assert self.out.bias is not None
            nn.init.constant_(self.out.bias, 0.5)
        # Empty and saved with the weights, so that a checkpoint alone says how it pads.
        self.register_buffer("circular" if circular else "replicated", torch.zeros(0))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """The image (B, 3, H, W), linear and near [0, 1], from one input per scale, coarsest first; the finest is
        (B, inputs, H, W), and each scale has exactly half the side of the next."""
        x = self.enter[0](levels[0])
        for i in range(1, self.scales):
            # One name for all: a map that is not needed any more would cost as much memory as the one that is.
            x = self.below[i - 1](_doubled(x))
            x = _joined(x, self.beside[i - 1](self.enter[i](levels[i])))
            x = self.join[i - 1](x)
        return self.out(x)

    def by_tiles(self, image: Tensor, noise: Sequence[Tensor] | None, side: int) -> Map:
        """What :func:`with_image` and this network make of them, in float32 as a map, with no more than tiles of
        ``side`` pixels in memory of what takes more than the image.

        Raises UnsupportedError for circular padding: the first tile would depend on the last.
        """
        if hasattr(self, "circular"):
            raise UnsupportedError("This style's network pads circularly and cannot be computed by tiles.")
        inputs: list[Map] = []
        for k in range(self.scales - 1, -1, -1):
            inputs.append(Local(functools.partial(_pooled, 2**k), Whole(image), down=2**k))
            if noise is not None and self.inputs > NOISE:
                inputs[-1] = Local(_joined, inputs[-1], Whole(noise[self.scales - 1 - k].to(image.device), 2**k))
        x = self.enter[0].by_tiles(inputs[0], side)
        for i in range(1, self.scales):
            # Enlarging changes no moment, so the smaller map is normalised. What blocks give is a step from maps that
            # they keep, and not kept once more; nor has it a name that would keep it until the next one is there.
            x = Local(
                _joined,
                Local(_doubled, self.below[i - 1].by_tiles(x, side), up=2),
                self.beside[i - 1].by_tiles(self.enter[i].by_tiles(inputs[i], side), side),
            )
            x = self.join[i - 1].by_tiles(x, side)
        return Local(lambda part: self.out(part).float(), x)

    @property
    def cell(self) -> int:
        """Sides must be multiples of this."""
        return 2 ** (self.scales - 1)

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> Pyramid:
        """Return the network that fits ``state``, with these weights loaded; WeightsError where none does."""
        first, out = state.get("enter.0.conv.0.weight"), state.get("out.weight")
        if first is None or out is None or first.dim() != 4 or out.dim() != 4:
            raise WeightsError("Not a texture network: the file has no enter.0.conv.0.weight or out.weight.")
        norm: Norm = "batch" if "enter.0.norm.0.running_mean" in state else "instance"
        network = cls(out.shape[1] // CHANNELS, first.shape[1], norm, "circular" in state)
        require_tensors(state, network.state_dict(), "The checkpoint")
        network.load_state_dict(state)
        return network


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _pooled(side: int, image: Tensor) -> Tensor:
    return F.avg_pool2d(image, side) if side > 1 else image


def _joined(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, y], 1)


def pad(x: Tensor, circular: bool) -> Tensor:
    """Pad (B, C, H, W) by one pixel, from the opposite side or by repetition, in the features' own number format."""
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, (1, 1, 1, 1), mode="circular" if circular else "replicate")


def draw(network: Pyramid, batch: int, size: tuple[int, int], generator: torch.Generator | None) -> list[Tensor]:
    """Draw noise U(0, 1) for every scale, coarsest first: (batch, 3, h, w), on the CPU. ``size`` is in whole cells."""
    sides = [(size[0] >> k, size[1] >> k) for k in range(network.scales - 1, -1, -1)]
    return [torch.rand(batch, NOISE, h, w, generator=generator) for h, w in sides]


def with_image(network: Pyramid, image: Tensor, noise: Sequence[Tensor] | None) -> list[Tensor]:
    """Average-pool the image to every scale, and append the noise where the network takes some."""
    levels = [_pooled(2**k, image) for k in range(network.scales - 1, -1, -1)]
    if network.inputs == NOISE or noise is None:
        return levels
    return [
        torch.cat([level, z.to(level).expand(len(level), -1, -1, -1)], 1)
        for level, z in zip(levels, noise, strict=True)
    ]


class OfPhotograph(nn.Module):
    """A pyramid without noise as a function of the photograph, (B, 3, H, W) with sides in multiples of the cell."""

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, images: Tensor) -> Tensor:
        return self.pyramid(with_image(self.pyramid, images, None))


__all__ = [
    "CHANNELS",
    "NOISE",
    "Block",
    "Norm",
    "Normalization",
    "OfPhotograph",
    "Pyramid",
    "draw",
    "pad",
    "with_image",
]
