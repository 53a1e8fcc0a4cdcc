"""Training: one loop for every trainable method (trainer.py), its data (data.py), what a method supplies (task.py), and
what a run leaves behind (export.py)."""

from __future__ import annotations

from zoo.training.data import ImageSet, find_images
from zoo.training.export import export_checkpoint, read_metadata, write_card
from zoo.training.task import TrainConfig, TrainingTask
from zoo.training.trainer import TrainProgress, TrainResult, TrainState, train

__all__ = [
    "ImageSet",
    "TrainConfig",
    "TrainProgress",
    "TrainResult",
    "TrainState",
    "TrainingTask",
    "export_checkpoint",
    "find_images",
    "read_metadata",
    "train",
    "write_card",
]
