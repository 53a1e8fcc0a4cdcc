"""Motion between neighboring frames, and where it can be trusted.

Reliability is that of Ruder, Dosovitskiy, Brox, *Artistic Style Transfer for Videos*, GCPR 2016, section 4.2, with the
constants of Sundaram, Brox, Keutzer (ECCV 2010). Flow is DIS (Kroeger et al., ECCV 2016) by default: on the stereo pair
of scikit-image its end-point error is 2.6 pixels in 0.13 s, DeepFlow's (Ruder's choice) 2.6 in 3 s.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ConfigError, DataError

Estimator = Literal["dis", "deepflow"]

SMALLEST = 16  # pixels a side of frames whose motion can be estimated: under it OpenCV reads where there is nothing

# Ruder et al., eqs. 5 and 6: forward and backward flow disagree; the flow changes as it does at an object's border.
_DISAGREE, _DISAGREE_FLOOR = 0.01, 0.5
_BORDER, _BORDER_FLOOR = 0.01, 0.002

# Two frames are no longer one shot where less than this share of pixels is reliable, or where even those differ by more
# than 26 levels of 255 on average. On the first frames of carphone 0.83 and more are reliable.
CUT, CUT_ERROR = 0.25, 0.1


class Estimated:
    """Motion there and back between frames, by an estimator of OpenCV; a frame's gray levels serve the next pair too.

    The estimator itself is made anew each time: it costs nothing, and one of small frames remembers the last pair.

    Frames are (1, 3, H, W) float32 RGB in [0, 1] of one size of at least ``SMALLEST`` pixels a side. Raises ConfigError
    for an unknown name, and DataError when it is called where OpenCV or the estimator is not installed.
    """

    def __init__(self, estimator: str = "dis") -> None:
        self.estimator: Estimator = check_estimator(estimator)
        self._grays: deque[tuple[Tensor, np.ndarray]] = deque(maxlen=5)

    def __call__(self, before: Tensor, now: Tensor, early: int = 0, late: int = 1) -> tuple[Tensor, Tensor]:
        """Return the motion (1, 2, H, W), x then y in pixels, from ``before`` to ``now`` and back; numbers of frames
        are not used."""
        first, second = self._gray(before), self._gray(now)
        return self._motion(first, second), self._motion(second, first)

    def _motion(self, first: np.ndarray, second: np.ndarray) -> Tensor:
        flow = _method(self.estimator).calc(first, second, None)
        return torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1)))[None]

    def _gray(self, frame: Tensor) -> np.ndarray:
        for known, gray in self._grays:
            if known is frame:
                return gray
        self._grays.append((frame, gray := _gray(frame)))
        return gray


def _gray(frame: Tensor) -> np.ndarray:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (frame[0].cpu() * weights).sum(0).clamp(0, 1).mul(255).add(0.5).to(torch.uint8).numpy()


def check_estimator(name: str) -> Estimator:
    """Return ``name``; raises ConfigError unless it is an estimator's."""
    if name == "dis" or name == "deepflow":
        return name
    raise ConfigError(f"Motion is estimated by {' or '.join(get_args(Estimator))}, not {name!r}.")


def _method(name: Estimator) -> Any:
    cv2 = require_cv2()
    if name == "dis":
        return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    if not hasattr(cv2, "optflow"):
        raise DataError("DeepFlow needs the package opencv-contrib-python-headless in place of opencv-python-headless.")
    return cv2.optflow.createOptFlow_DeepFlow()


def require_cv2() -> Any:
    """Return the package OpenCV; raises DataError where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise DataError(
            "Motion needs the package opencv-python-headless: run \"pip install 'style-transfer-zoo[video]'\"."
        ) from error
    return cv2


class FlowFiles:
    """Motion that somebody estimated before: a folder of ``forward_1_2.flo`` and ``backward_2_1.flo``, counted from 1.

    The names are those of Ruder's scripts. Call it as an estimator is called, with the numbers of both frames, counted
    from 0. Raises ConfigError for a folder without them, DataError for a file that is missing, damaged or of
    another size.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not any(self.folder.glob("backward_*.flo")):
            raise ConfigError(f"{folder} holds no backward_2_1.flo: name a folder of .flo files, dis or deepflow.")

    def __call__(self, before: Tensor, now: Tensor, early: int, late: int) -> tuple[Tensor, Tensor]:
        """Return (forward, backward) flow between the frames of these numbers."""
        names = f"forward_{early + 1}_{late + 1}.flo", f"backward_{late + 1}_{early + 1}.flo"
        forward, backward = (read_flo(self.folder / name) for name in names)
        for flow, name in zip((forward, backward), names, strict=True):
            if flow.shape[-2:] != now.shape[-2:]:
                raise DataError(
                    f"{self.folder / name} is of {flow.shape[-1]} x {flow.shape[-2]} pixels and the frame of "
                    f"{now.shape[-1]} x {now.shape[-2]}: estimate motion at the size of the frames."
                )
        return forward, backward


def read_flo(path: str | Path) -> Tensor:
    """Return the motion (1, 2, H, W) in a Middlebury ``.flo`` file; raises DataError where it is none."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    if len(data) < 12 or data[:4] != b"PIEH":
        raise DataError(f"{path} is no .flo file: it does not begin with PIEH.")
    width, height = (int(side) for side in np.frombuffer(data, "<i4", 2, 4))
    if width < 1 or height < 1 or len(data) != 12 + 8 * width * height:
        raise DataError(f"{path} is damaged: it says {width} x {height} pixels and holds {len(data)} bytes.")
    flow = np.frombuffer(data, "<f4", 2 * width * height, 12).reshape(height, width, 2)
    return torch.from_numpy(flow.copy()).permute(2, 0, 1)[None]


def warp(image: Tensor, flow: Tensor, *, sharp: bool = False) -> Tensor:
    """Return ``image`` (B, C, H, W) seen from where ``flow`` (1 or B, 2, H, W) points: result(p) = image(p + flow(p)).

    Bilinear, or bicubic where ``sharp``: a picture carried over many frames blurs with every bilinear step. Beyond the
    border the nearest pixel. With the backward flow, this carries the previous frame to this one.
    """
    height, width = image.shape[-2:]
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([xs, ys]).to(flow) + flow
    # Clamped by hand: not every device's grid_sample repeats the border.
    x = (place[:, 0].clamp(0, width - 1) + 0.5) * (2 / width) - 1
    y = (place[:, 1].clamp(0, height - 1) + 0.5) * (2 / height) - 1
    grid = torch.stack([x, y], -1).to(image).expand(image.shape[0], -1, -1, -1)
    mode = "bicubic" if sharp else "bilinear"
    # Two pixels more on every side, so that neither kernel reaches the zeros outside.
    padded = F.pad(image, (2, 2, 2, 2), mode="replicate")
    scale = grid.new_tensor([width / (width + 4), height / (height + 4)])
    return F.grid_sample(padded, grid * scale, mode=mode, padding_mode="zeros", align_corners=False)


def carry(image: Tensor, flow: Tensor) -> Tensor:
    """Return what :func:`warp` does of one image (1, C, H, W), by Lanczos' kernel of 8 x 8 pixels, on the CPU.

    For pictures that are carried on and on: bilinear steps blur a film within six frames. May leave [0, 1] at edges.
    """
    cv2 = require_cv2()
    height, width = image.shape[-2:]
    place = flow[0].cpu().float().numpy()
    x = np.arange(width, dtype=np.float32) + place[0]
    y = np.arange(height, dtype=np.float32)[:, None] + place[1]
    pixels = image[0].cpu().permute(1, 2, 0).contiguous().numpy()
    moved = cv2.remap(pixels, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(moved.reshape(pixels.shape)).permute(2, 0, 1)[None].contiguous()


def reliability(forward: Tensor, backward: Tensor) -> Tensor:
    """Return (1, 1, H, W), 1 where the ``backward`` flow from this frame to the previous one can be trusted, else 0.

    ``forward`` is the flow from the previous frame to this one. Untrusted are pixels whose way there and back does not
    end where it began (they were hidden before), that come from outside the frame, and that lie at a border of motion.
    """
    there = warp(forward, backward)
    apart = (there + backward).square().sum(1, keepdim=True)
    lengths = there.square().sum(1, keepdim=True) + backward.square().sum(1, keepdim=True)
    steps = _gradient(backward)
    untrusted = (apart > _DISAGREE * lengths + _DISAGREE_FLOOR) | (
        steps > _BORDER * backward.square().sum(1, keepdim=True) + _BORDER_FLOOR
    )
    height, width = backward.shape[-2:]
    x = torch.arange(width).to(backward) + backward[:, 0]
    y = torch.arange(height).to(backward)[:, None] + backward[:, 1]
    outside = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    return (~(untrusted | outside[:, None])).to(backward)


def _gradient(flow: Tensor) -> Tensor:
    """Squared length of both components' gradients, by central differences, (1, 1, H, W)."""
    padded = F.pad(flow, (1, 1, 1, 1), mode="replicate")
    along_x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    along_y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return (along_x.square() + along_y.square()).sum(1, keepdim=True)


def is_cut(before: Tensor, now: Tensor, backward: Tensor, trusted: Tensor) -> bool:
    """Return whether motion explains so little of the frame ``now`` that a new shot begins.

    Frames are (1, 3, H, W) in [0, 1]; ``trusted`` is the :func:`reliability` of the ``backward`` flow.
    """
    share = float(trusted.mean())
    if share < CUT:
        return True
    error = (warp(before, backward) - now).abs().mean(1, keepdim=True)
    return float((error * trusted).mean()) / share > CUT_ERROR


__all__ = [
    "CUT",
    "CUT_ERROR",
    "SMALLEST",
    "Estimated",
    "Estimator",
    "FlowFiles",
    "carry",
    "check_estimator",
    "is_cut",
    "read_flo",
    "reliability",
    "require_cv2",
    "warp",
]
