"""What is found of cells after they were measured: operations, pictures a second, and the share of the machine's peak.

Everything is looked up in the rows that are there, so a run that was killed in between finds what is left to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo.bench.ledger import Ledger
from zoo.bench.measures import PRIMARY
from zoo.bench.memory import MIB
from zoo.bench.plan import Cell, MethodPlan, Plan, RunCell, machine_label
from zoo.bench.rows import Row
from zoo.bench.runner import Pass, Report

_PEAK = "machine.conv_gflops"


class Throughput(Pass):
    """Count operations and find pictures a second: a process per method and size."""

    module = "throughput"

    def todo(self, rows: Ledger, plan: Plan) -> list[list[Cell]]:
        """Measured cells whose operations or pictures a second were not looked for (``retry``: were not found)."""

        def wanted(method: MethodPlan, cell: Cell) -> bool:
            measured = rows.measured(cell)
            found = [rows.store.get(cell.key(metric)) for metric in _wanted(method)]
            lacks = any(row is None or (plan.retry and row.status != "ok") for row in found)
            return lacks and measured is not None and measured.status == "ok"

        return plan.grouped(wanted)

    def job(self, items: Sequence[Cell]) -> dict[str, Any]:
        """The method and its cells, with what one picture takes."""
        cells = [{**self.setting.files(cell), **self._known(cell)} for cell in items]
        return {**self.ledger.plans[items[0].method].job, "cells": cells}

    def _known(self, cell: Cell) -> dict[str, Any]:
        measured, peak = self.ledger.measured(cell), self.ledger.store.get(cell.key("memory.resident"))
        assert measured is not None
        needed = 0 if peak is None or peak.value is None else int(peak.value * MIB)
        return {"seed": cell.seed, "strength": cell.strength, "seconds": measured.value, "bytes": needed}

    def done(self, report: Report) -> None:
        """Write a cell's numbers, or why there are none."""
        if report.loss is not None:
            for metric in _wanted(self.ledger.plans[report.item.method]):
                self.ledger.lack(report.item, metric, report.loss, report.precision)
        elif report.event is not None:
            self.ledger.record(report.item, report.precision, report.event["measured"])


def _wanted(method: MethodPlan) -> list[str]:
    """The measures that say of a cell that its operations, its pictures a second have been looked for."""
    return ["gflops.encode_style"] * bool(method.timing.count) + ["images_per_second"] * bool(method.timing.batches)


class Machine(Pass):
    """Measure the machine's speed in each precision, and give counted cells their share of it.

    The share is of a bare convolution's speed; an optimiser's is that of its steps, for which operations and time are
    known alike.
    """

    module = "machine"

    def todo(self, rows: Ledger, plan: Plan) -> list[list[RunCell]]:
        """The precisions of cells that lack a share and have no peak yet."""
        cells = dict.fromkeys(_machine(row) for row in self._unrelated())
        return [[cell] for cell in cells if (peak := rows.store.get(cell.key(_PEAK))) is None or peak.status != "ok"]

    def pending(self) -> bool:
        """Whether a cell lacks a share and could have one."""
        return bool(self._unrelated())

    def run(self) -> None:
        """Measure what is missing, then relate what can be."""
        super().run()
        for row, seconds in self._unrelated().items():
            peak = self.ledger.store.get(_machine(row).key(_PEAK))
            if peak is not None and peak.value and row.value is not None:
                share = round(100 * row.value / seconds / peak.value, 4)
                number = {"metric": "share.conv_peak", "value": share, "unit": "%", "samples": (), "reason": row.reason}
                self.ledger.record(Cell.of(row), row.precision, [number])

    def job(self, items: Sequence[RunCell]) -> dict[str, Any]:
        """The precision."""
        return {"precision": items[0].precision or ""}

    def done(self, report: Report) -> None:
        """Write the machine's speed, or why there is none."""
        if report.loss is not None:
            self.ledger.lack(report.item, _PEAK, report.loss, report.item.precision)
        elif report.event is not None:
            self.ledger.record(report.item, report.item.precision, report.event["measured"])

    def _unrelated(self) -> dict[Row, float]:
        """Rows of counted operations whose cell lacks a share and may have one, with the seconds they take."""
        labels = {method.label for method in self.plan.methods}
        found = {}
        for row in self.ledger.store.rows:
            if row.method in labels and row.metric in ("gflops.step", "gflops.stylize") and row.status == "ok":
                seconds = self._seconds(row)
                if seconds is not None:
                    found[row] = seconds
        return found

    def _seconds(self, row: Row) -> float | None:
        cell, store = Cell.of(row), self.ledger.store
        by_step = store.get(cell.key("gflops.step")) is not None
        if by_step != (row.metric == "gflops.step") or store.get(cell.key("share.conv_peak")) is not None:
            return None
        peak = store.get(_machine(row).key(_PEAK))
        if peak is not None and peak.status != "ok" and not self.plan.retry:
            return None
        time = store.get(cell.key("seconds.step" if by_step else PRIMARY))
        return None if time is None else time.value


def _machine(row: Row) -> RunCell:
    return RunCell(machine_label(row.precision or ""), precision=row.precision)
