"""How seconds and memory grow with the size of the picture: a power law fitted per method, and what it foretells."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zoo.bench.rows import Row, latest

# What grows with the size and is worth a fit: one picture, one step, and the peaks.
METRICS = ("seconds.stylize", "seconds.step", "memory.resident", "memory.cuda_allocated")


@dataclass(frozen=True)
class Growth:
    """``metric`` of ``method`` is about ``coefficient`` times pixels to the power ``exponent``.

    Pixels are the square of ``size`` (the side that the protocol's ``resize`` names), so that 1 means: in proportion
    to the area. ``error`` is the standard error of the exponent in the least-squares fit of the logarithms, None from
    two sizes, through which a line always goes. ``sizes`` are the sizes fitted. Costs that do not grow (a network's
    weights, a call's overhead) flatten the small end: an exponent holds for its sizes and not beyond them.
    """

    method: str
    metric: str
    exponent: float
    error: float | None
    coefficient: float
    sizes: tuple[int, ...]

    def at(self, size: int) -> float:
        """The fitted value at a size."""
        return self.coefficient * float(size) ** (2 * self.exponent)

    def __str__(self) -> str:
        spread = "" if self.error is None else f" ± {self.error:.2f}"
        return f"{self.exponent:.2f}{spread}"


def growth(rows: Iterable[Row]) -> list[Growth]:
    """The fit of every method and of METRICS with values at two sizes or more, methods in the order of their rows.

    A size's value is the mean over its pairs, seeds and strengths that are ``ok``; size 0 (kept) is no size.
    """
    counted = latest(rows)
    found = []
    for method in dict.fromkeys(row.method for row in counted):
        for metric in METRICS:
            points = by_size(counted, method, metric)
            if len(points) > 1:
                found.append(fit(method, metric, points))
    return found


def by_size(rows: Iterable[Row], method: str, metric: str) -> dict[int, float]:
    """Mean positive value of a metric at every size, ascending."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if (row.method, row.metric, row.status) == (method, metric, "ok") and row.size and row.value and row.value > 0:
            values.setdefault(row.size, []).append(row.value)
    return {size: statistics.fmean(values[size]) for size in sorted(values)}


def fit(method: str, metric: str, points: Mapping[int, float]) -> Growth:
    """Least squares on the logarithms of pixels and value; ``points`` are positive values by size, at least two."""
    x = [2 * math.log(size) for size in points]
    y = [math.log(value) for value in points.values()]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    rest = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    error = math.sqrt(rest / (len(x) - 2) / spread) if len(x) > 2 else None
    return Growth(method, metric, slope, error, math.exp(mean_y - slope * mean_x), tuple(points))


def projected(rows: Iterable[Row], method: str, metric: str, size: int) -> float | None:
    """What ``metric`` would be at a larger ``size``: along the line through the two largest sizes measured below it.

    Through those alone, because fixed costs weigh least there. From one size: in proportion to the pixels. None where
    nothing was measured below.
    """
    points = {small: value for small, value in by_size(rows, method, metric).items() if small < size}
    if not points:
        return None
    if len(points) == 1:
        ((small, value),) = points.items()
        return value * (size / small) ** 2
    return fit(method, metric, dict(list(points.items())[-2:])).at(size)
