"""The largest picture that a method can make within the protocol's limits: found by bisection, when asked for.

A try is one call on the protocol's first pair at some size, without warm-up, in a process of its own. It is too large
when that process meets a limit (memory, seconds) or says that it is out of memory. An optimisation method takes as many
steps as the protocol gives it; L-BFGS keeps two pictures a step, so more steps need more. The result is a row of the
run, ``size.largest``, whose reason says what ended the next larger size.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from zoo import images
from zoo.bench.inputs import prepared
from zoo.bench.ledger import Ledger, Loss
from zoo.bench.plan import MethodPlan, RunCell
from zoo.bench.protocol import ProtocolImage, ResolvedProtocol, Timing
from zoo.bench.rows import LIMITS, Cause, Row
from zoo.bench.stages import Setting, no_room
from zoo.bench.supervise import WorkerError
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
        self.cause = cause


def pending(ledger: Ledger, plans: Iterable[MethodPlan], retry: bool = False) -> list[MethodPlan]:
    """The methods whose largest size is not known yet (or, with ``retry``, failed to be), though one was measured."""

    def lacks(plan: MethodPlan) -> bool:
        row = ledger.store.get(RunCell(plan.label).key(METRIC))
        return row is None or (retry and row.status != "ok")

    return [plan for plan in plans if lacks(plan) and _sizes(ledger, plan)[0]]


def find(setting: Setting, ledger: Ledger, plans: Iterable[MethodPlan], retry: bool = False) -> None:
    """Search for every method that lacks a row, from what its measured cells say already."""
    for plan in pending(ledger, plans, retry):
        good, bad = _sizes(ledger, plan)
        precision = next(row.precision for row in good.values())
        why = {size: row.reason for size, row in bad.items()}

        def fits(size: int, plan: MethodPlan = plan, why: dict[int, str] = why) -> bool:
            ledger.tell(f"{plan.label} at {size}")
            why[size] = _try(setting, ledger.protocol, plan, size)
            return not why[size]

        cell = RunCell(plan.label)
        try:
            low, high = search(max(good), min((size for size in bad if size > max(good)), default=None), fits)
        except _FailedError as error:
            ledger.lack(cell, METRIC, Loss("failed", str(error), error.cause), precision)
            continue
        reason = "" if high is None else f"{high}: {why[high].partition(';')[0]}"
        ledger.record(
            cell, precision, [{"metric": METRIC, "value": low, "unit": "px", "samples": (), "reason": reason}]
        )


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


def _try(setting: Setting, protocol: ResolvedProtocol, plan: MethodPlan, size: int) -> str:
    """Why a size is too large, or nothing where it fits; raises _FailedError, ProtocolError for a disk that is full."""
    folder = setting.folder.outputs / "largest"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        job = {
            "name": plan.name,
            "options": plan.options,
            "timing": _ONCE.model_dump(),
            "cells": [_prepare(folder, protocol, size)],
        }
        with setting.worker("zoo.bench.worker", job) as worker:
            for event in worker.events():
                if event["event"] == "unwritable":
                    raise no_room(event["reason"])
                if event["event"] in ("refused", "failed"):
                    if event["cause"] in LIMITS:
                        return event["reason"]
                    raise _FailedError(f"at {size}: {event['reason']}", event["cause"])
        return ""
    except WorkerError as error:
        if error.limit:
            return str(error)
        raise _FailedError(f"at {size}: {error}", error.cause) from error
    except ImageError as error:
        raise _FailedError(f"at {size}: {error}", "input") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
