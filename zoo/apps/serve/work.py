"""One order after the other: the methods it names, each timed and weighed, without knowing who asks.

**Time** is wall-clock seconds of one call, as a visitor waits for it: encoding the style, stylising, and the colours if
they are kept; not loading the method, which is given beside it. The first call of a method also pays for the libraries'
warm-up. ``zoo bench`` has the figures to compare methods by: repeated, in a process of their own.

**Memory** is the peak during that call above what the process held just before it, so the weights, already there, are
not in it: resident memory, or what torch allocated on a GPU. Memory that earlier pictures freed is handed back to the
system first, as it would hide the next picture's needs; where that cannot be asked for (no glibc), or where something
else was read meanwhile, there is a reason in place of a figure.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import device as devices
from zoo import images
from zoo.apps.serve import films
from zoo.apps.serve.limits import Limits
from zoo.bench import memory
from zoo.controls.color import KEEPS, in_color, own_option
from zoo.errors import (
    ConfigError,
    ImageError,
    InputError,
    UnknownNameError,
    ZooError,
    out_of_memory,
)
from zoo.images import Image
from zoo.loading import load
from zoo.options import Look, described
from zoo.registry import Registry, import_object, load_registry
from zoo.stylizer import Context, Progress, StyleCode, Stylizer, Traits

_log = logging.getLogger("zoo.apps.serve")


@dataclass(frozen=True)
class Picture:
    """A picture, or as content a film, as it was chosen: ``builtin:NAME``, or a file's bytes and the name it had."""

    source: str | bytes
    name: str

    @classmethod
    def builtin(cls, name: str) -> Picture:
        """A built-in photograph or style by its bare name."""
        return cls(images.BUILTIN_PREFIX + name, name)

    @functools.cached_property
    def film(self) -> bool:
        """Return whether it is a film."""
        return films.is_film(self.source)

    def read(self, size: str, limits: Limits) -> Image:
        """The pixels, of a film its first frame's, at ``size`` (a size policy's text); ImageError, of films DataError
        and InputError, names the file as its owner knows it."""
        if isinstance(self.source, bytes) and len(self.source) > limits.bytes:
            raise ImageError(
                f"'{self.name}' has {len(self.source) / 1e6:.1f} MB, above the limit of {limits.bytes / 1e6:g} MB: "
                "save it smaller."
            )
        if isinstance(self.source, bytes) and self.film:
            return films.first_frame(self.source, self.name, size, limits)
        try:
            return images.read(self.source, size=size, max_pixels=limits.pixels)
        except ImageError as error:
            raise ImageError(str(error).replace("The image given as bytes", f"'{self.name}'")) from error


@dataclass(frozen=True)
class Order:
    """An order: the options of ``zoo stylize`` that the page has.

    ``trained_style`` is the name for methods that hold trained styles, which take no style image; ``size`` the long
    side of content and style in pixels; ``steps`` None for each method's own number; ``mask`` is white where the style
    goes and black where the content stays.
    """

    content: Picture
    style: Picture
    methods: tuple[str, ...]
    size: int = 512
    strength: float = 1.0
    seed: int = 0
    steps: int | None = None
    preserve_color: str = "none"
    trained_style: str | None = None
    mask: Picture | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """One method's answer: ``image`` (1, 3, H, W) or ``film``, a file; or neither, and the reason in ``said``.

    ``seconds`` is the whole call, ``seconds_style`` its part of encoding the style, ``seconds_load`` the loading before
    it (0 where the method was loaded already). ``memory`` is in bytes, or None and the reason in ``memory_said``.
    """

    method: str
    image: Tensor | None = None
    film: Path | None = None
    said: str = ""
    style: str = ""
    seconds: float = 0.0
    seconds_style: float = 0.0
    seconds_load: float = 0.0
    memory: int | None = None
    memory_said: str = ""
    steps: int = 1
    frames: int = 0
    stopped: bool = False
    where: str = ""


@dataclass(frozen=True)
class Choice:
    """A method as the page offers it."""

    name: str
    summary: str
    traits: Traits
    takes_steps: bool

    @property
    def trained(self) -> bool:
        """Return whether it knows only the styles it was trained on."""
        return self.traits.styles == "trained"

    @property
    def masks(self) -> bool:
        """Return whether it can keep a region as it is."""
        return "content_masks" in self.traits.context


def choices(patterns: tuple[str, ...] = ("all",), registry: Registry | None = None) -> list[Choice]:
    """The methods that ``patterns`` name (as ``zoo bench --methods`` does); a plugin that cannot be imported is left
    out. UnknownNameError where a pattern names nothing."""
    registry = registry or load_registry()
    found = []
    for name in registry.match(patterns):
        resolved = registry.resolve(name)
        try:
            traits: Traits = import_object(resolved.entry.implementation).traits
        except ZooError as error:
            _log.warning("%s is left out: %s", name, error)
            continue
        steps = traits.iterative and any(spec.name == "num_steps" for spec in registry.options(name))
        found.append(Choice(name, resolved.entry.title, traits, steps))
    return found


class Models:
    """Methods loaded once and kept, up to a number; safe to ask from several threads."""

    def __init__(self, limit: int, device: str = "auto", precision: str = "auto") -> None:
        self.limit, self.device, self.precision = limit, device, precision
        self._held: OrderedDict[tuple[Any, ...], Stylizer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, options: Mapping[str, Any] | None = None) -> tuple[Stylizer, float]:
        """The method, and the seconds its loading took: 0 where it was there. Raises what :func:`zoo.load` raises."""
        key = (name, *sorted((options or {}).items()))
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key], 0.0
            while len(self._held) >= self.limit:
                self._held.popitem(last=False)
            started = time.perf_counter()
            model = load(name, device=self.device, precision=self.precision, **(options or {}))
            self._held[key] = model
            return model, time.perf_counter() - started

    def __len__(self) -> int:
        return len(self._held)


@dataclass
class Workshop:
    """Carries orders out. ``run`` is for one order at a time; ``preview`` and ``trained_styles`` may be asked
    meanwhile."""

    limits: Limits = field(default_factory=Limits)
    patterns: tuple[str, ...] = ("all",)
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        devices.resolve_precision(self.precision, devices.resolve_device(self.device), "fp32")
        self.choices = {choice.name: choice for choice in choices(self.patterns)}
        if not self.choices:
            raise ConfigError("No method is offered: give --methods names of 'zoo list', or all.")
        self.models = Models(self.limits.models, self.device, self.precision)
        self._asides = _Asides()

    def preview(self, picture: Picture, side: int = 320) -> Image:
        """A picture at the size of a thumbnail; ImageError where it cannot be read or is too large."""
        with self._asides.one():
            return picture.read(f"long:{side}", self.limits)

    def trained_styles(self, methods: tuple[str, ...]) -> list[str]:
        """Names of the trained styles of these methods, each once; none of methods that take any image, or that cannot
        be loaded (running them says why)."""
        names: dict[str, None] = {}
        for method in methods:
            if method in self.choices and self.choices[method].trained:
                names.update(dict.fromkeys(self._styles(method)))
        return list(names)

    def _styles(self, method: str) -> tuple[str, ...]:
        checkpoint = load_registry().resolve(method).checkpoint
        if checkpoint is not None and checkpoint.styles:
            return checkpoint.styles
        with self._asides.one(), contextlib.suppress(ZooError):
            return self.models.get(method)[0].style_names
        return ()

    def run(
        self,
        order: Order,
        folder: Path,
        progress: Callable[[str], Progress] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[Result]:
        """Every method's result as soon as it is there; a method that fails gives its reason and the next goes on.

        Films are written into ``folder``. ``progress`` is asked for a method's progress callback by its name.
        ``stopped`` ends an optimisation at its next step, with the picture so far, a film after its next frame, and
        leaves out what has not begun. Raises InputError for an order outside the limits or a mask of another shape, and
        ImageError or DataError for a picture or film that cannot be read, before any work.
        """
        self.check(order)
        size = f"long:{order.size}"
        content = order.content.read(size, self.limits)
        style = order.style.read(size, self.limits).pixels
        mask = None
        if order.mask is not None:
            selected = images.selection(order.mask.read("0", self.limits), order.mask.name)
            named = dataclasses.replace(content, name=order.content.name)
            mask = images.fitted(selected, order.mask.name, named, images.SizePolicy.parse(size))
        context = Context(content_masks=mask)
        for number, method in enumerate(order.methods):
            if stopped():
                yield Result(method, said="Stopped before it began.")
                continue
            report = _until(stopped, progress(method) if progress else None)
            make: _Make = partial(_picture, content.pixels, context)
            if order.content.film:
                make = partial(self._film, order.content, size, folder / f"{number}.mp4")
            yield self._attempt(
                order, method, style, (content.pixels.shape[-2], content.pixels.shape[-1]), make, report
            )

    def check(self, order: Order) -> None:
        """Raise InputError for an order outside the limits, UnknownNameError for a method that is not offered."""
        if not order.methods:
            raise InputError("No method is picked: pick one or several.")
        for method in order.methods:
            if method not in self.choices:
                raise UnknownNameError("method", method, self.choices)
        if len(set(order.methods)) < len(order.methods):
            raise InputError("A method is picked twice: pick each once.")
        if order.style.film:
            raise InputError(f"'{order.style.name}' is a film: a style is a picture.")
        if order.content.film and order.mask is not None:
            raise InputError("A mask is for pictures: remove it, or drop a picture in the film's place.")
        if not 16 <= order.size <= self.limits.side:
            raise InputError(f"The size must be from 16 to {self.limits.side} pixels here, got {order.size}.")
        if order.steps is not None and not 1 <= order.steps <= self.limits.steps:
            raise InputError(f"The steps must be from 1 to {self.limits.steps} here, got {order.steps}.")
        for name in ("strength", "seed"):
            option, value = described(Look, name), getattr(order, name)
            if not option.low <= value <= option.high:
                raise InputError(f"The {name} must be from {option.low} to {option.high}, got {value:g}.")
        if order.preserve_color not in KEEPS:
            raise InputError(f"Colors are kept by {', '.join(KEEPS)}, not {order.preserve_color!r}.")

    def _attempt(
        self, order: Order, method: str, style: Tensor, size: tuple[int, int], make: _Make, progress: Progress
    ) -> Result:
        try:
            return self._stylize(order, method, style, size, make, progress)
        except ZooError as error:
            return Result(method, said=str(error))
        except Exception as error:
            if out_of_memory(error):
                return Result(method, said="There is not enough memory for this size: choose a smaller one.")
            _log.exception("%s failed", method)
            return Result(method, said="It failed unexpectedly; the terminal of 'zoo serve' says why.")

    def _stylize(
        self, order: Order, method: str, style: Tensor, size: tuple[int, int], make: _Make, progress: Progress
    ) -> Result:
        choice = self.choices[method]
        if order.content.film and choice.traits.iterative:
            raise InputError(f"{method} takes minutes a frame: make films with it by 'zoo video'.")
        options: dict[str, Any] = {}
        if choice.takes_steps and order.steps is not None:
            options["num_steps"] = order.steps
        options, keep = own_option(method, order.preserve_color, options)
        held, seconds_load = self.models.get(method, options)
        model = in_color(held, keep)
        name = _trained_name(model, order.trained_style) if choice.trained else order.style.name
        with self._asides.weighed(model.device) as weight:
            started = time.perf_counter()
            code = model.encode_style(name if choice.trained else style, size)
            devices.synchronize(model.device)
            encoded = time.perf_counter()
            made = make(model, code, order, progress)
            devices.synchronize(model.device)
            ended = time.perf_counter()
        return Result(
            method,
            **made,
            style=name,
            seconds=ended - started,
            seconds_style=encoded - started,
            seconds_load=seconds_load,
            memory=weight.bytes,
            memory_said=weight.said,
            where=f"{model.device}, {model.precision}",
        )

    def _film(
        self,
        content: Picture,
        size: str,
        place: Path,
        model: Stylizer,
        code: StyleCode,
        order: Order,
        progress: Progress,
    ) -> dict[str, Any]:
        assert isinstance(content.source, bytes)
        clip = films.opened(content.source, content.name, size, self.limits)

        def told(done: int, expected: int) -> bool:
            return bool(progress(done, max(done, expected), {}, lambda: torch.empty(0)))

        frames, stopped = films.stylized(clip, place, model, code, order.strength, order.seed, self.limits, told)
        return {"film": place, "frames": frames, "stopped": stopped}


# What a method makes of an order's content, as parts of a Result.
_Make = Callable[[Stylizer, StyleCode, Order, Progress], dict[str, Any]]


def _picture(
    content: Tensor, context: Context, model: Stylizer, code: StyleCode, order: Order, progress: Progress
) -> dict[str, Any]:
    made = model.stylize(content, code, strength=order.strength, seed=order.seed, context=context, progress=progress)
    return {"image": made.image, "steps": made.steps, "stopped": made.stopped}


def _trained_name(model: Stylizer, wanted: str | None) -> str:
    if wanted is None:
        raise InputError(f"{model.name} knows only the styles it was trained on: pick one of them.")
    if wanted not in model.style_names:
        raise InputError(f"{model.name} was not trained on {wanted!r}; it knows {', '.join(model.style_names)}.")
    return wanted


def _until(stopped: Callable[[], bool], progress: Progress | None) -> Progress:
    def report(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> bool:
        asked = bool(progress(step, total, losses, image)) if progress is not None else False
        return asked or stopped()

    return report


# -- memory -----------------------------------------------------------------------------------------------------------


@dataclass
class Weight:
    """Bytes at the peak of a stretch above what was held before it, or the reason why they are not known."""

    bytes: int | None = None
    said: str = ""


class _Asides:
    """Counts what happens beside the work, in the same process, and so would spoil the measurement of its memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = self._open = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """A stretch of something else."""
        with self._lock:
            self._count += 1
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1

    @contextlib.contextmanager
    def weighed(self, device: torch.device) -> Iterator[Weight]:
        """Measure the block's memory; see the module's docstring."""
        weight = Weight()
        gpu = device.type == "cuda"
        handed_back = gpu or hand_back()
        with self._lock:
            count, alone = self._count, self._open == 0
        before = torch.cuda.memory_allocated(device) if gpu else memory.resident()
        with memory.peak(device) as peak:
            yield weight
        if not handed_back:
            weight.said = "not measured: this system cannot be asked to take back freed memory first"
        elif not gpu and (not alone or count != self._count):
            weight.said = "not measured: the page read another picture meanwhile"
        else:
            most = peak.cuda_allocated if gpu else peak.resident
            weight.bytes = max(0, (most or 0) - before)


def hand_back() -> bool:
    """Give memory that was freed, but is still held by the allocator, back to the system; whether that is possible."""
    try:
        return ctypes.CDLL(None).malloc_trim(0) in (0, 1)
    except (OSError, AttributeError, TypeError):
        return False
