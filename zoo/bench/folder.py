"""A results folder: who may write into it, under which conditions it was measured, and what lies where.

rows.jsonl    every measured number (zoo.bench.rows)
run.json      the resolved protocol, the conditions, and one entry per run with its environment
table.*       what zoo.report makes of the rows; sheet.jpg: the pictures side by side, of 20 pairs at most
tables/       every table in every form (zoo report), beside figures/ and page/
outputs/      pictures as the methods gave them, prepared inputs, the lock; not for version control
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
from pydantic import BaseModel, ConfigDict

from zoo import files
from zoo.bench.plan import Cell
from zoo.bench.rows import Row, read_rows
from zoo.errors import ProtocolError

_RESULTS = ("rows.jsonl", "table.csv", "table.md", "table.tex", "sheet.jpg", "tables", "figures", "page", "run.json")
_LOCK = ".lock"
# A picture, and what lies beside it where it is the last frame of a film.
KINDS = (".png", ".mp4", ".jpg", ".json")


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Image(_Part):
    name: str
    sha256: str


class _Resolved(_Part):
    contents: list[_Image]
    styles: list[_Image]
    pairs: list[tuple[str, str]]
    sizes: list[int]
    resize: str
    seeds: list[int]
    strengths: list[float]
    timing: dict[str, Any]
    baselines: list[str]


class _Identity(_Part):
    id: str
    resolved: _Resolved


class _Conditions(_Part):
    version: str
    device: str
    precision: str
    threads: int
    machine: str


class _Environment(_Part):
    source: str
    usable_cores: int


class _Entry(_Part):
    run_id: str
    started: str
    environment: _Environment


class _RunFile(_Part):
    """What everything that reads a run.json relies on; it holds more."""

    protocol: _Identity
    conditions: _Conditions
    runs: list[_Entry]


class Folder:
    """The paths of one results folder and its run.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = path / "rows.jsonl"
        self.run = path / "run.json"
        self.outputs = path / "outputs"

    def output(self, cell: Cell) -> Path:
        """Where a cell's picture goes."""
        return self.outputs / cell.filename

    def made(self, cell: Cell) -> list[Path]:
        """What there is of a cell: its picture and, of a film, what lies beside it."""
        return [path for kind in KINDS if (path := self.output(cell).with_suffix(kind)).exists()]

    def input(self, role: str, name: str, size: int) -> Path:
        """Where the prepared content or style of a size lies: what every method and metric is given."""
        return self.outputs / "inputs" / f"{role}__{name}__{size}.png"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and keep every other run out; ProtocolError where one is in it already."""
        try:
            (self.outputs / "inputs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProtocolError(
                f"The results folder {self.path} cannot be made ({error.strerror}): choose another --out."
            ) from error
        lock = filelock.FileLock(self.outputs / _LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ProtocolError(
                f"Another run is writing into {self.path}: wait for it, or choose another --out."
            ) from None
        except OSError as error:
            raise ProtocolError(
                f"The results folder {self.path} cannot be written ({error.strerror}): choose another --out."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def set_aside(self, stamp: str) -> None:
        """Move everything measured here into ``earlier-STAMP``; nothing is deleted."""
        # Pictures first, run.json last: killed in between, what is left is seen and moved by the next.
        present = [
            path for path in self.outputs.iterdir() if path.name != _LOCK and (path.is_file() or any(path.iterdir()))
        ]
        present += [self.path / name for name in _RESULTS if (self.path / name).exists()]
        if not present:
            return
        target = self.path / f"earlier-{stamp}"
        try:
            (target / "outputs").mkdir(parents=True)
            for path in present:
                shutil.move(path, target / path.relative_to(self.path))
            (self.outputs / "inputs").mkdir(exist_ok=True)
        except OSError as error:
            raise ProtocolError(f"Earlier results in {self.path} cannot be moved: {error}.") from error

    def retire(self, stamp: str, wanted: Callable[[Row], bool], *, with_picture: Callable[[Row], bool]) -> None:
        """Move the ``wanted`` rows, those ``with_picture`` with theirs, into ``earlier-STAMP``, to be made anew.

        Nothing is deleted: the rows are in two places before they are in one.
        """
        rows = read_rows(self.rows)
        retired = [row for row in rows if wanted(row)]
        if not retired:
            return
        target = self.path / f"earlier-{stamp}"
        cells = {Cell.of(row) for row in retired if with_picture(row) and row.content is not None}
        try:
            (target / "outputs").mkdir(parents=True)
            shutil.copyfile(self.run, target / self.run.name)
            write_rows(target / self.rows.name, retired)
            for path in [path for cell in cells for path in self.made(cell)]:
                shutil.move(path, target / "outputs" / path.name)
        except OSError as error:
            raise ProtocolError(f"Earlier results in {self.path} cannot be moved: {error}.") from error
        write_rows(self.rows, [row for row in rows if not wanted(row)])

    def read_run(self) -> dict[str, Any] | None:
        """run.json, or None where nothing was measured; ProtocolError where it is damaged or missing beside rows."""
        try:
            text = self.run.read_bytes()
            _RunFile.model_validate_json(text)
            data: dict[str, Any] = json.loads(text)
            for described in (data["conditions"], *(run["environment"] for run in data["runs"])):
                # As it was written until one core became singular.
                if described.get("machine", "").endswith(", 1 cores"):
                    described["machine"] = described["machine"].removesuffix("s")
            return data
        except FileNotFoundError:
            if self.rows.exists() and self.rows.stat().st_size:
                raise ProtocolError(
                    f"{self.path} holds rows without the run.json that says how they were measured: "
                    "restore it, or set the rows aside with --fresh."
                ) from None
            return None
        except (OSError, ValueError) as error:
            raise ProtocolError(f"{self.run} is damaged: restore it, or start over with --fresh.") from error

    def write_run(self, data: dict[str, Any]) -> None:
        """Replace run.json in one move."""
        write_text(self.run, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def check_same(found: Mapping[str, Any], conditions: Mapping[str, Any], where: Path) -> None:
    """ProtocolError where a folder was measured under other conditions than now asked for."""
    for name, value in conditions.items():
        old = found.get(name)
        if old != value:
            raise ProtocolError(
                f"{where} was measured with {name} {old}, and this is {name} {value}: numbers of both cannot stand in "
                "one table. Choose another --out, or set the old ones aside with --fresh."
            )


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace a file of rows in one move; ProtocolError where it cannot be written."""
    write_text(path, "".join(row.to_json() + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file in one move; ProtocolError where it cannot be written."""
    files.write(path, text, ProtocolError)


def place(source: Path, target: Path, *, replace: bool = False) -> None:
    """Put a file of another folder here in one move: the same file under another name where the disk can, else a copy.

    What is there already stays unless it is to be replaced. ProtocolError where it cannot be written.
    """
    if target.exists() and not replace:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    files.place(source, target, ProtocolError)
