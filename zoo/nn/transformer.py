"""The image transformation network of Johnson et al. 2016 and, with other normalisation, of Dumoulin et al. 2017.

Two convolutions of stride 2 down to a quarter of the side, five residual blocks there, two upsampling convolutions
back (Johnson et al., supplementary material, table 1)::

    conv1 9x9 w     conv2 3x3 2w /2     conv3 3x3 4w /2     res1 .. res5 (a, b) 3x3 4w     up1 3x3 2w x2
    up2 3x3 w x2    out 9x9 3

The paper's width w is 32. What follows each convolution (batch, instance or conditional normalisation) is the caller's:
:meth:`TransformBody.forward` takes it as a function of the layer's name.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.fast import in_phases, reflect, reflected, upsampled
from zoo.nn.tiles import KEPT_ALONE_BYTES, Local, Map, Whole, kept, store

Normalize = Callable[[str, Tensor], Tensor]
Upsampling = Literal["nearest", "transposed"]

RESIDUAL_BLOCKS = 5


class TransformBody(nn.Module):
    """The convolutions. From images (B, 3, H, W) to (B, 3, H, W) before the last non-linearity, any H and W >= 8.

    ``width``: channels of the first layer (32 in both papers). ``upsampling``: ``nearest`` neighbour then a 3x3
    convolution (Dumoulin et al., section 2.2; against the checkerboard of the other), or ``transposed`` convolution
    (Johnson et al.). ``bias``: useless before a normalisation, but the published Johnson checkpoints have it.
    Convolutions pad by reflection. Sides that four does not divide are rounded up inside and the result is cropped.
    """

    def __init__(self, width: int = 32, *, upsampling: Upsampling = "nearest", bias: bool = True) -> None:
        super().__init__()
        self.width = width
        w = width
        self.conv1 = nn.Conv2d(3, w, 9, bias=bias)
        self.conv2 = nn.Conv2d(w, 2 * w, 3, stride=2, bias=bias)
        self.conv3 = nn.Conv2d(2 * w, 4 * w, 3, stride=2, bias=bias)
        for block in range(1, RESIDUAL_BLOCKS + 1):
            for part in "ab":
                self.add_module(f"res{block}{part}", nn.Conv2d(4 * w, 4 * w, 3, bias=bias))
        if upsampling == "transposed":
            self.up1: nn.Module = nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, padding=1, output_padding=1, bias=bias)
            self.up2: nn.Module = nn.ConvTranspose2d(2 * w, w, 3, 2, padding=1, output_padding=1, bias=bias)
        else:
            self.up1 = nn.Conv2d(4 * w, 2 * w, 3, bias=bias)
            self.up2 = nn.Conv2d(2 * w, w, 3, bias=bias)
        self.out = nn.Conv2d(w, 3, 9, bias=bias)

    def channels(self) -> dict[str, int]:
        """Channels that each convolution gives, by its name, in the order they run."""
        w = self.width
        blocks = {f"res{block}{part}": 4 * w for block in range(1, RESIDUAL_BLOCKS + 1) for part in "ab"}
        return {"conv1": w, "conv2": 2 * w, "conv3": 4 * w, **blocks, "up1": 2 * w, "up2": w, "out": 3}

    def forward(self, images: Tensor, normalize: Normalize) -> Tensor:
        height, width = images.shape[-2:]
        x = images
        for name, border in (("conv1", 4), ("conv2", 1), ("conv3", 1)):
            x = F.relu_(normalize(name, self._down(name, border, x)))
        for block in range(1, RESIDUAL_BLOCKS + 1):
            y = F.relu_(normalize(f"res{block}a", self._reflected(f"res{block}a", x)))
            # No ReLU after the sum (Gross and Wilber's variant, as Johnson et al. say).
            x = x + normalize(f"res{block}b", self._reflected(f"res{block}b", y))
        for name in ("up1", "up2"):
            x = F.relu_(normalize(name, self._up(name, x)))
        return normalize("out", self._last(reflect(x, 4)))[..., :height, :width]

    def by_tiles(self, images: Tensor, normalize: Callable[[str, Map], Map], side: int) -> Map:
        """The same as a map, by tiles of ``side`` pixels, with sides rounded up to a multiple of four.

        ``normalize`` takes a layer's name and what it gives as a map. Maps at a quarter of the side are kept, two or
        three at a time, and larger ones where they take no more (:func:`zoo.nn.tiles.kept`); the others are computed
        again for each statistic behind them.
        """
        x: Map = Whole(images)
        for name, border, stride in (("conv1", 4, 1), ("conv2", 1, 2), ("conv3", 1, 2)):
            x = Local(functools.partial(self._down, name, border), x, halo=border, down=stride)
            x = store(x, side) if name == "conv3" else kept(x, side, KEPT_ALONE_BYTES)
            x = Local(F.relu, normalize(name, x))
        whole = store(x, side)
        del x  # and the map before it
        for block in range(1, RESIDUAL_BLOCKS + 1):
            first, second = (functools.partial(self._reflected, f"res{block}{part}") for part in "ab")
            y = Local(F.relu, normalize(f"res{block}a", kept(Local(first, whole, halo=1), side)))
            z = normalize(f"res{block}b", store(Local(second, y, halo=1), side))
            del y
            whole = store(Local(torch.add, whole, z), side, out=whole.tensor)
            del z
        x = whole
        for name in ("up1", "up2"):
            x = kept(Local(functools.partial(self._up, name), x, halo=1, up=2), side, KEPT_ALONE_BYTES)
            x = Local(F.relu, normalize(name, x))
        return normalize("out", Local(lambda part: self._last(reflect(part, 4)), x, halo=4))

    def _down(self, name: str, border: int, x: Tensor) -> Tensor:
        return self.get_submodule(name)(reflect(x.contiguous(memory_format=torch.channels_last), border))

    def _up(self, name: str, x: Tensor) -> Tensor:
        layer = self.get_submodule(name)
        if isinstance(layer, nn.ConvTranspose2d):
            return layer(x)
        if torch.compiler.is_compiling():
            # A fifth off the time of a narrow network in onnxruntime; in bfloat16 torch takes longer that way.
            assert isinstance(layer, nn.Conv2d)
            return upsampled(layer, x)
        return self._reflected(name, F.interpolate(x, scale_factor=2, mode="nearest"))

    def _last(self, x: Tensor) -> Tensor:
        # An eighth off the time of a forward pass on a CPU; a hook on the layer wants the call itself.
        hooked = bool(self.out._forward_pre_hooks or self.out._forward_hooks)
        # Of tiles alone; a traced graph (export) is not to be tied to the sides.
        odd = not torch.compiler.is_compiling() and any(side % 2 for side in x.shape[-2:])
        if torch.is_grad_enabled() or x.device.type != "cpu" or hooked or odd:
            return self.out(x)
        return in_phases(self.out, x)

    def _reflected(self, name: str, x: Tensor) -> Tensor:
        conv = self.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        return reflected(conv, x)


def initialize(body: nn.Module) -> None:
    """Kaiming's start values: every layer keeps the deviation of its input, whatever its fan-in."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            weight = module.weight
            fan_in = (weight.shape[1] if isinstance(module, nn.Conv2d) else weight.shape[0] / 4) * math.prod(
                module.kernel_size
            )
            nn.init.normal_(weight, std=math.sqrt(2 / fan_in))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


__all__ = ["Normalize", "TransformBody", "Upsampling", "initialize"]
