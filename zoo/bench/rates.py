"""What is found of cells after they were measured: operations, pictures a second, and the share of the machine's peak.

Everything is looked up in the rows that are there, so a run that was killed in between finds what is left to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zoo.bench.ledger import Ledger, Loss
from zoo.bench.measures import PRIMARY
from zoo.bench.memory import MIB
from zoo.bench.plan import Cell, MethodPlan, RunCell, machine_label
from zoo.bench.rows import Row
from zoo.bench.stages import Setting
from zoo.bench.supervise import WorkerError


def pending(ledger: Ledger, plans: Iterable[MethodPlan], retry: bool = False) -> bool:
    """Whether cells that were measured lack operations, pictures a second or a share, and could have them.

    What failed stays as it is unless ``retry``.
    """
    plans = list(plans)
    unrelated = any(_seconds(ledger, row, retry) for row in _counted(ledger, plans))
    return unrelated or any(_unfound(ledger, plan, retry) for plan in plans)


def find(setting: Setting, ledger: Ledger, plans: Iterable[MethodPlan], retry: bool = False) -> None:
    """Find all that is pending: a process per method and size, one for the machine's speed in each precision."""
    plans = list(plans)
    for plan in plans:
        cells = _unfound(ledger, plan, retry)
        for size in dict.fromkeys(cell.size for cell in cells):
            _count(setting, ledger, plan, [cell for cell in cells if cell.size == size])
    tried: set[str | None] = set()
    for row in _counted(ledger, plans):
        _relate(setting, ledger, row, retry and row.precision not in tried)
        tried.add(row.precision)


# -- operations and pictures a second --------------------------------------------------------------------------------


def _wanted(plan: MethodPlan) -> list[str]:
    """The measures that say of a cell that its operations, its pictures a second have been looked for."""
    return ["gflops.encode_style"] * bool(plan.timing.count) + ["images_per_second"] * bool(plan.timing.batches)


def _unfound(ledger: Ledger, plan: MethodPlan, retry: bool) -> list[Cell]:
    def lacks(cell: Cell, metric: str) -> bool:
        row = ledger.store.get(cell.key(metric))
        return row is None or (retry and row.status != "ok")

    return [
        cell
        for cell in plan.cells
        if (row := ledger.measured(cell)) is not None
        and row.status == "ok"
        and any(lacks(cell, metric) for metric in _wanted(plan))
    ]


def _count(setting: Setting, ledger: Ledger, plan: MethodPlan, cells: Sequence[Cell]) -> None:
    again: set[Cell] = set()
    while cells:
        ledger.tell(str(cells[0]))
        current, busy, precision = 0, False, None
        job = {
            "name": plan.name,
            "options": plan.options,
            "timing": plan.timing.model_dump(),
            "cells": [{**setting.files(cell), **_known(ledger, cell)} for cell in cells],
        }
        try:
            with setting.worker("zoo.bench.capacity", job) as worker:
                for event in worker.events():
                    kind = event["event"]
                    if kind == "loaded":
                        precision = event["precision"]
                    elif kind == "start":
                        current, busy = event["cell"], True
                    elif kind == "measured":
                        busy = False
                        ledger.record(cells[event["cell"]], precision, event["measured"])
                    else:
                        busy = False
                        for cell in cells if event["cell"] is None else [cells[event["cell"]]]:
                            _lack(ledger, plan, cell, Loss.of(event), precision)
            return
        except WorkerError as error:
            if error.outside and not error.limit and cells[current] not in again:
                again.add(cells[current])
                cells = cells[current:]
                continue
            loss = Loss("failed", str(error), error.cause)
            if not busy:  # while loading or between two cells: the next worker would end there too
                for cell in cells[current:]:
                    _lack(ledger, plan, cell, loss, precision)
                return
            _lack(ledger, plan, cells[current], loss, precision)
            cells = cells[current + 1 :]


def _known(ledger: Ledger, cell: Cell) -> dict[str, Any]:
    """What the worker must know of a cell: its pictures' seed and strength, and what one picture takes."""
    measured, peak = ledger.measured(cell), ledger.store.get(cell.key("memory.resident"))
    assert measured is not None
    needed = 0 if peak is None or peak.value is None else int(peak.value * MIB)
    return {"seed": cell.seed, "strength": cell.strength, "seconds": measured.value, "bytes": needed}


def _lack(ledger: Ledger, plan: MethodPlan, cell: Cell, loss: Loss, precision: str | None) -> None:
    for metric in _wanted(plan):
        ledger.lack(cell, metric, loss, precision)


# -- the share of the machine's peak ---------------------------------------------------------------------------------


def _counted(ledger: Ledger, plans: Iterable[MethodPlan]) -> list[Row]:
    labels = {plan.label for plan in plans}
    return [
        row for row in ledger.store.rows if row.method in labels and row.metric in ("gflops.step", "gflops.stylize")
    ]


def _relate(setting: Setting, ledger: Ledger, row: Row, retry: bool) -> None:
    """Give a counted cell its share of a bare convolution's speed in its precision, which is measured first.

    An optimiser's share is that of its steps, for which operations and time are known alike.
    """
    seconds, machine = _seconds(ledger, row, retry), _machine(row)
    if seconds is None or row.value is None:
        return
    peak = ledger.store.get(machine.key("machine.conv_gflops"))
    if peak is None or peak.status != "ok":
        _measure_machine(setting, ledger, machine, row.precision or "")
    peak = ledger.store.get(machine.key("machine.conv_gflops"))
    if peak is not None and peak.value:
        number: Mapping[str, Any] = {
            "metric": "share.conv_peak",
            "value": round(100 * row.value / seconds / peak.value, 4),
            "unit": "%",
            "samples": (),
            "reason": row.reason,
        }
        ledger.record(_cell(row), row.precision, [number])


def _seconds(ledger: Ledger, row: Row, retry: bool) -> float | None:
    """Seconds that a row's operations take, where its cell still lacks a share and may have one; else None."""
    cell = _cell(row)
    by_step = ledger.store.get(cell.key("gflops.step")) is not None
    if row.status != "ok" or by_step != (row.metric == "gflops.step"):
        return None
    peak = ledger.store.get(_machine(row).key("machine.conv_gflops"))
    if ledger.store.get(cell.key("share.conv_peak")) is not None:
        return None
    if peak is not None and peak.status != "ok" and not retry:
        return None
    time = ledger.store.get(cell.key("seconds.step" if by_step else PRIMARY))
    return None if time is None else time.value


def _cell(row: Row) -> Cell:
    return Cell(row.method, str(row.content), str(row.style), row.size, row.seed, row.strength)


def _machine(row: Row) -> RunCell:
    return RunCell(machine_label(row.precision or ""))


def _measure_machine(setting: Setting, ledger: Ledger, cell: RunCell, precision: str) -> None:
    ledger.tell(str(cell))
    loss = Loss("failed", "the process gave no numbers", "crash")
    try:
        with setting.worker("zoo.bench.machine", {"precision": precision}) as worker:
            for event in worker.events():
                if event["event"] == "measured":
                    ledger.record(cell, precision, event["measured"])
                    return
                loss = Loss.of(event)
    except WorkerError as error:
        loss = Loss("failed", str(error), error.cause)
    ledger.lack(cell, "machine.conv_gflops", loss, precision)
