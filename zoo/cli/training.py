"""What ``zoo train`` and ``zoo recipe`` share: their options, and the progress of a run on stderr."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from zoo.cli.common import StopRequest, console
from zoo.config import LARGEST_INT
from zoo.errors import ConfigError
from zoo.options import THREADS, Quiet, whole

if TYPE_CHECKING:
    from zoo.training.launch import Material
    from zoo.training.progress import TrainResult, TrainState

# Where stderr is no terminal a line this often tells that the run is alive without filling the log.
_LINE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Quiet):
    """Options that name the training images."""

    content_dir: Annotated[
        list[str] | None,
        typer.Option("--content-dir", help="Content images: folders, lists (.txt), or several by commas."),
    ] = None
    style_dir: Annotated[
        list[str] | None, typer.Option("--style-dir", help="Style images, where the method needs them.")
    ] = None
    more_sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=DIR", help="Images of another set that a task asks for. Repeatable."),
    ] = None

    @property
    def sets(self) -> dict[str, list[str]]:
        """The sources by set; ConfigError for a set without a name."""
        found = {"content": split_paths(self.content_dir), "style": split_paths(self.style_dir)}
        for given in self.more_sets or []:
            name, _, paths = given.partition("=")
            if not (name and paths):
                raise ConfigError(f"--set takes NAME=DIR, such as sketches=drawings; got {given!r}.")
            found[name] = [*found.get(name, []), *split_paths([paths])]
        return found


@dataclass(frozen=True, kw_only=True)
class RunOptions(ImageOptions):
    """Options of a run: its folder, its held-out images, its machine."""

    out_dir: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run, or of the recipe.")] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the last checkpoint in --out; options not named stay as they were."),
    ] = False
    held_out_content: Annotated[
        list[str] | None, typer.Option("--held-out-content", help="Images to evaluate on, never trained on.")
    ] = None
    held_out_style: Annotated[
        list[str] | None, typer.Option("--held-out-style", help="Styles to evaluate on, paired in order.")
    ] = None
    held_out_size: Annotated[str, typer.Option(help="Size of held-out images.")] = "long:512"
    held_out_count: Annotated[
        int, typer.Option(help="Use only the first N of each; 0 for all.", **whole(0, LARGEST_INT))
    ] = 0
    notes: Annotated[str, typer.Option(help="Said on the card, such as the licence of the images.")] = ""
    cache_dir: Annotated[Path | None, typer.Option(help="Where decoded images are kept.")] = None
    threads: Annotated[int | None, typer.Option(help="Threads of the CPU. Default: torch's.", **THREADS)] = None
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps; the same as --accelerator.")
    ] = None

    def material(self) -> Material:
        """The images of the run."""
        from zoo.training.launch import Material

        held_out = {"content": split_paths(self.held_out_content), "style": split_paths(self.held_out_style)}
        return Material(self.sets, held_out, self.held_out_size, self.held_out_count, self.cache_dir)

    def prepare(self) -> dict[str, Any]:
        """Set the threads; return the run's options that have flags of their own here."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        return {"accelerator": self.device} if self.device is not None else {}


def split_paths(values: Sequence[str] | None) -> list[str]:
    """``a,b`` as two, unless a path of that very name exists."""
    found: list[str] = []
    for value in values or []:
        found += [value] if os.path.exists(value) else [part for part in value.split(",") if part]
    return found


def named_first(context: typer.Context, name: str) -> list[str]:
    """The options that only a method knows; ConfigError where one stands in the place of ``name``."""
    if name.startswith("-"):
        raise ConfigError(f"Give the name first: {context.command_path} NAME {name} ...")
    return list(context.args)


def given_arguments(context: typer.Context) -> list[str]:
    """Return the arguments, for the card and for the command that goes on."""
    arguments: list[str] = context.obj or sys.argv[1:]
    return arguments


def command(arguments: Sequence[str]) -> str:
    """Return the command as the card shows it."""
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
        """Say what a run left, and why it ended."""
        state = result.state
        why = {"steps": "all steps done", "time": "the time is used up", "asked": "stopped"}[result.ended]
        figures = "".join(f", {name} {value:.4g}" for name, value in state.figures.items())
        self.say(f"{self.label}: {why} at step {state.step:,} after {_duration(state.seconds)}{figures}.")
        self.say(f"Weights and card: {result.folder / 'model.safetensors'}, {result.folder / 'card.md'}")

    def going_on(self, result: TrainResult) -> None:
        """Say how to go on with a run that did not do all its steps."""
        if result.ended != "steps":
            longer = " with a larger --time-limit" if result.ended == "time" else ""
            self.say(f"To go on{longer}: {resuming(self.arguments)}")


def resuming(arguments: Sequence[str]) -> str:
    """Return the command line that goes on with this run."""
    return shlex.join([*_program(), *arguments, *(["--resume"] if "--resume" not in arguments else [])])


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
