"""``zoo report`` and ``zoo compare``: a run's tables for a manuscript, and what differs between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.common import console, split_labels, split_list, split_pairs
from zoo.errors import ConfigError
from zoo.extras import need
from zoo.options import COUNT, MILLIMETRES, SEED, SIDE, Quiet, real, verb, whole
from zoo.words import counted

if TYPE_CHECKING:
    from zoo.report.figures import FigureOptions


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Quiet):
    """Options of ``zoo report``."""

    run: Annotated[Path, typer.Argument(help="Results folder of 'zoo bench'.")]
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to. Default: RUN/tables.")] = None
    columns: Annotated[
        str | None, typer.Option(help="Columns in their order, comma-separated; or a YAML file with a whole layout.")
    ] = None
    formats: Annotated[str, typer.Option("--format", "-f", help="Comma-separated: md, csv, tex, json, html.")] = "all"
    intervals: Annotated[str | None, typer.Option(help="plusminus, brackets or none.")] = None
    digits: Annotated[int | None, typer.Option(help="Significant digits. Default: 3.", **whole(1, 9))] = None
    sort: Annotated[str | None, typer.Option(help="family, measured, or a column (best first).")] = None
    figures: Annotated[bool, typer.Option("--figures", help="Draw the figures, into RUN/figures.")] = False
    html: Annotated[bool, typer.Option("--html", help="Write a page for the browser, into RUN/page.")] = False
    paper: Annotated[
        bool, typer.Option("--paper", help="Write a two-page paper in LaTeX to begin from, into RUN/paper.")
    ] = False
    only: Annotated[str | None, typer.Option(help="Figures to draw, comma-separated. Default: all with data.")] = None
    width: Annotated[
        float | None, typer.Option(help="Page width of the figures in mm. Default: 174.", **MILLIMETRES)
    ] = None
    pairs: Annotated[str | None, typer.Option(help="Rows of the grid: CONTENT:STYLE, comma-separated.")] = None
    sample: Annotated[int, typer.Option(help="Without --pairs: how many rows to draw.", **COUNT)] = 4
    seed: Annotated[int, typer.Option(help="Seed of that draw.", **SEED)] = 0
    grid_methods: Annotated[str | None, typer.Option(help="Columns of the grid, comma-separated labels.")] = None
    zoom: Annotated[str | None, typer.Option(help="Insets: auto, or LEFT,TOP,WIDTH,HEIGHT as shares.")] = None
    size: Annotated[
        int | None,
        typer.Option(help="Size of the tables and figures. Default: the largest that most methods did.", **SIDE),
    ] = None
    against: Annotated[
        str | None, typer.Option(help="A method that all others are compared with, beside the best.")
    ] = None
    tradeoff: Annotated[str | None, typer.Option(help="Metrics to set against each other: CONTENT,STYLE.")] = None
    losses: Annotated[list[str] | None, typer.Option(help="Loss curves: NAME=FILE or FILE; repeatable.")] = None

    def drawing(self, names: dict[str, str]) -> FigureOptions:
        """What is chosen of the figures; ``names`` are printed instead of labels."""
        from zoo.report.figures import FigureOptions

        metrics = split_list(self.tradeoff) or [None, None]
        if len(metrics) != 2:
            raise ConfigError(f"--tradeoff is CONTENT,STYLE, such as lpips,gram_loss, not {self.tradeoff!r}.")
        return FigureOptions(
            only=split_list(self.only),
            pairs=split_pairs(self.pairs),
            sample=self.sample,
            seed=self.seed,
            methods=split_labels(self.grid_methods),
            zoom=self.zoom,
            size=self.size,
            content=metrics[0],
            style=metrics[1],
            losses=_named_files(self.losses or []),
            names=names,
            **({} if self.width is None else {"width": self.width}),
        )


@verb
def report(options: ReportOptions) -> None:
    """Write every table of a run: cost and quality, ranks, comparisons, correlations, and quoted figures.

    Each shows a few columns at one size; CSV and JSON hold every number in full, whatever the layout. report.tex
    compiles alone.
    Without --out the run's own table.md, table.csv and table.tex, which know no layout, are brought up to date as well.
    --figures draws every figure that the rows have numbers for as PDF and PNG; --html writes a folder that opens from
    a disk, with the tables and figures to download; --paper writes the LaTeX sources of two pages with tables and
    figures, and their PDF where TeX is installed; with --out all three stand inside that folder.
    """
    from zoo.report.files import FORMATS, write_report, write_tables
    from zoo.report.layout import Layout

    if options.figures or options.only or options.html or options.paper:
        need("bench", "matplotlib", "jinja2")
    if not (options.figures or options.only or options.paper):
        for name in ("width", "pairs", "grid_methods", "zoom", "tradeoff", "losses"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')} is of the figures: add --figures.")
    run, place = options.run, options.out or options.run
    names = ("intervals", "digits", "sort", "size", "against")
    layout = Layout.make(options.columns, **{name: getattr(options, name) for name in names})
    chosen = FORMATS if options.formats == "all" else tuple(split_list(options.formats))
    drawing = options.drawing(layout.names)
    written = write_tables(run, options.out, layout=layout, formats=chosen)
    if options.out is None:
        write_report(run)
    said = [f"No {name}: {reason}." for name, reason in written.omitted.items()]
    said.append(f"{counted(len(written.files), 'file')} in {written.folder}")
    if options.figures or options.only:
        from zoo.report.figures import draw_figures

        drawn = draw_figures(run, place / "figures", drawing)
        said += [f"No figure {name}: {reason}." for name, reason in drawn.omitted.items()]
        said += [f"{paths[0]}: {drawn.said[name]}" for name, paths in drawn.written.items()]
    if options.html:
        from zoo.report.page import write_page

        said.append(str(write_page(run, place / "page", tables=written.folder, names=layout.names)))
    if options.paper:
        from zoo.report.paper import write_paper

        made = write_paper(run, place / "paper", layout=layout, figures=drawing)
        said += made.said
        said.append(f"{made.pdf}: {counted(made.pages, 'page')}" if made.pdf else str(made.folder / "paper.tex"))
    if not options.quiet:
        for text in said:
            console.say(text)


def _named_files(texts: Sequence[str]) -> dict[str, Path]:
    """``NAME=FILE``; a file alone is named after itself, a training run's losses.csv after its folder."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        path = Path(file if equals else text)
        found[name if equals else path.resolve().parent.name if path.stem == "losses" else path.stem] = path
    return found


def compare(
    before: Annotated[Path, typer.Argument(help="Results folder to compare with.")],
    after: Annotated[Path, typer.Argument(help="Results folder that may be better or worse.")],
    tolerance: Annotated[
        float, typer.Option(help="Share by which a quality metric may become worse.", **real(0, 1000))
    ] = 0.01,
    time_tolerance: Annotated[
        float, typer.Option(help="Share by which seconds and memory may become worse.", **real(0, 1000))
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
        # Escaped, so that no encoding of the output loses a symbol of it.
        print(dumps(loads(records_json(found.form(everything=True), found.records())), indent=1))
    else:
        form = found.form(everything=everything)
        if form.groups:
            out.show(to_rich(form))
        else:
            print("\n".join([form.caption, *form.below]))
    if fail_on_regression and found.regressions:
        raise typer.Exit(1)
