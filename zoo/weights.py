"""Checkpoints on this machine: found, fetched when asked, checked by sha256, and read into fp32 tensors.

Environment: ``ZOO_HOME`` is the folder that keeps what is fetched; ``ZOO_MIRROR`` a base URL that replaces scheme and
host of every checkpoint's URL; ``ZOO_OFFLINE=1`` forbids to contact any host.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import platformdirs

from zoo.errors import DownloadRequiredError, WeightsError
from zoo.registry import PACKAGE, Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 1 << 18
_ATTEMPTS = 4  # of which each must bring something, or it is the last
_TIMEOUT = 30.0  # seconds without a byte


def home() -> Path:
    """Folder for what the zoo keeps on this machine: ``ZOO_HOME``, else the user's cache folder."""
    return Path(os.environ.get("ZOO_HOME") or platformdirs.user_cache_dir("style-transfer-zoo"))


def offline() -> bool:
    """Whether ``ZOO_OFFLINE`` forbids to contact another host."""
    return os.environ.get("ZOO_OFFLINE", "").lower() not in ("", "0", "false", "no")


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
    if _sha256(path) != checkpoint.sha256:
        raise WeightsError(
            f"The weights of {label} at {path} are damaged (sha256 differs): "
            + ("reinstall the package." if checkpoint.file else f"run 'zoo weights fetch {label}'.")
        )
    return path


def fetch_checkpoint(label: str, checkpoint: Checkpoint, progress: Callable[[int, int], None] | None = None) -> Path:
    """The file of a registered checkpoint, fetched into ``ZOO_HOME`` where it is not there or is damaged.

    What an earlier attempt brought is kept and gone on from (HTTP Range); the file appears only once its sha256 is
    right. Processes that want the same file wait for one another. ``progress`` is told (bytes so far, of how many).
    DownloadRequiredError where ``ZOO_OFFLINE`` forbids it, WeightsError where it cannot be fetched or is another file.
    """
    from filelock import FileLock

    path = checkpoint_path(label, checkpoint)
    if checkpoint.url is None:
        return resolve_checkpoint(label, checkpoint)
    if path.exists() and _sha256(path) == checkpoint.sha256:
        return path
    if offline():
        raise DownloadRequiredError(
            f"The weights of {label} are not on this machine and ZOO_OFFLINE forbids fetching them: unset it, or copy "
            f"the file to {path}."
        )
    url = mirrored(checkpoint.url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.exists() and _sha256(path) == checkpoint.sha256:
            return path
        part = path.with_name(path.name + ".part")
        _download(label, url, part, checkpoint.bytes, progress)
        if _sha256(part) != checkpoint.sha256:
            part.unlink()
            raise WeightsError(f"What {url} sent is not the weights of {label} (sha256 differs): nothing was kept.")
        os.replace(part, path)
    return path


def mirrored(url: str) -> str:
    """``url`` with scheme and host replaced by ``ZOO_MIRROR``, where that is set."""
    mirror = os.environ.get("ZOO_MIRROR", "")
    if not mirror:
        return url
    parts = urlsplit(url)
    return mirror.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")


def _download(label: str, url: str, part: Path, size: int, progress: Callable[[int, int], None] | None) -> None:
    """Bring ``part`` to ``size`` bytes, going on from what is there."""
    for attempt in range(1, _ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        if before > size:
            part.unlink()
            before = 0
        if before == size:
            return
        try:
            _receive(url, part, before, size, progress)
            reason = f"it ended after {part.stat().st_size} of {size} bytes"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # another file, shorter than what is here
                part.unlink()
            reason = f"{error.code} {error.reason}"
            if error.code not in (408, 416, 429, 500, 502, 503, 504):
                raise WeightsError(f"The weights of {label} cannot be fetched from {url}: {reason}.") from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        after = part.stat().st_size if part.exists() else 0
        if after == size:
            return
        if after > size:
            part.unlink()
            raise WeightsError(f"What {url} sent is not the weights of {label} (it is longer): nothing was kept.")
        if attempt == _ATTEMPTS or after <= before:
            kept = f"; the {after / 1e6:.1f} MB that came are kept, the same command goes on from there" * bool(after)
            raise WeightsError(f"The weights of {label} cannot be fetched from {url}: {reason}{kept}.")
        time.sleep(0.2 * attempt)


def _receive(url: str, part: Path, begin: int, size: int, progress: Callable[[int, int], None] | None) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        # A server without ranges sends the whole file again.
        going_on = answer.status == 206
        done = begin if going_on else 0
        with part.open("ab" if going_on else "wb") as file:
            while chunk := answer.read1(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, size)
                if done > size:
                    return


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """A safetensors file as float32 tensors on the CPU; WeightsError if it is not one."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as a safetensors checkpoint: {error}.") from error
