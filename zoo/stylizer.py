"""The one interface behind which every method stands.

Callers use :meth:`Stylizer.encode_style`, :meth:`Stylizer.stylize` and :meth:`Stylizer.synthesize`. These public calls
check their arguments, move tensors to the device, run the method's private hook and check what comes back, so that a
method's file holds the paper and nothing else. A method implements::

    class MyMethod(Stylizer):
        traits = Traits(strength="feature", ...)
        Config = MyConfig

        def _build(self) -> None: ...                                  # networks, once, on self.device
        def _encode_style(self, style, content_size) -> dict: ...      # what it keeps of a style
        def _stylize(self, content, style, call) -> Stylized: ...      # one batch
        def _synthesize(self, style, size, call) -> Stylized: ...      # only with trait texture

Images everywhere are float32 RGB in [0, 1], shape (B, 3, H, W), sRGB. Nothing here prints.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import device as devices
from zoo.config import SEEDS, Config, shown
from zoo.errors import ConfigError, InputError, NumericalError, UnsupportedError, WeightsError

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
                digest.update(part.detach().cpu().contiguous().numpy().tobytes())
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
        parts = tuple((code, float(weight)) for code, weight in self.parts)
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
    """The arguments of one public call as a hook sees them: checked, on the device."""

    strength: float = 1.0
    seed: int = 0
    context: Context = field(default_factory=Context)
    progress: Progress | None = None

    def __post_init__(self) -> None:
        low, high = SEEDS
        if not low <= self.seed <= high:
            raise InputError(f"A seed is a whole number from {low} to {high}, not {shown(self.seed)}.")

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator from the seed. Draw noise for ONE image and expand it, so that a batch equals singles."""
        return torch.Generator(device=device).manual_seed(self.seed)

    def report(self, step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor]) -> bool:
        """Tell the caller; True when it asks to stop."""
        return bool(self.progress(step, total, losses, image)) if self.progress is not None else False


class Stylizer(ABC):
    """Base class of every method. See the module's docstring for what a method adds to it."""

    traits: ClassVar[Traits]
    Config: ClassVar[type[Config]] = Config
    name: str

    def __init__(
        self,
        config: Config | None = None,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        checkpoint: Path | None = None,
        name: str = "",
    ) -> None:
        """Build the method's networks on ``device``.

        ``precision`` is ``auto``, ``fp32``, ``bf16`` or ``fp16``: the format of convolutions and products.
        ``checkpoint`` is the safetensors file of a trained method. Usually called through ``zoo.load``.
        """
        self.config = config if config is not None else self.Config()
        if not isinstance(self.config, self.Config):
            raise ConfigError(f"{type(self).__name__} takes a {self.Config.__name__}, not {type(config).__name__}.")
        self.device = devices.resolve_device(device)
        wishes: dict[str, devices.Precision] = {"cpu": self.traits.cpu_precision, "cuda": self.traits.cuda_precision}
        preferred = wishes.get(self.device.type, "fp32")
        self.precision: devices.Precision = devices.resolve_precision(precision, self.device, preferred)
        self.checkpoint = checkpoint
        self.name = name or type(self).__name__.lower()
        # New modules draw their weights from the global generator before a checkpoint overwrites them.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            self._build()

    @property
    def _made_with(self) -> str:
        """What a style code depends on besides the style: the options, and whose weights."""
        return self.config.digest if self.checkpoint is None else f"{self.config.digest} {self.checkpoint}"

    @property
    def style_names(self) -> tuple[str, ...]:
        """The styles that the checkpoint was trained on, by name; overridden where ``traits.styles`` is ``trained``."""
        return ()

    # -- what a method implements -------------------------------------------------------------------------------

    def _build(self) -> None:
        """Create networks on ``self.device`` and load ``self.checkpoint``."""

    @abstractmethod
    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        """What the method keeps of a style. ``style.image`` is on the device; runs without gradients."""

    @abstractmethod
    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        """Stylise ``content`` (on the device). ``style`` always arrives as a :class:`Mix`, of one part unless the
        trait ``mixes`` is set. Runs without gradients; an optimiser enables them itself."""

    def _synthesize(self, style: Mix, size: tuple[int, int], call: Call) -> Stylized:
        """A texture of ``size`` (height, width); only with the trait ``texture``."""
        raise UnsupportedError(f"{self.name} cannot synthesise a texture without a content image.")

    def _as_network(self, style: Mix) -> nn.Module:
        """What ``_stylize`` runs for ``style``, as one module; only where it is one network and draws no noise."""
        if self.traits.iterative:
            reason = "it fits every picture by optimisation and has no network of its own"
        elif self.traits.styles == "any":
            reason = "it takes any style image, and only the network of a trained style is one whole (traits.styles)"
        else:
            reason = "it does not say what network a style is (Stylizer.as_network)"
        raise UnsupportedError(f"{self.name} cannot be exported: {reason}.")

    # -- public calls ------------------------------------------------------------------------------------------

    def encode_style(self, style: Style | Tensor | str, content_size: tuple[int, int] | None = None) -> StyleCode:
        """Encode a style once, for any number of contents.

        ``style`` is a :class:`Style`, an image tensor (1, 3, H, W) in [0, 1], or a trained style's name.
        ``content_size`` (height, width) matters only to methods that match scales with the content.
        Raises InputError for a malformed image, UnsupportedError for a kind of style the method does not take.
        """
        style = _as_style(style)
        if style.image is not None:
            check_images(style.image, "style", self.traits.min_size)
            if style.image.shape[0] != 1:
                raise InputError("A style is one image, shape (1, 3, H, W); mix several with Mix.")
        elif self.traits.styles == "any":
            raise UnsupportedError(f"{self.name} has no trained styles by name: give it a style image.")
        if style.mask is not None:
            shape = None if style.image is None else (1, 1, *style.image.shape[-2:])
            if shape is None:
                raise InputError("A style's mask goes with a style image, not with a trained style's name.")
            if tuple(style.mask.shape) != shape:
                raise InputError(f"The style's mask must have shape {shape}, got {tuple(style.mask.shape)}.")
            _check_values(style.mask, "style's mask")
            self._refuse("content_masks", "a part of a style, only one whole image: leave the style's mask out")
            if not (style.mask > 0).any():
                raise InputError("The style's mask covers nothing.")
        if style.labels is not None:
            self._refuse("content_labels", "a style's labels")
            if style.image is None:
                raise InputError("A style's labels go with a style image, not with a trained style's name.")
            _check_labels(style.labels, (1, 1, *style.image.shape[-2:]), "style's labels")
        tensors = {"image": style.image, "mask": style.mask, "labels": style.labels}
        given = {name: value.to(self.device) for name, value in tensors.items() if value is not None}
        moved = dataclasses.replace(style, **given)
        with torch.no_grad(), devices.ieee_float32(self.device):
            data = self._encode_style(moved, content_size)
        return StyleCode(self.name, self._made_with, style, data)

    def stylize(
        self,
        content: Tensor,
        style: StyleCode | Mix,
        *,
        strength: float = 1.0,
        seed: int = 0,
        context: Context | None = None,
        progress: Progress | None = None,
    ) -> Stylized:
        """Render ``content`` in ``style``.

        ``content`` is (B, 3, H, W) float32 in [0, 1] on any device; the result has the same shape and device.
        ``strength`` in [0, 1] is applied where ``traits.strength`` says. ``seed`` fixes all noise.
        Raises InputError (shape, dtype, range, size), UnsupportedError (strength, mix or context field the traits
        exclude), NumericalError (the method's output is not finite).
        """
        check_images(content, "content", self.traits.min_size)
        mix = self._as_mix(style)
        if not 0 <= strength <= 1:
            raise InputError(f"Strength must be between 0 and 1, got {strength:g}.")
        if strength != 1 and self.traits.strength == "none":
            raise UnsupportedError(f"{self.name} has no strength control: use strength 1.")
        context = context or Context()
        self._check_context(context, content, mix)
        if context.content_masks is None:
            mix = _without_zeros(mix)
        blend = strength if self.traits.strength == "blend" else 1.0
        batch = content.to(self.device)

        def finish(image: Tensor) -> Tensor:
            self._check_shape(image, content)
            image = self._finish(image, content.device)
            if blend == 1:
                return image
            # After the clamp: a pixel that the network takes beyond [0, 1] would outweigh the content's own.
            return self._finish(content + blend * (image - content), content.device)

        call = Call(
            1.0 if self.traits.strength == "blend" else float(strength),
            seed,
            _to(context, self.device),
            _through(progress, finish),
        )
        with torch.no_grad(), devices.ieee_float32(self.device):
            if self.traits.batched or batch.shape[0] == 1:
                result = self._padded(batch, mix, call)
            else:
                result = self._one_by_one(batch, mix, call)
            return dataclasses.replace(result, image=finish(result.image))

    def synthesize(
        self,
        style: StyleCode | Mix,
        size: tuple[int, int],
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Stylized:
        """A new texture of ``size`` (height, width) in ``style``; a new sample for each seed.

        Raises UnsupportedError unless the trait ``texture`` is set, InputError for a size under ``min_size``.
        """
        if not self.traits.texture:
            raise UnsupportedError(f"{self.name} cannot synthesise a texture without a content image.")
        if min(size) < self.traits.min_size:
            raise InputError(f"{self.name} needs at least {self.traits.min_size} pixels a side, got {size}.")
        mix = _without_zeros(self._as_mix(style))
        with torch.no_grad(), devices.ieee_float32(self.device):
            result = self._synthesize(mix, size, Call(seed=seed, progress=progress))
        if tuple(result.image.shape) != (1, 3, *size):
            raise InputError(f"{self.name} returned a texture of shape {tuple(result.image.shape)} for size {size}.")
        return dataclasses.replace(result, image=self._finish(result.image, self.device))

    def as_network(self, style: StyleCode | Mix) -> nn.Module:
        """The network that :meth:`stylize` runs for ``style``, to be exported (:mod:`zoo.export`).

        Images (B, 3, H, W) in [0, 1] to images of the same size, at full strength, not clamped; sides must be multiples
        of ``traits.multiple_of``. Raises UnsupportedError where the method is not one network.
        """
        return self._as_network(_without_zeros(self._as_mix(style)))

    def __call__(self, content: Tensor, style: Style | Tensor | str | StyleCode | Mix, **options: Any) -> Tensor:
        """Encode and stylise in one call: two images in, one image out. ``options`` go to :meth:`stylize`."""
        check_images(content, "content", self.traits.min_size)
        size = (content.shape[-2], content.shape[-1])
        code = style if isinstance(style, StyleCode | Mix) else self.encode_style(style, size)
        return self.stylize(content, code, **options).image

    def autocast(self) -> Any:
        """Context in which convolutions and products run in ``self.precision``."""
        return devices.autocast(self.device, self.precision)

    def with_config(self, **options: Any) -> Self:
        """The same method, device and weights with some options changed."""
        config = self.Config.make({**dataclasses.asdict(self.config), **options})
        return type(self)(
            config, device=self.device, precision=self.precision, checkpoint=self.checkpoint, name=self.name
        )

    # -- checks ------------------------------------------------------------------------------------------------

    def _as_mix(self, style: StyleCode | Mix) -> Mix:
        if isinstance(style, StyleCode):
            style = Mix([(style, 1.0)])
        if not isinstance(style, Mix):
            raise InputError("stylize takes a StyleCode from encode_style or a Mix of them, not a bare image.")
        if len(style) > 1 and not self.traits.mixes:
            raise UnsupportedError(f"{self.name} takes one style at a time.")
        for code, _ in style:
            if (code.method, code.config) != (self.name, self._made_with):
                raise InputError(
                    f"This style was encoded by {code.method} with other options or weights: "
                    f"encode it with this {self.name}."
                )
        return Mix([(code.to(self.device), weight) for code, weight in style])

    def _check_context(self, context: Context, content: Tensor, mix: Mix) -> None:
        for name in context.given():
            self._refuse(name, name.replace("_", " "))
        if context.init is not None:
            check_images(context.init, "init image")
            if context.init.shape != content.shape:
                raise InputError(
                    f"init must have the content's shape {tuple(content.shape)}, got {tuple(context.init.shape)}."
                )
        if context.content_masks is not None:
            wanted = (len(mix), *content.shape[-2:])
            if tuple(context.content_masks.shape) != wanted:
                got = tuple(context.content_masks.shape)
                raise InputError(f"Content masks must have shape {wanted} (styles, H, W), got {got}.")
            _check_values(context.content_masks, "content masks")
        if context.anchors is not None:
            shape, wanted = tuple(context.anchors.shape), (4, *content.shape[-2:])
            if len(content) != 1 or len(shape) != 4 or shape[1:] != wanted:
                raise InputError(
                    f"Anchors of one content must have shape (K, {', '.join(map(str, wanted))}), got {shape}."
                )
            _check_values(context.anchors, "anchors")
        labels = context.content_labels
        for source in (code.source for code, _ in mix):
            if (labels is None) != (source.labels is None):
                one, other = ("style", "content") if labels is None else ("content", "style")
                raise InputError(f"Labels of the {one} need labels of the {other} beside them.")
            if labels is None or source.labels is None:
                continue
            _check_labels(labels, (content.shape[0], 1, *content.shape[-2:]), "content's labels")
            lacking = sorted(set(labels.unique().tolist()) - set(source.labels.unique().tolist()))
            if lacking:
                raise InputError(f"The content has labels that the style lacks: {', '.join(map(str, lacking[:5]))}.")

    def _refuse(self, name: str, what: str) -> None:
        """UnsupportedError unless the traits list the context's field ``name``, to which ``what`` belongs."""
        if name not in self.traits.context:
            raise UnsupportedError(f"{self.name} does not take {what}.")

    def _padded(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        height, width = content.shape[-2:]
        m = self.traits.multiple_of
        right, bottom = -width % m, -height % m
        if right == bottom == 0:
            return self._stylize(content, style, call)

        def crop(image: Tensor) -> Tensor:
            return image[..., :height, :width]

        padded = {name: _pad(value, right, bottom) for name, value in call.context.given().items()}
        context = dataclasses.replace(call.context, **padded)
        call = dataclasses.replace(call, context=context, progress=_through(call.progress, crop))
        result = self._stylize(_pad(content, right, bottom), style, call)
        return dataclasses.replace(result, image=crop(result.image))

    def _one_by_one(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        results: list[Stylized] = []

        def whole(*current: Tensor) -> Tensor:
            # Images not yet reached stay as they came, so the shape holds.
            done = [*(r.image for r in results), *current]
            return torch.cat([*done, *content[len(done) :].split(1)])

        for index in range(content.shape[0]):
            own = {
                name: value[index : index + 1]
                for name, value in call.context.given().items()
                if name != "content_masks" and value.shape[0] == content.shape[0]
            }
            context = dataclasses.replace(call.context, **own)
            single = dataclasses.replace(call, context=context, progress=_through(call.progress, whole))
            results.append(self._padded(content[index : index + 1], style, single))
            if results[-1].stopped:
                break
        losses = [{"image": i, **row} for i, r in enumerate(results) for row in r.losses]
        extras = {name: [r.extras[name] for r in results if name in r.extras] for r in results for name in r.extras}
        return Stylized(whole(), sum(r.steps for r in results), losses, any(r.stopped for r in results), extras)

    def _check_shape(self, image: Tensor, like: Tensor) -> None:
        if image.shape != like.shape:
            raise InputError(f"{self.name} returned shape {tuple(image.shape)} for content {tuple(like.shape)}.")

    def _finish(self, image: Tensor, device: torch.device) -> Tensor:
        image = image.detach().to(device, torch.float32)
        if not torch.isfinite(image).all():
            raise NumericalError(f"{self.name} produced values that are not finite; try --precision fp32.")
        return image.clamp(0, 1).contiguous()


def check_images(images: Tensor, role: str, min_size: int = 1) -> None:
    """InputError unless ``images`` is (B, 3, H, W) float32, finite, in [0, 1] and at least ``min_size`` a side."""
    if not isinstance(images, Tensor):
        raise InputError(f"The {role} must be a torch tensor (B, 3, H, W), not {type(images).__name__}.")
    if images.dim() != 4 or images.shape[1] != 3 or images.shape[0] < 1:
        raise InputError(f"The {role} must have shape (B, 3, H, W), got {tuple(images.shape)}.")
    if images.dtype != torch.float32:
        raise InputError(f"The {role} must be float32 in [0, 1], got {images.dtype}.")
    height, width = images.shape[-2:]
    if min(height, width) < min_size:
        raise InputError(f"The {role} is {width} x {height} pixels; this method needs at least {min_size} a side.")
    _check_values(images, role)


def _check_values(values: Tensor, role: str) -> None:
    low, high = (float(v) for v in values.detach().float().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"The {role} holds values that are not finite.")
    if low < -1e-4 or high > 1 + 1e-4:
        raise InputError(f"The {role} must lie in [0, 1], got [{low:g}, {high:g}]; divide 8-bit values by 255.")


def _check_labels(labels: Tensor, shape: tuple[int, ...], role: str) -> None:
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


def _as_style(style: Style | Tensor | str) -> Style:
    if isinstance(style, Style):
        return style
    return Style(name=style) if isinstance(style, str) else Style(image=style)


def _without_zeros(mix: Mix) -> Mix:
    # A style of weight zero must not touch the result, not even through rounding: (1, 0) is the single style.
    return Mix([(code, weight) for code, weight in mix if weight > 0])


def _to(context: Context, device: torch.device) -> Context:
    return dataclasses.replace(context, **{name: value.to(device) for name, value in context.given().items()})


def _through(progress: Progress | None, show: Callable[[Tensor], Tensor]) -> Progress | None:
    # What a caller reads while waiting has the shape and size of what it will be given at the end.
    if progress is None:
        return None
    return lambda step, total, losses, image: progress(step, total, losses, lambda: show(image()))


def _pad(image: Tensor, right: int, bottom: int) -> Tensor:
    padded = F.pad(image.double() if image.dtype == torch.int64 else image, (0, right, 0, bottom), mode="reflect")
    return padded.to(image.dtype)
