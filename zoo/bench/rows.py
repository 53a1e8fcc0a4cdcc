"""Rows: one measured number, or the reason why there is none, per line of ``rows.jsonl``.

The file only ever grows. A group of rows is one write followed by fsync, so a killed run keeps what it measured; a
last line cut off by the kill is removed when the file is next opened. Where a key occurs twice (a failed cell was
tried again) the later row counts.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import ConfigDict, Field, TypeAdapter

from zoo.errors import ProtocolError

Status = Literal["ok", "failed", "skipped"]
# Why there is no number: a limit (of the machine too), weights or an ability that is not there, arithmetic that left
# the finite numbers, pictures that are missing or damaged, or anything else.
Cause = Literal["memory", "time", "lacking", "numerical", "input", "crash"]
LIMITS: tuple[Cause, ...] = ("memory", "time")
RowKey = tuple[str, str | None, str | None, int, int, float, str]


@dataclass(frozen=True)
class Row:
    """One number and everything needed to say what it is.

    ``method`` is the full label, such as ``gatys.paper[num_steps=50]``; ``precision`` is what ``auto`` became.
    ``content`` and ``style`` are None for what belongs to the whole process (loading, first call) and for a metric of
    all pictures together. ``size`` is the number of the size policy in pixels, 0 where the size is kept. ``samples``
    holds the single timings whose median is ``value``. ``picture`` is the sha256 of a picture's file: beside the
    seconds of a cell (:data:`zoo.bench.measures.PRIMARY`) that of the file the method's result was written to, beside
    the metrics of a sanity row that of the file the harness drew, beside those of a picture made elsewhere that of the
    file that was given (of a set: of their sha256 in order); None elsewhere, and in rows from before it was kept. A row
    that is not ``ok`` has no value, a reason to be read and a ``cause`` to decide by (None in rows from before it was
    kept); one that is ``ok`` has a finite value, and as reason what must be said beside it, if anything.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    run_id: str
    protocol: str
    method: str
    checkpoint: str | None
    encoder: str | None
    precision: str | None
    content: str | None
    style: str | None
    size: int
    seed: int
    strength: float
    metric: str
    value: float | None
    unit: str
    status: Status
    reason: str
    utc: Annotated[str, Field(pattern=r"^\d{4}(-\d\d){2}T\d\d(:\d\d){2}Z$")]
    samples: tuple[float, ...] = ()
    picture: str | None = None
    cause: Cause | None = None

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ProtocolError(f"A row's status is ok, failed or skipped, not {self.status!r}.")
        if (self.status == "ok") != (self.value is not None and math.isfinite(self.value)):
            raise ProtocolError(f"A row that is {self.status} cannot hold the value {self.value}.")
        if self.cause is not None and (self.status == "ok" or self.cause not in get_args(Cause)):
            raise ProtocolError(f"A row that is {self.status} cannot have the cause {self.cause!r}.")

    @property
    def key(self) -> RowKey:
        """What the number is of; a second row with the same key replaces the first."""
        return (self.method, self.content, self.style, self.size, self.seed, self.strength, self.metric)

    def to_json(self) -> str:
        """One line, without its end."""
        data = dataclasses.asdict(self)
        for name in ("picture", "cause"):
            if data[name] is None:
                del data[name]
        # A byte of a file's name that is no text, in a reason say, is no letter of JSON either.
        return json.dumps(data, allow_nan=False, ensure_ascii=False).encode(errors="replace").decode()


_LINE = TypeAdapter(Row)


def utc_now() -> str:
    """The time as rows give it: ``2026-11-21T11:34:56Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp() -> str:
    """The time as names of folders hold it: ``20261121T113456Z``."""
    return utc_now().replace("-", "").replace(":", "")


def latest(rows: Iterable[Row]) -> list[Row]:
    """The rows that count: of several with one key the last, in order of first appearance."""
    found: dict[RowKey, Row] = {}
    for row in rows:
        found[row.key] = row
    return list(found.values())


def read_rows(path: Path) -> list[Row]:
    """Every complete row of a file, without changing it; none where there is no file.

    Raises ProtocolError for a damaged line with its end, and for rows of several protocols.
    """
    rows, _ = _parse(path)
    return rows


def _parse(path: Path) -> tuple[list[Row], int]:
    """The rows and the number of bytes that hold them."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise ProtocolError(f"{path} cannot be read: {error.strerror}.") from error
    rows: list[Row] = []
    good = 0
    for number, line in enumerate(io.BytesIO(data), 1):
        if not line.endswith(b"\n"):  # cut off by a kill
            break
        try:
            rows.append(_LINE.validate_json(line))
        except (ValueError, ProtocolError) as error:
            raise ProtocolError(
                f"{path} is damaged at line {number}: restore it, or measure into another folder."
            ) from error
        good += len(line)
    ids = sorted({row.protocol for row in rows})
    if len(ids) > 1:
        raise ProtocolError(f"{path} mixes rows of the protocols {' and '.join(ids)}: keep one folder per protocol.")
    return rows, good


class RowStore:
    """``rows.jsonl`` open for appending by its one writer; the caller holds the folder's lock."""

    def __init__(self, path: Path) -> None:
        """Open or create the file and cut a torn last line off. Raises ProtocolError (damaged, not writable)."""
        self.path = path
        rows, good = _parse(path)
        self._rows: dict[RowKey, Row] = {row.key: row for row in rows}
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._file, good)
            os.fsync(self._file)
        except OSError as error:
            raise ProtocolError(f"{path} cannot be written: {error.strerror}.") from error
        self._length = good

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; rows can still be read."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def rows(self) -> list[Row]:
        """The rows that count, in order of first appearance."""
        return list(self._rows.values())

    def get(self, key: RowKey) -> Row | None:
        """The row of this key, if there is one."""
        return self._rows.get(key)

    def append(self, rows: Iterable[Row]) -> list[Row]:
        """Write rows and wait until they are on the disk; a row whose key is already ``ok`` is not written again.

        Returns the rows written. Raises ProtocolError where the disk is full; the earlier rows stay intact.
        """
        fresh = [row for row in rows if (old := self._rows.get(row.key)) is None or old.status != "ok"]
        data = "".join(row.to_json() + "\n" for row in fresh).encode()
        if not data:
            return []
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._length)
            raise ProtocolError(
                f"{self.path} cannot be written ({error.strerror}): earlier rows are intact; make room and start again."
            ) from error
        self._length += len(data)
        self._rows.update((row.key, row) for row in fresh)
        return fresh
