"""The second stage of a run: scoring the pictures, in one worker process or several at once.

Several are allowed here, where nothing is timed. They share the threads and the memory limit among them, and take the
GPUs in turns where no single one was named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch

from zoo.bench.ledger import Ledger, Loss
from zoo.bench.plan import Scored, SetCell
from zoo.bench.protocol import MetricUse
from zoo.bench.stages import Setting
from zoo.bench.supervise import Worker, WorkerError

# A metric, by its position in the protocol, of a picture or a set.
Piece = tuple[int, Scored]
# Something to write down, or to tell whoever watches; only the thread that owns the ledger calls it.
_Entry = Callable[[Ledger], None]


def score(setting: Setting, ledger: Ledger, pending: Sequence[Piece], jobs: int = 1) -> None:
    """Score what is pending, metric by metric, in up to ``jobs`` processes; a crash costs the picture that caused it.

    What a process was at when it ended is tried once more in a new one, unless it met a limit of its own: whoever
    killed it may have meant another, and the machine's memory may have been taken by another. A set that lacks pictures
    is skipped: over fewer pairs its value would be another.
    """
    ledger.begin("score", len(pending))
    for number, cell in pending:
        if isinstance(cell, SetCell) and cell.missing:
            ledger.score(cell, number, None, Loss("skipped", cell.lacking, "input"))
    parts = share_out([(i, cell) for i, cell in pending if not (isinstance(cell, SetCell) and cell.missing)], jobs)
    if not parts:
        return
    metrics = ledger.protocol.spec.metrics
    if len(parts) == 1:
        entries = _score(setting, metrics, parts[0], _Crew())
    else:
        entries = _at_once([(_part(setting, len(parts), i), metrics, part) for i, part in enumerate(parts)])
    with contextlib.closing(entries):
        for entry in entries:
            entry(ledger)


def share_out(pending: Sequence[Piece], jobs: int) -> list[list[Piece]]:
    """Up to ``jobs`` parts of about as many pixels each; what is of one picture, or of one set, stays in one part."""
    cells = list(dict.fromkeys(cell for _, cell in pending))
    # Pictures of one pair stand together, and metrics remember what they computed of it: cut where the pixels are even.
    pictures = [cell for cell in cells if not isinstance(cell, SetCell)]
    sets = [cell for cell in cells if isinstance(cell, SetCell)]
    pixels = [max(cell.size, 1) ** 2 for cell in pictures]
    before = itertools.accumulate(pixels, initial=0)
    place: dict[Scored, int] = {
        cell: int((start + own / 2) * jobs / sum(pixels))
        for cell, start, own in zip(pictures, before, pixels, strict=False)
    }
    place |= {cell: i % jobs for i, cell in enumerate(sets)}
    parts: list[list[Piece]] = [[] for _ in range(jobs)]
    for number, cell in pending:
        parts[place[cell]].append((number, cell))
    return [part for part in parts if part]


def _part(setting: Setting, jobs: int, index: int) -> Setting:
    device = setting.device
    if device == "cuda":
        device = f"cuda:{index % torch.cuda.device_count()}"
    limits = setting.limits.model_copy(update={"memory": setting.limits.memory / jobs})
    return dataclasses.replace(setting, device=device, threads=max(1, setting.threads // jobs), limits=limits)


class _Crew:
    """The workers at work now, so that all can be ended at once."""

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()

    @contextlib.contextmanager
    def member(self, worker: Worker) -> Iterator[Worker]:
        """A worker for the time of the block."""
        with worker:
            with self._lock:
                self._workers.add(worker)
                if self.ended:  # begun while the others were ended
                    worker.kill()
            try:
                yield worker
            finally:
                with self._lock:
                    self._workers.discard(worker)

    def end(self) -> None:
        """Kill all of them; no other is started after this."""
        with self._lock:
            self.ended = True
            for worker in self._workers:
                worker.kill()


def _at_once(parts: Sequence[tuple[Setting, Sequence[MetricUse], Sequence[Piece]]]) -> Generator[_Entry]:
    """The entries of all parts as they come, each part in a thread with a process of its own."""
    crew = _Crew()
    entries: queue.Queue[_Entry | BaseException | None] = queue.Queue()

    def work(setting: Setting, metrics: Sequence[MetricUse], part: Sequence[Piece]) -> None:
        try:
            for entry in _score(setting, metrics, part, crew):
                entries.put(entry)
        except BaseException as error:
            entries.put(error)
        finally:
            entries.put(None)

    threads = [threading.Thread(target=work, args=part, daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    try:
        left = len(threads)
        while left:
            entry = entries.get()
            if isinstance(entry, BaseException):
                raise entry
            if entry is None:
                left -= 1
            else:
                yield entry
    finally:
        crew.end()
        for thread in threads:
            thread.join()


def _score(setting: Setting, metrics: Sequence[MetricUse], pending: Sequence[Piece], crew: _Crew) -> Generator[_Entry]:
    again: set[Piece] = set()
    while pending and not crew.ended:
        busy: Piece | None = None
        loading: int | None = None
        rest = dict.fromkeys(pending)
        cells = list(dict.fromkeys(cell for _, cell in pending))
        try:
            with crew.member(setting.worker("zoo.bench.score", _job(setting, metrics, pending, cells))) as worker:
                for event in worker.events():
                    number, kind = event["metric"], event["event"]
                    if kind == "load":
                        loading = number
                        continue
                    if kind == "start":
                        busy = (number, cells[event["item"]])
                        yield _told(f"{metrics[number].label} of {busy[1]}")
                        continue
                    whole = event["item"] is None
                    for cell in [cell for i, cell in rest if i == number] if whole else [cells[event["item"]]]:
                        if kind == "scored":
                            yield _scored(cell, number, event["value"], note=event.get("note", ""))
                        else:
                            yield _scored(cell, number, None, loss=Loss.of(event))
                        del rest[number, cell]
                    busy = None
            return
        except WorkerError as error:
            if crew.ended:
                return
            # Between two pictures it was loading a metric and would die there again; before the first, always.
            lost = [busy] if busy else [one for one in rest if loading in (None, one[0])]
            for number, cell in lost:
                if (number, cell) not in again and (error.outside or not error.limit):
                    again.add((number, cell))
                    continue
                yield _scored(cell, number, None, loss=Loss("failed", str(error), error.cause))
                del rest[number, cell]
            # Without a loss it had done all of a metric and died on its own: what is left can be done by another.
            pending = list(rest)


def _told(label: str) -> _Entry:
    return lambda ledger: ledger.tell(label)


def _scored(cell: Scored, number: int, value: float | None, **how: Any) -> _Entry:
    return lambda ledger: ledger.score(cell, number, value, **how)


def _job(
    setting: Setting, metrics: Sequence[MetricUse], pending: Sequence[Piece], cells: Sequence[Scored]
) -> dict[str, Any]:
    positions = {cell: i for i, cell in enumerate(cells)}
    uses = [
        {
            "name": use.name,
            "settings": use.settings,
            "items": [positions[cell] for i, cell in pending if i == number],
        }
        for number, use in enumerate(metrics)
    ]
    return {"metrics": uses, "pictures": [setting.files(cell) for cell in cells]}
