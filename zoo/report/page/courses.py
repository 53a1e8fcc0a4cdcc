"""What a page shows of a protocol of steps: a chart per metric, of all pairs together and of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.bench.plan import split_step
from zoo.bench.rows import Row
from zoo.registry import Registry
from zoo.report.figures.canvas import short_names
from zoo.report.figures.convergence import Courses, courses

WIDTH, HEIGHT = 420, 180  # of a chart


def courses_data(rows: Sequence[Row], run_file: Mapping[str, Any], registry: Registry) -> list[dict[str, Any]]:
    """The groups of charts, at the run's largest size; empty where no method has pictures at several steps."""
    size = max((row.size for row in rows if split_step(row.method)[1] is not None), default=0)
    if not size:
        return []
    pairs = dict.fromkeys((row.content, row.style) for row in rows if row.content is not None)
    found = {"all pairs": list(rows)} if len(pairs) > 1 else {}
    for pair in pairs:
        found[" in ".join(map(str, pair))] = [row for row in rows if (row.content, row.style) == pair]
    made = {name: courses(own, run_file, registry, size) for name, own in found.items()}
    return [{"name": name, "charts": _charts(one)} for name, one in made.items() if one.drawn]


def _charts(found: Courses) -> list[dict[str, Any]]:
    """By metric: heading, limits and a line of an SVG per method, against the logarithm of the seconds."""
    seconds = [value for course in found.methods for value in course.seconds if value > 0]
    names = short_names([course.label for course in found.methods])
    charts = []
    for metric, heading in found.metrics.items():
        values = [value for course in found.methods for value in course.values[metric]]
        if not values or not seconds:
            continue
        low, high = min(values), max(values)

        def place(x: float, y: float, low: float = low, high: float = high) -> str:
            across = math.log(x / min(seconds)) / (math.log(max(seconds) / min(seconds)) or 1)
            return f"{WIDTH * across:.1f} {HEIGHT * (high - y) / ((high - low) or 1):.1f}"

        lines = [
            {
                "name": names[course.label],
                "key": number % 7 + 1,
                # A single point is a dot: a line of no length with round ends.
                "path": "M" + "L".join(map(place, course.seconds, course.values[metric])) + "h0",
            }
            for number, course in enumerate(found.methods)
            if course.values[metric] and min(course.seconds) > 0
        ]
        limits = {"low": low, "high": high, "first": min(seconds), "last": max(seconds)}
        charts.append({"heading": heading, "lines": lines, **limits})
    return charts
