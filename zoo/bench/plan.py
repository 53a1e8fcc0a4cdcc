"""From a resolved protocol and a choice of methods to cells: one method on one pair at one size, seed and strength."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zoo.bench.measures import MEASURES
from zoo.bench.protocol import ResolvedProtocol, Timing, check_settings, label_with
from zoo.bench.rows import Row, RowKey
from zoo.errors import ConfigError, ProtocolError
from zoo.registry import Registry, import_object

if TYPE_CHECKING:
    from zoo.bench.from_folder import Gallery
    from zoo.bench.ledger import Ledger

# Of a picture's file in bytes; file systems hold 255, and a film has a longer ending.
_LONGEST_NAME = 240


@dataclass(frozen=True)
class Cell:
    """One picture to make and measure."""

    method: str
    content: str
    style: str
    size: int
    seed: int
    strength: float

    @classmethod
    def of(cls, row: Row) -> Cell:
        """The cell that a row is of."""
        return cls(row.method, str(row.content), str(row.style), row.size, row.seed, row.strength)

    def key(self, metric: str) -> RowKey:
        """The key of this cell's row for a metric."""
        return (self.method, self.content, self.style, self.size, self.seed, self.strength, metric)

    @property
    def filename(self) -> str:
        """The output's file name: ``METHOD__CONTENT__STYLE__SIZE__seedN__strengthX.png``."""
        method = self.method.replace("[", "+").replace("]", "")
        method = re.sub(r"[^A-Za-z0-9._=+,-]", "-", method)
        return f"{method}__{self.content}__{self.style}__{self.size}__seed{self.seed}__strength{self.strength:g}.png"

    def __str__(self) -> str:
        return f"{self.method} {self.content} x {self.style} at {self.size}"


@dataclass(frozen=True)
class RunCell:
    """What a row is of that belongs to the run: the machine's speed, or the largest size that fits a method."""

    method: str
    seed: int = 0
    size: int = 0
    strength: float = 1.0
    content: None = None
    style: None = None
    precision: str | None = None

    def key(self, metric: str) -> RowKey:
        """The key of the row for a measure."""
        return (self.method, None, None, self.size, self.seed, self.strength, metric)

    def __str__(self) -> str:
        return self.method


@dataclass(frozen=True)
class SetCell(RunCell):
    """All pictures of a method at one size, seed and strength, as a metric of sets scores them: ``members``.

    ``missing`` says how many of them could not be made. Its rows have neither content nor style.
    """

    members: tuple[Cell, ...] = ()
    missing: int = 0

    @classmethod
    def of(cls, members: tuple[Cell, ...], missing: int = 0) -> SetCell:
        """The set of these cells."""
        first = members[0]
        return cls(first.method, first.seed, first.size, first.strength, members=members, missing=missing)

    @property
    def lacking(self) -> str:
        """Why it cannot be scored."""
        return f"{self.missing} of the {len(self.members)} pictures of the set are missing"

    def __str__(self) -> str:
        return f"{self.method}, all {len(self.members)} pictures at {self.size}"


MACHINE = "machine[precision="


def machine_label(precision: str) -> str:
    """Return the method of the rows that hold the machine's own speed in a precision."""
    return f"{MACHINE}{precision}]"


def of_run(row: Row) -> bool:
    """Return whether a row belongs to the run and not to a line of a table."""
    return row.method.startswith(MACHINE) or (row.metric in MEASURES and MEASURES[row.metric].scope == "run")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 0) of ``count``: pairs in a row, so that metrics can remember what their pictures share."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(f"There is no shard {self.index} of {self.count}: they count from 0.")

    def cells(self, pairs: Sequence[tuple[str, str]], cells: Iterable[Cell]) -> tuple[Cell, ...]:
        """Those of ``cells`` whose pair, of all of them, is in this shard."""
        own = {pair for i, pair in enumerate(pairs) if i * self.count // len(pairs) == self.index}
        return tuple(cell for cell in cells if (cell.content, cell.style) in own)


Scored = Cell | SetCell


def set_cells(cells: Iterable[Cell]) -> list[tuple[Cell, ...]]:
    """The cells that belong together in a set: of one method, size, seed and strength, in order of appearance."""
    groups: dict[tuple[str, int, int, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.method, cell.size, cell.seed, cell.strength), []).append(cell)
    return [tuple(group) for group in groups.values()]


@dataclass(frozen=True)
class MethodPlan:
    """One method as a protocol measures it: options other than its preset's are in the label."""

    name: str
    label: str
    options: dict[str, Any]
    timing: Timing
    checkpoint: str | None
    encoder: str | None
    cells: tuple[Cell, ...]
    film: Mapping[str, Any] | None = None  # of a protocol of films: what zoo.bench.workers.films is told
    step: int | None = None  # of a protocol of steps: at which one of them the pictures are

    @property
    def job(self) -> dict[str, Any]:
        """What a worker is told of the method."""
        return {"name": self.name, "options": self.options, "timing": self.timing.model_dump()}

    @property
    def worked(self) -> str:
        """What one worker does at a size: this method, and with it the same at other steps."""
        return self.label if self.step is None else split_step(self.label)[0]


class Plan:
    """What a run asks for: methods, pictures made elsewhere, sanity rows and the metrics of them all.

    ``retry`` is whether what failed or was skipped is tried again. ``pair_metrics`` and ``set_metrics`` are positions
    in the protocol, ``sets`` the set that a cell belongs to where a metric of sets is asked for.
    """

    def __init__(
        self,
        protocol: ResolvedProtocol,
        registry: Registry,
        methods: Sequence[MethodPlan],
        galleries: Sequence[Gallery] = (),
        *,
        retry: bool = False,
        shard: Shard | None = None,
    ) -> None:
        self.protocol, self.galleries, self.retry = protocol, galleries, retry
        scopes = [registry.metric(use.name).scope for use in protocol.spec.metrics]
        self.pair_metrics = [i for i, scope in enumerate(scopes) if scope == "pair"]
        self.set_metrics = [i for i, scope in enumerate(scopes) if scope == "set" and shard is None]
        # Those of films are measured like methods.
        self.baselines = [] if protocol.spec.film else baseline_cells(protocol)
        self.methods = list(methods)
        if shard is not None:
            self.baselines = list(shard.cells(protocol.pairs, self.baselines))
            self.methods = [replace(plan, cells=shard.cells(protocol.pairs, plan.cells)) for plan in methods]
        groups = set_cells(self.baselines)
        groups += [group for one in (*self.methods, *galleries) for group in set_cells(one.cells)]
        self.sets = {cell: SetCell.of(group) for group in groups for cell in group} if self.set_metrics else {}

    def grouped(self, wanted: Callable[[MethodPlan, Cell], bool]) -> list[list[Cell]]:
        """The wanted cells, a group per method and size; of steps those of one run one after another.

        A film is a group of its own: the networks that judge it leave memory behind, which the next peak would show.
        """
        groups: dict[Any, list[Cell]] = {}
        for method in self.methods:
            for cell in method.cells:
                if wanted(method, cell):
                    groups.setdefault(cell if method.film else (method.worked, cell.size), []).append(cell)
        for group in groups.values():
            runs = dict.fromkeys((cell.content, cell.style, cell.seed, cell.strength) for cell in group)
            place = {run: number for number, run in enumerate(runs)}
            group.sort(key=lambda cell, place=place: place[cell.content, cell.style, cell.seed, cell.strength])
        return list(groups.values())

    def to_score(self, rows: Ledger, cell: Scored, metric: int) -> bool:
        """Whether a metric has no row of a cell, one of another picture, or one to be tried again."""
        row = rows.scored(cell, metric)
        return rows.unlike(cell, metric) or (row is not None and row.status != "ok" and self.retry)

    def incomplete(self, rows: Ledger, group: SetCell, metric: int) -> Row | None:
        """The row that says that a set was skipped for want of pictures, if it was."""
        row = rows.scored(group, metric)
        return row if row is not None and (row.status, row.cause) == ("skipped", "input") else None

    def needs_picture(self, rows: Ledger, cell: Cell) -> bool:
        """Whether a metric, of the cell or of its set, is still to be computed."""

        def completed(group: SetCell, metric: int) -> bool:
            made = all((row := rows.measured(member)) is not None and row.status == "ok" for member in group.members)
            return made and self.incomplete(rows, group, metric) is not None

        return any(self.to_score(rows, cell, metric) for metric in self.pair_metrics) or any(
            self.to_score(rows, self.sets[cell], metric) or completed(self.sets[cell], metric)
            for metric in self.set_metrics
        )


def plan_methods(protocol: ResolvedProtocol, registry: Registry, names: Iterable[str]) -> list[MethodPlan]:
    """A plan per method, in the order given; sizes ascend, so that the first failure for want of memory ends the rest.

    Raises UnknownNameError for an option that a method lacks, ProtocolError for a value that it refuses or where two
    methods share an output's name.
    """
    plans: dict[str, MethodPlan] = {}
    for name in map(protocol.chosen, names):
        resolved = registry.resolve(name)
        known = frozenset(spec.name for spec in registry.options(name))
        options, timing = protocol.settings(resolved, known)
        check_settings(
            protocol.spec.name, resolved.label, resolved.entry.implementation, {**resolved.options, **options}
        )
        label = label_with(resolved.label, options)
        plans[label] = MethodPlan(
            name=resolved.label,
            label=label,
            options=options,
            timing=timing,
            checkpoint=resolved.checkpoint.sha256 if resolved.checkpoint else None,
            encoder={**resolved.options, **options}.get("encoder", resolved.entry.encoder),
            cells=cells_of(protocol, label),
        )
    if protocol.spec.film is not None:
        plans = {plan.label: plan for plan in _of_films(protocol, registry, plans.values())}
    if protocol.spec.steps:
        plans = {plan.label: plan for plan in _at_steps(protocol, registry, plans.values())}
    files = [cell.filename for plan in plans.values() for cell in plan.cells]
    if long := next((name for name in files if len(os.fsencode(name)) > _LONGEST_NAME), ""):
        raise ProtocolError(
            f"{long[:60]}... is too long for the name of a file: give the protocol's images shorter names, or a "
            "method fewer options."
        )
    if len(set(files)) < len(files):
        raise ProtocolError("Two methods of this run would write the same output files: measure them apart.")
    return list(plans.values())


def _of_films(protocol: ResolvedProtocol, registry: Registry, plans: Iterable[MethodPlan]) -> Iterator[MethodPlan]:
    """Each method once for every way of keeping frames together that it has; the sanity rows of films."""
    spec = protocol.spec
    assert spec.film is not None
    told = {
        **spec.film.model_dump(exclude={"keep"}),
        "resize": spec.resize,
        "clips": {clip.name: clip.source for clip in protocol.contents},
    }
    for plan in plans:
        for keep in spec.film.keep:
            if keep == "temporal" and not temporal(registry, plan.name):
                continue
            label = label_with(plan.name, {**plan.options, "keep": keep})
            yield replace(plan, label=label, cells=cells_of(protocol, label), film={**told, "keep": keep})
    for name in spec.baselines:
        cells = tuple(cell for cell in baseline_cells(protocol) if cell.method == name)
        yield MethodPlan(name, name, {}, spec.timing, None, None, cells, {**told, "keep": "none"})


def _at_steps(protocol: ResolvedProtocol, registry: Registry, plans: Iterable[MethodPlan]) -> Iterator[MethodPlan]:
    """Each method that optimises the image once for every step; the others as they are."""
    for plan in plans:
        if registry.resolve(plan.name).entry.taxonomy.optimizes != "image":
            yield plan
            continue
        for step in protocol.spec.steps:
            label = label_with(plan.name, {**plan.options, "step": step})
            yield replace(plan, label=label, cells=cells_of(protocol, label), step=step)


def split_step(label: str) -> tuple[str, int | None]:
    """Return a method's label without its step, and the step; None for one without."""
    found = re.fullmatch(r"([^\[]+)\[(.*?),?step=(\d+)(.*)\]", label)
    if found is None:
        return label, None
    name, before, step, after = found.groups()
    rest = before + (after if before else after.removeprefix(","))
    return (f"{name}[{rest}]" if rest else name), int(step)


def last_steps(labels: Iterable[str]) -> list[str]:
    """Return the labels, each once, without those at earlier steps of a run."""
    last: dict[str, tuple[int, str]] = {}
    for label in labels:
        name, step = split_step(label)
        last[name] = max(last.get(name, (0, label)), (step or 0, label))
    return [label for _, label in last.values()]


def at_last_step(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without those at earlier steps of a run, or at later ones than it reached."""
    kept = set(last_steps(row.method for row in rows if row.status == "ok"))
    return [row for row in rows if row.method in kept or split_step(row.method)[1] is None]


def temporal(registry: Registry, name: str) -> bool:
    """Return whether a method keeps frames together by itself; no, where its class cannot be imported."""
    try:
        return "anchors" in import_object(registry.resolve(name).entry.implementation).traits.context
    except ImportError:
        return False


def cells_of(protocol: ResolvedProtocol, label: str) -> tuple[Cell, ...]:
    """Every cell of a method or baseline."""
    spec = protocol.spec
    return tuple(
        Cell(label, content, style, size, seed, strength)
        for size in sorted(spec.sizes, key=lambda pixels: (pixels == 0, pixels))
        for content, style in protocol.pairs
        for seed in spec.seeds
        for strength in spec.strengths
    )


def baseline_cells(protocol: ResolvedProtocol) -> list[Cell]:
    """Cells of the baselines: a seed or strength changes nothing, so one per pair and size."""
    spec = protocol.spec
    return [
        Cell(name, content, style, size, spec.seeds[0], 1.0)
        for name in spec.baselines
        for size in sorted(set(spec.sizes))
        for content, style in protocol.pairs
    ]
