"""``zoo bench``: every method on the same pairs, into one table."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zoo.cli.common import console, out, split_list
from zoo.errors import ConfigError
from zoo.options import THREADS, Quiet, verb, whole
from zoo.words import counted, shown

if TYPE_CHECKING:
    from zoo.bench.ledger import Event
    from zoo.bench.run import BenchResult
    from zoo.report.forms import Form

# A pipe has no width of its own, and a table folded to 80 columns is unreadable.
_PIPE_WIDTH = 180
_DIGITS = 18  # of whole numbers for the cluster: what fits into 64 bits


@dataclass(frozen=True, kw_only=True)
class BenchOptions(Quiet):
    """Options of ``zoo bench``."""

    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            "-m",
            help="Comma-separated: all, gatys, gatys.paper, 'gatys.*'. Default: all, or --outputs alone.",
        ),
    ] = None
    protocol: Annotated[str, typer.Option("--protocol", "-p", help="A protocol's name or its YAML file.")] = "quick"
    out: Annotated[str | None, typer.Option("--out", "-o", help="Results folder. Default: outputs/bench/PROTOCOL.")] = (
        None
    )
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    precision: Annotated[str, typer.Option(help="auto (each method's own), fp32, bf16 or fp16.")] = "auto"
    threads: Annotated[int | None, typer.Option(help="Threads per method. Default: torch's.", **THREADS)] = None
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Set earlier results in the folder aside, or go on from them.")
    ] = False
    again: Annotated[
        bool, typer.Option("--again", help="Set earlier results of these methods aside, such as after training them.")
    ] = False
    rescore: Annotated[
        str | None,
        typer.Option("--rescore", help="Comma-separated metrics whose values are set aside and computed anew."),
    ] = None
    take_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Take pictures and timings from the results of a protocol that differs in its metrics alone.",
        ),
    ] = None
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Measure failed and skipped cells again; others stay.")
    ] = False
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--outputs",
            metavar="NAME=DIR",
            help="Score a folder of pictures made elsewhere, named CONTENT__STYLE.png, as the method NAME. Repeatable.",
        ),
    ] = None
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", help="Processes that score at once; methods are measured one by one.", **whole(1, 256)
        ),
    ] = 1
    shards: Annotated[
        int | None,
        typer.Option(help="Run in so many parts on a cluster, one task each, and merge them.", **whole(1, 10_000)),
    ] = None
    cluster: Annotated[
        str, typer.Option(help="Where shards run: slurm, which needs --device, or local, one after the other.")
    ] = "slurm"
    cluster_options: Annotated[
        list[str] | None,
        typer.Option("--cluster-option", metavar="KEY=VALUE", help="Of submitit: slurm_time=2:00:00. Repeatable."),
    ] = None
    find_largest: Annotated[
        bool,
        typer.Option("--largest", help="Search for the largest size that fits each method."),
    ] = False

    @property
    def run(self) -> dict[str, Any]:
        """What :class:`zoo.bench.run.Options` asks for; ConfigError for what a run in parts cannot do or alone does."""
        if self.shards is not None and (self.again or self.rescore or self.take_from):
            raise ConfigError("--again, --rescore and --from are for a run on one machine: leave out --shards.")
        if self.shards is None and (self.cluster_options or self.cluster != "slurm"):
            raise ConfigError("--cluster and --cluster-option are for a run in parts: add --shards.")
        return {
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
            "fresh": self.fresh,
            "again": self.again,
            "rescore": split_list(self.rescore),
            "take_from": self.take_from,
            "retry_failed": self.retry_failed,
            "outputs": _folders(self.outputs or []),
            "find_largest": self.find_largest,
            "jobs": self.jobs,
        }


@verb
def bench(options: BenchOptions) -> None:
    """Measure speed, memory and quality of methods on the same pairs; a run that was stopped goes on where it was.

    Pictures for --outputs are named after content and style in the protocol, and after size, seed and strength where it
    has several: astronaut__swirls__512.png. Each must have the size of its content; a missing one is reported.
    'zoo data export PROTOCOL DIR' writes their contents and styles, and the list of their names.

    Exit code 1 if any method failed (the table says why), 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    from zoo.report.files import write_report

    try:
        with _Display(options.quiet) as display:
            result = _run(options, display)
    except KeyboardInterrupt as stop:
        if not options.quiet:
            console.say("Stopped. What was measured is kept: the same command goes on from there.")
        raise typer.Exit(128 + getattr(stop, "number", signal.SIGINT)) from None
    tables = write_report(result.folder)
    if not options.quiet:
        _print_result(result, tables)
    if not result.ok:
        raise typer.Exit(1)


def _run(options: BenchOptions, display: _Display) -> BenchResult:
    asked = options.run
    names = split_list(("" if asked["outputs"] else "all") if options.methods is None else options.methods)
    if options.shards is None:
        from zoo.bench.run import run

        return run(names, options.protocol, options.out, on_event=display.show, **asked)
    from zoo.bench.from_cluster import run_sharded

    parts = {
        "count": options.shards,
        "cluster": options.cluster,
        "cluster_options": _cluster_options(options.cluster_options or []),
    }
    return run_sharded(names, options.protocol, options.out, **parts, on_event=display.show, **asked)


def _folders(given: list[str]) -> dict[str, str]:
    """``NAME=DIR`` as a dictionary; ConfigError for anything else."""
    folders: dict[str, str] = {}
    for text in given:
        name, _, folder = text.partition("=")
        if not name or not folder or name in folders:
            raise ConfigError(f"--outputs takes NAME=FOLDER, each name once; got {text!r}.")
        folders[name] = folder
    return folders


def _cluster_options(given: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` as a dictionary; ConfigError for anything else.

    Whole numbers, ``true`` and ``false`` are such values, ``[...]`` and ``{...}`` are read as JSON, all else is text:
    YAML would make seconds of Slurm's ``2:00:00``.
    """
    options: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ConfigError(f"--cluster-option takes KEY=VALUE; got {text!r}.")
        if value in ("true", "false"):
            options[key] = value == "true"
        elif re.fullmatch(r"-?(0|[1-9][0-9]*)", value):
            if len(value) > _DIGITS:
                raise ConfigError(f"--cluster-option {key} is a number of up to {_DIGITS} digits, not {shown(value)}.")
            options[key] = int(value)
        elif value.startswith(("[", "{")):
            try:
                options[key] = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"--cluster-option {key}: {shown(value)} is not JSON ({error}).") from error
        else:
            options[key] = value
    return options


class _Display(contextlib.AbstractContextManager["_Display"]):
    """A bar with the time left on a terminal; elsewhere one line per method. Problems are lines of their own."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Progress | None = None
        self._stage = self._method = ""
        if not quiet and console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self.task = self.bar.add_task("planning", total=None)

    def __enter__(self) -> _Display:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, event: Event) -> None:
        """Take an event of the run."""
        if self.quiet:
            return
        method = event.label.split()[0] if event.stage == "measure" else "metrics"
        if self.bar is not None:
            if event.stage != self._stage:
                self.bar.reset(self.task)
            self.bar.update(self.task, description=escape(event.label), completed=event.done, total=event.total)
        elif method != self._method:
            console.say(f"[{event.done}/{event.total}] {method}")
        self._stage, self._method = event.stage, method
        if event.problem:
            console.say(event.problem)


def _print_result(result: BenchResult, tables: list[Form]) -> None:
    from zoo.report.forms import to_rich

    for table in tables:
        out.show(to_rich(table), _PIPE_WIDTH)
    failed, skipped = result.count("failed"), result.count("skipped")
    counts = (
        f"{counted(result.count('ok'), 'row')} ok"
        + f", {failed} failed" * bool(failed)
        + f", {skipped} skipped" * bool(skipped)
    )
    new = "" if result.written else "; nothing was left to measure (--fresh measures again)"
    console.say(f"{counts}{new}. Rows, tables and pictures: {result.folder}")
