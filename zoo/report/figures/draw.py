"""From a results folder to its figures: what is drawn, with which settings, and why something is not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.bench.folder import Folder
from zoo.bench.measures import PRIMARY
from zoo.bench.plan import Cell, at_last_step
from zoo.bench.rows import Row, latest, read_rows
from zoo.errors import ConfigError, UnknownNameError
from zoo.registry import Registry, load_registry
from zoo.report.figures import canvas, data
from zoo.report.figures.convergence import convergence, courses
from zoo.report.figures.grid import GridRow, Region, grid, most_detailed, sample_pairs
from zoo.report.figures.losses import loss_curves, read_curve
from zoo.report.figures.ranks import Diagram, correlations, critical_differences
from zoo.report.figures.scaling import scaling
from zoo.report.figures.tradeoff import tradeoff
from zoo.report.summary import Ranks, Run
from zoo.report.tables import Table, build_table, read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("grid", "speed", "memory", "tradeoff", "ranks", "correlations", "losses", "convergence")


@dataclass(frozen=True)
class FigureOptions:
    """What a caller may choose.

    only        names from FIGURES; empty for all
    width       page width in millimetres: of the grid; charts take one of its two columns
    pairs       pairs of the grid (content, style); empty for ``sample`` of the protocol's, drawn with ``seed``
    methods     labels of the grid's columns in their order; empty for all
    zoom        None for no insets, ``auto`` or LEFT,TOP,WIDTH,HEIGHT as shares of the picture
    size        size of the grid and the trade-off in pixels; None for the largest that has pictures or numbers
    content, style   metrics of the trade-off; None for the first of the preferred ones that the rows hold
    losses      loss files, by the name in the legend
    names       names to print instead of labels
    """

    only: Sequence[str] = ()
    width: float = canvas.PAGE_MM
    pairs: Sequence[tuple[str, str]] = ()
    sample: int = 4
    seed: int = 0
    methods: Sequence[str] = ()
    zoom: str | None = None
    size: int | None = None
    content: str | None = None
    style: str | None = None
    losses: Mapping[str, Path] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Figures:
    """What was written, by figure, and of the others the reason why not; ``said`` is what a caption should say."""

    written: dict[str, list[Path]] = field(default_factory=dict)
    omitted: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)


class _NoDataError(Exception):
    """The rows lack what a figure shows; ``str`` says what."""


def draw_figures(run: Path, out: Path | None = None, options: FigureOptions | None = None) -> Figures:
    """Draw the figures of a results folder into ``out`` (default: RUN/figures).

    Raises ProtocolError where nothing was measured there or a file cannot be written, UnknownNameError for a figure,
    method, pair or metric that does not exist, ConfigError for a width or zoom that cannot be.
    """
    options = options or FigureOptions()
    source = _Source.read(run)
    wanted = list(options.only) or list(FIGURES)
    for name in wanted:
        if name not in FIGURES:
            raise UnknownNameError("figure", name, FIGURES)
    result = Figures()
    for name in wanted:
        try:
            with canvas.settings():
                made = _MAKERS[name](source, options)
                for key, (figure, said) in (made if isinstance(made, dict) else {name: made}).items():
                    result.written[key] = canvas.save(figure, out or run / "figures", key)
                    result.said[key] = said
        except _NoDataError as reason:
            result.omitted[name] = str(reason)
    return result


@dataclass(frozen=True)
class _Source:
    """A results folder, read once: ``rows`` and what is made of them at the last step, ``steps`` of all steps."""

    folder: Folder
    run: dict[str, Any]
    rows: list[Row]
    steps: list[Row]
    table: Table
    registry: Registry
    summary: Run

    @classmethod
    def read(cls, path: Path) -> _Source:
        folder = Folder(path)
        run = read_run(folder)
        steps, registry = latest(read_rows(folder.rows)), load_registry()
        rows = at_last_step(steps)
        table, summary = build_table(rows, run, registry), Run(rows, run, registry)
        return cls(folder, run, rows, steps, table, registry, summary)

    @property
    def protocol(self) -> dict[str, Any]:
        return self.run["protocol"]["resolved"]

    @property
    def methods(self) -> list[str]:
        """Labels in the order measured, baselines left out."""
        return list(dict.fromkeys(line.method for line in self.table.lines if not line.baseline))

    @property
    def sizes(self) -> list[int]:
        return sorted({line.size for line in self.table.lines})

    def compared(self, options: FigureOptions) -> tuple[int, float]:
        """The size and the strength at which methods are compared: the chosen or the largest, and the largest."""
        self.refuse_unknown_size(options.size)
        size = options.size if options.size is not None else max(self.sizes, default=0)
        return size, max(self.protocol["strengths"])

    def refuse_unknown_size(self, size: int | None) -> None:
        if size is not None and size not in self.sizes:
            raise ConfigError(f"The run has no size {size}: choose from {', '.join(map(str, self.sizes))}.")

    def looks(self) -> dict[str, canvas.Look]:
        return canvas.looks([*self.methods, *(row.method for row in self.rows)])

    def names(self, options: FigureOptions) -> dict[str, str]:
        labels = list(dict.fromkeys(row.method for row in self.rows))
        return {**canvas.short_names(labels), **options.names}

    def title(self, metric: str) -> str:
        """A column's heading without arrow; the unit in brackets."""
        column = next(column for column in self.table.columns if column.metric == metric)
        return column.title + (f" ({column.unit})" if column.unit else "")

    def refuse_unknown(self, kind: str, names: Sequence[str], known: Sequence[str]) -> None:
        for name in names:
            if name not in known:
                raise UnknownNameError(kind, name, known, f"(protocol {self.run['protocol']['id']})")


def _at(size: int) -> str:
    """A size in words; 0 is the pictures' own."""
    return f"at size {size}" if size else "in their own size"


def _speed(source: _Source, options: FigureOptions) -> tuple[Figure, str]:
    return _scaling(source, options, PRIMARY, "seconds per picture", "time", (), None)


def _memory(source: _Source, options: FigureOptions) -> tuple[Figure, str]:
    metric = next((m for m in data.MEMORY if any(line.values.get(m) for line in source.table.lines)), data.MEMORY[-1])
    boundaries, limit = data.memory_boundary(source.rows, metric), data.memory_limit(source.run)
    return _scaling(source, options, metric, "peak memory (MiB)", "memory", boundaries, limit)


def _scaling(
    source: _Source,
    options: FigureOptions,
    metric: str,
    label: str,
    what: str,
    boundaries: Sequence[data.Boundary],
    limit: float | None,
) -> tuple[Figure, str]:
    series = data.against_size(source.table, metric)
    sizes = {x for one in series for x in one.x} | {float(boundary.size) for boundary in boundaries}
    if not series:
        raise _NoDataError(f"no method of this run has a measured {what} at a fixed size")
    if len(sizes) < 2:
        raise _NoDataError(f"the run has one size, {min(sizes):.0f} pixels: protocol 'speed' has several")
    looks, names, width = source.looks(), source.names(options), canvas.column(options.width)
    figure = scaling(
        series, looks, names, metric=metric, label=label, width_mm=width, boundaries=boundaries, limit=limit
    )
    said = f"{label[0].upper()}{label[1:]} against the size; exponents of the number of pixels, from the logarithms."
    if boundaries:
        said += " Hollow markers did not fit into memory; their height is foretold from the two largest sizes that did."
    return figure, said


def _tradeoff(source: _Source, options: FigureOptions) -> tuple[Figure, str]:
    table = source.table
    content, style = data.tradeoff_metrics(table, source.registry)
    source.refuse_unknown(
        "metric",
        [name for name in (options.content, options.style) if name],
        [column.metric for column in table.columns],
    )
    content, style = options.content or content, options.style or style
    if content is None or style is None:
        missing = "content" if content is None else "style"
        raise _NoDataError(f"the rows hold no metric of {missing}")
    source.refuse_unknown_size(options.size)
    sizes = [size for size in source.sizes if data.tradeoff(table, content, style, size)]
    size = options.size if options.size is not None else max(sizes, default=0)
    points = data.tradeoff(table, content, style, size)
    if not any(not point.baseline for point in points):
        raise _NoDataError(f"no method has both {content} and {style} {_at(size)}")
    higher = {column.metric: column.direction == "higher" for column in table.columns}
    figure = tradeoff(
        points,
        source.looks(),
        source.names(options),
        x_label=source.title(content),
        y_label=source.title(style),
        x_higher=higher[content],
        y_higher=higher[style],
        width_mm=canvas.column(options.width),
    )
    return figure, (
        f"Content ({source.title(content)}) against style ({source.title(style)}) {_at(size)}, means over the pairs "
        "that every method covers; hollow markers are beaten in both."
    )


def _ranks(source: _Source, options: FigureOptions) -> tuple[Figure, str]:
    size, strength = source.compared(options)
    names = source.names(options)
    diagrams = []
    for one in (ranks for ranks in source.summary.ranks() if not ranks.family):
        if (one.size, one.strength) == (size, strength):
            title = f"{source.title(one.metric)}, {one.ranking.blocks} {_blocks(source, one)}"
            found = [names[method] for method in one.methods]
            ranking = one.ranking
            diagrams.append(Diagram(title, found, ranking.ranks, ranking.critical, ranking.groups))
    if not diagrams:
        raise _NoDataError(f"{_at(size)} no metric has two methods on two contents or styles")
    figure = critical_differences(diagrams, width_mm=options.width, columns=2 if options.width >= 130 else 1)
    return figure, (
        f"Average ranks {_at(size)}, 1 the best; a bar joins methods closer than Nemenyi's critical difference at "
        "0.05 (Demšar 2006)."
    )


def _blocks(source: _Source, one: Ranks) -> str:
    """What the ranks are averages over, in a word (:attr:`zoo.report.statistics.Units.blocks`)."""
    units = source.summary.scores(one.metric, one.size, one.strength).units
    counts = {
        "contents": len({content for content, _, _ in units}),
        "styles": len({style for _, style, _ in units}),
        "pairs": len({(content, style) for content, style, _ in units}),
    }
    return "pairs" if len(set(counts.values())) == 1 else next(k for k, n in counts.items() if n == one.ranking.blocks)


def _correlations(source: _Source, options: FigureOptions) -> tuple[Figure, str]:
    size, _ = source.compared(options)
    found = {(one.first, one.second): one.result.spearman for one in source.summary.agreements() if one.size == size}
    metrics = list(dict.fromkeys(metric for pair in found for metric in pair))
    if len(metrics) < 2:
        raise _NoDataError(f"{_at(size)} fewer than two metrics have values of pictures")

    def coefficient(first: str, second: str) -> float:
        value = 1.0 if first == second else found.get((first, second), found.get((second, first)))
        return math.nan if value is None else value

    matrix = [[coefficient(first, second) for second in metrics] for first in metrics]
    titles = [source.title(metric) for metric in metrics]
    title = "Agreement of metrics (Spearman)"
    figure = correlations(titles, matrix, title=title, width_mm=canvas.column(options.width))
    return figure, (
        f"Spearman's rank correlation of the metrics over every method's pictures {_at(size)}; positive where two "
        "metrics prefer the same pictures, whatever their direction."
    )


def _losses(source: _Source, options: FigureOptions) -> tuple[Figure, str]:
    if not options.losses:
        raise _NoDataError(
            "rows keep no losses: name the losses.csv of a training run, or what 'zoo stylize --losses' wrote"
        )
    curves = [read_curve(path, name) for name, path in options.losses.items()]
    width = options.width if len({term for curve in curves for term in curve.losses}) > 1 else None
    figure = loss_curves(curves, width_mm=width or canvas.column(options.width))
    return figure, "Losses by step; where a run has more than 200, faint, with their running median."


def _convergence(source: _Source, options: FigureOptions) -> dict[str, tuple[Figure, str]]:
    """The means over the pairs, and a figure for each of several pairs (or of those that were chosen)."""
    size, _ = source.compared(options)
    everything = courses(source.steps, source.run, source.registry, size)
    if not everything.drawn:
        raise _NoDataError("no method of this run has numbers at several steps: protocol 'convergence' has")
    found = {"convergence": ("means over the pairs that every method covers", everything)}
    pairs = {(row.content, row.style) for row in source.steps if row.content is not None}
    for content, style in sorted(pairs & set(options.pairs) if options.pairs else pairs) if len(pairs) > 1 else ():
        rows = [row for row in source.steps if (row.content, row.style) == (content, style)]
        if (one := courses(rows, source.run, source.registry, size)).drawn:
            found[f"convergence-{content}-{style}"] = (f"{content} in {style}", one)
    labels = [course.label for course in everything.methods]
    looks, names = canvas.looks(labels), {**canvas.short_names(labels), **options.names}
    return {
        name: (
            convergence(one, looks, names, width_mm=options.width),
            f"Metrics and the method's own loss at steps of one run, {_at(size)}; {what}. Single marks are methods "
            "without steps.",
        )
        for name, (what, one) in found.items()
    }


def _grid(source: _Source, options: FigureOptions) -> tuple[Figure, str]:
    protocol = source.protocol
    pairs = [(str(content), str(style)) for content, style in protocol["pairs"]]
    source.refuse_unknown("pair", [" x ".join(p) for p in options.pairs], [" x ".join(pair) for pair in pairs])
    source.refuse_unknown("method", options.methods, source.methods)
    chosen = list(options.pairs) or sample_pairs(pairs, options.sample, options.seed)
    methods = list(options.methods) or source.methods
    source.refuse_unknown_size(options.size)
    sizes = [options.size] if options.size is not None else source.sizes[::-1]
    for size in sizes:
        rows = [_grid_row(source, options, pair, methods, size) for pair in chosen]
        if any(picture is not None for row in rows for picture in row.pictures[2:]):
            break
    else:
        raise _NoDataError(
            f"the pictures are not in {source.folder.outputs} (results under version control keep none): "
            "'zoo bench --again' makes them anew, or copy them there"
        )
    names = source.names(options)
    figure = grid(rows, ["content", "style", *(names[method] for method in methods)], width_mm=options.width)
    said = f"Pairs of protocol {source.run['protocol']['id']} {_at(size)}"
    if not options.pairs and len(chosen) < len(pairs):
        said += f", {len(chosen)} of {len(pairs)} drawn with seed {options.seed}"
    if options.zoom == "auto":
        said += "; insets: the square of a third of the content's shorter side with the most detail (summed gradient)"
    return figure, said + "."


def _grid_row(
    source: _Source, options: FigureOptions, pair: tuple[str, str], methods: Sequence[str], size: int
) -> GridRow:
    content, style = pair
    protocol = source.protocol
    seed, strength = protocol["seeds"][0], max(protocol["strengths"])
    cells = [Cell(method, content, style, size, seed, strength) for method in methods]
    paths = [source.folder.input("content", content, size), source.folder.input("style", style, size)]
    pictures = [_picture(path) for path in (*paths, *map(source.folder.output, cells))]
    zoom = None
    if options.zoom == "auto" and pictures[0] is not None:
        zoom = most_detailed(pictures[0])
    elif options.zoom not in (None, "auto"):
        zoom = Region.parse(options.zoom)
    return GridRow(f"{content} × {style}", pictures, zoom)


def _picture(path: Path) -> Any:
    """(H, W, 3) in [0, 1], or None where there is no such file."""
    from zoo import images

    return images.read(path).pixels[0].permute(1, 2, 0).numpy() if path.exists() else None


_MAKERS = {
    "grid": _grid,
    "speed": _speed,
    "memory": _memory,
    "tradeoff": _tradeoff,
    "ranks": _ranks,
    "correlations": _correlations,
    "losses": _losses,
    "convergence": _convergence,
}
