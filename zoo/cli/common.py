"""What several verbs share: numbers and method options, progress with a clean Ctrl-C, reading inputs."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from zoo.cli.streams import binary_input, console
from zoo.cli.streams import out as out
from zoo.config import readable_type
from zoo.errors import ConfigError, ImageError, InputError
from zoo.names import find, on_disk
from zoo.words import counted, shown, visible

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.config import OptionSpec
    from zoo.images import Image
    from zoo.stylizer import Stylized, Stylizer

DEFAULT_STYLE = "builtin:swirls"

# What ends a run with the best picture so far, where the system has it.
_STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def split_list(text: str | None, separator: str = ",") -> list[str]:
    """The parts of a flag's value, without spaces around them; none of None or of nothing."""
    return [part.strip() for part in text.split(separator) if part.strip()] if text else []


def split_labels(text: str | None) -> list[str]:
    """Labels between commas that stand outside brackets: ``adain.zoo,gatys.zoo[init=content,num_steps=50]``."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()] if text else []


def split_pairs(text: str | None) -> list[tuple[str, str]]:
    """``CONTENT:STYLE`` between commas; ConfigError for a part without a colon."""
    found = []
    for part in split_list(text):
        content, colon, style = part.partition(":")
        if not colon:
            raise ConfigError(f"--pairs is CONTENT:STYLE, comma-separated, not {part!r}.")
        found.append((content.strip(), style.strip()))
    return found


def method_options(extra: Sequence[str], name: str) -> dict[str, Any]:
    """``--num-steps 300 --optimizer=adam --flag`` as a dictionary, checked against the names the method has.

    ConfigError for a stray word, for a value missing, or an unknown option (with the nearest known one).
    """
    from zoo.registry import load_registry

    return parse_flags(extra, load_registry().options(name), f"Run 'zoo info {name}' for all.")


def parse_flags(extra: Sequence[str], specs: Sequence[OptionSpec], hint: str) -> dict[str, Any]:
    """The same for any list of options; ``hint`` ends the message about an unknown one."""
    from zoo.errors import UnknownNameError

    known = {spec.name: spec for spec in specs}
    options: dict[str, Any] = {}
    rest = list(extra)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"Unexpected argument {word!r}: options are written --name value.")
        flag, equals, value = word[2:].partition("=")
        key = flag.replace("-", "_")
        negated = key.startswith("no_") and key.removeprefix("no_") in known
        if negated:
            key = key.removeprefix("no_")
        if key not in known:
            flags = [spec.flag for spec in known.values()]
            raise UnknownNameError("option", f"--{flag}", flags, hint)
        if known[key].type == "bool" and not equals:
            value = "false" if negated else "true"
        elif not equals:
            if not rest:
                raise ConfigError(f"Option --{flag} needs a value.")
            value = rest.pop(0)
        options[key] = value
    return options


def trained_styles(method: str, **arguments: Any) -> tuple[tuple[str, ...], Stylizer | None]:
    """The names of the styles a method was trained on, none where it takes any image; and the method, where these names
    stand in its weights alone (``checkpoint``: the user's own) and it was loaded with ``arguments`` to read them."""
    from zoo.loading import load
    from zoo.registry import load_registry

    resolved = load_registry().resolve(method)
    if resolved.entry.taxonomy.styles == "any":
        return (), None
    if arguments.get("checkpoint") is None and resolved.checkpoint is not None and resolved.checkpoint.styles:
        return resolved.checkpoint.styles, None
    stylizer = load(method, **arguments)
    return stylizer.style_names, stylizer


def refuse_overwriting(output: str, sources: Iterable[str]) -> None:
    """InputError where ``output`` is one of the files that are read."""
    there = [source for source in sources if os.path.exists(source)] if output != "-" and os.path.exists(output) else []
    if any(os.path.samefile(source, output) for source in there):
        raise InputError(f"{output} is what the result is made of: give -o another name.")


def refuse_restylizing(folder: Path, contents: Iterable[str], styles: Iterable[str]) -> None:
    """InputError where ``folder`` of the results is one whose pictures are ``contents``, or ``styles``, of every call
    like this."""
    for sources, what in ((contents, "stylised again"), (styles, "styles of the next call")):
        if any(on_disk(s).is_dir() and on_disk(s).resolve() == folder.resolve() for s in sources):
            raise InputError(f"Results in {folder} would be {what}: give -o another folder.")


def default_style(names: Sequence[str]) -> str:
    """The style where none was asked for: the only one that was trained, else a built-in image."""
    return names[0] if len(names) == 1 else DEFAULT_STYLE


def parse_weights(text: str | None, styles: int) -> list[float] | None:
    """``0.3,0.7`` as numbers, one per style; None for None."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(0 <= value <= 1 for value in values):
        raise ConfigError(f"Style weights are numbers from 0 to 1 between commas, such as 0.3,0.7, not {shown(text)}.")
    if len(values) != styles:
        raise ConfigError(
            f"Give one weight per style, not {counted(len(values), 'weight')} for {counted(styles, 'style')}."
        )
    if abs(sum(values) - 1) > 1e-4:
        raise ConfigError(f"Style weights must sum to 1, and {text} sum to {sum(values):g}.")
    return values


def shown_license(method: str, checkpoint: str | None) -> str:
    """The licence of the weights that ``method`` would load."""
    from zoo.registry import load_registry

    registered = load_registry().resolve(method).checkpoint
    if checkpoint is not None or registered is None:
        return "not stated (weights of your own)"
    return registered.license


def options_table(title: str, specs: Sequence[OptionSpec]) -> Table:
    """Options as people read them: flag, type, value, bounds, meaning."""
    table = Table(title=title, title_justify="left")
    table.add_column("flag", no_wrap=True)
    for heading in ("type", "value", "bounds", "meaning"):
        table.add_column(heading, overflow="fold")
    for spec in specs:
        value = ",".join(map(str, spec.default)) if isinstance(spec.default, list | tuple) else str(spec.default)
        table.add_row(spec.flag, readable_type(spec.type), value, spec.bounds, spec.help)
    return table


def read_image(source: str, size: str, max_pixels: int | None = None, *, levels: bool = False) -> Image:
    """An image from a path, ``builtin:NAME`` or ``-`` (standard input), resized by policy text; ``levels`` as
    :func:`zoo.images.read` takes it."""
    from zoo import images

    policy = images.SizePolicy.parse(size)
    opened = binary_input() if source == "-" else source
    return images.read(opened, size=policy, max_pixels=max_pixels or images.MAX_PIXELS, levels=levels)


def expand(
    sources: Sequence[str], role: str, names: Sequence[str] = (), told: Callable[[str], None] | None = None
) -> list[str]:
    """Files, folders, ``builtin:NAME``, ``-`` and ``names`` (of trained styles) as a list of single images.

    Folders are listed in sorted order; ``told`` is given a sentence on what of one is left out. A name goes before a
    file that is called the same.
    """
    from zoo import images

    found: list[str] = []
    for source in sources:
        if source == "-" or source.startswith("builtin:"):
            found.append(source)
        elif (name := find(source, names)) is not None:
            found.append(name)
        elif names and not on_disk(source).exists():
            raise ImageError(f"{source!r} is neither a file nor a trained style: {', '.join(names)}.")
        else:
            found += [str(path) for path in images.list_images([source], told=told)]
    if not found:
        raise InputError(f"No {role} image was given.")
    return found


class StopRequest:
    """Set by the first Ctrl-C, SIGTERM or SIGHUP; a second one interrupts at once. ``signal`` is its number, or 0."""

    def __init__(self) -> None:
        self.signal = 0

    @property
    def asked(self) -> bool:
        """Return whether work is to end with what it has."""
        return self.signal != 0

    @property
    def code(self) -> int:
        """Return the exit code of a command that was asked to end."""
        return 128 + self.signal

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.signal = number

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Catch the signals inside the block, but for those that are ignored (nohup), and put their handlers back."""
        previous = {number: signal.getsignal(number) for number in _STOPS}
        caught = [number for number, handler in previous.items() if handler != signal.SIG_IGN]
        for number in caught:
            signal.signal(number, self._handle)
        try:
            yield self
        finally:
            for number in caught:
                signal.signal(number, previous[number])


class Reporter:
    """The bar on stderr, the frames of ``--save-every``, and the answer to Ctrl-C, as one progress callback."""

    def __init__(
        self,
        bar: RichProgress | None,
        stop: StopRequest,
        save_every: int = 0,
        save: Callable[[int, Tensor], None] | None = None,
    ) -> None:
        self.bar, self.stop, self.save_every, self.save = bar, stop, save_every, save
        self.task = bar.add_task("", total=None, visible=False) if bar else None
        self._label, self._passes = "", 0

    def begin(self, label: str) -> None:
        """Start over for the next picture."""
        self._label, self._passes = visible(label), 0
        if self.bar is not None and self.task is not None:
            self.bar.reset(self.task, description=self._label, total=None, visible=True)

    def tile(self, done: int, total: int) -> bool:
        """Show how many tiles or levels of a pass over the picture are done; passes are the method's own.

        Returns whether to stop.
        """
        if done == 1:
            self._passes += 1
        if self.bar is not None and self.task is not None:
            said = f"{self._label}, pass {self._passes}"
            self.bar.update(self.task, description=said, completed=done, total=total)
        return self.stop.asked

    def __call__(self, step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> bool:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=step, total=total)
        if self.save_every and self.save is not None and step % self.save_every == 0:
            self.save(step, image())
        return self.stop.asked


def progress_bar(quiet: bool) -> RichProgress | None:
    """A bar on stderr, or None where it would only litter a log."""
    if quiet or not console.is_terminal:
        return None
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def make_picture(
    output: str, quiet: bool, run: Callable[[Reporter], Stylized], said: Callable[[Stylized], str]
) -> None:
    """Write the picture of a run, and say of it what ``said`` returns; a signal ends it early, and is the exit code."""
    from zoo import images

    bar, stop = progress_bar(quiet), StopRequest()
    with stop.listening(), bar or contextlib.nullcontext():
        reporter = Reporter(bar, stop)
        reporter.begin(Path(output).name)
        result = run(reporter)
    images.write(output, result.image)
    if not quiet:
        console.say(f"{output}  {said(result)}")
    if stop.asked:
        raise typer.Exit(stop.code)
