"""Checkpoints on this machine: found, fetched when asked, checked by sha256, and read into fp32 tensors.

They lie in ``ZOO_HOME``; :mod:`zoo.download` tells of the environment variables.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.download import Progress, fetch, file_sha256, home, mirrored, offline
from zoo.errors import DownloadRequiredError, WeightsError
from zoo.registry import PACKAGE, Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "checkpoint_path",
    "fetch_checkpoint",
    "home",
    "mirrored",
    "offline",
    "read_state",
    "resolve_checkpoint",
]


def checkpoint_path(label: str, checkpoint: Checkpoint) -> Path:
    """Where a registered checkpoint lies or would lie: in the package, or in ``ZOO_HOME``."""
    if checkpoint.file is not None:
        return PACKAGE / checkpoint.file
    return home() / "checkpoints" / f"{label}-{checkpoint.sha256[:12]}.safetensors"


def resolve_checkpoint(label: str, checkpoint: Checkpoint) -> Path:
    """The file of a registered checkpoint: bundled, or fetched earlier into ``ZOO_HOME``; its sha256 is checked.

    DownloadRequiredError where it would have to be fetched, WeightsError where the file is damaged.
    """
    path = checkpoint_path(label, checkpoint)
    if checkpoint.file is None and not path.exists():
        much = f" ({checkpoint.bytes / 1e6:.1f} MB)"
        raise DownloadRequiredError(
            f"The weights of {label}{much} are not on this machine: run 'zoo weights fetch {label}'."
        )
    if file_sha256(path) != checkpoint.sha256:
        raise WeightsError(
            f"The weights of {label} at {path} are damaged (sha256 differs): "
            + ("reinstall the package." if checkpoint.file else f"run 'zoo weights fetch {label}'.")
        )
    return path


def fetch_checkpoint(label: str, checkpoint: Checkpoint, progress: Progress | None = None) -> Path:
    """The file of a registered checkpoint, fetched into ``ZOO_HOME`` where it is not there or is damaged.

    What an earlier attempt brought is kept and gone on from (HTTP Range); the file appears only once its sha256 is
    right. Processes that want the same file wait for one another. ``progress`` is told (bytes so far, of how many).
    DownloadRequiredError where ``ZOO_OFFLINE`` forbids it, WeightsError where it cannot be fetched or is another file.
    """
    path = checkpoint_path(label, checkpoint)
    if checkpoint.url is None:
        return resolve_checkpoint(label, checkpoint)
    if path.exists() and file_sha256(path) == checkpoint.sha256:
        return path
    fetch(
        f"The weights of {label}",
        checkpoint.url,
        path,
        variable="ZOO_HOME",
        error=WeightsError,
        size=checkpoint.bytes,
        sha256=checkpoint.sha256,
        progress=progress,
    )
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
