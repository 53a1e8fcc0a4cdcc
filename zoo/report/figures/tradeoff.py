"""Content kept against style carried: a point per method, a curve where its strength was swept, the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from zoo.report.figures import canvas
from zoo.report.figures.canvas import Look
from zoo.report.figures.data import Point, pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A linear axis on which the smallest of the values is nearer to zero than this share of the largest shows a heap.
_LOG_BELOW = 0.04


def tradeoff(
    points: Sequence[Point],
    looks: Mapping[str, Look],
    names: Mapping[str, str],
    *,
    x_label: str,
    y_label: str,
    x_higher: bool,
    y_higher: bool,
    width_mm: float,
) -> Figure:
    """Filled markers stand on the front, hollow ones are beaten in both; grey letters are the sanity rows.

    An axis is logarithmic where its values are positive and far apart; a baseline that such an axis cannot show (the
    content's own copy has no content loss) is named below the figure instead.
    """
    methods = [point for point in points if not point.baseline]
    baselines = [point for point in points if point.baseline]
    front = pareto(methods, x_higher=x_higher, y_higher=y_higher)
    log_x, log_y = (_logarithmic([value(p) for p in methods]) for value in (lambda p: p.x, lambda p: p.y))
    shown = [p for p in baselines if (p.x > 0 or not log_x) and (p.y > 0 or not log_y)]
    labels = list(dict.fromkeys(point.label for point in methods))
    figure = canvas.new(width_mm, 0.7 * width_mm)
    axes: Axes = figure.subplots()
    axes.set_xscale("log" if log_x else "linear")
    axes.set_yscale("log" if log_y else "linear")
    axes.grid(which="major")
    if len(front) > 1:
        line = {"color": "0.72", "linewidth": 3.0, "solid_capstyle": "round", "zorder": 1.2}
        axes.plot([p.x for p in front], [p.y for p in front], **line, gid="front", label="Pareto front")
    for label in labels:
        own = sorted((point for point in methods if point.label == label), key=lambda point: point.strength)
        _draw_method(axes, label, own, front, looks[label], names[label])
    for point, letter in zip(shown, "abcdefgh", strict=False):
        style = {"color": canvas.BASELINE_COLOR, "marker": canvas.letter_marker(letter), "linestyle": "none"}
        style |= {"markersize": 5.0}
        axes.plot([point.x], [point.y], **style, gid=point.label, label=f"{point.label} (sanity)")
    axes.margins(0.09)
    if log_x:
        canvas.log_axis(axes.xaxis, [point.x for point in (*methods, *shown)])
    if log_y:
        canvas.log_axis(axes.yaxis, [point.y for point in (*methods, *shown)])
    axes.set_xlabel(f"{x_label} ({'higher' if x_higher else 'lower'} is better)")
    axes.set_ylabel(f"{y_label} ({'higher' if y_higher else 'lower'} is better)")
    hidden = [
        (
            axes.plot([], [], linestyle="none")[0],
            f"{point.label} (sanity): {point.x:.4g}, {point.y:.4g}, off the axes",
        )
        for point in baselines
        if point not in shown
    ]
    canvas.add_legend(figure, 0.7 * width_mm, axes, more=hidden)
    return figure


def _draw_method(axes: Axes, label: str, own: Sequence[Point], front: Sequence[Point], look: Look, name: str) -> None:
    """The curve in order of strength, its markers filled where they stand on the front, its ends named."""
    x, y = [point.x for point in own], [point.y for point in own]
    swept = len(own) > 1
    text = f"{name}, strength {own[0].strength:g} to {own[-1].strength:g}" if swept else name
    filled = all(point in front for point in own)
    axes.plot(
        x,
        y,
        color=look.color,
        linestyle=look.line if swept else "none",
        marker=look.marker,
        markerfacecolor=look.color if filled else "white",
        gid=label,
        label=text,
    )
    if not filled:
        good = [point for point in own if point in front]
        axes.plot([p.x for p in good], [p.y for p in good], color=look.color, marker=look.marker, linestyle="none")
    if swept:
        for point in (own[0], own[-1]):
            text = f"{point.strength:g}"
            axes.annotate(text, (point.x, point.y), (4, 3), textcoords="offset points", fontsize=6, color=look.color)


def _logarithmic(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and min(values) < _LOG_BELOW * max(values)
