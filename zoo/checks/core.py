"""What a check is, how checks are run, and the pictures and results that they share."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.checks import process
from zoo.config import Config
from zoo.device import Precision
from zoo.errors import UnknownNameError, ZooError
from zoo.loading import load
from zoo.registry import import_object, load_registry
from zoo.stylizer import Mix, StyleCode, Stylized, Stylizer, Traits

T = TypeVar("T")

# Enough for a progress report in the middle and a stop before the end.
QUICK_STEPS = 3
# Pixels of a side, about: enough for a few positions on the deepest level of VGG, and little work.
_SIDE = 32
# One level of an 8-bit image; what a viewer cannot see.
LEVEL = 1 / 255


class Factory(Protocol):
    """Builds the method under test: a :class:`Stylizer` subclass, or ``functools.partial(zoo.load, NAME)``."""

    def __call__(self, *, device: str, precision: str) -> Stylizer: ...


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check; ``reason`` says what went wrong or why it does not apply, empty when passed."""

    name: str
    status: Literal["passed", "failed", "skipped"]
    reason: str
    seconds: float


class ContractError(Exception):
    """Raised by a check: the contract does not hold, and how."""


class NotApplicableError(Exception):
    """Raised by a check that finds nothing to look at; it counts as skipped."""


@dataclass(frozen=True)
class Check:
    """A promise and its test. ``selected_by`` names the key of :data:`SELECTORS` that says which methods make it."""

    name: str
    summary: str
    selected_by: str
    test: Callable[[Subject], None]


SELECTORS: dict[str, Callable[[Traits], bool]] = {
    "every method": lambda traits: True,
    "iterative": lambda traits: traits.iterative,
    "deterministic": lambda traits: traits.deterministic,
    "styles: any": lambda traits: traits.styles == "any",
    "strength": lambda traits: traits.strength != "none",
    "strength: none": lambda traits: traits.strength == "none",
    "mixes": lambda traits: traits.mixes,
    "no mixes": lambda traits: not traits.mixes,
    "texture": lambda traits: traits.texture,
    "no texture": lambda traits: not traits.texture,
    "tiled": lambda traits: traits.tiled,
    "not tiled": lambda traits: not traits.tiled,
    "context": lambda traits: bool(traits.context),
}

CHECKS: dict[str, Check] = {}


def check(
    name: str, summary: str, selected_by: str = "every method"
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Register the decorated function as a check for methods whose traits ``selected_by`` picks."""

    def register(test: Callable[[Subject], None]) -> Callable[[Subject], None]:
        if name in CHECKS or selected_by not in SELECTORS:
            raise ValueError(f"check {name!r} is registered twice or selected by an unknown trait")
        CHECKS[name] = Check(name, summary, selected_by, test)
        return test

    return register


def run_checks(
    target: str | Factory,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    only: Sequence[str] | None = None,
) -> list[CheckResult]:
    """Hold a method to its contract, check by check.

    ``target`` is a name of the registry or a :class:`Factory`; ``only`` limits to these names (wildcards allowed).
    Raises UnknownNameError for a name that matches no method or check, and what building the method raises.
    """
    chosen = select(only)
    subject = Subject(target, device=device, precision=precision)
    return [run_check(CHECKS[name], subject) for name in chosen]


def select(only: Sequence[str] | None) -> list[str]:
    """The names of checks that match, in the order in which they run."""
    if only is None:
        return list(CHECKS)
    for pattern in only:
        if not fnmatch.filter(CHECKS, pattern):
            raise UnknownNameError("check", pattern, CHECKS)
    return [name for name in CHECKS if any(fnmatch.fnmatchcase(name, pattern) for pattern in only)]


def run_check(item: Check, subject: Subject) -> CheckResult:
    """One check on one method. Any exception out of the method counts as a failure, with its message as reason.

    Global state that the method changes is put back, so that one fault does not show as another.
    """
    start = time.perf_counter()
    status: Literal["passed", "failed", "skipped"] = "passed"
    reason = ""
    if not SELECTORS[item.selected_by](subject.traits):
        status, reason = "skipped", f"only for methods with the trait '{item.selected_by}'"
    else:
        try:
            with process.kept():
                item.test(subject)
        except NotApplicableError as error:
            status, reason = "skipped", str(error)
        except ContractError as error:
            status, reason = "failed", str(error)
        except Exception as error:
            status, reason = "failed", f"raised {type(error).__name__}: {error}"
    return CheckResult(item.name, status, reason, time.perf_counter() - start)


class Subject:
    """The method under test with the pictures, codes and results that several checks share, each made once."""

    def __init__(self, target: str | Factory, *, device: str = "cpu", precision: Precision = "fp32") -> None:
        self.factory = _quick_by_name(target) if isinstance(target, str) else _quick(target)
        self.device, self.precision = device, precision
        self.model = self.build()
        self.traits = self.model.traits
        self.side = max(self.traits.min_size, _SIDE)
        self.size = (self.side + 1, self.side + 9)
        self._made: dict[str, Any] = {}

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What ``make`` returns, made at the first call with this key; a failure is raised anew each time."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def build(self, precision: str = "") -> Stylizer:
        """A new instance of the method."""
        with process.kept():
            return self.factory(device=self.device, precision=precision or self.precision)

    def content(self, index: int = 0, size: tuple[int, int] | None = None) -> Tensor:
        """A content picture (1, 3, H, W), new memory at each call."""
        return picture(*(size or self.size), seed=10 + index)

    def style(self, index: int = 0, size: tuple[int, int] | None = None) -> Tensor | str:
        """A style picture, or a trained style's name where the method knows only those."""
        if self.traits.styles == "trained":
            names = self.model.style_names
            if not names:
                raise ContractError("traits say styles are trained, but style_names is empty")
            if index >= len(names):
                raise NotApplicableError("the checkpoint holds one style only")
            return names[index]
        return picture(*(size or (self.side + 11, self.side + 3)), seed=20 + index, stripes=True)

    def code(self, index: int = 0) -> StyleCode:
        """The encoded style, from one encoding."""
        return self.once(f"code {index}", lambda: self.model.encode_style(self.style(index), self.size))

    @property
    def result(self) -> Stylized:
        """Content 0 in style 0 with every argument left at its default."""
        return self.once("result", lambda: self.stylize(self.content()))

    @property
    def baseline(self) -> Tensor:
        """The picture of :attr:`result`."""
        return self.result.image

    def stylize(self, content: Tensor, style: StyleCode | Mix | None = None, **arguments: Any) -> Stylized:
        """The public call, in style 0 unless told otherwise."""
        return self.model.stylize(content, style if style is not None else self.code(), **arguments)

    def same(self, a: Tensor, b: Tensor) -> bool:
        """Equal pixels: bit for bit on the CPU; on a GPU some kernels add in any order."""
        if self.model.device.type == "cpu":
            return torch.equal(a, b)
        return a.shape == b.shape and distance(a, b) < LEVEL


def picture(height: int, width: int, *, seed: int, stripes: bool = False) -> Tensor:
    """A picture with the looks of a photograph that matter here, (1, 3, H, W): smooth colour noise on three scales
    and sharp-edged discs; with ``stripes``, strokes across it that a style can be known by."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float32, device="cpu")

    image = torch.zeros(1, 3, height, width, dtype=torch.float32, device="cpu")
    for cells, weight in ((3, 0.5), (8, 0.3), (24, 0.2)):
        image += weight * F.interpolate(draw(1, 3, cells, cells), (height, width), mode="bicubic")
    y = torch.linspace(0, 1, height, dtype=torch.float32, device="cpu").view(-1, 1)
    x = torch.linspace(0, 1, width, dtype=torch.float32, device="cpu").view(1, -1)
    for center_y, center_x, radius in draw(6, 3).tolist():
        disc = (y - center_y) ** 2 + (x - center_x) ** 2 < (0.05 + 0.2 * radius) ** 2
        image = torch.where(disc, 0.4 * image + 0.6 * draw(1, 3, 1, 1), image)
    if stripes:
        angle, color = float(draw(1)) * math.pi, draw(1, 3, 1, 1) - 0.5
        phase = 2 * math.pi * 12 * (x * math.cos(angle) + y * math.sin(angle))
        image = image + 0.6 * color * torch.sin(phase)
    return image.clamp(0.02, 0.98)


def distance(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference of pixels; infinite where either is not finite."""
    value = float((a.double() - b.double()).abs().mean())
    return value if math.isfinite(value) else math.inf


def quick_options(config: Config) -> dict[str, Any]:
    """What makes an optimisation short: few steps, in total or per level, where the method has the option."""
    steps = getattr(config, "num_steps", None)
    if isinstance(steps, int) and steps > QUICK_STEPS:
        # Pictures drawn for the checks hold no face to align, and little to sample or to turn.
        others = {"iterations": 1, "align": "none", "samples": 64, "rotations": False}
        held = {name: value for name, value in others.items() if isinstance(getattr(config, name, None), type(value))}
        return {"num_steps": QUICK_STEPS, **held}
    if isinstance(steps, tuple):
        return {"num_steps": tuple(min(s, 2) for s in steps)}
    return {}


def _quick_by_name(name: str) -> Factory:
    resolved = load_registry().resolve(name)
    cls: type[Stylizer] = import_object(resolved.entry.implementation)
    return functools.partial(load, name, **quick_options(cls.Config.make(resolved.options)))


def _quick(factory: Factory) -> Factory:
    def build(*, device: str, precision: str) -> Stylizer:
        model = factory(device=device, precision=precision)
        options = quick_options(model.config)
        return model.with_config(**options) if options else model

    return build


def require(holds: bool, otherwise: str) -> None:
    """ContractError with the reason ``otherwise`` unless it holds."""
    if not holds:
        raise ContractError(otherwise)


@contextlib.contextmanager
def refused(what: str, *errors: type[ZooError]) -> Iterator[None]:
    """The block must raise one of ``errors``."""
    names = " or ".join(e.__name__ for e in errors)
    try:
        yield
    except errors:
        return
    except Exception as error:
        raise ContractError(f"{what} must raise {names}, but raised {type(error).__name__}: {error}") from error
    raise ContractError(f"{what} must raise {names}, but was accepted")
