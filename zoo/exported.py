"""Exported networks at work: found by name and run by onnxruntime. No torch, whose import takes two seconds.

:mod:`zoo.export` writes these files. Those of trained styles have a name that says, without the network, what is in
them, so that a process which only stylises finds them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from pathlib import Path

import numpy as np

from zoo.download import home
from zoo.errors import ConfigError, WeightsError, reason
from zoo.modules import package_digest
from zoo.registry import Resolved, source_digest

# The version of the operators, which every onnxruntime since 1.14 (2023) runs. torch's exporter begins at it.
OPSET = 18


class OnnxNetwork:
    """An exported file on onnxruntime, on the CPU with ``threads``, or as many as the environment or the machine says.

    Raises ConfigError without onnxruntime, WeightsError where it cannot read the file.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(
                "Exported networks run on onnxruntime: run \"pip install 'style-transfer-zoo[onnx]'\"."
            ) from error
        options = onnxruntime.SessionOptions()
        told = os.environ.get("OMP_NUM_THREADS", "")
        options.intra_op_num_threads = threads or (int(told) if told.isdecimal() else 0)  # 0: one per core
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise WeightsError(
                f"{path} cannot be read by onnxruntime ({reason(error)}): remove it, or name another file."
            ) from error

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) float32 in [0, 1] to the stylised image of the same shape."""
        (result,) = self._session.run(None, {"image": np.ascontiguousarray(image, dtype=np.float32)})
        return np.asarray(result)


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


__all__ = ["OPSET", "OnnxNetwork", "basis", "find", "place"]
