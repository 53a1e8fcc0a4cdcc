"""The interfaces of metrics: of one picture (:class:`Metric`) and of all pictures of a method (:class:`SetMetric`).

Output, content and style go in, one number comes out. A metric of a picture implements ``_measure``, one of
a set ``_begin``, ``_add`` and ``_value``; where it keeps networks, ``_build``. Direction, unit, range, scope, version
and reference live in registry.yaml. A metric always computes in float32 or better (on the CPU where a device has no
float64, on CUDA without TF32), and its value depends on the pixels
alone: not on their order, nor on what was measured before. It may keep what it computed
of a content or a style (``remember``), because those recur with every method.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import math
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from zoo.config import Config
from zoo.device import exact_device, ieee_float32, resolve_device
from zoo.encoders import load_encoder
from zoo.errors import InputError, NumericalError, UnsupportedError
from zoo.extras import lacking
from zoo.stylizer import check_images

T = TypeVar("T")

# Enough for the pairs of one protocol row by row; a Gram matrix set of VGG-19 is 2.4 MB.
_REMEMBERED = 16
# The features of one picture grow with it: 25 MB for LP at 512 pixels, 400 MB at 2048.
_REMEMBERED_BYTES = 256 << 20


class SmallSetWarning(UserWarning):
    """A set metric was computed of so few pictures that its value needs words beside it."""


class AnyMetric(ABC):
    """What metrics of pictures and of sets have in common. ``config`` holds the settings."""

    scope: ClassVar[Literal["pair", "set"]]
    Config: ClassVar[type[Config]] = Config

    def __init__(self, config: Config | None = None, *, device: str | torch.device = "cpu") -> None:
        self.config = config if config is not None else self.Config()
        self.device = exact_device(resolve_device(device))  # sums and products need float64
        self._memory: OrderedDict[str, Any] = OrderedDict()
        self._build()

    def _build(self) -> None:
        """Create networks on ``self.device``."""

    def remember(self, image: Tensor, compute: Callable[[Tensor], T]) -> T:
        """``compute(image)``, kept for the next call with the same pixels: 16 images, as far as 256 MiB hold them."""
        key = digest(image)
        if key not in self._memory:
            self._memory[key] = compute(image)
            while len(self._memory) > 1 and (
                len(self._memory) > _REMEMBERED or sum(map(_bytes, self._memory.values())) > _REMEMBERED_BYTES
            ):
                self._memory.popitem(last=False)
        self._memory.move_to_end(key)
        return self._memory[key]


class Metric(AnyMetric):
    """Base class of metrics that score one picture at a time."""

    scope = "pair"

    @abstractmethod
    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor | float:
        """One number, from images (1, 3, H, W) on ``self.device``; runs without gradients."""

    def many(self, outputs: Tensor, contents: Tensor, styles: Tensor) -> list[float]:
        """Score a batch: outputs and contents (B, 3, H, W), styles (B, 3, h, w), float32 RGB in [0, 1].

        Raises InputError for a malformed image or sizes that differ, NumericalError for a value that is not finite.
        """
        _check(outputs, contents, styles)
        with torch.no_grad(), ieee_float32(self.device):
            moved = [images.to(self.device) for images in (outputs, contents, styles)]
            # One picture at a time: a convolution's kernel may depend on the batch, and the value must not.
            values = [float(self._measure(*one)) for one in zip(*(images.split(1) for images in moved), strict=True)]
        if not all(map(math.isfinite, values)):
            raise NumericalError(f"{type(self).__name__} gave a value that is not finite.")
        return values

    def __call__(self, output: Tensor, content: Tensor, style: Tensor) -> float:
        """Score one picture: each image (1, 3, H, W)."""
        values = self.many(output, content, style)
        if len(values) != 1:
            raise InputError("Score one picture at a time, or use many().")
        return values[0]


class FeatureMetric(Metric):
    """Base of metrics that read a network's features, as the options ``encoder``, ``taps`` and ``pool`` say."""

    config: Any

    def _build(self) -> None:
        self.encoder = load_encoder(
            self.config.encoder, taps=self.config.taps, pool=self.config.pool, device=self.device
        )


class SetMetric(AnyMetric):
    """Base class of metrics that score all pictures of a method together: add each picture, read the value, and begin
    anew for another set.

    ``count`` is the number of pictures added since :meth:`begin`; ``note``, after :meth:`value`, what must be said
    beside it, or nothing.
    """

    scope = "set"

    def __init__(self, config: Config | None = None, *, device: str | torch.device = "cpu") -> None:
        super().__init__(config, device=device)
        self.begin()

    def begin(self) -> None:
        """Start a new set."""
        self.count, self.note = 0, ""
        self._begin()

    def add(self, output: Tensor, content: Tensor, style: Tensor) -> None:
        """Take one picture in: each image (1, 3, H, W), output and content of one size, float32 RGB in [0, 1].

        Raises InputError for a malformed image or sizes that differ.
        """
        _check(output, content, style)
        if len(output) != 1:
            raise InputError("Add one picture at a time.")
        with torch.no_grad(), ieee_float32(self.device):
            self._add(*(image.to(self.device) for image in (output, content, style)))
        self.count += 1

    def value(self) -> float:
        """The metric of what was added; warns (:class:`SmallSetWarning`) with ``note`` where there is one.

        Raises InputError for fewer than two pictures, NumericalError for a value that is not finite.
        """
        if self.count < 2:
            raise InputError(f"{type(self).__name__} compares sets of at least two pictures, not {self.count}.")
        with ieee_float32(self.device):
            value = self._value()
        if not math.isfinite(value):
            raise NumericalError(f"{type(self).__name__} gave a value that is not finite.")
        if self.note:
            warnings.warn(self.note, SmallSetWarning, stacklevel=2)
        return value

    @abstractmethod
    def _begin(self) -> None:
        """Forget what was added."""

    @abstractmethod
    def _add(self, output: Tensor, content: Tensor, style: Tensor) -> None:
        """Take in one picture on ``self.device``; runs without gradients."""

    @abstractmethod
    def _value(self) -> float:
        """The value, whatever the order in which pictures were added; sets ``note``."""


def _bytes(value: object) -> int:
    """Bytes of the tensors in ``value``, inside lists, tuples, dictionaries and dataclasses too."""
    if isinstance(value, Tensor):
        return value.numel() * value.itemsize
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    if dataclasses.is_dataclass(value):
        return sum(_bytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    return 0


def digest(image: Tensor) -> str:
    """Hex digits that identify an image by its pixels and shape."""
    return hashlib.sha256(repr(tuple(image.shape)).encode() + image.cpu().contiguous().numpy().tobytes()).hexdigest()


def _check(outputs: Tensor, contents: Tensor, styles: Tensor) -> None:
    for images, role in ((outputs, "output"), (contents, "content"), (styles, "style")):
        check_images(images, role)
    if outputs.shape != contents.shape:
        raise InputError(
            f"The output {tuple(outputs.shape)} and the content {tuple(contents.shape)} must have one shape."
        )
    if styles.shape[0] != outputs.shape[0]:
        raise InputError(f"There are {outputs.shape[0]} outputs and {styles.shape[0]} styles.")


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of two tensors as vectors, a scalar of their type; 1 for two zeros, 0 for one.

    One with a millionth of the other's length is a zero: features are float32 sums, and rounding leaves as much.
    """
    lengths = torch.linalg.vector_norm(first), torch.linalg.vector_norm(second)
    short, long = sorted(map(float, lengths))
    if short <= 1e-6 * long:
        return torch.full((), float(long == 0), dtype=first.dtype, device=first.device)
    return ((first * second).sum() / (lengths[0] * lengths[1])).clamp(-1, 1)


def import_package(name: str) -> Any:
    """A package of the extra ``metrics``; UnsupportedError, with the command that installs it, where it is missing.

    What it warns of when it is imported, and the warning filters that it sets, stay inside.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise UnsupportedError(lacking(name, "metrics")) from error
