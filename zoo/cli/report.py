"""``zoo report`` and ``zoo compare``: a run's tables for a manuscript, and what differs between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.common import console


def report(
    run: Annotated[Path, typer.Argument(help="Results folder of 'zoo bench'.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to. Default: RUN/tables.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns in their order, comma-separated; or a YAML file with a whole layout.")
    ] = None,
    formats: Annotated[str, typer.Option("--format", "-f", help="Comma-separated: md, csv, tex, json, html.")] = "all",
    intervals: Annotated[str | None, typer.Option(help="plusminus, brackets or none.")] = None,
    digits: Annotated[int | None, typer.Option(min=1, max=9, help="Significant digits. Default: 3.")] = None,
    sort: Annotated[str | None, typer.Option(help="family, measured, or a column (best first).")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Write every table of a run: means with intervals, ranks, comparisons, correlations, and quoted figures.

    report.tex compiles alone; the layout changes what is shown, never CSV and JSON, which hold every number in full.
    Without --out the run's own table.md, table.csv and table.tex, which know no layout, are brought up to date as well.
    """
    from zoo.report.files import FORMATS, write_tables
    from zoo.report.layout import Layout
    from zoo.report.tables import write_report

    chosen = FORMATS if formats == "all" else tuple(name.strip() for name in formats.split(",") if name.strip())
    layout = Layout.make(columns, intervals=intervals, digits=digits, sort=sort)
    written = write_tables(run, out, layout=layout, formats=chosen)
    if out is None:
        write_report(run)
    if quiet:
        return
    for name, reason in written.omitted.items():
        console.print(f"No {name}: {reason}.", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(written.files)} files in {written.folder}", markup=False, highlight=False, soft_wrap=True)


def compare(
    before: Annotated[Path, typer.Argument(help="Results folder to compare with.")],
    after: Annotated[Path, typer.Argument(help="Results folder that may be better or worse.")],
    tolerance: Annotated[float, typer.Option(min=0, help="Share by which a quality metric may become worse.")] = 0.01,
    time_tolerance: Annotated[
        float, typer.Option(min=0, help="Share by which seconds and memory may become worse.")
    ] = 0.1,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit with code 1 if anything became worse.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show also what did not change.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
) -> None:
    """What differs between two runs of one protocol, with intervals; what became worse is marked.

    A number is worse if it is so by more than the tolerance and its interval, where it has one, excludes no change.
    """
    from zoo.cli.common import out
    from zoo.report.compare import compare_runs
    from zoo.report.forms import to_rich
    from zoo.report.present import records_json

    found = compare_runs(before, after, tolerance=tolerance, time_tolerance=time_tolerance)
    if json:
        print(records_json(found.form(everything=True), found.records()), end="")
    else:
        out.print(to_rich(found.form(everything=everything)))
    if fail_on_regression and found.regressions:
        raise typer.Exit(1)
