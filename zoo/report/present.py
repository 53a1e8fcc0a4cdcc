"""A run's table as it is shown under a layout, and as data: CSV and JSON with every number in full."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.bench.measures import MEASURES
from zoo.errors import UnknownNameError
from zoo.report.families import FAMILIES, SANITY
from zoo.report.forms import MISSING, Entry, Form, Group, Heading, to_html, to_latex, to_markdown
from zoo.report.layout import Layout
from zoo.report.tables import Column, Table

FORMATS = ("md", "csv", "tex", "json", "html")


@dataclass(frozen=True)
class Sheet:
    """A table of a report: forms to be read, the whole as CSV and JSON, and why there is no form or nothing at all."""

    forms: Sequence[Form]
    csv: str = ""
    json: str = ""
    omitted: str = ""

    @classmethod
    def of(cls, form: Form, records: Sequence[dict[str, Any]]) -> Sheet:
        """A form, and records of one shape that hold everything."""
        return cls([form], records_csv(records), records_json(form, records))

    def texts(self) -> dict[str, str]:
        """The text of every file by its ending."""
        read = {"md": to_markdown, "tex": to_latex, "html": to_html}
        texts = {kind: make(*self.forms) for kind, make in read.items() if self.forms}
        return texts | {kind: text for kind, text in (("csv", self.csv), ("json", self.json)) if text}


def number(value: float, digits: int = 3) -> str:
    """``digits`` significant digits, 3 as in ``0.0120``, ``1.23``, ``123``, ``12346``; ``1.23e-05`` below 0.0001."""
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    # 99.96 is 100 without decimals, of which the form leaves the marker.
    return f"{value:#.{digits}g}".rstrip(".").replace(".e", "e")


@dataclass(frozen=True)
class _Shown:
    """A column with the choices of the layout; ``scale`` is the power of ten that its numbers leave out."""

    column: Column
    name: str
    decimals: int | None
    scale: int

    @property
    def heading(self) -> str:
        return self.column.heading(self.scale, self.name)


def present(table: Table, layout: Layout | None = None, name: str = "table") -> Form:
    """A table of one size and strength as it is read.

    UnknownNameError for a column to show or to sort by that the table lacks.
    """
    layout = layout or Layout()
    columns = _columns(table, layout)
    precision = layout.precision and len({line.precision for line in table.lines if line.precision}) > 1
    own = [note for note in range(1, len(table.notes) + 1) if note not in table.shared]
    renumbered = {note: i for i, note in enumerate(own, 1)}
    headings = [Heading("method", False), *([Heading("precision", False)] if precision else [])]
    headings += [Heading(shown.heading) for shown in columns]
    groups: list[Group] = []
    for title, aside, members in _groups(table, layout):
        rows = []
        for i in members:
            line = table.lines[i]
            notes = tuple(renumbered[note] for note in line.notes if note in renumbered)
            row = [Entry(layout.names.get(line.method, line.method), notes=notes)]
            row += [Entry(line.precision or "")] if precision else []
            rows.append([*row, *(_entry(table, i, shown, layout) for shown in columns)])
        groups.append(Group(title, rows, aside))
    spreads = any(entry.spread for group in groups for row in group.rows for entry in row)
    said = []
    if table.intervals and layout.intervals != "none":
        said.append(("± is half the width. " if spreads and layout.intervals == "plusminus" else "") + table.intervals)
    said += [table.notes[note - 1] for note in table.shared]
    return Form(name, table.caption, headings, groups, [table.notes[note - 1] for note in own], said)


def _columns(table: Table, layout: Layout) -> list[_Shown]:
    if layout.columns is None:
        return [_Shown(column, column.title, None, table.scale(column)) for column in table.shown]
    present = {column.metric: column for column in table.columns}
    found = []
    for choice in layout.columns:
        column = present.get(choice.metric)
        if column is None:
            raise UnknownNameError("column", choice.metric, present)
        title = choice.name or column.title or MEASURES[column.metric].title
        scale = 0 if choice.decimals is not None else table.scale(column)
        found.append(_Shown(column, title, choice.decimals, scale))
    return found


def _groups(table: Table, layout: Layout) -> list[tuple[str, bool, list[int]]]:
    """(title, set apart, positions of the lines)."""
    lines = [i for i, line in enumerate(table.lines) if layout.sanity or not line.baseline]
    if layout.sort == "family":
        members = {family: [i for i in lines if table.lines[i].family == family] for family in FAMILIES}
        members = {family: own for family, own in members.items() if own}
        titled = len(members.keys() - {SANITY}) > 1
        return [(family if titled else "", family == SANITY, own) for family, own in members.items()]
    methods = [i for i in lines if not table.lines[i].baseline]
    if layout.sort == "measured":
        order = {method: i for i, method in enumerate(table.order)}
        methods.sort(key=lambda i: order[table.lines[i].method])
    else:
        column = next((column for column in table.columns if column.metric == layout.sort), None)
        if column is None:
            raise UnknownNameError("order", layout.sort, ["family", "measured", *(c.metric for c in table.columns)])
        sign = -1 if column.direction == "higher" else 1

        def by_value(i: int) -> tuple[bool, float]:
            value = table.lines[i].values.get(column.metric)
            return value is None, 0.0 if value is None else sign * value

        methods.sort(key=by_value)
    baselines = [i for i in lines if table.lines[i].baseline]
    return [("", aside, own) for own, aside in ((methods, False), (baselines, True)) if own]


def _entry(table: Table, i: int, shown: _Shown, layout: Layout) -> Entry:
    metric = shown.column.metric
    line = table.lines[i]
    value = line.values.get(metric)
    if value is None:
        return Entry(MISSING)
    factor = 10.0**shown.scale
    text = number(value / factor, layout.digits) if shown.decimals is None else f"{value:.{shown.decimals}f}"
    interval = line.intervals.get(metric)
    spread = ""
    if interval is not None and layout.intervals != "none":
        # As many decimals as the number has: a spread that is finer than its number claims too much.
        form = f".{layout.digits - 1}e" if "e" in text else f".{len(text.partition('.')[2])}f"
        low, high, half = (f"{bound / factor:{form}}" for bound in (interval.low, interval.high, interval.half_width))
        spread = f"± {half}" if layout.intervals == "plusminus" else f"[{low}, {high}]"
    mark = "best" if (i, metric) in table.best else "second" if (i, metric) in table.second else ""
    return Entry(text, spread, mark)


# -- as data -------------------------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """Every metric as full numbers, beside each the number of pairs it joins and, where it has one, its interval."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    spread = {metric for line in table.lines for metric in line.intervals}
    names: list[str] = []
    for column in table.columns:
        names += [column.metric, f"{column.metric}.pairs"]
        names += [f"{column.metric}.low", f"{column.metric}.high"] if column.metric in spread else []
    fixed = ["protocol", "method", "family", "baseline", "precision", "size", "strength", "failed", "skipped"]
    writer.writerow([*fixed, *names])
    for line in table.lines:
        cells: list[Any] = [table.protocol, line.method, line.family, int(line.baseline), line.precision]
        cells += [line.size, line.strength, line.failed, line.skipped]
        for column in table.columns:
            value = line.values.get(column.metric)
            joined = table.pairs[line.size, line.strength, column.metric]
            cells += [value, None if value is None else joined]
            if column.metric in spread:
                interval = line.intervals.get(column.metric)
                cells += [None, None] if interval is None else [interval.low, interval.high]
        writer.writerow(cells)
    return buffer.getvalue()


def to_json(table: Table) -> str:
    """The same as one object: caption, columns with unit and direction, lines with values, intervals and footnotes."""
    lines = []
    for i, line in enumerate(table.lines):
        values: dict[str, Any] = {}
        for column in table.columns:
            value = line.values.get(column.metric)
            if value is None:
                continue
            place = line.size, line.strength, column.metric
            cell: dict[str, Any] = {"value": value, "pairs": table.pairs[place]}
            if place in table.missing:
                cell["without"] = list(table.missing[place])
            if (interval := line.intervals.get(column.metric)) is not None:
                cell |= {"low": interval.low, "high": interval.high}
            if (i, column.metric) in table.best | table.second:
                cell["place"] = 1 if (i, column.metric) in table.best else 2
            values[column.metric] = cell
        lines.append(
            {
                "method": line.method,
                "family": line.family,
                "baseline": line.baseline,
                "precision": line.precision,
                "size": line.size,
                "strength": line.strength,
                "failed": line.failed,
                "skipped": line.skipped,
                "notes": [table.notes[note - 1] for note in line.notes],
                "values": values,
            }
        )
    columns = [
        {"metric": c.metric, "title": c.title, "unit": c.unit, "direction": c.direction, "combine": c.combine}
        for c in table.columns
    ]
    whole = {"protocol": table.protocol, "caption": table.caption, "intervals": table.intervals, "columns": columns}
    return _dump({**whole, "lines": lines, "remarks": [dataclasses.asdict(remark) for remark in table.remarks]})


def records_csv(records: Sequence[dict[str, Any]]) -> str:
    """Records of one shape as CSV; an empty field for None."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def records_json(form: Form, records: Sequence[dict[str, Any]]) -> str:
    """Records under the caption and the notes of their form."""
    return _dump({"caption": form.caption, "rows": list(records), "notes": form.below})


def _dump(data: Any) -> str:
    # An infinite t is no JSON number; as a word it stays readable.
    return json.dumps(_plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if isinstance(data, float) and data in (float("inf"), float("-inf")):
        return str(data)
    return data
