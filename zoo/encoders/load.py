"""``load_encoder``: a name becomes a frozen network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch

from zoo import weights
from zoo.device import resolve_device
from zoo.encoders.base import Encoder
from zoo.encoders.catalog import encoder_info
from zoo.encoders.vgg import VGG, Padding, Pool
from zoo.errors import InputError, UnsupportedError


def load_encoder(
    name: str = "vgg19",
    *,
    taps: Sequence[str],
    pool: Pool = "max",
    padding: Padding = "zeros",
    ceil_mode: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Encoder:
    """The encoder ``name``, cut behind the deepest of ``taps``, on ``device`` with weights in ``dtype``.

    ``name``: a VGG of ``zoo.encoders.ENCODERS``, or ``timm:BACKBONE`` for any timm model with feature taps.
    ``taps``: ``relu1_1`` .. ``relu5_4``, ``convB_I`` before the ReLU, ``poolB``, ``switchB`` (where that pooling
    found its maxima); for timm the module names that the backbone lists, or ``stage0`` .. ``stageN``. A tap named
    twice counts once.
    ``pool``, ``padding``, ``ceil_mode``: see :class:`zoo.encoders.vgg.VGG`; a timm backbone stays as it was trained.
    ``dtype``: images are taken in any floating type and cast after the mean is subtracted; features come out in
    ``dtype``. With bfloat16 weights the forward pass needs no autocast, which would cast frozen weights every time.

    Weights are channels-last, so features are too (same shape, other strides); on the CPU encoders of one name share
    them. Raises UnknownNameError (encoder or tap), InputError, UnsupportedError, DownloadRequiredError, WeightsError.
    """
    if isinstance(taps, str) or not taps:
        raise InputError(f"Encoder {name} needs a list of at least one tap, not {taps!r}.")
    if pool not in get_args(Pool) or padding not in get_args(Padding):
        raise InputError(f"Encoder {name}: pool is max or avg and padding zeros or reflect, not {pool}, {padding}.")
    if not dtype.is_floating_point:
        raise InputError(f"Encoder {name} needs a floating dtype, not {dtype}.")
    # Tensors made in inference mode could never take part in a gradient.
    with torch.inference_mode(False):
        if name.startswith(weights.TIMM_PREFIX):
            if (pool, padding, ceil_mode) != ("max", "zeros", False):
                raise UnsupportedError(
                    f"{name} stays as it was trained: use pool max, padding zeros and ceil_mode false with it."
                )
            file = weights.path(name)
            from zoo.encoders.timm_trunk import TimmTrunk

            encoder: Encoder = TimmTrunk(name.removeprefix(weights.TIMM_PREFIX), taps, file)
        else:
            encoder = VGG(encoder_info(name), taps, pool=pool, padding=padding, ceil_mode=ceil_mode)
        return encoder.to(device=resolve_device(device), dtype=dtype)
