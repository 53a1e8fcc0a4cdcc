"""``zoo bench`` without its terminal: plan, measure what is missing, score what is missing.

Only this process writes rows. A run that is killed, or stopped with Ctrl-C (or SIGTERM, or SIGHUP of a terminal that
closes), continues when started again: cells that have rows are not measured again. Failed and skipped cells stay as
they are unless ``retry_failed`` is set.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import zoo
from zoo import images
from zoo.bench import environment, inputs, largest, outside, rates, scoring, stages
from zoo.bench.folder import Folder, check_conditions
from zoo.bench.ledger import Event, Ledger
from zoo.bench.plan import Cell, MethodPlan, Scored, SetCell, Shard, baseline_cells, of_run, plan_methods, set_cells
from zoo.bench.protocol import ResolvedProtocol, find_protocol, load_protocol, resolve_protocol
from zoo.bench.rows import Row, RowStore, Status, utc_now
from zoo.bench.supervise import terminable
from zoo.bench.taken import take
from zoo.color import reinhard
from zoo.device import resolve_device, resolve_precision
from zoo.download import file_sha256
from zoo.errors import ConfigError, ProtocolError, UnknownNameError
from zoo.registry import load_registry


@dataclass(frozen=True)
class BenchResult:
    """What a run left: its folder, the rows of the chosen methods, and how many of them are new."""

    folder: Path
    rows: list[Row] = field(repr=False)
    written: int

    def count(self, status: Status) -> int:
        """Rows with this status."""
        return sum(row.status == status for row in self.rows)

    @property
    def ok(self) -> bool:
        """No cell and no metric failed (a skipped one did not)."""
        return self.count("failed") == 0


def run(
    methods: Iterable[str],
    protocol: str | Path = "quick",
    out: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    fresh: bool = False,
    again: bool = False,
    rescore: Sequence[str] = (),
    take_from: str | Path | None = None,
    retry_failed: bool = False,
    outputs: Mapping[str, str | Path] | None = None,
    find_largest: bool = False,
    jobs: int = 1,
    shard: Shard | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> BenchResult:
    """Measure ``methods`` (names, ``method.tag``, wildcards or ``all``) under ``protocol`` into the folder ``out``.

    ``protocol`` is the name of one that ships or the path of a YAML file; ``out`` defaults to
    ``outputs/bench/PROTOCOL``. ``fresh`` sets earlier results in the folder aside, ``again`` those of these methods
    alone (after training, say), ``rescore`` the values of these metrics. ``take_from`` is the results folder of a
    protocol that differs in its metrics alone: pictures, timings and what is scored alike are taken over from there
    (:mod:`zoo.bench.taken`). ``retry_failed`` measures failed and skipped cells again. ``outputs`` are folders of
    pictures made elsewhere, by the name that their rows take (:mod:`zoo.bench.outside` tells how their files are
    named). ``find_largest`` searches for the largest size that fits each method (:mod:`zoo.bench.largest`). ``jobs``
    processes score pictures at once; methods are measured one by one always. ``shard`` keeps to a part of the pairs and
    leaves out the metrics of sets (:mod:`zoo.bench.shards`).

    Raises ProtocolError (malformed protocol; the folder is in use or was measured under other conditions),
    UnknownNameError and ConfigError, all before anything is measured.
    """
    registry = load_registry()
    path = find_protocol(str(protocol))
    resolved = resolve_protocol(load_protocol(path), path.parent, registry)
    plans = plan_methods(resolved, registry, registry.match(list(methods)))
    galleries = [
        outside.open_gallery(label, Path(where), resolved, registry) for label, where in (outputs or {}).items()
    ]
    if resolved.spec.film and galleries:
        raise ConfigError("--outputs scores pictures, and this protocol is one of films: leave it out.")
    if not plans and not galleries:
        raise ConfigError("There is no method to measure: name some, or 'all'.")
    if threads is not None and threads < 1:
        raise ConfigError(f"A run needs at least one thread, got {threads}.")
    if jobs < 1:
        raise ConfigError(f"A run needs at least one job, got {jobs}.")
    if shard is not None:
        plans = [dataclasses.replace(plan, cells=shard.cells(resolved.pairs, plan.cells)) for plan in plans]
    rescored = _labels(resolved, rescore)
    if take_from is not None and (fresh or again):
        raise ConfigError("Results are either taken over or measured anew: leave out --from, --fresh or --again.")
    chosen = resolve_device(device)
    resolve_precision(precision, chosen, "fp32")
    threads = threads or torch.get_num_threads()
    folder = Folder(Path(out) if out is not None else Path("outputs") / "bench" / resolved.spec.name)
    stamp = utc_now().replace("-", "").replace(":", "")
    run_id = f"{stamp}-{uuid.uuid4().hex[:6]}"
    setting = stages.Setting(folder, str(chosen), precision, threads, resolved.spec.limits)
    with folder.locked():
        if fresh:
            folder.set_aside(stamp)
        run_file = _open_run(folder, resolved, setting)
        labels = {plan.label for plan in plans} | {gallery.label for gallery in galleries}
        anew = set(labels) if again else set()
        labels |= set(resolved.spec.baselines)
        if again or rescored:
            folder.retire(
                stamp,
                lambda row: row.method in anew or (row.metric in rescored and row.method in labels),
                with_picture=lambda row: row.method in anew,
            )
        taken: list[Row] = []
        if take_from is not None:
            taken = take(Path(take_from), resolved, run_file["conditions"], plans, folder, run_file)
            taken = [row for row in taken if row.metric not in rescored]
            # Before the first row: from then on the folder is this protocol's.
            folder.write_run(run_file)
        with RowStore(folder.rows) as store:
            store.append(row for row in taken if store.get(row.key) is None)
            ledger = Ledger(store, resolved, plans, registry, run_id, on_event)
            _check_weights(ledger, folder)
            for gallery in galleries:
                ledger.pictures.update(gallery.hashes)
                outside.check_unchanged(gallery, ledger)
            work = _Work(folder, resolved, plans, galleries, ledger, retry_failed, shard)
            beside = rates.pending(ledger, plans, retry_failed)
            beside = beside or (find_largest and bool(largest.pending(ledger, plans, retry_failed)))
            if work.missing or work.unscored() or work.unreported() or beside:
                # run.json first: from then on the folder, prepared inputs included, is this protocol's.
                with terminable(), _noted(folder, run_file, run_id, chosen, plans, galleries) as timed:
                    _prepare_inputs(folder, resolved)
                    for gallery in galleries:
                        outside.take(gallery, folder, ledger, work.pair_metrics)
                    stages.measure(setting, ledger, work.missing)
                    begun = ledger.written
                    rates.find(setting, ledger, plans, retry_failed)
                    if find_largest:
                        largest.find(setting, ledger, plans, retry_failed)
                    timed(sum(len(cells) for _, cells in work.missing) + ledger.written - begun)
                    ledger.drawn |= _draw_baselines(folder, work.baselines)
                    scoring.score(setting, ledger, work.unscored(), jobs)
            rows = [row for row in store.rows if row.method in labels or of_run(row)]
        return BenchResult(folder.path, rows, ledger.written)


def _labels(protocol: ResolvedProtocol, names: Sequence[str]) -> set[str]:
    """Labels of the protocol's metrics called so, with their settings or without; UnknownNameError for others."""
    labels = {use.label: use.name for use in protocol.spec.metrics}
    for name in names:
        if name not in labels and name not in labels.values():
            raise UnknownNameError("metric", name, labels, f"(protocol {protocol.spec.name})")
    return {label for label, name in labels.items() if label in names or name in names}


class _Work:
    """What is still to do."""

    def __init__(
        self,
        folder: Folder,
        protocol: ResolvedProtocol,
        plans: Sequence[MethodPlan],
        galleries: Sequence[outside.Gallery],
        ledger: Ledger,
        retry: bool,
        shard: Shard | None,
    ) -> None:
        self.folder, self.plans, self.galleries, self.ledger, self.retry = folder, plans, galleries, ledger, retry
        scopes = [ledger.registry.metric(use.name).scope for use in protocol.spec.metrics]
        self.pair_metrics = [i for i, scope in enumerate(scopes) if scope == "pair"]
        self.set_metrics = [i for i, scope in enumerate(scopes) if scope == "set" and shard is None]
        # Those of films are measured like methods.
        self.baselines = [] if protocol.spec.film else baseline_cells(protocol)
        if shard is not None:
            self.baselines = list(shard.cells(protocol.pairs, self.baselines))
        groups = set_cells(self.baselines) + [group for one in (*plans, *galleries) for group in set_cells(one.cells)]
        self.sets = {cell: SetCell(group) for group in groups for cell in group} if self.set_metrics else {}
        todo = [(plan, [cell for cell in plan.cells if self._to_measure(cell)]) for plan in plans]
        self.missing = [(plan, cells) for plan, cells in todo if cells]

    def _to_measure(self, cell: Cell) -> bool:
        row = self.ledger.measured(cell)
        if row is None:
            return True
        if row.status != "ok":
            return self.retry
        # Measured, but its picture is gone and still needed.
        return not self.folder.output(cell).exists() and (
            any(self._to_score(cell, i) for i in self.pair_metrics)
            or any(self._to_score(self.sets[cell], i) or self._complete(self.sets[cell], i) for i in self.set_metrics)
        )

    def _to_score(self, cell: Scored, metric: int) -> bool:
        row = self.ledger.scored(cell, metric)
        return self.ledger.unlike(cell, metric) or (row is not None and row.status != "ok" and self.retry)

    def _incomplete(self, group: SetCell, metric: int) -> Row | None:
        """The row that says that a set was skipped for want of pictures, if it was."""
        row = self.ledger.scored(group, metric)
        return row if row is not None and (row.status, row.cause) == ("skipped", "input") else None

    def _complete(self, group: SetCell, metric: int) -> bool:
        """Whether a set was skipped for want of pictures that have all been made since."""
        rows = map(self.ledger.measured, group.members)
        return self._incomplete(group, metric) is not None and all(
            row is not None and row.status == "ok" for row in rows
        )

    def unreported(self) -> list[Cell]:
        """Cells of pictures made elsewhere that are not there, and no row says so yet."""
        return [cell for one in self.galleries for cell in one.unreported(self.ledger, self.pair_metrics)]

    def unscored(self) -> list[tuple[int, Scored]]:
        """(metric, cell) of baselines, of pictures made elsewhere and of cells measured by now, pair by pair.

        Then the metrics of sets, with how many pictures of each set are missing.
        """
        pictures = self.baselines + [
            cell
            for plan in self.plans
            for cell in plan.cells
            if (row := self.ledger.measured(cell)) is not None and row.status == "ok"
        ]
        pictures += [cell for gallery in self.galleries for cell in gallery.usable]
        pictures.sort(key=lambda cell: (cell.size, cell.content, cell.style))
        found: list[tuple[int, Scored]] = [
            (metric, cell) for metric in self.pair_metrics for cell in pictures if self._to_score(cell, metric)
        ]
        made = set(pictures)
        # Which pictures made elsewhere are there is not known yet, and the hash of their set tells when that changes.
        own = {plan.label for plan in self.plans}
        for group in dict.fromkeys(self.sets.values()):
            counted = SetCell(group.members, sum(cell not in made for cell in group.members))
            found += [
                (metric, counted)
                for metric in self.set_metrics
                if self._to_score(group, metric)
                # Of other pictures than the row says, which then is written anew.
                or (group.method in own and (row := self._incomplete(group, metric)) and row.reason != counted.lacking)
            ]
        return sorted(found, key=lambda one: one[0])


def _open_run(folder: Folder, protocol: ResolvedProtocol, setting: stages.Setting) -> dict[str, Any]:
    """The folder's run.json, checked against what is asked for now, or a new one (not yet written)."""
    conditions = {
        "version": zoo.__version__,
        "device": setting.device,
        "precision": setting.precision,
        "threads": setting.threads,
        "machine": environment.machine(torch.device(setting.device)),
    }
    found = folder.read_run()
    if found is not None:
        check_conditions(found, protocol, conditions, folder.path)
        return found
    identity = {"id": protocol.id, "description": protocol.spec.description, "resolved": protocol.data}
    return {"protocol": identity, "conditions": conditions, "runs": []}


def _check_weights(ledger: Ledger, folder: Folder) -> None:
    """ProtocolError where a method of this run was measured in the folder with other weights than it has now."""
    for row in ledger.store.rows:
        plan = ledger.plans.get(row.method)
        if plan is not None and row.status == "ok" and row.checkpoint != plan.checkpoint:
            raise ProtocolError(
                f"{folder.path} holds results of {row.method} with other weights than it has now: numbers of both "
                "cannot stand in one line. Choose another --out, or set the old ones of this method aside with --again."
            )


@contextmanager
def _noted(
    folder: Folder,
    run_file: dict[str, Any],
    run_id: str,
    device: torch.device,
    plans: Sequence[MethodPlan],
    galleries: Sequence[outside.Gallery],
) -> Iterator[Callable[[int], None]]:
    """An entry in run.json around the work: written before the first row, completed after the last.

    The block calls what it is given once nothing more is timed, with how many cells were and how many numbers were
    found of cells: what else the machine does after that harms no figure.
    """
    entry = {
        "run_id": run_id,
        "started": utc_now(),
        "ended": None,
        "methods": [plan.label for plan in plans],
        "outputs": {one.label: {"pictures": len(one.files), "wanted": len(one.cells)} for one in galleries},
        "load_before": environment.load_average(),
        # Before the first worker: what keeps the device busy now is somebody else's.
        "gpu_before": environment.gpu_load(device),
        "load_after": None,
        "seconds": None,
        "timed": None,
        "other_cores": None,
        "busy": None,
        "environment": environment.describe(device),
    }
    begun, neighbours = time.monotonic(), environment.Neighbours()
    run_file["runs"].append(entry)
    folder.write_run(run_file)

    def timed(cells: int) -> None:
        entry.update(timed=cells, other_cores=neighbours.cores())

    def complete() -> None:
        if entry["timed"] is None:  # broken off while timing
            entry["other_cores"] = neighbours.cores()
        entry["ended"] = utc_now()
        entry["load_after"] = environment.load_average()
        entry["seconds"] = round(time.monotonic() - begun, 3)
        entry["busy"] = bool(environment.busy(entry))
        folder.write_run(run_file)

    try:
        yield timed
    finally:
        try:
            complete()
        except KeyboardInterrupt:  # a signal while it was being written
            complete()
            raise


def _prepare_inputs(folder: Folder, protocol: ResolvedProtocol) -> None:
    """Write contents and styles at every size, so that all methods and metrics see the same 8-bit pixels."""
    for role, picture, size in inputs.wanted(protocol):
        target = folder.input(role.removesuffix("s"), picture.name, size)
        if not target.exists():
            images.write(target, inputs.prepared(picture, role, size, protocol.spec))


def _draw_baselines(folder: Folder, cells: Iterable[Cell]) -> dict[Cell, str]:
    """Sanity rows: the content as it is, the style in the content's size, the content in the style's colours.

    What is there already stays. Returns the sha256 of every file.
    """
    hashes: dict[Cell, str] = {}
    for cell in cells:
        target = folder.output(cell)
        if target.exists():
            hashes[cell] = file_sha256(target)
            continue
        content = images.read(folder.input("content", cell.content, cell.size)).pixels
        if cell.method != "content-copy":
            style = images.read(folder.input("style", cell.style, cell.size)).pixels
            resized = images.resize(style, (content.shape[-2], content.shape[-1]))
            content = resized if cell.method == "style-copy" else reinhard(content, style).clamp(0, 1)
        hashes[cell] = file_sha256(images.write(target, content))
    return hashes
