"""Exported networks at work: found by name and run by onnxruntime. No torch, whose import takes two seconds.

:mod:`zoo.export` writes these files. Those of trained styles have a name that says, without the network, what is in
them, so that a process which only stylises finds them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.download import home
from zoo.errors import ConfigError, InputError, WeightsError, reason
from zoo.memory import usable_cores
from zoo.modules import package_digest
from zoo.registry import Resolved, source_digest
from zoo.video.ahead import together

# The version of the operators, which every onnxruntime since 1.14 (2023) runs. torch's exporter begins at it.
OPSET = 18
_CPU = Path("/proc/cpuinfo")  # of Linux
# Frames of a film that are made at once at most, and their pixels together: memory for a few frames of 512 x 512.
_FRAMES, _PIXELS = 4, 1 << 20


class OnnxNetwork:
    """An exported file on onnxruntime, on the CPU with ``threads``, or as many as the environment or the machine says.

    Threads that have nothing to do keep their core busy for a while, and leave it where others work ``beside`` them.
    Raises ConfigError without onnxruntime, WeightsError where it cannot read the file, and, called, InputError for a
    picture that is too small.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None, *, beside: bool = False) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(
                "Exported networks run on onnxruntime: run \"pip install 'style-transfer-zoo[onnx]'\"."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or told_threads()  # 0: one per core
        if beside:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise WeightsError(
                f"{path} cannot be read by onnxruntime ({reason(error)}): remove it, or name another file."
            ) from error
        self._min_size = int(self.metadata.get("min_size", "1"))

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) float32 in [0, 1] to the stylised image of the same shape."""
        height, width = image.shape[-2:]
        if min(height, width) < self._min_size:
            raise InputError(
                f"The content is {width} x {height} pixels; this method needs at least {self._min_size} a side."
            )
        (result,) = self._session.run(None, {"image": np.ascontiguousarray(image, dtype=np.float32)})
        return np.asarray(result)


def told_threads() -> int:
    """As many threads as the environment says, or 0."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() else 0


class Made(NamedTuple):
    """A stylized frame: ``image`` (1, 3, H, W) in [0, 1]."""

    image: np.ndarray


class Frames:
    """A film's frames (height, width) by the exported network in the file ``path``: what makes them for
    :func:`zoo.video.record.record` without torch. Raises as :class:`OnnxNetwork`.

    No frame depends on another, so several are made at once, a thread for each: two threads in one frame wait for each
    other, and took 1.6 times the processor's time of two frames.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        threads = told_threads() or usable_cores()
        self._at_once = max(1, min(threads, _FRAMES, _PIXELS // (size[0] * size[1])))
        self._network = OnnxNetwork(path, threads - self._at_once + 1, beside=True)
        self.state: Mapping[str, Any] = {}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on after the frame whose :attr:`state` this is: no frame depends on another."""

    def frames(self, contents: Iterable[np.ndarray], style: None = None, **options: Any) -> Generator[Made, None, None]:
        """Yield each frame of ``contents``, (1, 3, H, W) float32 in [0, 1], stylized; there are no options."""
        yield from together(lambda content: Made(self._network(content)), contents, self._at_once)


def torch_is_quicker(device: str, precision: str) -> bool:
    """Whether torch would run a film on a GPU or in half precision here, as far as the machine tells without it."""
    gpu = shutil.which("nvidia-smi") is not None or os.path.exists("/dev/kfd") or sys.platform == "darwin"
    half = False
    with contextlib.suppress(OSError):
        half = "avx512_bf16" in _CPU.read_text(encoding="utf-8", errors="replace")
    return (device != "cpu" and gpu) or (precision == "auto" and half)


def basis(module: str) -> str:
    """What every exported file of a method in ``module`` depends on: the zoo's code, and a plugin's own, the version of
    torch and that of the operators."""
    own = "" if module.partition(".")[0] == "zoo" else f"{package_digest(module)} "
    return f"{own}{source_digest()} {importlib.metadata.version('torch')} {OPSET}"


def place(label: str, style: str, checkpoint_sha256: str, module: str) -> Path:
    """Where the network of a trained ``style`` of ``label``, a method without options and with its class in ``module``,
    lies once it was exported."""
    digest = hashlib.sha256(f"{basis(module)} {label} {style} {checkpoint_sha256}".encode()).hexdigest()
    return home() / "onnx" / f"{label}-{digest[:16]}.onnx"


def find(resolved: Resolved, styles: list[str]) -> dict[str, Path] | None:
    """The exported networks of trained ``styles``, or None where one of them has not been exported here, or none can
    be run: the folder may be shared with an installation that has onnxruntime."""
    if resolved.checkpoint is None or not set(styles) <= set(resolved.checkpoint.styles):
        return None
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    module = resolved.entry.implementation.partition(":")[0]
    found = {style: place(resolved.label, style, resolved.checkpoint.sha256, module) for style in styles}
    return found if all(path.is_file() for path in found.values()) else None


__all__ = ["OPSET", "Frames", "Made", "OnnxNetwork", "basis", "find", "place", "torch_is_quicker"]
