"""How the costs of every method grow with the picture, and where they end: the table ``growth`` of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zoo.bench.growth import METRICS, Growth, growth
from zoo.bench.measures import MEASURES, PRIMARY
from zoo.bench.rows import Row, latest
from zoo.report.forms import MISSING, Entry, Form, Group, Heading
from zoo.report.present import Sheet

_SAID = (
    "Growth: the exponent of the power law of pixels fitted to the sizes named, with its standard error; 1 is in "
    "proportion to the pixels. Costs that do not grow flatten it at the small end."
)


def growth_sheet(rows: Iterable[Row], caption: str) -> Sheet | None:
    """One line per method; None where no method was measured at two sizes."""
    counted = latest(rows)
    fits = {(one.method, one.metric): one for one in growth(counted)}
    metrics = [metric for metric in METRICS if any(name == metric for _, name in fits)]
    methods = list(dict.fromkeys(method for method, _ in fits))
    if not methods:
        return None
    searched = {row.method: row for row in counted if row.metric == "size.largest"}
    foot: list[str] = []
    lines = []
    for method in methods:
        ends = _first_failure(counted, method)
        own = [fits[method, metric] for metric in metrics if (method, metric) in fits]
        notes: tuple[int, ...] = ()
        for row in (ends, searched.get(method)):
            if row is not None and row.reason:
                text = f"{row.reason.rstrip('.')}."
                foot += [text] * (text not in foot)
                notes += (foot.index(text) + 1,)
        lines.append(
            [
                Entry(method, notes=notes),
                *(_entry(fits.get((method, metric))) for metric in metrics),
                Entry(_range(own)),
                Entry(MISSING if ends is None else str(ends.size)),
                *([_largest(searched.get(method))] if searched else []),
            ]
        )
    headings = [
        Heading("method", False),
        *(Heading(f"growth of {MEASURES[metric].column}") for metric in metrics),
        Heading("sizes", False),
        Heading("first size not done"),
        *([Heading("largest that fits (px)")] if searched else []),
    ]
    form = Form("growth", caption, headings, [Group("", lines)], foot, [_SAID])
    return Sheet.of(form, _records(fits.values()))


def _first_failure(rows: Iterable[Row], method: str) -> Row | None:
    """The row of the smallest size that failed."""
    failed = [row for row in rows if (row.method, row.metric, row.status) == (method, PRIMARY, "failed")]
    return min(failed, key=lambda row: row.size, default=None)


def _entry(fitted: Growth | None) -> Entry:
    if fitted is None:
        return Entry(MISSING)
    return Entry(f"{fitted.exponent:.2f}", "" if fitted.error is None else f"± {fitted.error:.2f}")


def _range(fits: Iterable[Growth]) -> str:
    sizes = sorted({size for one in fits for size in one.sizes})
    return f"{sizes[0]} to {sizes[-1]}"


def _largest(row: Row | None) -> Entry:
    return Entry(MISSING if row is None or row.value is None else f"{row.value:.0f}")


def _records(fits: Iterable[Growth]) -> list[dict[str, Any]]:
    return [
        {
            "method": one.method,
            "metric": one.metric,
            "exponent": one.exponent,
            "standard_error": one.error,
            "coefficient": one.coefficient,
            "sizes": " ".join(map(str, one.sizes)),
        }
        for one in fits
    ]
