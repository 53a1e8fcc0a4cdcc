"""Training: one loop for every trainable method (trainer.py), its data (data.py), what a method supplies (task.py), and
what a run leaves behind (export.py).

Names load on first use: a method's file imports task.py, and must not bring Lightning Fabric and matplotlib with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.training.data import ImageSet, find_images
    from zoo.training.export import read_metadata, write_card
    from zoo.training.progress import TrainProgress, TrainResult, TrainState
    from zoo.training.task import TrainConfig, TrainingTask
    from zoo.training.trainer import train

_HOMES = {
    "ImageSet": "data",
    "find_images": "data",
    "read_metadata": "export",
    "write_card": "export",
    "TrainConfig": "task",
    "TrainingTask": "task",
    "TrainProgress": "progress",
    "TrainResult": "progress",
    "TrainState": "progress",
    "train": "trainer",
}

__all__ = [
    "ImageSet",
    "TrainConfig",
    "TrainProgress",
    "TrainResult",
    "TrainState",
    "TrainingTask",
    "find_images",
    "read_metadata",
    "train",
    "write_card",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"zoo.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'zoo.training' has no attribute {name!r}")
