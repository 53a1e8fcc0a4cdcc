"""A run in several parts: one task of a cluster per shard, and the shards merged into the same rows.

A shard is a share of the protocol's pairs, measured and scored in a results folder of its own, ``shards/K-of-N`` in
the run's. Its rows carry the id of the whole protocol. When all are there, one more task merges them, and scores
what needs all pictures together: on the cluster too, because a folder holds results of one kind of machine.
Everything can be stopped and started again like an unsharded run.

Tasks go through submitit (the extra ``cluster``). A CPU's node is asked for as a whole, and the cluster ``local``, this
machine, takes one shard after the other: measured timing never shares a device.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from zoo.bench.folder import KINDS, Folder, place
from zoo.bench.ledger import Event
from zoo.bench.measures import MEASURES
from zoo.bench.plan import Shard, plan_methods
from zoo.bench.protocol import find_protocol, load_protocol, resolve_protocol
from zoo.bench.rows import Row, RowStore, latest, read_rows, stamp
from zoo.bench.run import BenchResult, check_largest, run
from zoo.errors import ConfigError, ProtocolError
from zoo.extras import lacking
from zoo.registry import load_registry
from zoo.words import counted, shown

Cluster = Literal["slurm", "local"]
_LOGS = "logs"
# submitit's own default, five minutes, is short even for one method.
_TIMEOUT_MINUTES = 24 * 60
_POLL_SECONDS = 1.0
# How long a result may take to be seen here after its task ended: network file systems show files late.
_GRACE_SECONDS = 15.0
_UNDER_WAY = frozenset(
    [
        "PENDING",
        "CONFIGURING",
        "RUNNING",
        "COMPLETING",
        "SUSPENDED",
        "REQUEUED",
        "REQUEUE_HOLD",
        "REQUEUE_FED",
        "RESIZING",
        "SIGNALING",
        "STAGE_OUT",
        "STOPPED",
        "SPECIAL_EXIT",
        "RESV_DEL_HOLD",
    ]
)


@dataclass(frozen=True)
class Task:
    """What one task does: a shard, or merging them all (``shard`` None). ``options`` are those of :func:`run`."""

    methods: tuple[str, ...]
    protocol: str
    out: Path
    count: int
    shard: int | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> None:
        """Do it, in the process that the cluster gave."""
        if self.shard is not None:
            # The largest size is one for all pairs.
            options = {name: value for name, value in self.options.items() if name != "find_largest"}
            shard = Shard(self.shard, self.count)
            run(self.methods, self.protocol, _folder(self.out, shard), shard=shard, **options)
            return
        target = Folder(self.out)
        if self.options.get("fresh"):
            with target.locked():
                target.set_aside(stamp())
        merge(target, [Folder(_folder(self.out, Shard(i, self.count))) for i in range(self.count)])
        if self.options.get("retry_failed"):
            # The shards have retried their own; what belongs to no pair, metrics of sets above all, is made here.
            with target.locked():
                target.retire(stamp(), _of_whole_and_lost, with_picture=lambda row: False)
        options = {name: value for name, value in self.options.items() if name not in ("fresh", "retry_failed")}
        run(self.methods, self.protocol, self.out, **options)


def _of_whole_and_lost(row: Row) -> bool:
    """Whether a row has no value and is of no shard: of a set of pictures, or of the largest size."""
    return row.status != "ok" and row.content is None and not (row.metric in MEASURES and MEASURES[row.metric].process)


def run_sharded(
    methods: Iterable[str],
    protocol: str | Path,
    out: str | Path | None,
    *,
    count: int,
    cluster: str = "slurm",
    cluster_options: Mapping[str, Any] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> BenchResult:
    """:func:`zoo.bench.run.run` in ``count`` tasks of a cluster, and one more that merges them; returns when all ended.

    ``cluster_options`` are submitit's (``slurm_partition``, ``timeout_min``, ``mem_gb``...); ``options`` those of
    :func:`run`, whose device must be named on Slurm: ``cuda`` asks for a GPU per task, ``cpu`` for a node. Raises what
    :func:`run` raises before anything is submitted; ConfigError without submitit, for the device ``auto`` or for an
    option it does not know, ProtocolError where a task failed, with its log.
    """
    registry = load_registry()
    path = find_protocol(str(protocol))
    resolved = resolve_protocol(load_protocol(path), path.parent, registry)
    names = tuple(methods)
    if options.get("outputs"):
        raise ConfigError("Pictures made elsewhere are scored in one run: leave out --shards.")
    if cluster not in get_args(Cluster):
        raise ConfigError(f"Unknown cluster {shown(cluster)}: use slurm or local.")
    check_largest(resolved.spec, bool(options.get("find_largest")))
    plans = plan_methods(resolved, registry, registry.match(list(names)))
    if not plans:
        raise ConfigError("There is no method to measure: name some, or 'all'.")
    if not 1 <= count <= len(resolved.pairs):
        raise ConfigError(
            f"A run of {counted(len(resolved.pairs), 'pair')} can have 1 to {len(resolved.pairs)} shards, not {count}."
        )
    if cluster == "slurm" and str(options.get("device", "auto")) == "auto":
        raise ConfigError(
            "Slurm gives a task the GPU that it asked for and no other: name the device, --device cuda or --device cpu."
        )
    target = Path(out) if out is not None else Path("outputs") / "bench" / resolved.spec.name
    where = target.resolve()
    executor = _executor(cluster, where / "shards" / _LOGS, options, cluster_options or {})
    whole = str(path.resolve())
    tasks = [Task(names, whole, where, count, index, options) for index in range(count)]
    steps = count + 1

    def tell(done: int, label: str) -> None:
        on_event(Event("measure", done, steps, label))

    tell(0, counted(count, "shard"))
    if cluster == "slurm":
        for done, job in enumerate(_submitted(executor.map_array, tasks), 1):
            _wait(job, cluster)
            tell(done, f"shard {done} of {count}")
    else:
        for done, task in enumerate(tasks, 1):
            _wait(_submitted(executor.submit, task), cluster)
            tell(done, f"shard {done} of {count}")
    _wait(_submitted(executor.submit, Task(names, whole, where, count, None, options)), cluster)
    tell(steps, "merged")
    labels = {plan.label for plan in plans} | set(resolved.spec.baselines)
    rows = [row for row in latest(read_rows(where / "rows.jsonl")) if row.method in labels]
    return BenchResult(target, rows, len(rows))


def _folder(run: Path, shard: Shard) -> Path:
    return run / "shards" / f"{shard.index + 1}-of-{shard.count}"


def _do(task: Task) -> None:
    task()


def _executor(cluster: str, logs: Path, options: Mapping[str, Any], wishes: Mapping[str, Any]) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(lacking("submitit", "cluster")) from error
    on_gpu = str(options.get("device", "auto")).startswith("cuda")
    settings: dict[str, Any] = {
        "name": "zoo-bench",
        "timeout_min": _TIMEOUT_MINUTES,
        "cpus_per_task": options.get("threads") or 1,
        **({"gpus_per_node": 1} if on_gpu else {"slurm_exclusive": True}),
        **wishes,
    }
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(**settings)
    except (RuntimeError, NameError, TypeError, AssertionError) as error:
        raise ConfigError(f"The cluster {cluster!r} cannot be used: {error}.") from error
    return executor


def _submitted(submit: Callable[[Callable[[Task], None], Any], Any], what: Task | Sequence[Task]) -> Any:
    """A job, or jobs; ConfigError where the cluster does not take them (no such partition, no folder for logs)."""
    try:
        return submit(_do, what)
    except (RuntimeError, OSError) as error:  # submitit's FailedJobError is a RuntimeError
        said = " ".join(str(error).split())
        raise ConfigError(f"The cluster did not take the tasks ({said}): check --cluster-option and --out.") from error


def _wait(job: Any, cluster: str) -> None:
    """Until a task has ended; ProtocolError with its reason and log where it failed."""
    if cluster == "slurm":
        _wait_in_queue(job)
    error = job.exception()
    if error is not None:
        said = [line for line in str(error).splitlines() if line.strip() and not set(line.strip()) <= set("-")]
        raise ProtocolError(_failure(said[-1].strip() if said else type(error).__name__, job))


def _wait_in_queue(job: Any) -> None:
    """Until the task's result is there; ProtocolError where the cluster ended it before.

    Slurm's queue is asked, and not its accounting, which many clusters do not run: submitit then waits for ever for a
    task that was cancelled or met its limit.
    """
    ended = None
    while not job.paths.result_pickle.exists():
        with contextlib.suppress(OSError):
            job.paths.folder.chmod(job.paths.folder.stat().st_mode)  # a network's file system looks again
        state = _state(job)
        if state in _UNDER_WAY:
            ended = None
        else:
            ended = ended or time.monotonic()
            if time.monotonic() - ended > _GRACE_SECONDS:
                raise ProtocolError(_failure(f"the cluster ended it, state {state or 'unknown'}", job))
        time.sleep(_POLL_SECONDS)


def _state(job: Any) -> str:
    """Slurm's word for where a task stands; empty where it knows the task no longer, RUNNING where it is silent."""
    command = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job.job_id}"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        return "" if "Invalid job id" in done.stderr else "RUNNING"
    return done.stdout.partition("\n")[0].strip()


def _failure(reason: str, job: Any) -> str:
    return f"A task failed ({reason}), its log is {job.paths.stderr}: the same command goes on where the tasks stopped."


def merge(target: Folder, parts: Sequence[Folder]) -> None:
    """Put runs, rows and pictures of ``parts`` into ``target``; what is there already stays.

    Raises ProtocolError where a part is missing, or was measured under another protocol or other conditions.
    """
    with target.locked():
        merged = target.read_run()
        for part in parts:
            found = part.read_run()
            if found is None:
                raise ProtocolError(f"The shard {part.path} holds no results: start the same command again.")
            merged = merged or {**found, "runs": []}
            for name in ("protocol", "conditions"):
                if merged[name] != found[name]:
                    raise ProtocolError(
                        f"The shard {part.path} has another {name} than {target.path}: shards of one run are measured "
                        "on one kind of machine, under one protocol."
                    )
            known = {entry["run_id"] for entry in merged["runs"]}
            merged["runs"] += [entry for entry in found["runs"] if entry["run_id"] not in known]
        if merged is None:
            return
        for part in parts:
            for path in part.outputs.rglob("*.*"):
                if path.suffix in KINDS:
                    place(path, target.outputs / path.relative_to(part.outputs))
        # As in a run: rows are nothing without run.json, which therefore comes first.
        target.write_run(merged)
        with RowStore(target.rows) as store:
            for part in parts:
                store.append(row for row in latest(read_rows(part.rows)) if row != store.get(row.key))
