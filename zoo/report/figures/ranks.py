"""Average ranks with their critical difference, and how far metrics agree: drawn from plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import InputError
from zoo.report.figures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME_MM, _BAR_MM = 4.2, 2.2
# From a diagram's top to its line: title, critical difference, numbers.
_TOP_MM, _BELOW_MM = 12.5, 3.5
# Beside the line stand the names, a letter about this wide, on at most this share of the width.
_LETTER_MM, _LARGEST_MARGIN = 1.25, 0.38


@dataclass(frozen=True)
class Diagram:
    """Average ranks of methods in one metric, 1 the best; ranks closer than ``critical`` do not differ.

    ``groups`` are the largest sets of methods that cannot be told apart, as positions in ``names``.
    """

    title: str
    names: Sequence[str]
    ranks: Sequence[float]
    critical: float
    groups: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ranks) or len(self.ranks) < 2:
            raise InputError("A diagram of ranks needs at least two methods and a rank for each.")

    @property
    def first_name_mm(self) -> float:
        """From the top to the first method's name."""
        return _TOP_MM + 2.6 + _BAR_MM * len(self.groups) + 2.5

    @property
    def height_mm(self) -> float:
        """Laid out in millimetres, so that any number of methods keeps its spacing."""
        return self.first_name_mm + _NAME_MM * -(-len(self.names) // 2) + _BELOW_MM


def critical_differences(diagrams: Sequence[Diagram], *, width_mm: float, columns: int = 2) -> Figure:
    """Demšar 2006, figure 1, once per metric: ranks on a line, the best at the left, bars join what does not differ."""
    if not diagrams:
        raise InputError("There are no ranks to draw: give at least one metric.")
    lines = [diagrams[start : start + columns] for start in range(0, len(diagrams), columns)]
    heights = [max(diagram.height_mm for diagram in line) for line in lines]
    total = sum(heights)
    figure = canvas.new(width_mm, total, layout=None)
    width = width_mm / columns
    longest = max(len(name) for diagram in diagrams for name in diagram.names) + 6
    margin = min(_LARGEST_MARGIN * width, 4.0 + _LETTER_MM * longest)
    for number, line in enumerate(lines):
        top = sum(heights[:number])
        for place, diagram in enumerate(line):
            low = 1 - (top + diagram.height_mm) / total
            axes = figure.add_axes((place / columns, low, 1 / columns, diagram.height_mm / total), gid=diagram.title)
            axes.set(xlim=(0, width), ylim=(diagram.height_mm, 0))
            axes.axis("off")
            _draw_ranks(axes, diagram, width, margin)
    return figure


def _draw_ranks(axes: Axes, diagram: Diagram, width: float, margin: float) -> None:
    ranks, names = diagram.ranks, diagram.names
    low, high = math.floor(min(ranks)), math.ceil(max(ranks))
    high = max(high, low + 1)

    def across(rank: float) -> float:
        return margin + (rank - low) / (high - low) * (width - 2 * margin)

    ink: dict[str, Any] = {"color": "black", "solid_capstyle": "butt"}
    axes.text(width / 2, 0.8, diagram.title, ha="center", va="top")
    axes.plot([across(low), across(high)], [_TOP_MM] * 2, linewidth=0.8, **ink)
    for rank in range(low, high + 1):
        axes.plot([across(rank)] * 2, [_TOP_MM - 1.1, _TOP_MM], linewidth=0.8, **ink)
        axes.text(across(rank), _TOP_MM - 1.5, str(rank), ha="center", va="bottom", fontsize=6.5)
    _draw_critical(axes, across(low), across(low + diagram.critical), diagram.critical, width)
    for number, group in enumerate(diagram.groups):
        y = _TOP_MM + 2.6 + _BAR_MM * number
        places = [across(ranks[i]) for i in group]
        axes.plot([min(places) - 0.7, max(places) + 0.7], [y, y], linewidth=2.2, gid="group", **ink)
    order = sorted(range(len(ranks)), key=lambda i: ranks[i])
    half = (len(order) + 1) // 2
    for leftwards, members in ((True, order[:half]), (False, order[half:][::-1])):
        edge = margin - 1.5 if leftwards else width - margin + 1.5
        for row, i in enumerate(members):
            y, x = diagram.first_name_mm + _NAME_MM * row, across(ranks[i])
            axes.plot([x, x, edge], [_TOP_MM, y, y], linewidth=0.6, gid=names[i], **ink)
            text = f"{names[i]}  {ranks[i]:.2f}" if leftwards else f"{ranks[i]:.2f}  {names[i]}"
            room = margin - 3.0
            size = min(6.5, room / 25.4 * 72 / (0.56 * len(text)))
            side = "right" if leftwards else "left"
            axes.text(edge + (-0.8 if leftwards else 0.8), y, text, ha=side, va="center", fontsize=size)


def _draw_critical(axes: Axes, start: float, end: float, critical: float, width: float) -> None:
    """The length of the critical difference, or in words where it is longer than the page."""
    text = f"critical difference {critical:.2f}"
    if end > width - 2:
        axes.text(width / 2, 6.2, f"{text}, longer than the line: none differ", ha="center", va="center", fontsize=6)
        return
    axes.plot([start, start, start, end, end, end], [5.4, 7.0, 6.2, 6.2, 5.4, 7.0], color="black", linewidth=0.8)
    fits = end + 25 < width
    axes.text(end + 1 if fits else start - 1, 6.2, text, ha="left" if fits else "right", va="center", fontsize=6)


def correlations(names: Sequence[str], matrix: Sequence[Sequence[float]], *, title: str, width_mm: float) -> Figure:
    """A square of coefficients in [-1, 1], each written in its cell; NaN is an empty cell.

    The colours grow evenly from dark to light, so that grey keeps their order, sign included.
    """
    count = len(names)
    if count < 2 or len(matrix) != count or any(len(line) != count for line in matrix):
        raise InputError("A map of correlations needs two or more names and a square of as many coefficients.")
    import numpy as np

    values = np.asarray(matrix, dtype=float)
    figure = canvas.new(width_mm, 0.86 * width_mm)
    axes: Axes = figure.subplots()
    picture = axes.imshow(values, vmin=-1, vmax=1, cmap="cividis", gid="correlations")
    ticks = range(count)
    axes.set_xticks(ticks, names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    size = min(6.5, 0.42 * width_mm / count)
    for i in ticks:
        for j in ticks:
            if not math.isnan(values[i, j]):
                ink = "black" if values[i, j] > 0.1 else "white"
                text = f"{values[i, j]:.2f}".replace("-0.00", "0.00")
                axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=size)
    axes.set_title(title)
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.outline.set_visible(False)
    return figure
