"""``zoo bench`` without its terminal: plan, measure what is missing, score what is missing.

Only this process writes rows. A run that is killed, or stopped with Ctrl-C (or SIGTERM, or SIGHUP of a terminal that
closes), continues when started again: cells that have rows are not measured again. Failed and skipped cells stay as
they are unless ``retry_failed`` is set.
"""

from __future__ import annotations

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
from zoo.bench import environment, inputs
from zoo.bench.folder import Folder, check_same
from zoo.bench.from_folder import check_unchanged, open_gallery, take_pictures
from zoo.bench.from_run import take
from zoo.bench.largest_size import LargestSize
from zoo.bench.ledger import Event, Ledger
from zoo.bench.measure import Measure
from zoo.bench.plan import MACHINE, Cell, Plan, Shard, plan_methods
from zoo.bench.protocol import Protocol, ResolvedProtocol, find_protocol, load_protocol, resolve_protocol
from zoo.bench.rows import Row, RowStore, Status, stamp, utc_now
from zoo.bench.runner import Setting
from zoo.bench.score import Score
from zoo.bench.supervise import terminable
from zoo.bench.throughput import Machine, Throughput
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


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be asked of a run beside methods, protocol and folder.

    ``fresh`` sets earlier results in the folder aside, ``again`` those of these methods alone (after training, say),
    ``rescore`` the values of these metrics. ``take_from`` is the results folder of a protocol that differs in its
    metrics alone: pictures, timings and what is scored alike are taken over from there (:mod:`zoo.bench.from_run`).
    ``retry_failed`` measures failed and skipped cells again. ``outputs`` are folders of pictures made elsewhere, by the
    name that their rows take (:mod:`zoo.bench.from_folder` tells how their files are named). ``find_largest`` searches
    for the largest size that fits each method (:mod:`zoo.bench.largest_size`). ``jobs`` processes score pictures at
    once; methods are measured one by one always. ``shard`` keeps to a part of the pairs and leaves out the metrics of
    sets (:mod:`zoo.bench.from_cluster`).
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    fresh: bool = False
    again: bool = False
    rescore: Sequence[str] = ()
    take_from: str | Path | None = None
    retry_failed: bool = False
    outputs: Mapping[str, str | Path] | None = None
    find_largest: bool = False
    jobs: int = 1
    shard: Shard | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"A run needs at least one thread, got {self.threads}.")
        if self.jobs < 1:
            raise ConfigError(f"A run needs at least one job, got {self.jobs}.")
        if self.take_from is not None and (self.fresh or self.again):
            raise ConfigError("Results are either taken over or measured anew: leave out --from, --fresh or --again.")


def run(
    methods: Iterable[str],
    protocol: str | Path = "quick",
    out: str | Path | None = None,
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> BenchResult:
    """Measure ``methods`` (names, ``method.tag``, wildcards or ``all``) under ``protocol`` into the folder ``out``.

    ``protocol`` is the name of one that ships or the path of a YAML file; ``out`` defaults to
    ``outputs/bench/PROTOCOL``; ``options`` are those of :class:`Options`.

    Raises ProtocolError (malformed protocol; the folder is in use or was measured under other conditions),
    UnknownNameError and ConfigError, all before anything is measured.
    """
    asked = Options(**options)
    registry = load_registry()
    path = find_protocol(str(protocol))
    resolved = resolve_protocol(load_protocol(path), path.parent, registry)
    plans = plan_methods(resolved, registry, registry.match(list(methods)))
    galleries = [open_gallery(label, Path(where), resolved, registry) for label, where in (asked.outputs or {}).items()]
    if resolved.spec.film and galleries:
        raise ConfigError("--outputs scores pictures, and this protocol is one of films: leave it out.")
    check_largest(resolved.spec, asked.find_largest)
    if not plans and not galleries:
        raise ConfigError("There is no method to measure: name some, or 'all'.")
    plan = Plan(resolved, registry, plans, galleries, retry=asked.retry_failed, shard=asked.shard)
    rescored = _labels(resolved, asked.rescore)
    chosen = resolve_device(asked.device)
    resolve_precision(asked.precision, chosen, "fp32")
    threads = asked.threads or torch.get_num_threads()
    folder = Folder(Path(out) if out is not None else Path("outputs") / "bench" / resolved.spec.name)
    now = stamp()
    setting = Setting(folder, str(chosen), asked.precision, threads, resolved.spec.limits)
    with folder.locked():
        if asked.fresh:
            folder.set_aside(now)
        run_file = _open_run(folder, resolved, setting)
        own = {one.label for one in (*plan.methods, *galleries)}
        labels = own | set(resolved.spec.baselines)
        _retire(folder, now, own if asked.again else set(), rescored, labels)
        taken: list[Row] = []
        if asked.take_from is not None:
            taken = take(Path(asked.take_from), resolved, run_file["conditions"], plan.methods, folder, run_file)
            # Before the first row: from then on the folder is this protocol's.
            folder.write_run(run_file)
        with RowStore(folder.rows) as store:
            store.append(row for row in taken if row.metric not in rescored and store.get(row.key) is None)
            ledger = Ledger(store, resolved, plan.methods, registry, f"{now}-{uuid.uuid4().hex[:6]}", on_event)
            _check_weights(ledger, folder)
            for gallery in galleries:
                ledger.pictures.update(gallery.hashes)
                check_unchanged(gallery, ledger)
            _carry_out(setting, ledger, plan, asked, run_file)
            rows = [row for row in store.rows if row.method in labels or row.method.startswith(MACHINE)]
        return BenchResult(folder.path, rows, ledger.written)


def check_largest(spec: Protocol, wanted: bool) -> None:
    """ConfigError where the largest size is asked for of what has none."""
    if wanted and (spec.film or spec.steps):
        raise ConfigError("--largest is of single pictures, and this protocol is one of films or steps: leave it out.")


def _carry_out(setting: Setting, ledger: Ledger, plan: Plan, asked: Options, run_file: dict[str, Any]) -> None:
    """Do what is left, pass after pass: what is timed first, scoring last."""
    measure = Measure(setting, ledger, plan)
    timed = [Throughput(setting, ledger, plan), Machine(setting, ledger, plan)]
    timed += [LargestSize(setting, ledger, plan)] if asked.find_largest else []
    score = Score(setting, ledger, plan, asked.jobs)
    folder, galleries = setting.folder, plan.galleries
    unreported = any(gallery.unreported(ledger, plan.pair_metrics) for gallery in galleries)
    if not unreported and not any(one.pending() for one in (measure, *timed, score)):
        return
    # run.json first: from then on the folder, prepared inputs included, is this protocol's.
    with terminable(), _noted(folder, run_file, ledger.run_id, torch.device(setting.device), plan) as finished:
        _prepare_inputs(folder, plan.protocol)
        for gallery in galleries:
            take_pictures(gallery, folder, ledger, plan.pair_metrics)
        cells = sum(map(len, measure.todo(ledger, plan)))
        measure.run()
        begun = ledger.written
        for one in timed:
            one.run()
        finished(cells + ledger.written - begun)
        ledger.drawn |= _draw_baselines(folder, plan.baselines)
        score.run()


def _retire(folder: Folder, stamp: str, anew: set[str], rescored: set[str], labels: set[str]) -> None:
    """Set aside the rows of methods to be measured anew, and the values of metrics to be computed anew."""
    if anew or rescored:
        folder.retire(
            stamp,
            lambda row: row.method in anew or (row.metric in rescored and row.method in labels),
            with_picture=lambda row: row.method in anew,
        )


def _labels(protocol: ResolvedProtocol, names: Sequence[str]) -> set[str]:
    """Labels of the protocol's metrics called so, with their settings or without; UnknownNameError for others."""
    labels = {use.label: use.name for use in protocol.spec.metrics}
    for name in names:
        if name not in labels and name not in labels.values():
            raise UnknownNameError("metric", name, labels, f"(protocol {protocol.spec.name})")
    return {label for label, name in labels.items() if label in names or name in names}


def _open_run(folder: Folder, protocol: ResolvedProtocol, setting: Setting) -> dict[str, Any]:
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
        if found["protocol"]["id"] != protocol.id:
            raise ProtocolError(
                f"{folder.path} holds results of protocol {found['protocol']['id']}, and this is {protocol.id}: rows "
                "of different protocols never mix. Choose another --out, or set the old ones aside with --fresh."
            )
        check_same(found["conditions"], conditions, folder.path)
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
    plan: Plan,
) -> Iterator[Callable[[int], None]]:
    """An entry in run.json around the work: written before the first row, completed after the last.

    The block calls what it is given once nothing more is timed, with how many cells were and how many numbers were
    found of cells: what else the machine does after that harms no figure.
    """
    entry = {
        "run_id": run_id,
        "started": utc_now(),
        "ended": None,
        "methods": [one.label for one in plan.methods],
        "outputs": {one.label: {"pictures": len(one.files), "wanted": len(one.cells)} for one in plan.galleries},
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
    begun, neighbors = time.monotonic(), environment.Neighbors()
    run_file["runs"].append(entry)
    folder.write_run(run_file)

    def timed(cells: int) -> None:
        entry.update(timed=cells, other_cores=neighbors.cores())

    def complete() -> None:
        if entry["timed"] is None:  # broken off while timing
            entry["other_cores"] = neighbors.cores()
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
