"""What passes between a caller and a method: styles, mixes, regions, results, and what a method promises.

:mod:`zoo.stylizer` has the interface itself, and hands all of these on. Images everywhere are float32 RGB in [0, 1],
shape (B, 3, H, W), sRGB.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from zoo import device as devices
from zoo.config import SEEDS
from zoo.errors import ConfigError, InputError, WeightsError, reason
from zoo.words import shown

CONTEXT_FIELDS = ("init", "content_masks", "content_labels", "anchors")


@dataclass(frozen=True)
class Traits:
    """What a method promises; the contract checks hold it to each one.

    iterative:      works in steps: reports losses, stops early with the best so far
    source:         where pixels come from: fitted directly (``image``), out of a trained ``network``, or ``strokes``
    styles:         ``any`` takes every style image; ``trained`` only the names its checkpoint lists
    strength:       where :meth:`Stylizer.stylize` applies ``strength``: in the features, the (normalisation)
                    parameters, the loss, by blending pixels with the content, or not at all
    strength_zero:  what strength 0 gives: the content itself, or the method's reconstruction of it
    deterministic:  same seed, device and threads give the same pixels
    batched:        a batch runs at once; False where images would influence each other (an optimiser), and then the
                    public call loops over them
    mixes:          accepts a :class:`Mix` of several styles
    texture:        has :meth:`Stylizer.synthesize`
    context:        the fields of :class:`Context` it accepts; with ``content_masks`` it also takes a style's mask,
                    with ``content_labels`` a style's labels
    min_size:       smallest side of content and style, in pixels
    pixel_bytes:    bytes that one more pixel of the content takes at the peak of a call, in bfloat16 with the default
                    options, rounded down (results/speed); larger pictures than fit are refused before the work
    tiled:          has :meth:`Stylizer._stylize_tiles`: a picture too large for memory, tile by tile
    kept_bytes:     bytes per pixel of the maps that such a picture keeps whole, in bfloat16, at least
    tiled_styles:   gathers the statistics of a large style by tiles (:func:`zoo.memory.style_tile`)
    multiple_of:    content is padded (reflection) to a multiple of this and cropped back; 1 means never padded
    cpu_precision:  what ``auto`` means on a CPU with bfloat16 arithmetic; set to bf16 only with a measured deviation
    cuda_precision: the same on CUDA
    """

    strength: Literal["feature", "params", "loss", "blend", "none"]
    iterative: bool = False
    source: Literal["image", "network", "strokes"] = "network"
    strength_zero: Literal["content", "reconstruction"] = "content"
    styles: Literal["any", "trained"] = "any"
    deterministic: bool = True
    batched: bool = True
    mixes: bool = False
    texture: bool = False
    context: frozenset[str] = frozenset()
    min_size: int = 16
    pixel_bytes: int = 0
    tiled: bool = False
    kept_bytes: int = 0
    tiled_styles: bool = False
    multiple_of: int = 1
    cpu_precision: devices.Precision = "fp32"
    cuda_precision: devices.Precision = "fp32"

    def __post_init__(self) -> None:
        unknown = self.context - set(CONTEXT_FIELDS)
        if unknown:
            raise ConfigError(f"Traits name unknown context fields: {', '.join(sorted(unknown))}.")
        if self.min_size < 1 or self.multiple_of < 1:
            raise ConfigError("Traits min_size and multiple_of must be at least 1.")
        if self.multiple_of >= 2 * self.min_size:
            # Reflection cannot add as many pixels as the image has.
            raise ConfigError(f"Traits multiple_of {self.multiple_of} needs min_size above {self.multiple_of // 2}.")

    def of_width(self, width: int, usual: int) -> Traits:
        """The same of a network whose maps have ``width`` channels where those that were measured have ``usual``."""
        taken = {name: getattr(self, name) * width // usual for name in ("pixel_bytes", "kept_bytes")}
        return dataclasses.replace(self, **taken)


@dataclass(frozen=True, eq=False)
class Style:
    """A style as the caller has it: an image ((1, 3, H, W), float32 RGB in [0, 1]) or the name of a trained style.

    ``mask`` ((1, 1, H, W) in [0, 1], same H and W) keeps only a part of the image, where the method can. ``labels``
    ((1, 1, H, W) whole numbers from 0, int64) say what each pixel shows; a method that takes them pairs its regions
    with those of the same number in :attr:`Context.content_labels`.
    """

    image: Tensor | None = None
    name: str | None = None
    mask: Tensor | None = None
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.image is None and not self.name:
            raise InputError("A style needs an image or the name of a trained style.")

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits that identify the pixels (mask and labels too), or the name where there is no image.

        Computed once, when first asked for: of a picture of 512 x 512 it takes 3 ms.
        """
        digest = hashlib.sha256()
        for part in (self.image, self.mask, self.labels):
            if part is not None:
                digest.update(repr(tuple(part.shape)).encode())
                digest.update(part.detach().cpu().contiguous().numpy().data)
        if self.image is None:
            digest.update((self.name or "").encode())
        return digest.hexdigest()[:16]


def _map_tensors(value: Any, apply: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return apply(value)
    if isinstance(value, Mapping):
        return {k: _map_tensors(v, apply) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map_tensors(v, apply) for v in value)
    return value


@dataclass(frozen=True, eq=False)
class StyleCode:
    """What a method keeps of one style: computed once, reused over many contents.

    ``data`` belongs to the method (tensors in dicts, lists and tuples). ``method`` and ``config`` say who made it;
    another method or configuration refuses it. ``source`` is the style as the caller gave it.
    """

    method: str
    config: str
    source: Style
    data: Mapping[str, Any]

    @property
    def style(self) -> str:
        """The style's :attr:`Style.hash`."""
        return self.source.hash

    @property
    def label(self) -> str:
        """The style's name, or its hash where it has none."""
        return self.source.name or self.source.hash

    def to(self, device: str | torch.device) -> StyleCode:
        """The same code with every tensor on ``device``; on MPS those of float64 are on the CPU beside it."""
        there = torch.device(device)
        return dataclasses.replace(self, data=_map_tensors(self.data, lambda t: devices.moved(t, there)))

    @property
    def nbytes(self) -> int:
        """Bytes held by the code's tensors."""
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        _map_tensors(self.data, count)
        return total


@dataclass(frozen=True, eq=False)
class Mix:
    """Several styles with weights that are not negative and sum to 1: ``Mix([(code_a, 0.3), (code_b, 0.7)])``."""

    parts: Sequence[tuple[StyleCode, float]]

    def __post_init__(self) -> None:
        try:
            parts = tuple((code, float(weight)) for code, weight in self.parts)
        except (TypeError, ValueError, OverflowError) as error:
            told = f"a mix is style codes, each with a number, such as [(a, 0.3), (b, 0.7)] ({reason(error)})"
            raise InputError(f"Style weights must be numbers: {told}.") from error
        if any(not isinstance(code, StyleCode) for code, _ in parts):
            raise InputError("A mix is of style codes: encode each style with encode_style first.")
        object.__setattr__(self, "parts", parts)
        weights = [weight for _, weight in parts]
        if not parts:
            raise InputError("A mix of styles needs at least one style.")
        if any(not math.isfinite(w) or w < 0 for w in weights):
            raise InputError(f"Style weights must be finite and not negative, got {weights}.")
        if abs(sum(weights) - 1) > 1e-4:
            raise InputError(f"Style weights must sum to 1, got {weights} with sum {sum(weights):g}.")

    def __iter__(self) -> Iterator[tuple[StyleCode, float]]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


@dataclass(frozen=True, eq=False)
class Context:
    """What goes beyond one content and one style; a method accepts the fields its traits list, any other raises.

    init:             (B, 3, H, W) image an optimisation starts from
    content_masks:    (K, H, W) in [0, 1], one region per style of the :class:`Mix`; a style's own region is Style.mask
    content_labels:   (B, 1, H, W) int64 from 0, what each pixel shows; with the :attr:`Style.labels` of every style
    anchors:          (K, 4, H, W) in [0, 1], images that one result should equal, and how much at each pixel: earlier
                      frames of a film (:mod:`zoo.controls.video`)
    """

    init: Tensor | None = None
    content_masks: Tensor | None = None
    content_labels: Tensor | None = None
    anchors: Tensor | None = None

    def given(self) -> dict[str, Tensor]:
        """The fields that are set."""
        return {name: value for name in CONTEXT_FIELDS if (value := getattr(self, name)) is not None}


class Progress(Protocol):
    """Told after every step; returning True asks the method to stop and hand over its best image so far.

    ``image()`` reads the current image ((B, 3, H, W), clamped to [0, 1]); it costs nothing unless called.
    """

    def __call__(
        self, step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /
    ) -> bool | None: ...


@dataclass(frozen=True, eq=False)
class Stylized:
    """A result: ``image`` (B, 3, H, W) in [0, 1]; per-step ``losses`` (dicts with ``step`` and each term) where the
    method optimises; ``steps`` done; ``stopped`` when ended early by the caller or a time limit; ``extras`` what else
    it makes, by name (strokes, correspondences, maps), of a batch one after another in a list."""

    image: Tensor
    steps: int = 1
    losses: Sequence[Mapping[str, float]] = ()
    stopped: bool = False
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Call:
    """The arguments of one public call as a hook sees them: checked, on the device.

    ``tile`` is the side of the tiles in pixels for :meth:`Stylizer._stylize_tiles`, None for a whole picture;
    ``levels`` whether their result is for a file, so that :func:`zoo.nn.tiles.collect` makes uint8 of it.
    """

    strength: float = 1.0
    seed: int = 0
    context: Context = field(default_factory=Context)
    progress: Progress | None = None
    tile: int | None = None
    levels: bool = False

    def __post_init__(self) -> None:
        low, high = SEEDS
        if not isinstance(self.seed, Integral) or not low <= self.seed <= high:
            raise InputError(f"A seed is a whole number from {low} to {high}, not {shown(self.seed)}.")

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator from the seed. Draw noise for ONE image and expand it, so that a batch equals singles."""
        return torch.Generator(device=device).manual_seed(self.seed)

    def report(self, step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor]) -> bool:
        """Tell the caller; True when it asks to stop."""
        return bool(self.progress(step, total, losses, image)) if self.progress is not None else False


def check_images(images: Tensor, role: str, min_size: int = 1, *, levels: bool = False) -> None:
    """InputError unless ``images`` is (B, 3, H, W) float32, finite, in [0, 1] and at least ``min_size`` a side; with
    ``levels`` it may also be uint8."""
    if not isinstance(images, Tensor):
        raise InputError(f"The {role} must be a torch tensor (B, 3, H, W), not {type(images).__name__}.")
    if images.dim() != 4 or images.shape[1] != 3 or images.shape[0] < 1:
        raise InputError(f"The {role} must have shape (B, 3, H, W), got {tuple(images.shape)}.")
    exact = images.dtype == torch.float32
    if not (exact or (levels and images.dtype == torch.uint8)):
        raise InputError(f"The {role} must be float32 in [0, 1], got {images.dtype}.")
    height, width = images.shape[-2:]
    if min(height, width) < min_size:
        raise InputError(f"The {role} is {width} x {height} pixels; this method needs at least {min_size} a side.")
    if exact:
        check_values(images, role)


def finite(values: Tensor) -> bool:
    """Return whether all of ``values`` are finite; of a whole picture torch.isfinite makes a copy, this does not."""
    return bool(torch.stack(values.aminmax()).isfinite().all())


def check_values(values: Tensor, role: str) -> None:
    low, high = (float(v) for v in values.detach().float().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"The {role} holds values that are not finite.")
    if low < -1e-4 or high > 1 + 1e-4:
        raise InputError(f"The {role} must lie in [0, 1], got [{low:g}, {high:g}]; divide 8-bit values by 255.")


def check_labels(labels: Tensor, shape: tuple[int, ...], role: str) -> None:
    if tuple(labels.shape) != shape:
        raise InputError(f"The {role} must have shape {shape}, got {tuple(labels.shape)}.")
    if labels.dtype != torch.int64 or (labels < 0).any():
        raise InputError(f"The {role} must be whole numbers from 0 (int64), got {labels.dtype} from {labels.min()}.")


def require_tensors(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """WeightsError, naming the first few differences, unless names and shapes agree and all of ``state`` is finite.

    A ReLU turns what is not a number into zero on some processors, so broken weights would give a grey picture.
    """
    missing = sorted(set(expected) - set(state))
    extra = sorted(set(state) - set(expected))
    shapes = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(expected[k].shape)}"
        for k in sorted(set(state) & set(expected))
        if state[k].shape != expected[k].shape
    ]
    parts = [f"missing {', '.join(missing[:4])}"] * bool(missing) + [f"unknown {', '.join(extra[:4])}"] * bool(extra)
    parts += shapes[:4]
    if parts:
        raise WeightsError(f"{source} does not fit this network: {'; '.join(parts)}.")
    broken = [name for name, tensor in sorted(state.items()) if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(
            f"{source} is broken: {', '.join(broken[:4])} {'holds' if len(broken) == 1 else 'hold'} values that are no "
            "finite numbers. Fetch or train the weights again."
        )
