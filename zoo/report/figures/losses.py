"""Loss curves: of a training run (losses.csv) and of optimisation methods (``zoo stylize --losses FILE``)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import InputError
from zoo.report.figures import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Columns that are no loss: where the row stands, and what the optimiser did.
_BESIDE = {"step", "image", "lr", "grad_norm", "evaluation", "level", "seconds"}
_PANEL_MM = 34.0
# Above so many points a curve is a band of noise: the running median tells its course.
_NOISY = 200


@dataclass(frozen=True)
class Curve:
    """One file: ``steps`` ascending and, for every loss, a value at each (none where the file left it empty)."""

    name: str
    steps: tuple[int, ...]
    losses: Mapping[str, tuple[float | None, ...]]

    def points(self, loss: str) -> tuple[list[int], list[float]]:
        """The steps that have this loss, and its values."""
        found = [(step, value) for step, value in zip(self.steps, self.losses[loss], strict=True) if value is not None]
        return [step for step, _ in found], [value for _, value in found]


def read_curve(path: Path, name: str) -> Curve:
    """A CSV with a column ``step`` and a column per loss; of several images the first is read.

    Raises InputError where the file cannot be read, has no such columns or a cell that is no number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as losses: {error}.") from error
    if not rows or "step" not in rows[0]:
        raise InputError(f"{path} holds no losses: it needs a column 'step' and a row per step.")
    first = rows[0].get("image")
    rows = [row for row in rows if row.get("image") == first]
    terms = [term for term in rows[0] if term and term not in _BESIDE]
    if not terms:
        raise InputError(f"{path} holds no losses: it has no column beside {', '.join(filter(None, rows[0]))}.")
    try:
        steps = tuple(int(float(row["step"])) for row in rows)
        losses = {term: tuple(float(row[term]) if row[term] else None for row in rows) for term in terms}
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path} is not a table of losses: {error}.") from error
    return Curve(name, steps, losses)


def loss_curves(curves: Sequence[Curve], *, width_mm: float) -> Figure:
    """A panel per loss, a curve per run that has it; logarithmic where every value is positive.

    More than 200 points are drawn faint, with their running median (over a fiftieth of the run) on top.
    """
    if not curves:
        raise InputError("There are no losses to draw: give at least one file.")
    terms = list(dict.fromkeys(term for curve in curves for term in curve.losses))
    looks = canvas.looks([curve.name for curve in curves])
    columns = 1 if width_mm < 110 or len(terms) == 1 else 2
    lines = -(-len(terms) // columns)
    height = _PANEL_MM * lines + 3.0
    figure = canvas.new(width_mm, height)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for axes, term in zip(panels, terms, strict=False):
        everything: list[float] = []
        for curve in curves:
            if term not in curve.losses:
                continue
            look = looks[curve.name]
            steps, values = curve.points(term)
            everything += values
            noisy = len(values) > _NOISY
            axes.plot(
                steps,
                values,
                color=look.color,
                alpha=0.28 if noisy else 1.0,
                linewidth=0.5 if noisy else 1.1,
                linestyle="-" if noisy else look.line,
                gid=f"{curve.name} {term}",
                label=None if noisy else curve.name,
            )
            if noisy:
                middle_steps, middle = running_median(steps, values, len(values) // 50)
                axes.plot(middle_steps, middle, color=look.color, linestyle=look.line, label=curve.name)
        if everything and min(everything) > 0:
            axes.set_yscale("log")
            canvas.log_axis(axes.yaxis, everything)
        axes.set_title(term, loc="left")
        axes.grid(which="major")
    for axes in panels[len(terms) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(terms) - columns) : len(terms)]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    canvas.add_legend(figure, height, *panels)
    return figure


def running_median(steps: Sequence[int], values: Sequence[float], window: int) -> tuple[list[int], list[float]]:
    """The median of every whole window, at the window's last step."""
    import statistics

    ends = range(window, len(values) + 1, window)
    return [steps[end - 1] for end in ends], [statistics.median(values[end - window : end]) for end in ends]
