"""What must be said beside the table of a run: what its numbers alone would not tell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from zoo.bench.environment import busy
from zoo.bench.measures import PRIMARY
from zoo.bench.plan import MACHINE
from zoo.bench.rows import Row, RowKey
from zoo.errors import UnknownNameError
from zoo.registry import Registry
from zoo.report.families import method_entry
from zoo.report.scores import Unit, names_of
from zoo.words import counted

if TYPE_CHECKING:
    from zoo.report.tables import Column, Line

# What a remark is about: pairs that a column joins, sanity rows, a value's own note, weights replaced since, the speed
# of the machine, the largest size, a peak of another run, calls without warm-up, other work on the machine, and what
# changed between runs, and metrics without numbers.
Kind = Literal["coverage", "sanity", "note", "weights", "machine", "largest", "peak", "cold", "busy", "runs", "absent"]


@dataclasses.dataclass(frozen=True)
class Remark:
    """A sentence to be read, and its kind to decide by."""

    kind: Kind
    text: str


# Pairs that a remark names before it stops.
_LISTED = 8


def sanity(lines: Sequence[Line], columns: Sequence[Column]) -> list[Remark]:
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
    text = f"Sanity rows beat every method: {'; '.join(parts)}. No such column alone tells a good transfer."
    return [Remark("sanity", text)]


def notes(rows: Sequence[Row], columns: Sequence[Column]) -> list[Remark]:
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
    return [Remark("note", f"{', '.join(names)}: {reason}{where}.") for (reason, where), names in said.items()]


def _lines_named(some: Sequence[tuple[str, int]], every: set[tuple[str, int]]) -> str:
    """Methods of some lines, with their sizes where those are not all that the method has."""
    sizes: dict[str, list[int]] = {}
    for method, size in dict.fromkeys(some):
        sizes.setdefault(method, []).append(size)
    number = {name: sum(method == name for method, _ in every) for name in sizes}
    return ", ".join(
        name if len(own) == number[name] else f"{name} at {' and '.join(map(str, own))}" for name, own in sizes.items()
    )


def other_weights(rows: Sequence[Row], registry: Registry) -> list[Remark]:
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
    text = f"Measured with earlier weights than the zoo has now: {', '.join(found)}."
    return [Remark("weights", text)] if found else []


def peak_of_another_run(rows: Sequence[Row], of_run: Sequence[Row]) -> list[Remark]:
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
    return [Remark("peak", f"of peak: the peak was measured in another run than the times{whose}.")] if apart else []


def _beside(row: Row, metric: str) -> RowKey:
    """The key of another measure of the row's cell."""
    return dataclasses.replace(row, metric=metric).key


def cold(rows: Sequence[Row], resolved: Mapping[str, Any], registry: Registry) -> list[Remark]:
    """Return which methods' times are of calls without warm-up, as the protocol has it."""
    timed = dict.fromkeys(row.method for row in rows if row.metric == PRIMARY and row.status == "ok")
    cold = [method for method in timed if not _warmup(method, resolved, registry)]
    whose = "" if len(cold) == len(timed) else f" of {', '.join(cold)}"
    text = f"Times{whose} are of calls without warm-up: this protocol is not one of speed."
    return [Remark("cold", text)] if cold else []


def _warmup(label: str, resolved: Mapping[str, Any], registry: Registry) -> int:
    """Warm-up calls of a method: its own entry in the protocol goes above that of optimisation, and this above all."""
    full = label.partition("[")[0]
    entry, methods = method_entry(label, registry), resolved.get("methods", {})
    own = [methods.get(full), methods.get(full.partition(".")[0])]
    if entry is not None and entry.taxonomy.optimizes == "image":
        own.append(resolved.get("optimisation"))
    timing = next((one["timing"] for one in own if one and one.get("timing")), resolved.get("timing", {}))
    return timing.get("warmup", 1)


def coverage(common: Sequence[Unit], missing: Sequence[Unit], titles: Sequence[str], size: int) -> Remark:
    """Return which pairs a column joins or, where that is shorter, which it does not; table.json names all of these."""
    fewer = common if len(common) <= len(missing) else missing
    names = names_of(fewer)
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    which = f": {'' if fewer is common else 'all but '}{listed}" if common else ""
    at = f" at {size}" if size else ""
    total = len(common) + len(missing)
    covered = f"over the {len(common)} of {counted(total, 'pair')} that every line covers{which}."
    return Remark("coverage", f"{', '.join(titles)}{at}: {covered}")


def of_machine(rows: Iterable[Row]) -> list[Remark]:
    """Return the machine's measured peak in every precision."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.method.startswith(MACHINE) and row.value is not None:
            found.setdefault(row.precision or "", {})[row.metric] = row.value
    said = [
        f"{precision} {values['machine.conv_gflops']:.0f} and {values['machine.matmul_gflops']:.0f} GFLOP/s"
        for precision, values in found.items()
        if {"machine.conv_gflops", "machine.matmul_gflops"} <= values.keys()
    ]
    text = f"Measured peak of the machine, a convolution and a matrix product: {'; '.join(said)}."
    return [Remark("machine", text)] if said else []


def largest(rows: Iterable[Row]) -> list[Remark]:
    """Return the largest size that fits of every method, with what ended the search, where somebody asked."""
    said = [
        f"{row.method} {row.value:.0f}" + (f" ({row.reason})" if row.reason else "")
        for row in rows
        if row.metric == "size.largest" and row.value is not None
    ]
    return [Remark("largest", f"Largest size that fits, in pixels: {'; '.join(said)}.")] if said else []


def of_runs(run_file: Mapping[str, Any]) -> list[Remark]:
    """Return what else the machine did, and what changed between the runs of a folder."""
    runs = run_file["runs"]
    said = [Remark("busy", text)] if (text := _busy(runs)) else []
    if len({run["environment"]["source"] for run in runs}) > 1:
        said.append(Remark("runs", "The rows come from several runs, between which the code changed."))
    return said + [Remark("runs", text) for text in _changed(runs)]


def _busy(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return what is to be said where a run shared the machine with other work, or may have."""
    said = [why for entry in entries if (why := busy(entry))]
    parts = [f"Busy machine: {said[0]}; timings suffer."] if said else []
    unknown = sum(entry.get("ended", "") is None and entry.get("timed") != 0 for entry in entries)
    if unknown:
        parts.append(
            f"Of {counted(len(entries), 'run')} into this folder {unknown} did not come to an end: what else the "
            "machine did meanwhile is not known, only its load when they began."
        )
    return " ".join(parts)


def _changed(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return which libraries, drivers or settings from outside changed between runs."""
    described = []
    for entry in entries:
        environment = entry["environment"]
        gpu = {name: value for name, value in environment.get("gpu", {}).items() if name in ("driver", "cuda", "cudnn")}
        python = {"Python": environment.get("python")}
        described.append({**environment.get("libraries", {}), **environment.get("variables", {}), **gpu, **python})
    found = {
        name: sorted({str(own.get(name, "none")) for own in described})
        for name in dict.fromkeys(name for own in described for name in own)
    }
    said = [f"{name} ({', '.join(values)})" for name, values in found.items() if len(values) > 1]
    text = f"The rows come from several runs, between which other things changed: {', '.join(said)}."
    return [text] if said else []
