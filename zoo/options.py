"""Options of the command line: a verb's are one frozen dataclass, from which its flags and help are made.

::

    @dataclass(frozen=True, kw_only=True)
    class GreetOptions(Machine):
        name: Annotated[str, typer.Argument(help="Whom to greet.")]
        times: Annotated[int, typer.Option(help="How often.", **COUNT)] = 1

    @verb
    def greet(options: GreetOptions) -> None: ...

What several verbs ask for stands in base classes here, and the page of ``zoo serve`` draws its widgets from them too
(:func:`described`), so that a flag and a widget have one name, range and meaning.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from zoo.config import LARGEST_INT, SEEDS
from zoo.errors import ConfigError
from zoo.words import shown

# What the parsers made here take at least and at most, and whether only above the least.
RANGES: dict[Callable[..., Any], tuple[float, float, bool]] = {}


def whole(low: int, high: int) -> dict[str, Any]:
    """Return what ``typer.Option`` takes for a whole number from ``low`` to ``high``, both among them."""
    return _number(int, low, high, f"a whole number from {low} to {high}", above=False)


def real(low: float, high: float, *, above: bool = False) -> dict[str, Any]:
    """Return what ``typer.Option`` takes for a number from ``low`` (``above``: but not that one) to ``high``."""
    words = f"a number above {low:g} and up to {high:g}" if above else f"a number from {low:g} to {high:g}"
    return _number(float, low, high, words, above=above)


def _number(kind: type[int | float], low: float, high: float, words: str, *, above: bool) -> dict[str, Any]:
    def number(value: str | float) -> int | float:
        try:
            found = kind(value) + 0  # -0.0 is 0.0
        except (ValueError, OverflowError):
            found = math.nan
        if not low <= found <= high or (above and found == low):
            raise typer.BadParameter(f"give {words}, not {shown(value)}.")
        return found

    RANGES[number] = (low, high, above)
    name = f"{low:g}..{high:g}"
    return {"parser": number, "metavar": name if len(name) < 12 else "N" if kind is int else "X"}


# The same range wherever one thing is asked for. A process with more threads than these does not start everywhere; a
# side is at most that of a JPEG.
SEED, COUNT, THREADS = whole(*SEEDS), whole(1, LARGEST_INT), whole(1, 1024)
SIDE, PIXELS, PORT, MILLIMETRES = whole(0, 65_500), whole(1, 2**63 - 1), whole(0, 65_535), real(40, 1000)


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """Whether anything is said."""

    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no messages.")] = False


@dataclass(frozen=True, kw_only=True)
class Machine(Quiet):
    """What a method runs on, and its weights."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto"
    checkpoint: Annotated[str | None, typer.Option(help="Your own weights (safetensors) for this method.")] = None

    @property
    def machine(self) -> dict[str, Any]:
        """The three as arguments of :func:`zoo.load`."""
        return {"device": self.device, "precision": self.precision, "checkpoint": self.checkpoint}


@dataclass(frozen=True, kw_only=True)
class Look(Machine):
    """How much of the style a picture takes, and what it keeps of the content."""

    strength: Annotated[
        float,
        typer.Option("--alpha", "--strength", help="0 is the content, 1 the full style.", **real(0, 1)),
    ] = 1.0
    preserve_color: Annotated[
        str,
        typer.Option(
            help="Keep the content's colors: none; coral gives the style image the content's colors first; luminance "
            "transfers lightness alone."
        ),
    ] = "none"
    seed: Annotated[int, typer.Option(help="Fixes all noise.", **SEED)] = 0


@dataclass(frozen=True, kw_only=True)
class Backed(Look):
    """What runs the network."""

    backend: Annotated[
        str,
        typer.Option(
            help="torch, or onnxruntime: the network exported, in float32 on the CPU. auto is onnxruntime, without the "
            "wait for torch to start, where a trained style was run by it before."
        ),
    ] = "auto"

    @property
    def machine(self) -> dict[str, Any]:
        """Device, precision and checkpoint as arguments of :func:`zoo.load`; ConfigError for a backend that there is
        not, or one that cannot run there."""
        if self.backend not in ("auto", "torch", "onnxruntime"):
            raise ConfigError(f"--backend is auto, torch or onnxruntime, not {self.backend!r}.")
        if self.backend != "onnxruntime":
            return super().machine
        if self.device not in ("auto", "cpu") or self.precision not in ("auto", "fp32"):
            raise ConfigError("--backend onnxruntime runs in float32 on the CPU: leave --device and --precision out.")
        return {**super().machine, "device": "cpu", "precision": "fp32"}


@dataclass(frozen=True)
class Described:
    """An option as people read it; ``low`` and ``high`` of a number."""

    name: str
    help: str
    default: Any
    low: float = -math.inf
    high: float = math.inf


def described(options: type, name: str) -> Described:
    """Return what a dataclass of options says of one of them."""
    hint = typing.get_type_hints(options, include_extras=True)[name]
    (info,) = (one for one in hint.__metadata__ if hasattr(one, "help"))
    low, high, _ = RANGES.get(info.parser, (-math.inf, math.inf, False))
    return Described(name, info.help or "", getattr(options, name, None), low, high)


def verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function(options)`` or ``function(context, options)`` as typer reads verbs.

    It has a parameter for each field of the options' dataclass, the class's own before those of its bases.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    options: Any = hints["options"]
    types = typing.get_type_hints(options, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(options)}
    ordered = list(dict.fromkeys(name for kind in options.__mro__ for name in inspect.get_annotations(kind)))
    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    for name in ordered:
        default = fields[name].default
        default = inspect.Parameter.empty if default is dataclasses.MISSING else default
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name])
        )
    if "context" not in hints:
        del parameters[0]

    def called(**given: Any) -> Any:
        before = [given.pop("context")] if "context" in hints else []
        return function(*before, options(**given))

    wrapper: Any = functools.update_wrapper(called, function)
    wrapper.__signature__ = inspect.Signature(parameters)
    wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapper


__all__ = [
    "COUNT",
    "MILLIMETRES",
    "PIXELS",
    "PORT",
    "RANGES",
    "SEED",
    "SIDE",
    "THREADS",
    "Backed",
    "Described",
    "Look",
    "Machine",
    "Quiet",
    "described",
    "real",
    "verb",
    "whole",
]
