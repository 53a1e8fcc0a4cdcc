"""What must be said beside the table of a run: what its numbers alone would not tell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.bench import remarks
from zoo.bench.measures import PRIMARY
from zoo.bench.rows import Row, RowKey
from zoo.errors import UnknownNameError
from zoo.registry import Registry
from zoo.report.families import method_entry
from zoo.report.scores import Unit, names_of
from zoo.words import counted

if TYPE_CHECKING:
    from zoo.report.tables import Column, Line

# Pairs that a remark names before it stops.
_LISTED = 8


def sanity(lines: Sequence[Line], columns: Sequence[Column]) -> list[str]:
    """Return which sanity rows beat every method, and in what: such a column alone does not measure style transfer."""
    found: dict[str, list[str]] = {}
    for column in columns:
        if not column.shown:
            continue
        sign = 1 if column.direction == "higher" else -1
        for place in dict.fromkeys((line.size, line.strength) for line in lines):
            own = [
                (sign * value, line)
                for line in lines
                if (line.size, line.strength) == place and (value := line.values.get(column.metric)) is not None
            ]
            methods = [value for value, line in own if not line.baseline]
            for value, line in own:
                if line.baseline and methods and value > max(methods):
                    found.setdefault(line.method, []).append(column.title)
    parts = [f"{method} in {', '.join(dict.fromkeys(titles))}" for method, titles in found.items()]
    if not parts:
        return []
    return [f"Sanity rows beat every method: {'; '.join(parts)}. No such column alone tells a good transfer."]


def said_beside(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Return what must be said with the values of columns, once per reason, and of which lines if not of all."""
    titles = {column.metric: column.title for column in columns if column.shown}
    lines: dict[str, set[tuple[str, int]]] = {}
    found: dict[str, dict[str, list[tuple[str, int]]]] = {}
    for row in rows:
        if row.status == "ok" and row.metric in titles:
            lines.setdefault(row.metric, set()).add((row.method, row.size))
    for row in rows:
        if row.status == "ok" and row.reason and row.metric in titles:
            found.setdefault(row.reason.rstrip("."), {}).setdefault(row.metric, []).append((row.method, row.size))
    said: dict[tuple[str, str], list[str]] = {}
    for reason, metrics in found.items():
        for metric, own in metrics.items():
            where = "" if lines[metric] <= set(own) else f" ({_lines_named(own, lines[metric])})"
            said.setdefault((reason, where), []).append(titles[metric])
    return [f"{', '.join(names)}: {reason}{where}." for (reason, where), names in said.items()]


def _lines_named(some: Sequence[tuple[str, int]], every: set[tuple[str, int]]) -> str:
    """Methods of some lines, with their sizes where those are not all that the method has."""
    sizes: dict[str, list[int]] = {}
    for method, size in dict.fromkeys(some):
        sizes.setdefault(method, []).append(size)
    number = {name: sum(method == name for method, _ in every) for name in sizes}
    return ", ".join(
        name if len(own) == number[name] else f"{name} at {' and '.join(map(str, own))}" for name, own in sizes.items()
    )


def other_weights(rows: Sequence[Row], registry: Registry) -> list[str]:
    """Return which methods were measured with weights which the zoo has replaced since."""
    found = []
    for label in dict.fromkeys(row.method for row in rows):
        if method_entry(label, registry) is None:
            continue
        try:
            known = registry.resolve(label.partition("[")[0]).checkpoint
        except UnknownNameError:  # a preset of that time
            continue
        used = {row.checkpoint for row in rows if row.method == label and row.checkpoint is not None}
        if known is not None and used - {known.sha256}:
            found.append(label)
    return [f"Measured with earlier weights than the zoo has now: {', '.join(found)}."] if found else []


def peak_of_another_run(rows: Sequence[Row], of_run: Sequence[Row]) -> list[str]:
    """Return whether shares of the peak join it with times of another run, between which a machine may change."""
    peaks = {row.precision: row for row in of_run if row.metric == "machine.conv_gflops" and row.value}
    runs = {row.key: row.run_id for row in rows}
    values = {row.key: row.value for row in rows if row.status == "ok" and row.value}
    shares = [row for row in rows if row.metric == "share.conv_peak" and row.key in values]
    apart: dict[str, None] = {}
    for share in shares:
        by_step = _beside(share, "gflops.step") in values
        time = _beside(share, "seconds.step" if by_step else PRIMARY)
        work, seconds = values.get(_beside(share, "gflops.step" if by_step else "gflops.stylize")), values.get(time)
        peak = peaks.get(share.precision)
        if work and seconds and peak and peak.value:
            # Merged shards have each their own peak, of which one is kept: then the share does not follow from it.
            follows = math.isclose(values[share.key], 100 * work / seconds / peak.value, rel_tol=1e-3)
            if follows and runs[time] != peak.run_id:
                apart[share.method] = None
    whose = "" if len(apart) == len({row.method for row in shares}) else f" of {', '.join(apart)}"
    return [f"of peak: the peak was measured in another run than the times{whose}."] if apart else []


def _beside(row: Row, metric: str) -> RowKey:
    """The key of another measure of the row's cell."""
    return dataclasses.replace(row, metric=metric).key


def cold(rows: Sequence[Row], resolved: Mapping[str, Any], registry: Registry) -> list[str]:
    """Return which methods' times are of calls without warm-up, as the protocol has it."""
    timed = dict.fromkeys(row.method for row in rows if row.metric == PRIMARY and row.status == "ok")
    cold = [method for method in timed if not _warmup(method, resolved, registry)]
    whose = "" if len(cold) == len(timed) else f" of {', '.join(cold)}"
    return [f"Times{whose} are of calls without warm-up: this protocol is not one of speed."] if cold else []


def _warmup(label: str, resolved: Mapping[str, Any], registry: Registry) -> int:
    """Warm-up calls of a method: its own entry in the protocol goes above that of optimisation, and this above all."""
    full = label.partition("[")[0]
    entry, methods = method_entry(label, registry), resolved.get("methods", {})
    own = [methods.get(full), methods.get(full.partition(".")[0])]
    if entry is not None and entry.taxonomy.optimises == "image":
        own.append(resolved.get("optimisation"))
    timing = next((one["timing"] for one in own if one and one.get("timing")), resolved.get("timing", {}))
    return timing.get("warmup", 1)


def coverage(common: Sequence[Unit], missing: Sequence[Unit], titles: Sequence[str], size: int) -> str:
    """Return which pairs a column joins or, where that is shorter, which it does not; table.json names all of these."""
    fewer = common if len(common) <= len(missing) else missing
    names = names_of(fewer)
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    which = f": {'' if fewer is common else 'all but '}{listed}" if common else ""
    at = f" at {size}" if size else ""
    total = len(common) + len(missing)
    return f"{', '.join(titles)}{at}: over the {len(common)} of {counted(total, 'pair')} that every line covers{which}."


def of_runs(run_file: dict[str, Any]) -> list[str]:
    """Return what changed between the runs of a folder, and what else their machine did."""
    runs = run_file["runs"]
    busy = remarks.busy_remark(runs)
    said = [busy] if busy else []
    if len({run["environment"]["source"] for run in runs}) > 1:
        said.append("The rows come from several runs, between which the code changed.")
    if others := remarks.libraries_remark(runs):
        said.append(others)
    return said
