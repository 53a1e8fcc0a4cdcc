"""What the harness itself measures, beside the metrics of registry.yaml: names, units and how tables show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """A number that a worker reports.

    ``process`` belongs to the whole process and not to one cell; ``column`` is its heading in tables, empty where only
    table.csv shows it; ``combine`` is how a column joins its pairs.
    """

    name: str
    title: str
    unit: str
    column: str = ""
    combine: Literal["mean", "max"] = "mean"
    process: bool = False


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("seconds.import", "importing torch and the zoo", "s", process=True),
        Measure("seconds.load", "building the method, weights included", "s", process=True),
        Measure("seconds.first", "first call in the process", "s", "first call", process=True),
        Measure("seconds.encode_style", "encoding the style, median", "s", "encode style"),
        Measure("seconds.encode_style.p95", "encoding the style, 95th percentile", "s"),
        Measure("seconds.step", "one step of the optimisation", "s", "step"),
        Measure("seconds.stylize", "one picture, style encoded, median", "s", "stylize"),
        Measure("seconds.stylize.p95", "one picture, style encoded, 95th percentile", "s", "p95"),
        Measure("memory.idle", "resident before the method is built", "MiB", process=True),
        Measure("memory.resident", "peak resident above idle", "MiB", "peak memory", "max"),
        Measure("memory.cuda_allocated", "peak allocated by torch on the GPU", "MiB", "GPU allocated", "max"),
        Measure("memory.cuda_reserved", "peak reserved by torch on the GPU", "MiB", "GPU reserved", "max"),
    )
}

# A cell is done when it has this row, which is the last one written of it.
PRIMARY = "seconds.stylize"
