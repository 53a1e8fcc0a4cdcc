"""Two runs of one protocol side by side: what changed, how surely, and what became worse.

Every number joins the pictures that both runs have. A quality metric is compared picture by picture, with the two-way
bootstrap interval of the mean difference; a timing by the medians of its repeats, resampled in both runs; memory by its
peak, without an interval. Timings and memory of different machines, or of other threads, device or precision, are not
compared. A number counts as worse where it is so by more than the tolerance (a share of the earlier value) and its
interval, if it has one, excludes no change; a cell that failed in the later run alone is worse without a number.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo.bench.folder import Folder
from zoo.bench.measures import MEASURES, PRIMARY
from zoo.bench.rows import Row, latest, read_rows
from zoo.errors import ProtocolError
from zoo.registry import Registry, load_registry
from zoo.report import statistics
from zoo.report.forms import MISSING, Entry, Form, Group, Heading
from zoo.report.narrow import FILM_MEASURES
from zoo.report.present import number
from zoo.report.scores import gather
from zoo.report.statistics import Interval
from zoo.report.tables import Direction, column_of, read_run
from zoo.words import counted

Verdict = Literal["worse", "better", "same", "unsure"]

# Measures that say how fast or how large a method is; the rest is bookkeeping of the harness.
_COSTS = tuple(measure.name for measure in MEASURES.values() if measure.column and measure.scope == "cell")
# What must be equal for timings and memory to be comparable.
_CONDITIONS = ("machine", "device", "precision", "threads")


@dataclass(frozen=True)
class Change:
    """A number in both runs: its values, their difference (after minus before), that as a share of the earlier value,
    the interval of the difference, and the verdict. ``pairs`` is how many pictures both runs have.

    ``unsure`` is a change beyond the tolerance whose interval includes none.
    """

    method: str
    size: int
    strength: float
    metric: str
    unit: str
    before: float
    after: float
    interval: Interval | None
    pairs: int
    verdict: Verdict

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def share(self) -> float | None:
        """The change as a share of the earlier value; None where that is zero."""
        return None if self.before == 0 else self.difference / abs(self.before)


@dataclass(frozen=True)
class Differences:
    """All changes of two runs, the cells that only the later run failed, and what could not be compared."""

    protocol: str
    names: tuple[str, str]
    changes: list[Change]
    failed: list[str]
    said: list[str]

    @property
    def regressions(self) -> int:
        """How many numbers became worse, and cells that now fail."""
        return sum(change.verdict == "worse" for change in self.changes) + len(self.failed)

    def form(self, *, everything: bool = True) -> Form:
        """A group per method at one size and strength; worse numbers bold. Without ``everything`` only what changed."""
        groups = []
        for key in dict.fromkeys((c.method, c.size, c.strength) for c in self.changes):
            rows = [
                _row(change)
                for change in self.changes
                if (change.method, change.size, change.strength) == key and (everything or change.verdict != "same")
            ]
            if rows:
                groups.append(Group("", rows))
        caption = f"{self.names[0]} before, {self.names[1]} after; protocol {self.protocol}"
        headings = [Heading("method", False), Heading("size"), Heading("strength"), Heading("metric", False)]
        headings += [Heading("before"), Heading("after"), Heading("difference"), Heading("interval", False)]
        headings += [Heading("change"), Heading("verdict", False)]
        worse = [f"Failed in {self.names[1]} alone: {cell}." for cell in self.failed]
        count = len(self.changes)
        same = sum(change.verdict == "same" for change in self.changes)
        said = [f"{counted(count, 'number')} compared, {same} the same within the tolerance; {self.regressions} worse."]
        return Form("differences", caption, headings, groups, (), [*said, *worse, *self.said])

    def records(self) -> list[dict[str, Any]]:
        """One record per change."""
        first = ("method", "size", "strength", "metric", "unit", "before", "after", "difference")
        return [
            {name: getattr(change, name) for name in first}
            | statistics.bounds(change.interval)
            | {name: getattr(change, name) for name in ("share", "pairs", "verdict")}
            for change in self.changes
        ]


def compare_runs(before: Path, after: Path, *, tolerance: float = 0.01, time_tolerance: float = 0.1) -> Differences:
    """Compare two results folders.

    Raises ProtocolError where one is empty or they were measured under different protocols, or share no number.
    """
    registry = load_registry()
    files = [_read(path) for path in (before, after)]
    ids = [run["protocol"]["id"] for run, _ in files]
    if ids[0] != ids[1]:
        raise ProtocolError(
            f"{before} was measured under {ids[0]} and {after} under {ids[1]}: numbers of different protocols cannot "
            "be compared. Run 'zoo bench' again under one of them."
        )
    said = []
    conditions = [run["conditions"] for run, _ in files]
    others = [name for name in _CONDITIONS if conditions[0].get(name) != conditions[1].get(name)]
    if others:
        texts = [f"{name} {conditions[0].get(name)} and {conditions[1].get(name)}" for name in others]
        said.append(f"Seconds and memory are not compared: {'; '.join(texts)}.")
    rows = [[row for row in own if row.metric not in MEASURES or row.metric in _COSTS] for _, own in files]
    methods = [{row.method for row in own} for own in rows]
    for name, missing in ((before, methods[1] - methods[0]), (after, methods[0] - methods[1])):
        if missing:
            said.append(f"Not in {name}: {', '.join(sorted(missing))}.")
    changes = []
    for method, size, strength in dict.fromkeys((row.method, row.size, row.strength) for row in rows[0]):
        own = [
            [row for row in side if (row.method, row.size, row.strength) == (method, size, strength)] for side in rows
        ]
        for metric in dict.fromkeys(row.metric for row in own[0]):
            cost = metric in MEASURES and metric not in FILM_MEASURES
            if cost and others:
                continue
            limit = time_tolerance if cost else tolerance
            change = _change(own[0], own[1], metric, registry, limit)
            if change is not None:
                changes.append(change)
    failed = _newly_failed(*rows)
    if not changes and not failed:
        raise ProtocolError(f"{before} and {after} have no number in common. {' '.join(said)}")
    if lost := _lost(*rows):
        said.append(f"Skipped or not measured in {after}, so not compared: {lost}.")
    return Differences(ids[0], (str(before), str(after)), changes, failed, said)


def _read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    folder = Folder(path)
    return read_run(folder), latest(read_rows(folder.rows))


def _change(before: list[Row], after: list[Row], metric: str, registry: Registry, tolerance: float) -> Change | None:
    sides = gather(
        {"before": [r for r in before if r.metric == metric], "after": [r for r in after if r.metric == metric]}, metric
    )
    if len(sides.methods) < 2 or not sides.units:
        return None
    row = before[0]
    column = column_of(metric, registry)
    values = sides.values
    first, second = (values.max(axis=0) if column.combine == "max" else values.mean(axis=0)).tolist()
    interval = None
    if metric in MEASURES:
        if metric.startswith("seconds.") and not metric.endswith((".p95", ".iqr")):
            interval = _timing_interval(sides.samples[0], sides.samples[1])
    elif (pairs := sides.pairs) is not None:
        drawn = statistics.mean_intervals(values[:, 1] - values[:, 0], pairs)
        interval = drawn[0] if drawn else None
    verdict = _verdict(first, second, interval, column.direction, tolerance)
    place = row.method, row.size, row.strength, metric, column.unit
    return Change(*place, first, second, interval, len(sides.units), verdict)


def _timing_interval(before: tuple[tuple[float, ...], ...], after: tuple[tuple[float, ...], ...]) -> Interval | None:
    """The difference of the mean medians, repeats resampled in both runs apart."""
    if min(map(len, (*before, *after)), default=0) < statistics.MIN_TIMINGS:
        return None
    drawn = statistics.resampled_medians(after, seed=1) - statistics.resampled_medians(before, seed=0)
    tail = (1 - statistics.LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _verdict(before: float, after: float, interval: Interval | None, direction: Direction, tolerance: float) -> Verdict:
    change = after - before
    # Sums of one and the same numbers in another order differ by rounding.
    if abs(change) <= max(tolerance * abs(before), 1e-12 * max(abs(before), abs(after))):
        return "same"
    if interval is not None and not interval.excludes(0.0):
        return "unsure"
    return "better" if (change > 0) == (direction == "higher") else "worse"


def _newly_failed(before: list[Row], after: list[Row]) -> list[str]:
    """Cells (and metrics of cells) that the earlier run has and the later one failed."""
    had = {row.key for row in before if row.status == "ok"}
    return [
        f"{row.method} {f'{row.content} x {row.style}' if row.content else 'as a whole'} at {row.size}"
        + ("" if row.metric == PRIMARY else f", {row.metric}")
        + f" ({row.reason.rstrip('.')})"
        for row in after
        if row.status == "failed" and row.key in had
    ]


def _lost(before: list[Row], after: list[Row]) -> str:
    """How many numbers of which methods the earlier run has and the later one neither has nor failed."""
    methods = {row.method for row in after}
    there = {row.key for row in after if row.status != "skipped"}
    failed = {row.key[:-1] for row in after if row.status == "failed" and row.metric == PRIMARY}
    gone = Counter(
        row.method
        for row in before
        if row.status == "ok" and row.method in methods and row.key not in there and row.key[:-1] not in failed
    )
    return ", ".join(f"{counted(number, 'number')} of {method}" for method, number in gone.items())


def _row(change: Change) -> list[Entry]:
    bounds = change.interval
    worse: Any = "best" if change.verdict == "worse" else ""
    share = MISSING if change.share is None or not math.isfinite(change.share) else f"{100 * change.share:+.1f} %"
    unit = f" ({change.unit})" if change.unit else ""
    return [
        Entry(change.method),
        Entry(f"{change.size:g}"),
        Entry(f"{change.strength:g}"),
        Entry(change.metric + unit),
        Entry(number(change.before)),
        Entry(number(change.after)),
        Entry(number(change.difference), mark=worse),
        Entry("" if bounds is None else f"[{number(bounds.low)}, {number(bounds.high)}]"),
        Entry(share),
        Entry(change.verdict, mark=worse),
    ]
