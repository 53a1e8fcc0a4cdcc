"""What encoders there are and what their taps look like, known without torch and without loading a weight.

A VGG is five blocks of 3x3 convolutions (Simonyan and Zisserman 2015, table 1: configuration D is VGG-16, E is
VGG-19), each ended by a 2x2 pooling. Taps follow the field's names: ``convB_I`` before the ReLU, ``reluB_I`` after it,
``poolB`` after the pooling that ends block B. ``switchB`` are where that pooling found its maxima, for a decoder that
unpools: indices into the plane of the map before it, int64, as ``torch.nn.functional.max_unpool2d`` takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.errors import UnknownNameError

_CHANNELS = (64, 128, 256, 512, 512)
_DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


@dataclass(frozen=True)
class Layer:
    """One step of a VGG: a convolution with its ReLU (``conv``) or a pooling (``pool``)."""

    kind: Literal["conv", "pool"]
    label: str  # "1_1" for a convolution, "1" for a pooling
    inputs: int
    channels: int
    stride: int  # pixels of the image per step of what comes out

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the taps that this step offers, in the order they are computed."""
        before, after = ("conv", "relu") if self.kind == "conv" else ("pool", "switch")
        return (f"{before}{self.label}", f"{after}{self.label}")


def vgg_layers(architecture: str) -> tuple[Layer, ...]:
    """All steps of ``vgg16`` or ``vgg19``, first to last, without the classifier."""
    layers: list[Layer] = []
    inputs = 3
    for block, (depth, channels) in enumerate(zip(_DEPTHS[architecture], _CHANNELS, strict=True)):
        for index in range(depth):
            layers.append(Layer("conv", f"{block + 1}_{index + 1}", inputs, channels, 2**block))
            inputs = channels
        layers.append(Layer("pool", f"{block + 1}", inputs, channels, 2 ** (block + 1)))
    return tuple(layers)


@dataclass(frozen=True)
class EncoderInfo:
    """The structure of a VGG. ``origin`` is the library whose preprocessing and order of tensors its file has; the file
    itself is described in registry.yaml under the same name."""

    name: str
    architecture: str
    origin: Literal["caffe", "torchvision"]

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of all taps, shallow to deep."""
        return tuple(tap for layer in vgg_layers(self.architecture) for tap in layer.taps)

    def layer(self, tap: str) -> Layer:
        """The step that computes ``tap``; UnknownNameError if there is none."""
        for layer in vgg_layers(self.architecture):
            if tap in layer.taps:
                return layer
        raise UnknownNameError("tap", tap, self.taps, f"Taps of {self.name} are convB_I, reluB_I, poolB and switchB.")

    def channels(self, tap: str) -> int:
        """Number of channels at ``tap``."""
        return self.layer(tap).channels

    def stride(self, tap: str) -> int:
        """Pixels of the image per position at ``tap``, along each side."""
        return self.layer(tap).stride


ENCODERS: dict[str, EncoderInfo] = {
    info.name: info
    for info in (
        EncoderInfo("vgg19", "vgg19", "caffe"),
        EncoderInfo("vgg19.normalised", "vgg19", "caffe"),
        EncoderInfo("vgg19.torchvision", "vgg19", "torchvision"),
        EncoderInfo("vgg16.torchvision", "vgg16", "torchvision"),
    )
}


def encoder_info(name: str) -> EncoderInfo:
    """Return what is known of the VGG ``name`` without loading it; UnknownNameError otherwise.

    A ``timm:`` backbone is described by timm alone, so it is not here: build it with ``load_encoder``.
    """
    if name not in ENCODERS:
        raise UnknownNameError("encoder", name, ENCODERS, "Any timm backbone is 'timm:NAME'.")
    return ENCODERS[name]
