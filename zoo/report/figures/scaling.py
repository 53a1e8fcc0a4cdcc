"""Seconds and memory against the side of the picture, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.report.figures import canvas
from zoo.report.figures.canvas import Look
from zoo.report.figures.data import Boundary, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def scaling(
    series: Sequence[Series],
    looks: Mapping[str, Look],
    names: Mapping[str, str],
    *,
    metric: str,
    label: str,
    width_mm: float,
    boundaries: Sequence[Boundary] = (),
    limit: float | None = None,
) -> Figure:
    """A line per method; the legend holds the fitted exponent of the number of pixels, 1 for cost per pixel.

    A method that ran out of memory goes on as a thin line to a hollow marker at the size that did not fit, at the need
    that its smaller sizes foretell there; at ``limit`` (drawn across) where that is more, or nothing is foretold.
    """
    figure = canvas.new(width_mm, 0.62 * width_mm)
    axes: Axes = figure.subplots()
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.grid(which="major")
    if limit is not None and boundaries:
        axes.axhline(
            limit, color="0.35", linewidth=0.8, linestyle=(0, (2, 2)), gid="limit", label=f"limit, {limit:.0f}"
        )
    fitted = {one.label: one for one in series}
    for one in series:
        look = looks[one.label]
        growth = one.growth(metric)
        text = names[one.label] + (f"  (exponent {growth})" if growth else "")
        axes.plot(one.x, one.y, color=look.color, marker=look.marker, linestyle=look.line, label=text, gid=one.label)
    for lost in boundaries:
        look = looks[lost.label]
        known = fitted.get(lost.label)
        heights = [height for height in (lost.need, limit) if height is not None]
        if not heights:
            continue
        start = ([known.x[-1]], [known.y[-1]]) if known else ([], [])
        axes.plot(
            [*start[0], lost.size],
            [*start[1], max(heights)],
            color=look.color,
            marker=look.marker,
            markerfacecolor="white",
            markevery=[-1],
            linestyle=(0, (1, 1.5)),
            linewidth=0.8,
            zorder=1.5,
            gid=f"{lost.label} out of memory",
            label=None if known else f"{names[lost.label]}  (never fitted)",
        )
    if boundaries:
        gray: dict[str, Any] = {"color": "0.35", "markerfacecolor": "white", "linewidth": 0.8}
        text = "hollow: out of memory, need foretold"
        axes.plot([], [], marker="o", linestyle=(0, (1, 1.5)), label=text, **gray)
    sizes = sorted({int(x) for one in series for x in one.x} | {lost.size for lost in boundaries})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.set_xlabel("size of the picture (pixels)")
    axes.set_ylabel(label)
    canvas.log_axis(axes.yaxis, [float(y) for line in axes.lines for y in np.asarray(line.get_ydata())])
    canvas.add_legend(figure, 0.62 * width_mm, axes)
    return figure
