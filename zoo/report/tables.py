"""The table of a run from its rows: what is averaged, what is best, what must be said beside it.

:mod:`zoo.report.present` brings it into the forms in which it is read.

A line is a method (or baseline) at one size and strength. A quality column is the mean over the pairs that every line
of that size and strength covers, so that no method is averaged over easier pairs than another; speed columns are the
mean, memory columns the largest, over the same kind of common pairs of the methods. A method without any value in a
column does not shrink it for the others. The best method of a column is bold, the second underlined; the sanity rows
(baselines) do not compete, and where one of them beats every method the table says so.

Intervals are at 95 % (:mod:`zoo.report.statistics`): of quality metrics by two-way bootstrap over contents and styles,
of timings by bootstrap of the repeats of every cell. Memory, numbers of a whole process and metrics of sets have none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zoo.bench.folder import Folder
from zoo.bench.measures import MEASURES, PRIMARY
from zoo.bench.plan import of_run
from zoo.bench.rows import Row, latest, read_rows
from zoo.errors import ProtocolError
from zoo.registry import Registry, load_registry
from zoo.report import remarks, statistics
from zoo.report.families import FAMILIES, OTHERS, SANITY, family
from zoo.report.remarks import Remark
from zoo.report.scores import Scores, Unit, by_method, gather, names_of
from zoo.report.statistics import Interval
from zoo.report.words import dates
from zoo.words import counted

Direction = Literal["higher", "lower"]
_ARROWS = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True)
class Column:
    """A column: the metric its numbers come from, its heading with unit, and which direction is better.

    One that is not ``shown`` stands in table.csv alone; of one that is not ``ranked`` no number is marked as best.
    """

    metric: str
    title: str
    unit: str
    direction: Direction
    combine: Literal["mean", "max"] = "mean"
    shown: bool = True
    ranked: bool = True

    def heading(self, scale: int, title: str | None = None) -> str:
        """Title (or another one), unit (or the power of ten that its numbers leave out) and direction."""
        unit = self.unit or (f"1e{scale}" if scale else "")
        return f"{title or self.title}{f' ({unit})' if unit else ''} {_ARROWS[self.direction]}"


@dataclass(frozen=True)
class Line:
    """A line: values by metric (None where there is none), how many cells failed or were skipped, the numbers of the
    footnotes that concern it, the group it stands in (one of FAMILIES), and the intervals of values that have one."""

    method: str
    precision: str | None
    size: int
    strength: float
    baseline: bool
    values: dict[str, float | None]
    failed: int
    skipped: int
    notes: tuple[int, ...]
    family: str = OTHERS
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A finished table. ``best`` and ``second`` hold (line, metric) of every number that is bold or underlined;
    ``pairs`` how many pairs a size, strength and metric joins, ``missing`` which ones only some lines cover;
    ``intervals`` what the intervals are, in a sentence; ``order`` the methods and sanity rows in the order of the rows.
    """

    protocol: str
    caption: str
    columns: list[Column]
    lines: list[Line]
    best: set[tuple[int, str]]
    pairs: dict[tuple[int, float, str], int]
    notes: list[str]
    remarks: list[Remark]
    second: set[tuple[int, str]] = field(default_factory=set)
    intervals: str = ""
    order: tuple[str, ...] = ()
    missing: Mapping[tuple[int, float, str], tuple[str, ...]] = field(default_factory=dict)

    @property
    def shown(self) -> list[Column]:
        """The columns of every form but CSV."""
        return [column for column in self.columns if column.shown]

    @property
    def shared(self) -> list[int]:
        """Numbers of the footnotes that every method's line would bear: they hold for the table."""
        lines = [line for line in self.lines if not line.baseline]
        numbers = range(1, len(self.notes) + 1) if len(lines) > 1 else ()
        return [number for number in numbers if all(number in line.notes for line in lines)]

    def scale(self, column: Column) -> int:
        """The power of ten taken out of a column without unit whose numbers are very large or very small."""
        values = [abs(value) for line in self.lines if (value := line.values.get(column.metric)) is not None]
        largest = max(values, default=0.0)
        if column.unit or largest == 0 or 1e-3 <= largest < 1e5:
            return 0
        return math.floor(math.log10(largest))


def build_table(rows: Iterable[Row], run_file: Mapping[str, Any], registry: Registry | None = None) -> Table:
    """The table of all rows that count; ProtocolError where rows belong to another protocol than run.json."""
    registry = registry or load_registry()
    valid = latest(rows)
    identity = run_file["protocol"]
    strangers = {row.protocol for row in valid} - {identity["id"]}
    if strangers:
        raise ProtocolError(f"Rows of {sorted(strangers)[0]} cannot stand in a table of {identity['id']}.")
    baselines = set(identity["resolved"]["baselines"])
    apart = [row for row in valid if of_run(row)]
    valid = [row for row in valid if not of_run(row)]
    columns = _columns(valid, registry)
    groups: dict[tuple[int, float], list[Row]] = {}
    for row in valid:
        groups.setdefault((row.size, row.strength), []).append(row)
    # Baselines have no strength and no seed of their own: they stand beside every strength, and count for every seed.
    # Nor has loading a method a strength.
    strengths = {row.strength for row in valid if not for_all_strengths(row, baselines)}
    seeds = identity["resolved"]["seeds"]
    lines: list[Line] = []
    best: set[tuple[int, str]] = set()
    second: set[tuple[int, str]] = set()
    pairs: dict[tuple[int, float, str], int] = {}
    missing: dict[tuple[int, float, str], tuple[str, ...]] = {}
    notes: list[str] = []
    said: list[Remark] = []
    for size in sorted({size for size, _ in groups}, key=lambda pixels: (pixels == 0, pixels)):
        fixed = [
            dataclasses.replace(row, seed=seed)
            for row in valid
            if row.size == size and for_all_strengths(row, baselines)
            for seed in (seeds if row.method in baselines and row.status == "ok" else [row.seed])
        ]
        for strength in sorted(strengths, reverse=True):
            own = [row for row in groups.get((size, strength), []) if not for_all_strengths(row, baselines)]
            start = len(lines)
            lines += _lines(own + fixed, size, strength, columns, registry, baselines, pairs, missing, notes, said)
            for found, place in ((best, 0), (second, 1)):
                found |= _placed(lines, start, columns, place)
    said += remarks.sanity(lines, columns)
    said += remarks.notes(valid, columns)
    said += remarks.other_weights(valid, registry)
    said += remarks.of_machine(apart) + remarks.largest(apart)
    said += remarks.peak_of_another_run(valid, apart)
    said += remarks.cold(valid, identity["resolved"], registry)
    said += remarks.of_runs(run_file)
    said = list(dict.fromkeys(said))
    order = tuple(dict.fromkeys(row.method for row in valid))
    caption, intervals = _caption(run_file, valid), _about_intervals(lines, columns, registry)
    return Table(identity["id"], caption, columns, lines, best, pairs, notes, said, second, intervals, order, missing)


def for_all_strengths(row: Row, baselines: set[str]) -> bool:
    """Return whether a row stands beside every strength: a sanity row's, or that of a whole process."""
    return row.method in baselines or (row.metric in MEASURES and MEASURES[row.metric].process)


def _columns(rows: Sequence[Row], registry: Registry) -> list[Column]:
    present = {row.metric for row in rows if row.status == "ok"}
    measures = [name for name in MEASURES if name in present]
    metrics = dict.fromkeys(row.metric for row in rows if row.metric not in MEASURES)
    return [column_of(name, registry) for name in (*measures, *metrics)]


def column_of(metric: str, registry: Registry) -> Column:
    """Return the column of a measure or a metric."""
    if (one := MEASURES.get(metric)) is not None:
        return Column(metric, one.column, one.unit, one.direction, one.combine, bool(one.column), one.ranked)
    entry = registry.metric(metric.partition("[")[0])
    return Column(metric, metric_title(metric, registry), entry.unit, entry.direction)


def metric_title(name: str, registry: Registry) -> str:
    """Return a metric's name in tables: on another network than the published one's it has a name of its own."""
    base, bracket, settings = name.partition("[")
    entry = registry.metric(base)
    if entry.heading is not None and not bracket:
        return entry.heading
    return (base.replace("_", " ") if "_" in base else base.upper()) + bracket + settings


def _lines(
    rows: Sequence[Row],
    size: int,
    strength: float,
    columns: Sequence[Column],
    registry: Registry,
    baselines: set[str],
    pairs: dict[tuple[int, float, str], int],
    missing: dict[tuple[int, float, str], tuple[str, ...]],
    notes: list[str],
    said: list[Remark],
) -> list[Line]:
    own = by_method(rows)
    # Family by family, the methods of each in the order they were measured; the baselines come last.
    families = {method: SANITY if method in baselines else family(method, registry) for method in own}
    order = sorted(own, key=lambda method: FAMILIES.index(families[method]))
    values: dict[str, dict[str, float | None]] = {method: {} for method in order}
    intervals: dict[str, dict[str, Interval]] = {method: {} for method in order}
    partial: dict[tuple[tuple[Unit, ...], tuple[Unit, ...]], list[str]] = {}
    for column in columns:
        scores = gather({method: own[method] for method in order}, column.metric)
        pairs[size, strength, column.metric] = len(scores.units)
        if scores.missing:
            missing[size, strength, column.metric] = tuple(names_of(scores.missing))
            if column.shown:
                partial.setdefault((scores.units, scores.missing), []).append(column.title)
        for method in order:
            kept = scores.of(method)
            values[method][column.metric] = _combined(kept.tolist(), column.combine) if len(kept) else None
        for method, interval in column_intervals(scores, column).items():
            intervals[method][column.metric] = interval
    for (common, left_out), titles in partial.items():
        said.append(remarks.coverage(common, left_out, titles, size))
    return [
        Line(
            method,
            next((row.precision for row in own[method] if row.precision), None),
            size,
            strength,
            method in baselines,
            values[method],
            sum(row.status == "failed" for row in own[method]),
            sum(row.status == "skipped" for row in own[method]),
            _notes_of(own[method], notes),
            families[method],
            intervals[method],
        )
        for method in order
    ]


def column_intervals(scores: Scores, column: Column) -> dict[str, Interval]:
    """The intervals of a column's means, by method; none where there is nothing to draw from.

    A timing (a measure in seconds with its repeats) speaks of its repeats, a metric of the pairs.
    """
    if column.combine == "max" or not scores.units:
        return {}
    if column.metric in MEASURES:
        timed = column.metric.startswith("seconds.") and not column.metric.endswith((".p95", ".iqr"))
        cells = zip(scores.methods, scores.samples, strict=True) if timed else ()
        found = {method: statistics.timing_interval(samples) for method, samples in cells}
        return {method: interval for method, interval in found.items() if interval is not None}
    pairs = scores.pairs
    drawn = statistics.mean_intervals(scores.values, pairs) if pairs is not None else None
    return {} if drawn is None else dict(zip(scores.methods, drawn, strict=True))


def _about_intervals(lines: Sequence[Line], columns: Sequence[Column], registry: Registry) -> str:
    """What the intervals are and, where quality has none, why."""
    metrics = {metric for line in lines for metric in line.intervals}
    parts = []
    if metrics - MEASURES.keys():
        parts.append(f"of quality by two-way bootstrap over contents and styles ({statistics.RESAMPLES} resamples)")
    if metrics & MEASURES.keys():
        parts.append("of timings by bootstrap of the repeats of one process (other runs differ by more)")
    said = f"Intervals at {100 * statistics.LEVEL:g} %: {', '.join(parts)}." if parts else ""
    beyond = [column.title for column in columns if column.shown and _beyond(lines, column, registry)]
    if beyond:
        said += (
            " They are symmetric about the mean: few contents and styles let some pass the bounds of their metric "
            f"({', '.join(beyond)})."
        )
    of_pairs = {
        column.metric
        for column in columns
        if column.metric not in MEASURES and registry.metric(column.metric.partition("[")[0]).scope == "pair"
    }
    scored = any(line.values.get(metric) is not None for line in lines for metric in of_pairs)
    if scored and not metrics - MEASURES.keys():
        said += " " * bool(said) + (
            f"Quality has no intervals: fewer than {statistics.MIN_LEVELS} contents or styles say nothing about others."
        )
    return said


def _beyond(lines: Sequence[Line], column: Column, registry: Registry) -> bool:
    """Whether an interval of a metric holds values that the metric cannot have."""
    if column.metric in MEASURES:
        return False
    low, high = registry.metric(column.metric.partition("[")[0]).bounds
    found = [line.intervals[column.metric] for line in lines if column.metric in line.intervals]
    # Not by what the last digit of a mean is rounded.
    return any(interval.low < low - 1e-6 or interval.high > high + 1e-6 for interval in found)


def _combined(values: Sequence[float], how: Literal["mean", "max"]) -> float:
    return max(values) if how == "max" else sum(values) / len(values)


def _placed(lines: Sequence[Line], start: int, columns: Sequence[Column], place: int) -> set[tuple[int, str]]:
    """(line, metric) of the numbers at a place (0 is best) among the methods from line ``start`` on; ties share it.

    The second of two is the last, and is not marked.
    """
    found: set[tuple[int, str]] = set()
    for column in columns:
        if not column.ranked:
            continue
        competing = {
            i: value
            for i, line in enumerate(lines[start:], start)
            if not line.baseline and (value := line.values.get(column.metric)) is not None
        }
        distinct = sorted(set(competing.values()), reverse=column.direction == "higher")
        if len(competing) > 1 + place and len(distinct) > place:
            found |= {(i, column.metric) for i, value in competing.items() if value == distinct[place]}
    return found


def _notes_of(rows: Sequence[Row], notes: list[str]) -> tuple[int, ...]:
    """Footnotes for what failed or was skipped, one per reason; numbers count from 1."""
    lost: dict[tuple[str, str, str], set[tuple[str | None, str | None]]] = {}
    for row in rows:
        if row.status != "ok":
            key = (row.status, "" if row.metric == PRIMARY else f"{row.metric} ", row.reason)
            lost.setdefault(key, set()).add((row.content, row.style))
    numbers = []
    for (status, metric, reason), pairs in lost.items():
        where = "on all pictures" if (None, None) in pairs else f"on {counted(len(pairs), 'pair')}"
        text = f"{metric}{status} {where}: {reason.rstrip('.')}."
        if text not in notes:
            notes.append(text)
        numbers.append(notes.index(text) + 1)
    return tuple(dict.fromkeys(numbers))


def _caption(run_file: Mapping[str, Any], rows: Sequence[Row]) -> str:
    conditions = run_file["conditions"]
    resolved = run_file["protocol"]["resolved"]
    precisions = sorted({row.precision for row in rows if row.precision})
    precisions = precisions if len(precisions) == 1 else []
    parts = [
        f"Protocol {run_file['protocol']['id']}",
        counted(len(resolved["pairs"]), "pair"),
        str(conditions["machine"]),
        ", ".join([str(conditions["device"]), counted(conditions["threads"], "thread"), *precisions]),
        f"zoo {conditions['version']}",
        dates(rows) or "nothing measured",
    ]
    return "; ".join(parts)


# -- a results folder ----------------------------------------------------------------------------------------------


def read_table(path: Path) -> Table:
    """The table of a results folder; ProtocolError where nothing was measured there."""
    folder = Folder(path)
    run_file = read_run(folder)
    return build_table(read_rows(folder.rows), run_file)


def read_run(folder: Folder) -> dict[str, Any]:
    """The run.json of a results folder; ProtocolError where nothing was measured there."""
    if (run_file := folder.read_run()) is None:
        raise ProtocolError(f"{folder.path} holds no results: run 'zoo bench --out {folder.path}' first.")
    return run_file
