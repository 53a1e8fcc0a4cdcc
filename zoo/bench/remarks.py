"""What a table says of a whole run: how fast the machine is, how large a picture fits, whether others worked on it.

The first two come from rows of scope ``run`` (:mod:`zoo.bench.measures`): they have no picture, their size is 0, and
they are no line of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.bench.measures import MEASURES
from zoo.bench.rows import Row
from zoo.words import counted

_MACHINE = "machine[precision="
# Above this share of the cores, other work runs beside the benchmark and its timings suffer.
BUSY_SHARE = 0.5
# The same for the mean over the whole run, which a short burst does not move.
BUSY_MEAN_SHARE = 0.15


def machine_label(precision: str) -> str:
    """The method of the rows that hold the machine's own speed in a precision."""
    return f"{_MACHINE}{precision}]"


def of_run(row: Row) -> bool:
    """Whether a row belongs to the run and not to a line of a table."""
    return row.method.startswith(_MACHINE) or (row.metric in MEASURES and MEASURES[row.metric].scope == "run")


def machine_remark(rows: Iterable[Row]) -> str:
    """The machine's measured peak in every precision, in one line; empty where it was not measured."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.method.startswith(_MACHINE) and row.value is not None:
            found.setdefault(row.precision or "", {})[row.metric] = row.value
    said = [
        f"{precision} {values['machine.conv_gflops']:.0f} and {values['machine.matmul_gflops']:.0f} GFLOP/s"
        for precision, values in found.items()
        if {"machine.conv_gflops", "machine.matmul_gflops"} <= values.keys()
    ]
    return f"Measured peak of the machine, a convolution and a matrix product: {'; '.join(said)}." if said else ""


def largest_remark(rows: Iterable[Row]) -> str:
    """The largest size that fits of every method, with what ended the search; empty where nobody asked."""
    said = [
        f"{row.method} {row.value:.0f}" + (f" ({row.reason})" if row.reason else "")
        for row in rows
        if row.metric == "size.largest" and row.value is not None
    ]
    return f"Largest size that fits, in pixels: {'; '.join(said)}." if said else ""


def libraries_remark(entries: Iterable[Mapping[str, Any]]) -> str:
    """Which libraries, drivers or settings from outside changed between the runs of a folder; empty for none."""
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
    return f"The rows come from several runs, between which other things changed: {', '.join(said)}." if said else ""


def busy_remark(entries: Iterable[Mapping[str, Any]]) -> str:
    """What is to be said where a run (its entry in run.json) shared the machine with other work, or may have.

    What counts is the load when the run began, against the usable cores (and that of its GPU), and how many cores other
    processes kept busy on average while it ran.
    """
    entries = list(entries)
    said = [why for entry in entries if (why := busy(entry))]
    parts = [f"Busy machine: {said[0]}; timings suffer."] if said else []
    unknown = sum(entry.get("ended", "") is None and entry.get("timed") != 0 for entry in entries)
    if unknown:
        parts.append(
            f"Of {counted(len(entries), 'run')} into this folder {unknown} did not come to an end: what else the "
            "machine did meanwhile is not known, only its load when they began."
        )
    return " ".join(parts)


def busy(entry: Mapping[str, Any]) -> str:
    """Why a run counts as one on a busy machine; empty where it does not, or where it timed nothing."""
    if entry.get("timed") == 0:
        return ""
    cores = entry["environment"]["usable_cores"]
    everything = entry["environment"].get("logical_cores") or cores
    before, others = entry.get("load_before"), entry.get("other_cores")
    # Cores that the run may not use can be others' without harm.
    if others is not None and others - (everything - cores) > BUSY_MEAN_SHARE * cores:
        return f"other processes kept {others:.1f} of {counted(everything, 'core')} busy while a run was on"
    if before is not None and before > BUSY_SHARE * cores:
        return f"a load of {before:g} on {counted(cores, 'core')} when a run began"
    if (gpu := entry.get("gpu_before") or 0) > 100 * BUSY_MEAN_SHARE:
        return f"others kept the GPU {gpu} % busy when a run began"
    return ""
