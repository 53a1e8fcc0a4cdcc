"""The tables that are read: cost and quality apart, at one size and strength, a few columns each.

Cost is the first call, one picture and peak memory; quality a few metrics of content and a few of style. A column
without numbers is left out, and at most three remarks stand below. Everything else is in table.csv, table.json and on
the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo.bench.measures import MEASURES, PRIMARY
from zoo.bench.plan import of_run
from zoo.bench.rows import Row, latest
from zoo.errors import ConfigError, UnknownNameError
from zoo.registry import Registry
from zoo.report.forms import Form
from zoo.report.layout import ColumnChoice, Layout
from zoo.report.present import present
from zoo.report.remarks import Kind, Remark
from zoo.report.tables import Table, build_table, for_all_strengths, metric_title

# Measures of content and style, the ones that no method here optimises itself first.
CONTENT_METRICS = ("lpips", "cfsd", "cf", "ssim", "content_loss")
STYLE_METRICS = ("e_statistic", "sifid", "ge", "lp", "gram_loss", "mean_std_loss", "color_histogram")
# What tells a steady film, in place of those.
FILM_MEASURES = ("film.short", "film.long", "film.gram_loss", "film.gram_change", "film.perceptual")
# As many columns with intervals as a terminal of 120 characters holds.
CONTENT, STYLE = 2, 3
REMARKS = 3
# What is said below which table, the most important first.
_KINDS: dict[str, tuple[Kind, ...]] = {
    "cost": ("busy", "cold", "coverage", "weights", "note", "largest", "runs", "machine"),
    "quality": ("sanity", "coverage", "note", "weights", "absent", "runs"),
}


@dataclass(frozen=True)
class Choice:
    """What is shown of a run: one size and strength, some ``measures`` of cost, some ``metrics`` of quality.

    ``rows`` are those of that size and strength, with what belongs to the run; ``absent`` the titles of metrics without
    numbers.
    """

    size: int
    strength: float
    measures: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    absent: tuple[str, ...] = ()
    of_several: str = ""

    @property
    def at(self) -> str:
        """The size in words, and the strength where the run has several."""
        return (f"at {self.size} pixels" if self.size else "in their own size") + self.of_several


def choose(
    rows: Iterable[Row],
    run_file: Mapping[str, Any],
    registry: Registry,
    layout: Layout,
    *,
    content: int = CONTENT,
    style: int = STYLE,
) -> Choice:
    """Choose what is shown: what the layout names, else the largest size that most methods did, at full strength.

    ``content`` and ``style`` are how many metrics of each are taken. Raises ConfigError for a size that the run lacks
    and for columns of which it has none, UnknownNameError for one that no run can have.
    """
    rows = latest(rows)
    baselines = set(run_file["protocol"]["resolved"]["baselines"])
    of_methods = [row for row in rows if row.method not in baselines and not of_run(row)]
    size = _size(of_methods, layout.size)
    strengths = {row.strength for row in of_methods if not for_all_strengths(row, baselines)} or {1.0}
    strength = max(strengths)
    own = tuple(
        row
        for row in rows
        if of_run(row) or (row.size == size and (row.strength == strength or for_all_strengths(row, baselines)))
    )
    there = list(dict.fromkeys(row.metric for row in own if row.status == "ok" and not of_run(row)))
    if layout.columns is not None:
        names = [column.metric for column in layout.columns]
        _refuse_unknown(names, there, registry)
        chosen = [name for name in names if name in there]
        if not chosen:
            raise ConfigError(f"This run has none of the columns {', '.join(names)}: it has {', '.join(there)}.")
        measures = [name for name in chosen if name in MEASURES and name not in FILM_MEASURES]
        metrics = [name for name in chosen if name not in measures]
    else:
        memory = "memory.cuda_allocated" if "memory.cuda_allocated" in there else "memory.resident"
        measures = [name for name in ("seconds.first", PRIMARY, memory) if name in there]
        scored = [name for name in there if name not in MEASURES]
        # Where a run has none of those, what it has: metrics of plugins, or of both at once.
        metrics = [*_first(scored, CONTENT_METRICS, content), *_first(scored, STYLE_METRICS, style)]
        metrics = metrics or scored[: content + style]
        if films := [name for name in FILM_MEASURES if name in there]:
            measures, metrics = [*measures, "film.rate"], films
    asked = dict.fromkeys(row.metric for row in own if row.metric not in MEASURES)
    absent = tuple(metric_title(name, registry) for name in asked if name not in there)
    of_several = f", strength {strength:g}" if len(strengths) > 1 else ""
    return Choice(size, strength, tuple(measures), tuple(metrics), own, absent, of_several)


def forms(
    rows: Sequence[Row], run_file: Mapping[str, Any], registry: Registry, layout: Layout | None = None
) -> list[Form]:
    """The tables ``cost`` and ``quality`` of a run, of those that have lines.

    Raises what :func:`choose` does, and ConfigError for an order by a column that neither shows.
    """
    layout = layout or Layout()
    choice = choose(rows, run_file, registry, layout)
    if layout.sort not in ("family", "measured", *choice.measures, *choice.metrics):
        _refuse_unknown([layout.sort], (), registry, "order")
        raise ConfigError(f"The tables have no column {layout.sort} to be sorted by: add it to --columns.")
    return [
        form(table, choice, layout, name)
        for name in ("cost", "quality")
        if (table := part(choice, run_file, registry, name)).lines
    ]


def part(choice: Choice, run_file: Mapping[str, Any], registry: Registry, name: str) -> Table:
    """The table ``cost`` or ``quality`` of what was chosen, without lines where there is nothing to show."""
    if name == "cost":
        # Sanity rows cost nothing; what failed has no number, but a line with its reason.
        methods = [row for row in choice.rows if row.method not in run_file["protocol"]["resolved"]["baselines"]]
        rows = [
            row
            for row in methods
            if of_run(row) or row.metric in choice.measures or (row.metric == PRIMARY and row.status != "ok")
        ]
    else:
        rows = [row for row in choice.rows if row.metric in choice.metrics]
    return build_table(rows, run_file, registry)


def form(table: Table, choice: Choice, layout: Layout, name: str) -> Form:
    """A part as it is read: caption, columns in the order chosen, the remarks that matter most."""
    metrics = choice.measures if name == "cost" else choice.metrics
    shown = {column.metric for column in table.columns}
    given = {column.metric: column for column in layout.columns or ()}
    columns = [given.get(metric, ColumnChoice(metric=metric)) for metric in metrics if metric in shown]
    sort = layout.sort if layout.sort in ("family", "measured", *shown) else "family"
    made = present(table, layout.model_copy(update={"columns": columns, "sort": sort}), name)
    remarks = list(table.remarks)
    if choice.absent and name == "quality":
        names = ", ".join(choice.absent)
        remarks.append(Remark("absent", f"Without numbers: {names}; rows.jsonl has the reasons."))
    kinds = _KINDS[name]
    ranked = sorted((one for one in remarks if one.kind in kinds), key=lambda one: kinds.index(one.kind))
    said = [*made.said, *(one.text for one in ranked)][:REMARKS]
    return replace(made, caption=f"{title(name, choice)} {table.caption}", said=said)


def title(name: str, choice: Choice) -> str:
    """What a part shows, in a sentence or two."""
    if name == "cost":
        return f"Cost {choice.at}: mean over the pairs, of memory the largest."
    return (
        f"Quality {choice.at}: mean over the pairs. Bold is the best method of a column, underlined the second; "
        "sanity rows do not compete."
    )


def _size(rows: Sequence[Row], wanted: int | None) -> int:
    done: dict[int, set[str]] = {}
    for row in rows:
        methods = done.setdefault(row.size, set())
        if row.status == "ok" and (row.metric == PRIMARY or row.metric not in MEASURES):
            methods.add(row.method)
    if wanted is not None and wanted not in done:
        raise ConfigError(f"The run has no size {wanted}: choose from {', '.join(map(str, sorted(done)))}.")
    # Kept sizes (0) count as the largest.
    return max(done, key=lambda size: (len(done[size]), size == 0, size), default=0) if wanted is None else wanted


def _first(there: Sequence[str], preferred: Sequence[str], count: int) -> list[str]:
    return [metric for name in preferred for metric in there if metric.partition("[")[0] == name][:count]


def _refuse_unknown(names: Iterable[str], there: Iterable[str], registry: Registry, kind: str = "column") -> None:
    known = {*MEASURES, *registry.metrics, *there}
    for name in names:
        if name not in known and name.partition("[")[0] not in known:
            raise UnknownNameError(kind, name, {*known, *(("family", "measured") if kind == "order" else ())})
