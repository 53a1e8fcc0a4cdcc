"""What makes two halves of a training one run: the options and images that must agree. And where weights came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import files
from zoo.config import Config
from zoo.errors import ConfigError, WeightsError, reason
from zoo.training.data import ImageSet, short_path, without_folders
from zoo.training.task import TrainConfig, TrainingTask
from zoo.weights import read_state

# Options of a run that its losses depend on, beside the number format: none may change when it goes on.
_KEPT = (
    "batch_size",
    "accumulate",
    "crop",
    "zoom",
    "store",
    "seed",
    "optimizer",
    "lr",
    "schedule",
    "decay",
    "decay_every",
    "warmup",
    "beta2",
    "clip",
    "ema",
)


def identity(
    task: TrainingTask, config: TrainConfig, data: Mapping[str, ImageSet], precision: str, processes: int
) -> dict[str, Any]:
    """Return what must not differ when a run goes on, JSON-ready. Images count by their bytes: where their files are,
    how they are called and when they were copied is nothing to the losses."""
    options = config.to_dict()
    found = {
        "method": task.method,
        "task": without_folders(task.describe()),
        "data": {name: data[name].digest for name in task.sets},
        **{name: options[name] for name in _KEPT},
        "precision": precision,
        "processes": processes,
    }
    # Through JSON and back, because tuples are lists in the file.
    return json.loads(json.dumps(found))


def require_same(folder: Path, saved: str, now: Mapping[str, Any]) -> None:
    """Raise ConfigError, which names what differs, unless the identity ``saved`` by the run in ``folder`` is that of
    ``now``."""
    before = json.loads(saved)
    changed = [told for key in now for told in _differences(key, before.get(key), now[key])]
    if changed:
        raise ConfigError(
            f"The run in {folder} was begun with other {', '.join(changed)}: leave that as it was, or start a new run "
            "from its weights with init_from."
        )


def _differences(name: str, before: Any, now: Any) -> list[str]:
    """Return what differs in words: ``lr (0.001, not 0.01)``, ``task level (2, not 3)``, ``content images``."""
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if name == "data":
            return [f"{key} images" for key in keys]
        return [f"{name} {told}" for key in keys for told in _differences(key, before.get(key), now.get(key))]
    if not all(value is None or isinstance(value, str | int | float) for value in (before, now)):
        return [name]
    old, new = ("none" if value is None else value for value in (before, now))
    return [f"{name} ({old}, not {new})"]


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return a run's checkpoint.pt; WeightsError where the file is something else."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict) or "identity" not in state:
            raise ValueError("it holds something else")
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as a training checkpoint ({reason(error)}): take another, or start the run anew."
        ) from error
    return state


def start_values(path: Path, task: TrainingTask) -> dict[str, Tensor]:
    """Return the weights in a safetensors file; or in a run's checkpoint, with the moving average where it keeps one.

    WeightsError where the file cannot be read as either.
    """
    if path.suffix != ".pt":
        return read_state(path)
    state = read_checkpoint(path)
    if state["ema"] is None:
        return state["network"]
    trained = [name for name, parameter in task.network.named_parameters() if parameter.requires_grad]
    return state["network"] | dict(zip(trained, state["ema"], strict=False))


def weights_named(task: TrainingTask) -> dict[str, Path]:
    """Return the files of weights that the task's options name, by option."""
    config = getattr(task, "config", None)
    options = {**task.describe(), **(config.to_dict() if isinstance(config, Config) else {})}
    return {
        name: Path(value)
        for name, value in options.items()
        if isinstance(value, str) and value.endswith((".safetensors", ".pt", ".pth")) and Path(value).is_file()
    }


def with_digest(path: Path) -> str:
    """Return a file as cards name it: the end of its path, and of which bytes it was."""
    return f"{short_path(path)} (sha256 {files.sha256(path)[:16]})"


def derived_seed(seed: int, *what: object) -> int:
    """Return a seed for one purpose, from the run's: far from those of others, whatever their numbers."""
    text = "/".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")
