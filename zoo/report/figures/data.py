"""What the figures draw, as plain numbers taken from a table: the very values that table.csv holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.bench.growth import Growth, fit, projected
from zoo.bench.measures import PRIMARY
from zoo.bench.rows import Row, latest
from zoo.registry import Registry
from zoo.report.narrow import CONTENT_METRICS, STYLE_METRICS
from zoo.report.tables import Table

# Tables name what the harness measured; these follow it per picture and are therefore drawn against the size.
MEMORY = ("memory.cuda_allocated", "memory.resident")


@dataclass(frozen=True)
class Series:
    """The points of one method: ``x`` ascending, ``y`` beside it."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def growth(self, metric: str) -> Growth | None:
        """The power of the pixels that the points follow; None from fewer than two sizes or where a value is zero."""
        points = {int(x): y for x, y in zip(self.x, self.y, strict=True)}
        return fit(self.label, metric, points) if len(points) > 1 and min(self.y) > 0 else None


def against_size(table: Table, metric: str) -> list[Series]:
    """A metric of the methods against the size in pixels, at the table's largest strength; kept sizes have none."""
    strength = max((line.strength for line in table.lines if not line.baseline), default=1.0)
    found: dict[str, list[tuple[int, float]]] = {}
    for line in table.lines:
        value = line.values.get(metric)
        if value is not None and line.size and line.strength == strength and not line.baseline:
            found.setdefault(line.method, []).append((line.size, value))
    series = []
    for label, points in found.items():
        points.sort()
        series.append(Series(label, tuple(float(size) for size, _ in points), tuple(value for _, value in points)))
    return series


@dataclass(frozen=True)
class Boundary:
    """The smallest size at which a method ran out of memory, and the MiB that its smaller sizes foretell there."""

    label: str
    size: int
    need: float | None


def memory_boundary(rows: Iterable[Row], metric: str) -> list[Boundary]:
    """Per method, the smallest size that failed for want of memory."""
    rows = latest(rows)
    found: dict[str, int] = {}
    for row in rows:
        if row.metric == PRIMARY and row.status == "failed" and row.cause == "memory" and row.size:
            found[row.method] = min(row.size, found.get(row.method, row.size))
    return [Boundary(method, size, projected(rows, method, metric, size)) for method, size in found.items()]


def memory_limit(run_file: dict[str, Any]) -> float | None:
    """MiB at which a worker was ended: the protocol's share of the smallest machine that took part; None on a GPU."""
    if str(run_file["conditions"]["device"]) != "cpu":
        return None
    memories = [run["environment"].get("memory_mib") for run in run_file["runs"]]
    share = run_file["protocol"]["resolved"].get("limits", {}).get("memory")
    known = [float(memory) for memory in memories if memory]
    return min(known) * float(share) if known and share else None


@dataclass(frozen=True)
class Point:
    """A method (or baseline) at one strength: ``x`` is how far the content is kept, ``y`` how far the style carried."""

    label: str
    strength: float
    x: float
    y: float
    baseline: bool = False


def tradeoff_metrics(table: Table, registry: Registry) -> tuple[str | None, str | None]:
    """The content and the style metric to draw: the first of those preferred that a method has values of, else any."""
    scored = {
        name for line in table.lines if not line.baseline for name, value in line.values.items() if value is not None
    }
    present = [column.metric for column in table.columns if "[" not in column.metric and column.metric in scored]
    known = {name: registry.metrics[name].measures for name in present if name in registry.metrics}
    chosen: list[str | None] = []
    for kind, preferred in (("content", CONTENT_METRICS), ("style", STYLE_METRICS)):
        candidates = [name for name, measures in known.items() if measures == kind]
        chosen.append(next((name for name in preferred if name in candidates), next(iter(candidates), None)))
    return chosen[0], chosen[1]


def tradeoff(table: Table, content: str, style: str, size: int) -> list[Point]:
    """A point per method and strength, and one per baseline, where a line of this size holds both metrics."""
    points: dict[tuple[str, float], Point] = {}
    for line in table.lines:
        x, y = line.values.get(content), line.values.get(style)
        if line.size == size and x is not None and y is not None:
            strength = 1.0 if line.baseline else line.strength
            points.setdefault((line.method, strength), Point(line.method, strength, x, y, line.baseline))
    return list(points.values())


def pareto(points: Sequence[Point], *, x_higher: bool, y_higher: bool) -> list[Point]:
    """The points that no other beats in one direction without losing in the other, ascending in x.

    A point equal to another in both stays: neither beats the other. Baselines neither stand in it nor beat a method.
    """
    methods = [point for point in points if not point.baseline]

    def gain(point: Point) -> tuple[float, float]:
        return (point.x if x_higher else -point.x, point.y if y_higher else -point.y)

    front = []
    for point in methods:
        a, b = gain(point)
        beaten = any(
            c >= a and d >= b and (c, d) != (a, b) for c, d in (gain(other) for other in methods if other is not point)
        )
        if not beaten:
            front.append(point)
    return sorted(front, key=lambda point: (point.x, point.y))
