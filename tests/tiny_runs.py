"""Training runs of a few updates on a few tiny photographs, for the tests of networks that hold trained styles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.training import ImageSet, TrainingTask, train

QUICK: dict[str, Any] = {
    "batch_size": 2,
    "crop": 32,
    "precision": "fp32",
    "preview_every": 0,
    "log_every": 1,
    "accelerator": "cpu",
    "warmup": 0,
    "zoom": (1.0, 1.0),
}
HELD_OUT = {"content": [torch.rand(1, 3, 40, 36, generator=torch.Generator().manual_seed(2))]}


def run(task: TrainingTask, data: ImageSet, folder: Path, **options: Any) -> Path:
    """Train ``task`` with ``options`` over QUICK; the exported file."""
    config = type(task.defaults).make({**task.defaults.to_dict(), **QUICK, **options})
    with pytest.MonkeyPatch.context() as patch:
        # Drawing takes longer than all of a tiny run.
        patch.setattr("zoo.training.export.plot_losses", lambda folder: None)
        return train(task, config, {"content": data}, folder, held_out=HELD_OUT).folder / "model.safetensors"
