"""The largest picture that a method can make within the protocol's limits: found by bisection, when asked for.

A try is one call on the protocol's first pair at some size, without warm-up, in a process of its own. It is too large
when that process meets a limit (memory, seconds) or says that it is out of memory. An optimisation method takes as many
steps as the protocol gives it; L-BFGS keeps two pictures a step, so more steps need more. The result is a row of the
run, ``size.largest``, whose reason says what ended the next larger size.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zoo import images
from zoo.bench.inputs import prepared
from zoo.bench.ledger import Ledger, Loss
from zoo.bench.plan import MethodPlan, Plan, RunCell
from zoo.bench.protocol import ProtocolImage, ResolvedProtocol, Timing
from zoo.bench.rows import LIMITS, Cause, Row
from zoo.bench.runner import Pass, drive, no_room
from zoo.errors import ImageError
from zoo.imagesets import Role

METRIC = "size.largest"
_GRID = 8
# The boundary is known to this share of itself; memory goes with the square.
_SHARE = 1 / 16
_ONCE = Timing(warmup=0, repeats=1, budget=0)


class _FailedError(Exception):
    """The method failed for another reason than its size."""

    def __init__(self, reason: str, cause: Cause) -> None:
        super().__init__(reason)
        self.cause: Cause = cause


class LargestSize(Pass):
    """Search for the largest size of every method that lacks a row, from what its measured cells say already."""

    module = "measure"

    def todo(self, rows: Ledger, plan: Plan) -> list[list[MethodPlan]]:
        """Methods whose size is not known (``retry``: or was not found), though they managed one."""

        def lacks(method: MethodPlan) -> bool:
            row = rows.store.get(RunCell(method.label).key(METRIC))
            return row is None or (plan.retry and row.status != "ok")

        return [[method] for method in plan.methods if lacks(method) and _sizes(rows, method)[0]]

    def run(self) -> None:
        """Search for each of them."""
        for (method,) in self.todo(self.ledger, self.plan):
            self._find(method)

    def _find(self, method: MethodPlan) -> None:
        good, bad = _sizes(self.ledger, method)
        precision = next(row.precision for row in good.values())
        why = {size: row.reason for size, row in bad.items()}

        def fits(size: int) -> bool:
            self.ledger.tell(f"{method.label} at {size}")
            why[size] = self._too_large(method, size)
            return not why[size]

        cell = RunCell(method.label)
        try:
            low, high = search(max(good), min((size for size in bad if size > max(good)), default=None), fits)
        except _FailedError as error:
            self.ledger.lack(cell, METRIC, Loss("failed", str(error), error.cause), precision)
            return
        reason = "" if high is None else f"{high}: {why[high].partition(';')[0]}"
        number = {"metric": METRIC, "value": low, "unit": "px", "samples": (), "reason": reason}
        self.ledger.record(cell, precision, [number])

    def _too_large(self, method: MethodPlan, size: int) -> str:
        """Why a size is too large, or nothing where it fits; raises _FailedError, ProtocolError for a full disk."""
        folder = self.setting.folder.outputs / "largest"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            one = _Try(self.setting, self.ledger, self.plan, method, _prepare(folder, self.ledger.protocol, size))
            for report in drive(self.setting, one, [size]):
                if report.loss is not None and report.loss.cause in LIMITS:
                    return report.loss.reason
                if report.loss is not None:
                    raise _FailedError(f"at {size}: {report.loss.reason}", report.loss.cause)
            return ""
        except ImageError as error:
            raise _FailedError(f"at {size}: {error}", "input") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _Try(Pass):
    """One picture at one size, made once."""

    module = "measure"

    def __init__(self, *arguments: Any) -> None:
        *common, self.method, self.cell = arguments
        super().__init__(*common)

    def job(self, items: Sequence[int]) -> dict[str, Any]:
        """The method and the cell."""
        return {**self.method.job, "timing": _ONCE.model_dump(), "cells": [self.cell]}


def search(low: int, high: int | None, fits: Callable[[int], bool]) -> tuple[int, int | None]:
    """The largest size that is known to fit and the smallest that is known not to, a sixteenth apart or less.

    ``low`` fits and ``high``, where there is one, does not. Sizes tried are multiples of 8 pixels; None comes back for
    the second where pictures of the largest size that can be read fit.
    """
    ceiling = int(images.MAX_PIXELS**0.5) // _GRID * _GRID
    while high is None:
        if low >= ceiling:
            return low, None
        tried = min(2 * low, ceiling)
        low, high = (tried, None) if fits(tried) else (low, tried)
    while high - low > max(_GRID, _SHARE * low):
        middle = (low + high) // 2 // _GRID * _GRID
        if not low < middle < high:
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, high


def _sizes(ledger: Ledger, plan: MethodPlan) -> tuple[dict[int, Row], dict[int, Row]]:
    """Rows of sizes that fit and of sizes that met a limit, by size."""
    good: dict[int, Row] = {}
    bad: dict[int, Row] = {}
    for cell in plan.cells:
        row = ledger.measured(cell)
        if row is not None and cell.size and row.status == "ok":
            good[cell.size] = row
        elif row is not None and cell.size and row.status == "failed" and row.cause in LIMITS:
            bad[cell.size] = row
    return {size: row for size, row in good.items() if size not in bad}, bad


def _prepare(folder: Path, protocol: ResolvedProtocol, size: int) -> dict[str, object]:
    """The protocol's first pair at a size, as a cell of a worker's job."""
    spec = protocol.spec
    content, style = protocol.pairs[0]
    cell: dict[str, object] = {"seed": spec.seeds[0], "strength": spec.strengths[0]}
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise no_room(f"{folder} cannot be made: {error.strerror}") from error
    chosen: dict[Role, tuple[str, tuple[ProtocolImage, ...]]] = {
        "contents": (content, protocol.contents),
        "styles": (style, protocol.styles),
    }
    for role, (name, pictures) in chosen.items():
        picture = next(picture for picture in pictures if picture.name == name)
        path = folder / f"{role}.png"
        pixels = prepared(picture, role, size, spec)
        try:
            images.write(path, pixels)
        except ImageError as error:
            raise no_room(str(error)) from error
        cell[role.removesuffix("s")] = str(path)
    return {**cell, "output": str(folder / "output.png")}
