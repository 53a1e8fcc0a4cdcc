"""Tables from the rows of one protocol: for the terminal, as CSV, Markdown and LaTeX.

A line is a method (or baseline) at one size and strength. A quality column is the mean over the pairs that every line
of that size and strength covers, so that no method is averaged over easier pairs than another; speed columns are the
mean, memory columns the largest, over the same kind of common pairs of the methods. A method without any value in a
column does not shrink it for the others. The best method of a column is bold; baselines do not compete.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.bench import remarks as run_remarks
from zoo.bench.folder import Folder, write_text
from zoo.bench.measures import MEASURES, PRIMARY
from zoo.bench.rows import Row, latest, read_rows
from zoo.errors import ProtocolError
from zoo.registry import Registry, load_registry

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Direction = Literal["higher", "lower"]
_ARROWS = {"higher": "↑", "lower": "↓"}
# Pairs that a remark names before it stops.
_LISTED = 8

_Pair = tuple[str | None, str | None, int]


@dataclass(frozen=True)
class Column:
    """A column: the metric its numbers come from, its heading with unit, and which direction is better.

    One that is not ``shown`` stands in table.csv alone.
    """

    metric: str
    title: str
    unit: str
    direction: Direction
    combine: Literal["mean", "max"] = "mean"
    shown: bool = True

    def heading(self, scale: int) -> str:
        """Title, unit (or the power of ten that its numbers leave out) and direction."""
        unit = self.unit or (f"1e{scale}" if scale else "")
        return f"{self.title}{f' ({unit})' if unit else ''} {_ARROWS[self.direction]}"


@dataclass(frozen=True)
class Line:
    """A line: values by metric (None where there is none), how many cells failed or were skipped, and the numbers of
    the footnotes that concern it."""

    method: str
    precision: str | None
    size: int
    strength: float
    baseline: bool
    values: dict[str, float | None]
    failed: int
    skipped: int
    notes: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """A finished table. ``best`` holds (line, metric) of every bold number; ``pairs`` how many pairs a size, strength
    and metric joins."""

    protocol: str
    caption: str
    columns: list[Column]
    lines: list[Line]
    best: set[tuple[int, str]]
    pairs: dict[tuple[int, float, str], int]
    notes: list[str]
    remarks: list[str]

    @property
    def shown(self) -> list[Column]:
        """The columns of every form but CSV."""
        return [column for column in self.columns if column.shown]

    def scale(self, column: Column) -> int:
        """The power of ten taken out of a column without unit whose numbers are very large or very small."""
        values = [abs(value) for line in self.lines if (value := line.values.get(column.metric)) is not None]
        largest = max(values, default=0.0)
        if column.unit or largest == 0 or 1e-3 <= largest < 1e5:
            return 0
        return math.floor(math.log10(largest))

    def show(self, name: str) -> bool:
        """Whether lines differ in ``size`` or ``strength``, so that it needs a column."""
        return len({getattr(line, name) for line in self.lines}) > 1


def build_table(rows: Iterable[Row], run_file: dict[str, Any], registry: Registry | None = None) -> Table:
    """The table of all rows that count; ProtocolError where rows belong to another protocol than run.json."""
    registry = registry or load_registry()
    counted = latest(rows)
    identity = run_file["protocol"]
    strangers = {row.protocol for row in counted} - {identity["id"]}
    if strangers:
        raise ProtocolError(f"Rows of {sorted(strangers)[0]} cannot stand in a table of {identity['id']}.")
    baselines = set(identity["resolved"]["baselines"])
    of_run = [row for row in counted if run_remarks.of_run(row)]
    counted = [row for row in counted if not run_remarks.of_run(row)]
    columns = _columns(counted, registry)
    groups: dict[tuple[int, float], list[Row]] = {}
    for row in counted:
        groups.setdefault((row.size, row.strength), []).append(row)
    # Baselines have no strength of their own: they stand beside every strength of their size.
    strengths = {strength for (_, strength), group in groups.items() for row in group if row.method not in baselines}
    lines: list[Line] = []
    best: set[tuple[int, str]] = set()
    pairs: dict[tuple[int, float, str], int] = {}
    notes: list[str] = []
    remarks: list[str] = []
    for size in sorted({size for size, _ in groups}, key=lambda pixels: (pixels == 0, pixels)):
        fixed = [row for row in counted if row.size == size and _for_all_strengths(row, baselines)]
        for strength in sorted(strengths, reverse=True):
            own = [row for row in groups.get((size, strength), []) if not _for_all_strengths(row, baselines)]
            start = len(lines)
            lines += _lines(own + fixed, size, strength, columns, baselines, pairs, notes, remarks)
            best |= _best(lines, start, columns)
    remarks += _said_beside(counted, columns)
    remarks += [said for said in (run_remarks.machine_remark(of_run), run_remarks.largest_remark(of_run)) if said]
    remarks += _run_remarks(run_file)
    remarks = list(dict.fromkeys(remarks))
    return Table(identity["id"], _caption(run_file, counted), columns, lines, best, pairs, notes, remarks)


def _for_all_strengths(row: Row, baselines: set[str]) -> bool:
    return row.method in baselines or (row.metric in MEASURES and MEASURES[row.metric].process)


def _columns(rows: Sequence[Row], registry: Registry) -> list[Column]:
    present = {row.metric for row in rows if row.status == "ok"}
    columns = [
        Column(measure.name, measure.column, measure.unit, measure.direction, measure.combine, bool(measure.column))
        for measure in MEASURES.values()
        if measure.name in present
    ]
    for name in dict.fromkeys(row.metric for row in rows if row.metric not in MEASURES):
        base, bracket, settings = name.partition("[")
        entry = registry.metric(base)
        title = base.replace("_", " ") if "_" in base else base.upper()
        columns.append(Column(name, title + bracket + settings, entry.unit, entry.direction))
    return columns


def _lines(
    rows: Sequence[Row],
    size: int,
    strength: float,
    columns: Sequence[Column],
    baselines: set[str],
    pairs: dict[tuple[int, float, str], int],
    notes: list[str],
    remarks: list[str],
) -> list[Line]:
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    # The methods in the order they were measured, then the baselines.
    order = sorted(by_method, key=lambda method: method in baselines)
    values: dict[str, dict[str, float | None]] = {method: {} for method in order}
    partial: dict[tuple[frozenset[_Pair], int], list[str]] = {}
    for column in columns:
        found = {method: _by_pair(by_method[method], column.metric) for method in order}
        covered = [set(scores) for scores in found.values() if scores]
        common = set.intersection(*covered) if covered else set()
        everything = set().union(*covered) if covered else set()
        pairs[size, strength, column.metric] = len(common)
        if common < everything and column.shown:
            partial.setdefault((frozenset(common), len(everything)), []).append(column.title)
        for method, scores in found.items():
            kept = [value for pair, value in scores.items() if pair in common]
            values[method][column.metric] = _combined(kept, column.combine) if kept else None
    for (common, total), titles in partial.items():
        remarks.append(_coverage(common, total, titles, size))
    return [
        Line(
            method,
            next((row.precision for row in by_method[method] if row.precision), None),
            size,
            strength,
            method in baselines,
            values[method],
            sum(row.status == "failed" for row in by_method[method]),
            sum(row.status == "skipped" for row in by_method[method]),
            _notes_of(by_method[method], notes),
        )
        for method in order
    ]


def _said_beside(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """What must be said with the values of a column, once per reason."""
    titles = {column.metric: column.title for column in columns if column.shown}
    said = [
        f"{titles[row.metric]}: {row.reason.rstrip('.')}."
        for row in rows
        if row.status == "ok" and row.reason and row.metric in titles
    ]
    return list(dict.fromkeys(said))


def _coverage(common: frozenset[_Pair], total: int, titles: Sequence[str], size: int) -> str:
    names = sorted(
        (f"{content} x {style}" if content else "all pictures") + (f" (seed {seed})" if seed else "")
        for content, style, seed in common
    )
    listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    at = f" at {size}" if size else ""
    which = f": {listed}" if names else ""
    return f"{', '.join(titles)}{at}: over the {len(common)} of {total} pairs that every line covers{which}."


def _by_pair(rows: Sequence[Row], metric: str) -> dict[_Pair, float]:
    return {
        (row.content, row.style, row.seed): row.value
        for row in rows
        if row.metric == metric and row.status == "ok" and row.value is not None
    }


def _combined(values: Sequence[float], how: Literal["mean", "max"]) -> float:
    return max(values) if how == "max" else sum(values) / len(values)


def _best(lines: Sequence[Line], start: int, columns: Sequence[Column]) -> set[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    for column in columns:
        pick: Callable[[Iterable[float]], float] = max if column.direction == "higher" else min
        competing = {
            i: value
            for i, line in enumerate(lines[start:], start)
            if not line.baseline and (value := line.values.get(column.metric)) is not None
        }
        if len(competing) > 1:
            winner = pick(competing.values())
            found |= {(i, column.metric) for i, value in competing.items() if value == winner}
    return found


def _notes_of(rows: Sequence[Row], notes: list[str]) -> tuple[int, ...]:
    """Footnotes for what failed or was skipped, one per reason; numbers count from 1."""
    reasons: dict[tuple[str, str, str], int] = {}
    pairs: dict[tuple[str, str, str], bool] = {}
    for row in rows:
        if row.status != "ok":
            key = (row.status, "" if row.metric == PRIMARY else f"{row.metric} ", row.reason)
            reasons[key] = reasons.get(key, 0) + 1
            pairs[key] = row.content is not None or row.metric in MEASURES
    numbers = []
    for (status, metric, reason), count in reasons.items():
        where = (
            f"on {count} {'pair' if count == 1 else 'pairs'}" if pairs[status, metric, reason] else "on all pictures"
        )
        text = f"{metric}{status} {where}: {reason.rstrip('.')}."
        if text not in notes:
            notes.append(text)
        numbers.append(notes.index(text) + 1)
    return tuple(dict.fromkeys(numbers))


def _caption(run_file: dict[str, Any], rows: Sequence[Row]) -> str:
    conditions = run_file["conditions"]
    resolved = run_file["protocol"]["resolved"]
    dates = sorted({row.utc[:10] for row in rows})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else "nothing measured"
    threads = conditions["threads"]
    parts = [
        f"Protocol {run_file['protocol']['id']}",
        f"{len(resolved['pairs'])} pairs",
        str(conditions["machine"]),
        f"{conditions['device']}, {threads} {'thread' if threads == 1 else 'threads'}",
        f"zoo {conditions['version']}",
        when,
    ]
    return "; ".join(parts)


def _run_remarks(run_file: dict[str, Any]) -> list[str]:
    runs = run_file["runs"]
    busy = run_remarks.busy_remark(runs)
    remarks = [busy] if busy else []
    if len({run["environment"]["source"] for run in runs}) > 1:
        remarks.append("The rows come from several runs, between which the code changed.")
    return remarks


# -- the four forms ------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three significant digits: ``0.0120``, ``1.23``, ``123``, ``12346``; ``1.23e-05`` below a ten-thousandth."""
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _head(table: Table) -> list[str]:
    extra = [name for name in ("size", "strength") if table.show(name)]
    return ["method", "precision", *extra, *(column.heading(table.scale(column)) for column in table.shown)]


def _body(
    table: Table, emphasise: Callable[[str], str], mark: Callable[[int], str], missing: str = "–"
) -> list[list[str]]:
    extra = [name for name in ("size", "strength") if table.show(name)]
    body = []
    for i, line in enumerate(table.lines):
        name = line.method + "".join(mark(note) for note in line.notes)
        cells = [name, line.precision or "", *(f"{getattr(line, field):g}" for field in extra)]
        for column in table.shown:
            value = line.values.get(column.metric)
            text = missing if value is None else number(value / 10.0 ** table.scale(column))
            cells.append(emphasise(text) if (i, column.metric) in table.best else text)
        body.append(cells)
    return body


def to_rich(table: Table) -> RichTable:
    """The table for the terminal."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    shown = RichTable(title=escape(table.caption), title_justify="left", caption_justify="left")
    for i, heading in enumerate(_head(table)):
        # Headings wrap at their blanks; a method's name folded in two could not be copied.
        shown.add_column(escape(heading), justify="left" if i < 2 else "right", overflow="fold", no_wrap=i == 0)
    body = _body(table, lambda text: f"[bold]{text}[/bold]", lambda note: f" ({note})")
    for line, cells in zip(table.lines, body, strict=True):
        shown.add_row(escape(cells[0]), *cells[1:], style="dim" if line.baseline else None)
    foot = [f"({i}) {note}" for i, note in enumerate(table.notes, 1)] + table.remarks
    shown.caption = escape("\n".join(foot)) if foot else None
    return shown


def to_markdown(table: Table) -> str:
    """GitHub's form, with the caption above and the footnotes below."""
    head = [text.replace("|", "\\|") for text in _head(table)]
    body = _body(table, lambda text: f"**{text}**", lambda note: f" ({note})")
    lines = [f"{table.caption}", "", "| " + " | ".join(head) + " |"]
    lines.append("|" + "|".join("---" if i < 2 else "---:" for i in range(len(head))) + "|")
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in body]
    foot = [f"({i}) {note}" for i, note in enumerate(table.notes, 1)] + table.remarks
    return "\n".join([*lines, *(line for note in foot for line in ("", note))]) + "\n"


_TEX = {
    "\\": r"\textbackslash{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escape_tex(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_TEX.get(character, character) for character in text)


def to_latex(table: Table) -> str:
    """A ``table`` environment for the booktabs package."""
    head = [escape_tex(text) for text in _head(table)]
    bold, plain = "\x00", "\x01"
    body = _body(table, lambda text: f"{bold}{text}{plain}", lambda note: f" ({note})")
    rendered = [[escape_tex(cell).replace(bold, r"\textbf{").replace(plain, "}") for cell in cells] for cells in body]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_tex(table.caption)}.}}",
        rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
    ]
    for i, cells in enumerate(rendered):
        if i and table.lines[i].baseline and not table.lines[i - 1].baseline:
            lines.append(r"\midrule")
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    foot = [f"({i}) {note}" for i, note in enumerate(table.notes, 1)] + table.remarks
    if foot:
        lines += ["", r"\footnotesize", *(escape_tex(note) + r"\\" for note in foot)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def to_csv(table: Table) -> str:
    """Every metric as full numbers, and beside each the number of pairs it joins."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [name for column in table.columns for name in (column.metric, f"{column.metric}.pairs")]
    fixed = ["protocol", "method", "baseline", "precision", "size", "strength", "failed", "skipped"]
    writer.writerow([*fixed, *names])
    for line in table.lines:
        cells: list[Any] = [table.protocol, line.method, int(line.baseline), line.precision]
        cells += [line.size, line.strength, line.failed, line.skipped]
        for column in table.columns:
            value = line.values.get(column.metric)
            joined = table.pairs[line.size, line.strength, column.metric]
            cells += [value, None if value is None else joined]
        writer.writerow(cells)
    return buffer.getvalue()


# -- a results folder ----------------------------------------------------------------------------------------------


def read_table(path: Path) -> Table:
    """The table of a results folder; ProtocolError where nothing was measured there."""
    folder = Folder(path)
    run_file = folder.read_run()
    if run_file is None:
        raise ProtocolError(f"{path} holds no results: run 'zoo bench --out {path}' first.")
    return build_table(read_rows(folder.rows), run_file)


def write_report(path: Path) -> Table:
    """Write table.csv, table.md, table.tex and sheet.jpg into a results folder from what lies in it."""
    folder = Folder(path)
    table = read_table(path)
    write_text(path / "table.csv", to_csv(table))
    write_text(path / "table.md", to_markdown(table))
    write_text(path / "table.tex", to_latex(table))
    write_sheet(folder, table)
    return table


def write_sheet(folder: Folder, table: Table, cell: int = 192) -> None:
    """Pairs down, content, style and methods across, at the smallest size, first seed and first strength.

    Without the pictures (they are not under version control) an earlier sheet stays as it is.
    """
    from zoo import images
    from zoo.bench.plan import Cell

    protocol = (folder.read_run() or {})["protocol"]["resolved"]
    size = table.lines[0].size if table.lines else 0
    lines = [line for line in table.lines if line.size == size and not line.baseline]
    methods = list(dict.fromkeys(line.method for line in lines))
    grid = []
    for content, style in protocol["pairs"]:
        paths = [folder.input("content", content, size), folder.input("style", style, size)]
        for method in methods:
            name = Cell(method, content, style, size, protocol["seeds"][0], protocol["strengths"][0])
            paths.append(folder.output(name))
        grid.append([images.read(path).pixels if path.exists() else None for path in paths])
    if any(picture is not None for line in grid for picture in line):
        sheet = images.contact_sheet(grid, column_labels=["content", "style", *methods], cell=cell)
        images.write(folder.path / "sheet.jpg", sheet, quality=85)
