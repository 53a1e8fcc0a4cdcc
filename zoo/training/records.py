"""What a run writes down as it goes, and how two runs are kept out of one folder."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import Tensor

from zoo import files, images
from zoo.errors import ConfigError, reason
from zoo.training.task import TrainingTask

_LOCK = ".lock"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder of a run and keep every other run out of it; ConfigError where one is in it already.

    Under a scheduler several processes may be started that do not know of each other. Where the file system has no
    locks nothing is kept out. A folder into which nothing was written is removed again.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({reason(error)}): give another --out.") from error
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ConfigError(f"Another process trains into {folder}: wait for it, or give another --out.") from None
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise ConfigError(f"{folder} cannot be written to ({reason(error)}): give another --out.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            # While it is held: whoever opens it later, opens another.
            os.unlink(folder / _LOCK)
        lock.release()
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def read_run(folder: Path) -> dict[str, Any]:
    """Return run.json of the run in ``folder``, empty where there is none; ConfigError where it is damaged."""
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): start the run anew in another folder.") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{path} is no record of a run: start the run anew in another folder.")
    return record


def write_preview(task: TrainingTask, held_out: Mapping[str, Sequence[Tensor]], path: Path) -> None:
    """Write a sheet of :meth:`TrainingTask.preview`; nothing where the task has none."""
    with torch.no_grad():
        rows = task.preview(held_out)
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        images.write(path, images.contact_sheet([[i.float().cpu() for i in row] for row in rows], cell=192))


class Log:
    """losses.csv, evaluation.csv and TensorBoard of a run that goes on after ``step`` and was last evaluated after
    ``evaluated``: rows beyond these, of a process that was killed, are cut off, for they are written again."""

    def __init__(self, folder: Path, step: int, evaluated: int) -> None:
        self._files: dict[str, io.TextIOWrapper] = {}
        self._writers: dict[str, csv.DictWriter[str]] = {}
        self._folder = folder
        for name, last in (("losses", step), ("evaluation", evaluated)):
            path = folder / f"{name}.csv"
            if path.exists():
                files.write(path, _cut(path.read_text(encoding="utf-8", errors="replace"), last))
        self._board = _board(folder, step)

    def _row(self, name: str, row: Mapping[str, Any]) -> None:
        if name not in self._files:
            path = self._folder / f"{name}.csv"
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            before = csv.DictReader(io.StringIO(text))
            columns = list(dict.fromkeys([*(before.fieldnames or ()), *row]))
            if columns != before.fieldnames:  # held-out images of another set have figures of their own
                whole = io.StringIO(newline="")
                writer = csv.DictWriter(whole, columns, restval="", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(before)
                files.write(path, whole.getvalue())
            self._files[name] = path.open("a", encoding="utf-8", newline="")
            self._writers[name] = csv.DictWriter(self._files[name], columns, restval="")
        self._writers[name].writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})

    def losses(self, step: int, lr: float, row: Mapping[str, float]) -> None:
        """The losses of an update."""
        self._row("losses", {"step": step, "lr": lr, **row})
        if self._board is not None:
            for name, value in {"lr": lr, **row}.items():
                self._board.add_scalar(f"training/{name}", value, step)

    def figures(self, step: int, row: Mapping[str, float]) -> None:
        """The figures of an evaluation."""
        self._row("evaluation", {"step": step, **row})
        self._files["evaluation"].flush()
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(f"held-out/{name}", value, step)

    def flush(self) -> None:
        """Bring everything to the disk: a checkpoint never knows of more than the files hold."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()


def _cut(text: str, step: int) -> str:
    """The header and the whole rows up to ``step``; what a kill or a crash left after them goes."""
    lines = text.splitlines(keepends=True)
    kept = []
    for line in lines[1:]:
        number = line.split(",", 1)[0]
        if not (line.endswith("\n") and number.isascii() and number.isdecimal() and int(number) <= step):
            break
        kept.append(line)
    return "".join([*(lines[:1] if kept else []), *kept])


def _board(folder: Path, step: int) -> Any:
    try:
        str(folder).encode()  # its writer knows no other names
        from torch.utils.tensorboard import SummaryWriter
    except (ImportError, UnicodeEncodeError):
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
