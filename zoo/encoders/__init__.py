"""Pretrained feature networks behind one interface: load by name, read by the names of taps.

    encoder = load_encoder("vgg19", taps=("relu1_1", "relu4_1"))
    features = encoder(images)                     # images (B, 3, H, W), RGB in [0, 1]
    features["relu4_1"]                            # (B, 512, H / 8, W / 8)

``encoder_info`` and ``ENCODERS`` need no torch; everything else imports it on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.encoders.catalog import ENCODERS, EncoderInfo, encoder_info

if TYPE_CHECKING:
    from zoo.encoders.base import Encoder
    from zoo.encoders.load import load_encoder

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderInfo",
    "encoder_info",
    "load_encoder",
]

_LAZY = {
    "Encoder": "zoo.encoders.base",
    "load_encoder": "zoo.encoders.load",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
