"""How quality grows with steps and seconds within one run of a method that optimises the image (``steps`` of a
protocol): the curves as plain numbers, for the figure and the page, and the figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.bench.measures import PRIMARY
from zoo.bench.plan import split_step
from zoo.bench.rows import Row
from zoo.registry import Registry
from zoo.report.figures import canvas
from zoo.report.figures.canvas import Look
from zoo.report.layout import Layout
from zoo.report.narrow import choose
from zoo.report.tables import build_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS = "loss.total"
_PANEL_MM = 36.0


@dataclass(frozen=True)
class Course:
    """One method: ``steps`` ascending (none of a method without), seconds until then and a value per metric."""

    label: str
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    values: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Courses:
    """All methods of a run, and the ``metrics`` that are shown with their headings."""

    methods: Sequence[Course]
    metrics: Mapping[str, str]

    @property
    def drawn(self) -> bool:
        """Whether any method has a curve."""
        return any(course.steps and any(course.values.values()) for course in self.methods)


def courses(rows: Sequence[Row], run_file: Mapping[str, Any], registry: Registry, size: int) -> Courses:
    """Return the curves of the rows at ``size``, with the numbers of their table: means over the pairs they share.

    Shown are one metric of content and two of style (:func:`zoo.report.narrow.choose`), and each method's own loss as
    a share of that at its first step.
    """
    if all(row.size != size for row in rows):
        return Courses([], {})
    chosen = choose(rows, run_file, registry, Layout(size=size), content=1, style=2)
    table = build_table(chosen.rows, run_file, registry)
    found: dict[str, list[tuple[int, Mapping[str, float | None]]]] = {}
    for line in table.lines:
        name, step = split_step(line.method)
        if not line.baseline and line.values.get(PRIMARY) is not None:
            found.setdefault(name, []).append((step or 0, line.values))
    headings = {column.metric: column.heading(0) for column in table.columns if column.metric in chosen.metrics}
    methods = []
    for name, points in found.items():
        points.sort(key=lambda point: point[0])
        values = {metric: tuple(_numbers(points, metric)) for metric in (*headings, LOSS)}
        if values[LOSS] and values[LOSS][0] > 0:
            values[LOSS] = tuple(value / values[LOSS][0] for value in values[LOSS])
        steps = tuple(step for step, _ in points if step)
        methods.append(Course(name, steps, tuple(_numbers(points, PRIMARY)), values))
    return Courses(methods, {**headings, LOSS: "own loss (share of the first)"})


def _numbers(points: Iterable[tuple[int, Mapping[str, float | None]]], metric: str) -> list[float]:
    """The values of a metric; none at all where one is missing, for the curve would lack its middle."""
    values = [values.get(metric) for _, values in points]
    return [value for value in values if value is not None] if None not in values else []


def convergence(found: Courses, looks: Mapping[str, Look], names: Mapping[str, str], *, width_mm: float) -> Figure:
    """A row of panels per metric: against the steps, and against the seconds, where single marks are one pass."""
    height = _PANEL_MM * len(found.metrics)
    figure = canvas.new(width_mm, height)
    panels = figure.subplots(len(found.metrics), 2, squeeze=False, sharex="col", sharey="row")
    for (left, right), (metric, heading) in zip(panels, found.metrics.items(), strict=True):
        everything: list[float] = []
        for course in found.methods:
            values, look = course.values[metric], looks[course.label]
            for axes, x in ((left, course.steps), (right, course.seconds)):
                if values and x:
                    axes.plot(
                        x,
                        values,
                        color=look.color,
                        linestyle=look.line,
                        marker=look.marker,
                        markersize=3.0,
                        gid=f"{course.label} {metric}",
                        label=names[course.label],
                    )
            everything += values
        if everything and min(everything) > 0 and max(everything) > 20 * min(everything):
            left.set_yscale("log")
            canvas.log_axis(left.yaxis, everything)
        left.set_title(heading, loc="left")
        for axes in (left, right):
            axes.grid(which="major")
    for axes, label, numbers in (
        (panels[-1][0], "step", [float(step) for course in found.methods for step in course.steps]),
        (panels[-1][1], "seconds", [second for course in found.methods for second in course.seconds]),
    ):
        axes.set_xscale("log")
        canvas.log_axis(axes.xaxis, numbers)
        axes.set_xlabel(label)
    canvas.add_legend(figure, height, *(axes for row in panels for axes in row))
    return figure


__all__ = ["LOSS", "Course", "Courses", "convergence", "courses"]
