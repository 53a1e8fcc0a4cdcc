"""The figure of a study: scores with their intervals, a panel per question, methods in one order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zoo.apps.study.score import Scored, order
from zoo.report.figures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METHOD_MM, _FRAME_MM = 4.6, 15.0


def strengths_figure(scored: Scored, width_mm: float) -> Figure:
    """Methods down, best first; the line at 0 is the mean of all methods."""
    names = canvas.short_names(scored.key.data["methods"])
    looks = canvas.looks(scored.key.data["methods"])
    methods = order(scored)
    figure = canvas.new(width_mm, _FRAME_MM + _METHOD_MM * len(methods))
    panels = figure.subplots(1, len(scored.outcomes), sharey=True, squeeze=False)[0]
    limit = _axis_limit(scored)
    for panel, outcome in zip(panels, scored.outcomes, strict=True):
        axes: Axes = panel
        axes.axvline(0, color="0.6", linewidth=0.6)
        for one in outcome.strengths:
            y, look = methods.index(one.method), looks[one.method]
            if one.interval is not None:
                axes.plot(
                    [one.interval.low, one.interval.high], [y, y], color=look.color, linewidth=1.0, gid="interval"
                )
            axes.plot([one.score], [y], marker=look.marker, color=look.color, linestyle="none", gid=one.method)
        axes.set(xlim=(-limit, limit), ylim=(len(methods) - 0.5, -0.5), title=outcome.question)
        axes.set_yticks(range(len(methods)), [names[method] for method in methods])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    figure.supxlabel("score (log strength; a difference of 1: chosen 2.7 times as often)", fontsize=7)
    return figure


def _axis_limit(scored: Scored) -> float:
    """Half the width of the figure's axis: the largest score or bound, in halves."""
    values = [abs(one.score) for outcome in scored.outcomes for one in outcome.strengths]
    for outcome in scored.outcomes:
        for one in outcome.strengths:
            values += [abs(one.interval.low), abs(one.interval.high)] if one.interval else []
    return max(0.5, math.ceil(2 * max(values)) / 2)
