"""``zoo train``: a method, or a recipe of many runs, or a pack of images to train from elsewhere."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from zoo.cli.common import THREADS, StopRequest, console, options_table, out, parse_flags, real, whole
from zoo.config import LARGEST_INT
from zoo.errors import ConfigError

if TYPE_CHECKING:
    from zoo.training.launch import Material
    from zoo.training.progress import TrainResult, TrainState

# Where stderr is no terminal a line this often tells that the run is alive without filling the log.
_LINE_SECONDS = 60.0


def train(
    context: typer.Context,
    method: Annotated[
        str | None, typer.Argument(help="A method that can be trained, or module:Class of a training task.")
    ] = None,
    content_dir: Annotated[
        list[str] | None,
        typer.Option("--content-dir", help="Content images: folders, lists (.txt), or several by commas."),
    ] = None,
    style_dir: Annotated[
        list[str] | None, typer.Option("--style-dir", help="Style images, where the method needs them.")
    ] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run, or of the recipe.")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the last checkpoint in --out; options not named stay as they were."),
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option("--init-from", help="Start from the weights of a safetensors file, or of a run's checkpoint.pt."),
    ] = None,
    held_out_content: Annotated[
        list[str] | None, typer.Option("--held-out-content", help="Images to evaluate on, never trained on.")
    ] = None,
    held_out_style: Annotated[
        list[str] | None, typer.Option("--held-out-style", help="Styles to evaluate on, paired in order.")
    ] = None,
    held_out_size: Annotated[str, typer.Option(help="Size of held-out images.")] = "long:512",
    held_out_count: Annotated[
        int, typer.Option(help="Use only the first N of each; 0 for all.", **whole(0, LARGEST_INT))
    ] = 0,
    notes: Annotated[str, typer.Option(help="Said on the card, such as the licence of the images.")] = "",
    cache_dir: Annotated[Path | None, typer.Option(help="Where decoded images are kept.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the CPU. Default: torch's.", **THREADS)] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps; the same as --accelerator.")
    ] = None,
    options: Annotated[bool, typer.Option("--options", help="Print the options of METHOD and of the run.")] = False,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="A YAML file of runs, or the name of one that ships (zoo).")
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(help="Hours for the whole recipe, divided by its shares.", **real(0, 1e6, above=True)),
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Runs of the recipe, comma-separated.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the recipe's table and train nothing.")] = False,
    pack: Annotated[
        Path | None, typer.Option("--pack", help="Re-encode the images into this folder and train nothing.")
    ] = None,
    max_mb: Annotated[
        float, typer.Option(help="Largest size of the pack in megabytes (10^6 bytes).", **real(0.001, 1e6))
    ] = 60.0,
    pack_side: Annotated[
        int, typer.Option(help="Shorter side of packed images, where that fits.", **whole(32, 65_500))
    ] = 288,
    with_encoder: Annotated[bool, typer.Option("--with-encoder", help="Put VGG-19's weights into the pack.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train a method: zoo train METHOD --content-dir DIR --style-dir DIR --out RUN.

    Every option of the method's loss and of the run is a flag too (--steps, --time-limit, --batch-size, --crop, --lr,
    --precision, ...): 'zoo train METHOD --options' lists them with their defaults. These are the paper's, but for wct,
    whose paper says little of its training (docs/methods/wct.md compares). Ctrl-C, SIGTERM and SIGHUP end a run at a
    checkpoint. Several devices: torchrun --nproc-per-node N -m zoo train METHOD ...

    'zoo train --recipe zoo --hours H' trains everything that ships; 'zoo train --pack DIR' makes a small copy of the
    images for a machine that has none.
    """
    extra = list(context.args)
    arguments: list[str] = context.obj or sys.argv[1:]
    if method is not None and method.startswith("-"):
        # Options that only a method knows arrive in the argument's place where no method is named.
        extra, method = [method, *extra], None
    if sum(x is not None for x in (method, recipe, pack)) != 1:
        raise ConfigError("Give one of: a method (zoo train adain ...), --recipe FILE, or --pack FOLDER.")
    sets = {"content": _split(content_dir), "style": _split(style_dir)}
    if pack is not None:
        _refuse(extra)
        _pack(pack, sets, max_mb, pack_side, with_encoder, quiet)
        return
    if threads is not None:
        import torch

        torch.set_num_threads(threads)

    from zoo.training.launch import Material

    held_out = {"content": _split(held_out_content), "style": _split(held_out_style)}
    material = Material(sets, held_out, held_out_size, held_out_count, cache_dir)
    device_option = {"accelerator": device} if device is not None else {}
    if recipe is not None:
        if init_from is not None or options:
            raise ConfigError("--init-from and --options are for a method: a recipe says itself what runs start from.")
        _recipe(
            recipe, extra, device_option, material, out_dir, hours, _split(only), plan, resume, notes, quiet, arguments
        )
        return
    assert method is not None
    _method(method, extra, device_option, material, out_dir, resume, init_from, notes, options, quiet, arguments)


def _split(values: Sequence[str] | None) -> list[str]:
    """``a,b`` as two, unless a path of that very name exists."""
    found: list[str] = []
    for value in values or []:
        found += [value] if os.path.exists(value) else [part for part in value.split(",") if part]
    return found


def _refuse(extra: Sequence[str]) -> None:
    if extra:
        raise ConfigError(f"{extra[0]} means nothing here: leave it out.")


# -- one method -------------------------------------------------------------------------------------------------------


def _method(
    method: str,
    extra: Sequence[str],
    device_option: Mapping[str, Any],
    material: Material,
    out_dir: Path | None,
    resume: bool,
    init_from: Path | None,
    notes: str,
    show_options: bool,
    quiet: bool,
    arguments: Sequence[str],
) -> None:
    from zoo.training.launch import launch, option_specs, task_class

    task = task_class(method)
    own, general = option_specs(task)
    if show_options:
        if own:
            out.show(options_table(f"Options of training {method}", own))
        out.show(options_table("Options of the run (--time-limit in minutes)", general))
        return
    given = parse_flags(extra, [*own, *general], f"Run 'zoo train {method} --options' for all.")
    if out_dir is None:
        raise ConfigError("Training needs a folder for the run: give --out FOLDER.")
    with Display(method, quiet, arguments) as display:
        result = launch(
            method,
            task,
            {**device_option, **given},
            material,
            out_dir,
            resume=resume,
            init_from=init_from,
            command=_command(arguments),
            notes=notes,
            say=display.say,
            building=display.building,
            progress=display,
        )
        display.ended(result)
        display.going_on(result)
    if result.ended == "asked":
        raise typer.Exit(display.stop.code)


def _command(arguments: Sequence[str]) -> str:
    """The command as the card shows it."""
    from zoo.training.launch import portable

    return shlex.join([*_program(), *map(portable, arguments)])


def _program() -> list[str]:
    from zoo.training.processes import processes

    count = processes().local
    return ["zoo"] if count == 1 else ["torchrun", "--nproc-per-node", str(count), "-m", "zoo"]


class _Stop(StopRequest):
    """The same, with a word on what happens now."""

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self.quiet = quiet

    def _handle(self, number: int, frame: FrameType | None) -> None:
        super()._handle(number, frame)
        if not self.quiet:
            # A handler may interrupt the console in the middle of a line; writing to the file itself is always safe.
            with contextlib.suppress(OSError):
                os.write(2, b"Stopping at a checkpoint; once more breaks off at once.\n")


class Display(contextlib.AbstractContextManager["Display"]):
    """The progress of a run on stderr, and the answer to Ctrl-C, SIGTERM and SIGHUP, as one progress callback.

    A bar on a terminal, a line a minute elsewhere. Of several processes only the first says anything. The first signal
    ends the run at a checkpoint, a second one breaks it off; so does the first, before there is anything to keep.
    """

    def __init__(self, label: str, quiet: bool, arguments: Sequence[str]) -> None:
        from zoo.training.processes import processes

        self.label, self.arguments = label, arguments
        self.quiet = quiet or not processes().first
        self.stop = _Stop(self.quiet)
        self.bar: Progress | None = None
        self._listening = self.stop.listening()
        self._recent: deque[tuple[int, float]] = deque(maxlen=20)
        self._said = 0.0
        self._built = time.monotonic()
        if not self.quiet and console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[words]}"),
                console=console,
                transient=True,
            )
            self.task = self.bar.add_task(escape(label), total=None, words="")

    def __enter__(self) -> Display:
        self._listening.__enter__()
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        self._listening.__exit__(None, None, None)
        if kind is KeyboardInterrupt and self.stop.asked:
            self.say("Broken off.")
            raise typer.Exit(self.stop.code)

    def begin(self, label: str) -> None:
        """The next run of several."""
        self.label = label
        self._recent.clear()
        self._said = 0.0

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self.quiet:
            console.say(text)

    def building(self, name: str, done: int, total: int) -> None:
        """Images of a set are being decoded. Nothing is trained yet, so a signal ends it here."""
        if self.stop.asked:
            raise KeyboardInterrupt
        if self.bar is not None:
            self.bar.update(self.task, description=f"decoding {escape(name)}", completed=done, total=total)
        elif time.monotonic() - self._built > _LINE_SECONDS:
            self._built = time.monotonic()
            self.say(f"decoding {name}: {done} of {total}")

    def __call__(self, state: TrainState, /) -> bool:
        self._recent.append((state.step, state.seconds))
        if self.bar is not None:
            self.bar.update(
                self.task,
                description=escape(self.label),
                completed=state.step,
                total=state.steps,
                words=escape(self._words(state)),
            )
        elif time.monotonic() - self._said >= _LINE_SECONDS or state.step >= state.steps:
            self._said = time.monotonic()
            self.say(f"{self.label} {state.step}/{state.steps} {self._words(state)}")
        return self.stop.asked

    def _words(self, state: TrainState) -> str:
        losses = " ".join(f"{name} {value:.4g}" for name, value in {**state.losses, **state.figures}.items())
        (first, began), (last, now) = self._recent[0], self._recent[-1]
        if first == 0 or last == first:
            first, began = 0, 0.0
        rate = (last - first) / (now - began) if now > began else 0.0
        parts = [losses, f"{rate:.2f}/s", f"loading {state.loading:.0%}"]
        if rate:
            left = (state.steps - state.step) / rate
            if state.minutes is not None:
                left = min(left, max(0.0, 60 * state.minutes - state.seconds))
            parts.append(f"{_duration(left)} left")
        return ", ".join(parts)

    def ended(self, result: TrainResult) -> None:
        """What a run left, and why it ended."""
        state = result.state
        why = {"steps": "all steps done", "time": "the time is used up", "asked": "stopped"}[result.ended]
        figures = "".join(f", {name} {value:.4g}" for name, value in state.figures.items())
        self.say(f"{self.label}: {why} at step {state.step:,} after {_duration(state.seconds)}{figures}.")
        self.say(f"Weights and card: {result.folder / 'model.safetensors'}, {result.folder / 'card.md'}")

    def going_on(self, result: TrainResult) -> None:
        """How a run that did not do all its steps is gone on with."""
        if result.ended != "steps":
            longer = " with a larger --time-limit" if result.ended == "time" else ""
            self.say(f"To go on{longer}: {_resuming(self.arguments)}")


def _resuming(arguments: Sequence[str]) -> str:
    """The command line that goes on with this run."""
    return shlex.join([*_program(), *arguments, *(["--resume"] if "--resume" not in arguments else [])])


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


# -- a recipe ---------------------------------------------------------------------------------------------------------


def _recipe(
    name: str,
    extra: Sequence[str],
    device_option: Mapping[str, Any],
    material: Material,
    out_dir: Path | None,
    hours: float | None,
    only: Sequence[str],
    plan: bool,
    resume: bool,
    notes: str,
    quiet: bool,
    arguments: Sequence[str],
) -> None:
    from rich.table import Table

    from zoo.config import describe
    from zoo.training.recipe import find_recipe, load_recipe, run_recipe
    from zoo.training.task import TrainConfig

    found = load_recipe(find_recipe(name))
    given = {**device_option, **parse_flags(extra, describe(TrainConfig), "A recipe takes the options of runs only.")}
    if hours is not None and not hours > 0:
        raise ConfigError(f"Option --hours must be above 0, not {hours:g}.")
    if plan:
        table = Table(title=f"{found.name}: {found.description}", title_justify="left")
        for heading in ("run", "method", "share", "minutes", "begins from", "options", "state"):
            table.add_column(heading, overflow="fold")
        for row in found.plan(hours, only, out_dir, given):
            table.add_row(*row)
        out.show(table)
        return
    if out_dir is None:
        raise ConfigError("A recipe needs a folder for its runs: give --out FOLDER.")
    with Display(found.name, quiet, arguments) as display:
        ended = run_recipe(
            found,
            material,
            out_dir,
            hours=hours,
            only=only,
            overrides=given,
            resume=resume,
            command=_command(arguments),
            notes=notes,
            display=display,
        )
        if ended == "asked":
            display.say(f"To go on: {_resuming(arguments)}")
    if ended == "asked":
        raise typer.Exit(display.stop.code)


# -- a pack -----------------------------------------------------------------------------------------------------------


def _pack(
    folder: Path, sets: Mapping[str, list[str]], max_mb: float, side: int, with_encoder: bool, quiet: bool
) -> None:
    from zoo.training.pack import pack

    with _packing(quiet) as progress:
        report = pack(folder, sets, max_mb=max_mb, side=side, with_encoder=with_encoder, progress=progress)
    for name, reasons in report.skipped.items():
        for file, reason in reasons:
            console.say(f"{name}: {file} is left out: {reason}")
    out.say(report.text())


@contextlib.contextmanager
def _packing(quiet: bool) -> Iterator[Any]:
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
