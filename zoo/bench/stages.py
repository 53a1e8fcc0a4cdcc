"""The first stage of a run: measuring methods, in worker processes. The second is :mod:`zoo.bench.scoring`.

Measuring is one process at a time, always: two at once would share caches, memory and the device, and time each other.
What :mod:`zoo.bench.rates` adds, operations and rates, is found after all of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.bench import growth
from zoo.bench.folder import Folder
from zoo.bench.ledger import Ledger, Loss
from zoo.bench.measures import PRIMARY
from zoo.bench.plan import Cell, MethodPlan, Scored, SetCell
from zoo.bench.protocol import Limits
from zoo.bench.supervise import Worker, WorkerError
from zoo.errors import ProtocolError
from zoo.memory import machine_memory


@dataclass(frozen=True)
class Setting:
    """Where and how workers run."""

    folder: Folder
    device: str
    precision: str
    threads: int
    limits: Limits

    def worker(self, module: str, job: Mapping[str, Any]) -> Worker:
        """Start a worker with this setting's limits."""
        memory = int(self.limits.memory * machine_memory())
        job = {"device": self.device, "precision": self.precision, "threads": self.threads, **job}
        return Worker(module, job, threads=self.threads, seconds=self.limits.seconds, memory=memory)

    def files(self, cell: Scored) -> dict[str, Any]:
        """The paths of a cell's content, style and output; of a set those of its ``members``."""
        if isinstance(cell, SetCell):
            return {"members": [self.files(member) for member in cell.members]}
        return {
            "content": str(self.folder.input("content", cell.content, cell.size)),
            "style": str(self.folder.input("style", cell.style, cell.size)),
            "output": str(self.folder.output(cell)),
        }


def measure(setting: Setting, ledger: Ledger, missing: Sequence[tuple[MethodPlan, Sequence[Cell]]]) -> None:
    """Measure cells, a process per method and size. After a limit, larger sizes of that method are not tried."""
    ledger.begin("measure", sum(len(cells) for _, cells in missing))
    for plan, cells in missing:
        loss: Loss | None = None
        for size in dict.fromkeys(cell.size for cell in cells):
            group = [cell for cell in cells if cell.size == size]
            if loss:
                for cell in group:
                    reason = loss.reason + _projected(ledger, cell)
                    ledger.refuse(cell, dataclasses.replace(loss, reason=reason), None)
            else:
                loss = _measure_size(setting, ledger, plan, group)


def _measure_size(setting: Setting, ledger: Ledger, plan: MethodPlan, cells: list[Cell]) -> Loss | None:
    """Measure cells of one size; returns why larger ones need not be tried, if they need not.

    What a person killed, no limit and no crash, is tried once more.
    """
    again: set[Cell | None] = set()
    while cells:
        now = _Progress()
        ledger.tell(str(cells[0]))
        job = {
            "name": plan.name,
            "options": plan.options,
            "timing": plan.timing.model_dump(),
            "cells": [{**setting.files(cell), "seed": cell.seed, "strength": cell.strength} for cell in cells],
        }
        module = "zoo.bench.worker"
        if plan.film is not None:
            module, job["film"] = "zoo.bench.films", plan.film
            job["cells"] = [
                {**told, "name": cell.content, "size": cell.size}
                for told, cell in zip(job["cells"], cells, strict=True)
            ]
        try:
            with setting.worker(module, job) as worker:
                for event in worker.events():
                    _note(ledger, cells, event, now)
            return None
        except WorkerError as error:
            # None: it was still loading.
            at = None if now.cell is None else cells[now.cell]
            retry = error.outside and not error.limit and at not in again
            again.add(at)
            if now.cell is None:
                if retry:
                    continue
                for cell in cells:
                    ledger.refuse(cell, Loss("failed", f"while loading: {error}", error.cause), now.precision)
                return Loss("failed", f"not tried, because loading {error}", error.cause) if error.limit else None
            lost, cells = cells[now.cell], cells[now.cell + (0 if now.busy and retry else 1) :]
            if now.busy and not retry:
                need = _projected(ledger, lost) if error.limit else ""
                ledger.refuse(lost, Loss("failed", f"{error}{need}", error.cause), now.precision)
            if error.limit:
                # What a limit ended would end again on a picture of the same size or a larger one.
                why = f"not tried, because {lost.content} x {lost.style} at {lost.size} {error}"
                loss = Loss("failed", why, error.cause)
                for cell in cells:
                    ledger.refuse(cell, loss, now.precision)
                return loss
    return None


def no_room(reason: str) -> ProtocolError:
    """A full disk, say: nothing that a row should hold, so the run ends and goes on once there is room."""
    return ProtocolError(f"{reason.rstrip('.')}. Earlier rows are intact; make room, then run it again.")


@dataclass
class _Progress:
    """How far a worker has come: the cell last begun, and whether it is still at it."""

    cell: int | None = None
    busy: bool = False
    precision: str | None = None


def _note(ledger: Ledger, cells: Sequence[Cell], event: Mapping[str, Any], now: _Progress) -> None:
    kind = event["event"]
    if kind == "unwritable":
        # A full disk, say. The cell gets no row, so that it is measured once there is room.
        raise no_room(event["reason"])
    if kind == "loaded":
        now.precision = event["precision"]
        ledger.record(cells[0], now.precision, event["measured"])
    elif kind == "start":
        now.cell, now.busy = event["cell"], True
        ledger.tell(str(cells[event["cell"]]))
    elif kind == "measured":
        now.busy = False
        cell = cells[event["cell"]]
        ledger.record(cell, now.precision, event["measured"])
        ledger.advance(str(cell))
    else:
        now.busy = False
        for cell in cells if event["cell"] is None else [cells[event["cell"]]]:
            loss = Loss.of(event)
            need = _projected(ledger, cell) if loss.cause == "memory" else ""
            ledger.refuse(cell, dataclasses.replace(loss, reason=loss.reason + need), now.precision)


def _projected(ledger: Ledger, cell: Cell) -> str:
    """What a cell that met a limit would have needed, from the smaller sizes of its method; empty without any."""
    rows = ledger.store.rows
    said = []
    for metric, unit in (("memory.cuda_allocated", "MiB on the GPU"), ("memory.resident", "MiB above idle")):
        if (need := growth.projected(rows, cell.method, metric, cell.size)) is not None:
            said.append(f"{need:.0f} {unit}")
    if (seconds := growth.projected(rows, cell.method, PRIMARY, cell.size)) is not None:
        said.append(f"{seconds:.3g} s a picture")
    return f"; projected need at {cell.size}, from its growth over smaller sizes: {', '.join(said)}" if said else ""
