"""Checkpoints on this machine: found, checked by sha256, and read into fp32 tensors."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from zoo.errors import DownloadRequiredError, WeightsError
from zoo.registry import PACKAGE, Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


def home() -> Path:
    """Folder for what the zoo keeps on this machine: ``ZOO_HOME``, else the user's cache folder."""
    return Path(os.environ.get("ZOO_HOME") or platformdirs.user_cache_dir("style-transfer-zoo"))


def resolve_checkpoint(label: str, checkpoint: Checkpoint) -> Path:
    """The file of a registered checkpoint: bundled, or fetched earlier into ``ZOO_HOME``; its sha256 is checked.

    DownloadRequiredError where it would have to be fetched, WeightsError where the file is damaged.
    """
    if checkpoint.file is not None:
        path = PACKAGE / checkpoint.file
    else:
        path = home() / "checkpoints" / f"{label}-{checkpoint.sha256[:12]}.safetensors"
        if not path.exists():
            raise DownloadRequiredError(f"The weights of {label} are not on this machine: fetch them into {path}.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != checkpoint.sha256:
        raise WeightsError(f"The weights of {label} at {path} are damaged (sha256 differs): reinstall or fetch again.")
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """A safetensors file as float32 tensors on the CPU; WeightsError if it is not one."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as a safetensors checkpoint: {error}.") from error
