"""Who is in a photograph: a mask of persons, by the selfie segmentation network of MediaPipe.

Tkachenka, Grishchenko, Bazarevsky and others, *MediaPipe Selfie Segmentation*, model card, 2021: a MobileNetV3-like
network on 256 x 256 pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from zoo import weights
from zoo.errors import InputError, UnsupportedError
from zoo.images import resize

NETWORK = "selfie.mediapipe"
_SIDE = 256


@lru_cache(maxsize=1)
def _network() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise UnsupportedError("Finding a person needs OpenCV: pip install 'style-transfer-zoo[faces]'.") from error
    return cv2.dnn.readNetFromTFLite(str(weights.path(NETWORK)))


def person(content: Tensor) -> Tensor:
    """Return where persons are in ``content`` (1, 3, H, W) in [0, 1]: (1, 1, H, W) in [0, 1].

    Raises InputError where there is nobody; UnsupportedError without OpenCV, DownloadRequiredError without the network
    (``zoo weights fetch selfie.mediapipe``).
    """
    network = _network()
    small = resize(content.cpu(), (_SIDE, _SIDE)).clamp(0, 1)
    network.setInput(small.numpy())
    found = torch.from_numpy(network.forward()).reshape(1, 1, _SIDE, _SIDE).float()
    mask = resize(found, (content.shape[-2], content.shape[-1])).clamp(0, 1)
    if float((mask > 0.5).float().mean()) < 1e-3:
        raise InputError("No person was found in the content: give the object's mask.")
    return mask.to(content.device)


__all__ = ["NETWORK", "person"]
