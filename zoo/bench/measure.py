"""The first pass of a run: pictures made and timed, a process per method and size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from zoo.bench import growth
from zoo.bench.ledger import Ledger, Loss
from zoo.bench.measures import PRIMARY
from zoo.bench.plan import Cell, MethodPlan, Plan
from zoo.bench.rows import LIMITS
from zoo.bench.runner import Pass, Report


class Measure(Pass):
    """Measure cells. What met a limit is not tried on a picture of the same size or a larger one."""

    module = "measure"
    counted = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._forgone: dict[str, Loss] = {}

    def todo(self, rows: Ledger, plan: Plan) -> list[list[Cell]]:
        """Cells without a row (with ``retry``: without a value), and measured ones whose picture is gone and needed."""

        def wanted(_: MethodPlan, cell: Cell) -> bool:
            row = rows.measured(cell)
            if row is None or row.status != "ok":
                return row is None or plan.retry
            return not self.setting.folder.output(cell).exists() and plan.needs_picture(rows, cell)

        return plan.grouped(wanted)

    def job(self, items: Sequence[Cell]) -> dict[str, Any]:
        """The method and its cells."""
        method = self.ledger.plans[items[0].method]
        cells = [{**self.setting.files(cell), "seed": cell.seed, "strength": cell.strength} for cell in items]
        if method.step is not None:
            steps = [self.ledger.plans[cell.method].step for cell in items]
            return {**method.job, "cells": [{**told, "step": at} for told, at in zip(cells, steps, strict=True)]}
        if method.film is None:
            return {**method.job, "cells": cells}
        clips = [{**told, "name": cell.content, "size": cell.size} for told, cell in zip(cells, items, strict=True)]
        return {**method.job, "cells": clips, "film": method.film}

    def worker(self, items: Sequence[Cell]) -> str:
        """Films and steps have workers of their own."""
        method = self.ledger.plans[items[0].method]
        return "films" if method.film is not None else "steps" if method.step is not None else self.module

    def forgone(self, items: Sequence[Cell]) -> Loss | None:
        """The limit that this method met at this size or a smaller one."""
        return self._forgone.get(items[0].method)

    def done(self, report: Report) -> None:
        """Write a cell's numbers, or why there are none and what it would have needed."""
        cell, loss = report.item, report.loss
        if loss is None:
            self.loaded(report)
            self.ledger.advance(str(cell))
            return
        if report.error is not None and report.error.limit:
            where = "loading" if report.loading else f"{cell.content} x {cell.style} at {cell.size}"
            self._forgone[cell.method] = Loss("failed", f"not tried, because {where} {report.error}", loss.cause)
        if loss.cause in LIMITS and not report.loading:
            loss = dataclasses.replace(loss, reason=loss.reason + projected(self.ledger, cell))
        self.ledger.refuse(cell, loss, report.precision)

    def loaded(self, report: Report) -> None:
        """Write numbers."""
        assert report.event is not None
        self.ledger.record(report.item, report.precision, report.event["measured"])


def projected(ledger: Ledger, cell: Cell) -> str:
    """What a cell that met a limit would have needed, from the smaller sizes of its method; empty without any."""
    rows = ledger.store.rows
    said = []
    for metric, unit in (("memory.cuda_allocated", "MiB on the GPU"), ("memory.resident", "MiB above idle")):
        if (need := growth.projected(rows, cell.method, metric, cell.size)) is not None:
            said.append(f"{need:.0f} {unit}")
    if (seconds := growth.projected(rows, cell.method, PRIMARY, cell.size)) is not None:
        said.append(f"{seconds:.3g} s a picture")
    return f"; projected need at {cell.size}, from its growth over smaller sizes: {', '.join(said)}" if said else ""
