"""``zoo report RUN`` without its terminal: every table of a run in every form, its bibliography, and a LaTeX document.

table          cost and quality of every method                  zoo.report.narrow
ranks          average ranks in families, critical differences   zoo.report.summary
comparisons    every method with the best and a named one
correlations   how far the metrics agree
growth         how costs grow over the sizes, where they end     zoo.report.growth
reported       figures quoted from the literature                zoo.report.reported

each as .md, .tex and .html to be read, and as .csv and .json with everything: all sizes, metrics and methods.
``references.bib`` holds what they used and ``report.tex`` is a document of all the .tex that compiles alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.bench.folder import Folder, write_text
from zoo.bench.plan import Cell, last_steps
from zoo.bench.rows import latest, read_rows
from zoo.errors import ProtocolError, UnknownNameError
from zoo.registry import load_registry
from zoo.report import narrow, summary
from zoo.report.bibliography import bibliography
from zoo.report.forms import Form, to_latex, to_markdown
from zoo.report.growth import growth_sheet
from zoo.report.layout import Layout
from zoo.report.narrow import choose
from zoo.report.present import FORMATS, Sheet, to_csv, to_json
from zoo.report.reported import reported
from zoo.report.tables import Table, build_table, read_run

# Pairs on a contact sheet; an image file ends at 65,500 pixels.
SHEET_PAIRS = 20


@dataclass(frozen=True)
class Written:
    """What a report left: its folder, the files by name, and why a table is missing."""

    folder: Path
    files: tuple[str, ...]
    omitted: dict[str, str]


def write_tables(
    run: Path, out: Path | None = None, *, layout: Layout | None = None, formats: Sequence[str] = FORMATS
) -> Written:
    """Write the tables of a results folder into ``out`` (default: RUN/tables).

    Raises ProtocolError where nothing was measured there or a file cannot be written, UnknownNameError for a format or
    a column that does not exist.
    """
    for name in formats:
        if name not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)
    layout = layout or Layout()
    folder = Folder(run)
    run_file = read_run(folder)
    registry = load_registry()
    rows = latest(read_rows(folder.rows))
    choice = choose(rows, run_file, registry, layout)
    table = build_table(rows, run_file, registry)
    sheets = {"table": Sheet(narrow.forms(rows, run_file, registry, layout), to_csv(table), to_json(table))}
    sheets |= summary.sheets(rows, run_file, registry, choice, layout.against)
    # A protocol of one size is no run that lacks something.
    if grown := growth_sheet(rows, f"Growth of costs. {table.caption}"):
        sheets["growth"] = grown
    sheets["reported"] = reported(rows, run_file, registry)
    texts: dict[str, str] = {}
    for name, sheet in sheets.items():
        texts |= {f"{name}.{kind}": text for kind, text in sheet.texts().items() if kind in formats}
    if "tex" in formats:
        used = [f"statistics:{name}" for name in sheets] + ["statistics:intervals"] * bool(table.intervals)
        texts["references.bib"] = bibliography(rows, run_file, registry, used)
        texts["report.tex"] = document([name for name in sheets if f"{name}.tex" in texts], table.protocol)
    target = out if out is not None else run / "tables"
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProtocolError(f"{target} cannot be made ({error.strerror}): choose another --out.") from error
    for name, text in texts.items():
        write_text(target / name, text)
    return Written(target, tuple(texts), {name: sheet.omitted for name, sheet in sheets.items() if sheet.omitted})


def write_report(path: Path) -> list[Form]:
    """Write table.csv, table.md, table.tex and sheet.jpg into a results folder; returns the tables as they are read."""
    folder = Folder(path)
    run_file, rows = read_run(folder), read_rows(folder.rows)
    registry = load_registry()
    table = build_table(rows, run_file, registry)
    forms = narrow.forms(rows, run_file, registry)
    write_text(path / "table.csv", to_csv(table))
    write_text(path / "table.md", to_markdown(*forms))
    write_text(path / "table.tex", to_latex(*forms))
    write_sheet(folder, run_file, table)
    return forms


def write_sheet(folder: Folder, run_file: Mapping[str, Any], table: Table, cell: int = 192) -> None:
    """Pairs down, content, style and methods across, at the smallest size, first seed and largest strength.

    Of more than SHEET_PAIRS pairs as many are drawn, always the same. Without the pictures (they are not under version
    control) an earlier sheet stays as it is.
    """
    from zoo import images

    protocol = run_file["protocol"]["resolved"]
    size = table.lines[0].size if table.lines else 0
    lines = [line for line in table.lines if line.size == size and not line.baseline]
    methods = last_steps(line.method for line in lines if any(line.values.values()))
    grid = []
    pairs = protocol["pairs"]
    if len(pairs) > SHEET_PAIRS:
        pairs = [pairs[i] for i in sorted(random.Random(0).sample(range(len(pairs)), SHEET_PAIRS))]
    for content, style in pairs:
        paths = [folder.input("content", content, size), folder.input("style", style, size)]
        for method in methods:
            name = Cell(method, content, style, size, protocol["seeds"][0], max(protocol["strengths"]))
            paths.append(folder.output(name))
        # Shrunk at once: rows of whole pictures would not fit into memory.
        grid.append([images.read(path, size=f"long:{cell}").pixels if path.exists() else None for path in paths])
    if any(picture is not None for line in grid for picture in line):
        sheet = images.contact_sheet(grid, column_labels=["content", "style", *methods], cell=cell)
        images.write(folder.path / "sheet.jpg", sheet, quality=85)


def document(names: Sequence[str], title: str) -> str:
    """A LaTeX document that inputs the tables beside it and lists the references."""
    from zoo.report.forms import escape_tex

    lines = [
        r"\documentclass{article}",
        r"\usepackage[a4paper,landscape,margin=15mm]{geometry}",
        r"\usepackage{booktabs,graphicx,siunitx,url}",
        rf"\title{{{escape_tex(title)}}}",
        r"\date{}",
        r"\begin{document}",
        r"\maketitle",
        *(rf"\input{{{name}.tex}}" + "\n\\clearpage" for name in names),
        r"\nocite{*}",
        r"\bibliographystyle{plain}",
        r"\bibliography{references}",
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"
