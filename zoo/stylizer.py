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
        def _stylize_tiles(self, content, style, call) -> Stylized: ... # only with trait tiled

Images everywhere are float32 RGB in [0, 1], shape (B, 3, H, W), sRGB. Nothing here prints.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import device as devices
from zoo.config import Config
from zoo.contract import (
    CONTEXT_FIELDS,
    Call,
    Context,
    Mix,
    Progress,
    Style,
    StyleCode,
    Stylized,
    Traits,
    check_images,
    check_labels,
    check_values,
    finite,
    require_tensors,
)
from zoo.errors import ConfigError, InputError, NumericalError, UnsupportedError, WeightsError
from zoo.memory import SMALLEST_TILE
from zoo.nn.tiles import Local, Whole, from_levels, store, to_levels, watched
from zoo.weights import sha256
from zoo.words import shown


class Stylizer(ABC):
    """Base class of every method. See the module's docstring for what a method adds to it."""

    traits: Traits
    Config: ClassVar[type[Config]] = Config
    # Whether ``_stylize_tiles`` takes a content of uint8, which zoo.nn.tiles.Whole reads as float32 tile by tile.
    reads_levels: ClassVar[bool] = False
    name: str
    # Of the checkpoint that was loaded, whatever lies at its path by now; empty without one.
    checkpoint_sha256: str

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
        ``checkpoint`` is the safetensors file of a trained method. Usually called through ``zoo.load``. Raises
        ConfigError, and WeightsError where the checkpoint cannot be read or is replaced meanwhile.
        """
        self.config = config if config is not None else self.Config()
        if not isinstance(self.config, self.Config):
            raise ConfigError(f"{type(self).__name__} takes a {self.Config.__name__}, not {type(config).__name__}.")
        self.device = devices.resolve_device(device)
        wishes: dict[str, devices.Precision] = {"cpu": self.traits.cpu_precision, "cuda": self.traits.cuda_precision}
        preferred = wishes.get(self.device.type, "fp32")
        self.precision: devices.Precision = devices.resolve_precision(precision, self.device, preferred)
        self.checkpoint = checkpoint
        self.checkpoint_sha256 = _hash_of(checkpoint)
        self.name = name or type(self).__name__.lower()
        # New modules draw their weights from the global generator before a checkpoint overwrites them.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            self._build()
        if _hash_of(checkpoint) != self.checkpoint_sha256:
            raise WeightsError(f"{checkpoint} was replaced while it was read: try again.")

    @property
    def _made_with(self) -> str:
        """What a style code depends on besides the style: the options, and whose weights."""
        return f"{self.config.digest} {self.checkpoint_sha256}"

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

    def _stylize_tiles(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        """What :meth:`_stylize` does, of one picture, with no more in memory than tiles of ``call.tile`` pixels a side
        and a few maps of the picture's size; only with the trait ``tiled``. :mod:`zoo.nn.tiles` has the pieces. Unless
        overridden it is ``_stylize``, which then looks at ``call.tile``."""
        return self._stylize(content, style, call)

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
            check_values(style.mask, "style's mask")
            self._refuse("content_masks", "a part of a style, only one whole image: leave the style's mask out")
            if not (style.mask > 0).any():
                raise InputError("The style's mask covers nothing.")
        if style.labels is not None:
            self._refuse("content_labels", "a style's labels")
            if style.image is None:
                raise InputError("A style's labels go with a style image, not with a trained style's name.")
            check_labels(style.labels, (1, 1, *style.image.shape[-2:]), "style's labels")
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
        tile: int | None = None,
        levels: bool = False,
    ) -> Stylized:
        """Render ``content`` in ``style``.

        ``content`` is (B, 3, H, W) float32 in [0, 1] on any device; the result has the same shape and device.
        ``strength`` in [0, 1] is applied where ``traits.strength`` says. ``seed`` fixes all noise.
        ``tile`` computes a picture larger than so many pixels a side by tiles, with the same result up to rounding.
        ``levels`` is for files: ``content`` may be uint8, and the result is uint8, rounded as :func:`zoo.write` does.
        By tiles, methods with ``reads_levels`` then hold no float32 of the whole picture.
        Raises InputError (shape, dtype, range, size), UnsupportedError (strength, mix, context field or tiles that the
        traits exclude), NumericalError (the method's output is not finite).
        """
        check_images(content, "content", self.traits.min_size, levels=levels)
        mix = self._as_mix(style)
        if not isinstance(strength, Real) or not 0 <= strength <= 1:
            raise InputError(f"Strength must be a number between 0 and 1, not {shown(strength)}.")
        if strength != 1 and self.traits.strength == "none":
            raise UnsupportedError(f"{self.name} has no strength control: use strength 1.")
        if tile is not None:
            self._check_tile(tile)
            tile = tile if tile < max(content.shape[-2:]) else None
        context = context or Context()
        self._check_context(context, content, mix)
        if context.content_masks is None:
            mix = _without_zeros(mix)
        blend = strength if self.traits.strength == "blend" else 1.0
        if tile is None or not self.reads_levels:
            content = from_levels(content)
        batch = content.to(self.device)

        def finish(image: Tensor) -> Tensor:
            self._check_shape(image, content)
            image = self._finish(from_levels(image), content.device)
            if blend == 1:
                return image
            # After the clamp: a pixel that the network takes beyond [0, 1] would outweigh the content's own.
            return self._finish(_blended(image, from_levels(content), blend), content.device)

        def rounded(image: Tensor) -> Tensor:
            self._check_shape(image, content)
            if image.dtype != torch.uint8:
                self._check_finite(image)
                result = Local(lambda part: part.float().clamp(0, 1), Whole(image))
                if blend != 1:
                    result = Local(lambda part, whole: _blended(part, whole, blend), result, Whole(batch))
                with watched(None):  # what is made is not given up any more
                    image = store(Local(to_levels, result), tile or max(image.shape)).tensor
            return image.to(content.device).contiguous()

        call = Call(
            1.0 if self.traits.strength == "blend" else float(strength),
            seed,
            _to(context, self.device),
            _through(progress, finish),
            tile,
            levels and blend == 1,
        )
        with torch.no_grad(), devices.ieee_float32(self.device):
            if (self.traits.batched and tile is None) or batch.shape[0] == 1:
                result = self._padded(batch, mix, call)
            else:
                result = self._one_by_one(batch, mix, call)
            return dataclasses.replace(result, image=(rounded if levels else finish)(result.image))

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
            check_values(context.content_masks, "content masks")
        if context.anchors is not None:
            shape, wanted = tuple(context.anchors.shape), (4, *content.shape[-2:])
            if len(content) != 1 or len(shape) != 4 or shape[1:] != wanted:
                raise InputError(
                    f"Anchors of one content must have shape (K, {', '.join(map(str, wanted))}), got {shape}."
                )
            check_values(context.anchors, "anchors")
        labels = context.content_labels
        for source in (code.source for code, _ in mix):
            if (labels is None) != (source.labels is None):
                one, other = ("style", "content") if labels is None else ("content", "style")
                raise InputError(f"Labels of the {one} need labels of the {other} beside them.")
            if labels is None or source.labels is None:
                continue
            check_labels(labels, (content.shape[0], 1, *content.shape[-2:]), "content's labels")
            lacking = sorted(set(labels.unique().tolist()) - set(source.labels.unique().tolist()))
            if lacking:
                raise InputError(f"The content has labels that the style lacks: {', '.join(map(str, lacking[:5]))}.")

    def _check_tile(self, tile: int) -> None:
        if not self.traits.tiled:
            raise UnsupportedError(
                f"{self.name} cannot be computed by tiles, only a whole picture at once: choose a smaller size where "
                "that does not fit into memory."
            )
        if not isinstance(tile, Integral) or tile < SMALLEST_TILE:
            raise InputError(f"A tile needs at least {SMALLEST_TILE} whole pixels a side, not {shown(tile)}.")

    def _refuse(self, name: str, what: str) -> None:
        """UnsupportedError unless the traits list the context's field ``name``, to which ``what`` belongs."""
        if name not in self.traits.context:
            raise UnsupportedError(f"{self.name} does not take {what}.")

    def _padded(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        height, width = content.shape[-2:]
        m, stylize = self.traits.multiple_of, self._stylize if call.tile is None else self._stylize_tiles
        right, bottom = -width % m, -height % m
        if right == bottom == 0:
            return stylize(content, style, call)

        def crop(image: Tensor) -> Tensor:
            return image[..., :height, :width]

        padded = {name: _pad(value, right, bottom) for name, value in call.context.given().items()}
        context = dataclasses.replace(call.context, **padded)
        call = dataclasses.replace(call, context=context, progress=_through(call.progress, crop))
        result = stylize(_pad(content, right, bottom), style, call)
        return dataclasses.replace(result, image=crop(result.image))

    def _one_by_one(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        results: list[Stylized] = []

        def whole(*current: Tensor) -> Tensor:
            # Images not yet reached stay as they came, so the shape holds.
            done = [*(r.image for r in results), *current]
            parts = [*done, *content[len(done) :].split(1)]
            alike = len({part.dtype for part in parts}) == 1
            return torch.cat(parts if alike else [from_levels(part) for part in parts])

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

    def _check_finite(self, image: Tensor) -> None:
        if not finite(image):
            raise NumericalError(f"{self.name} produced values that are not finite; try --precision fp32.")

    def _finish(self, image: Tensor, device: torch.device) -> Tensor:
        image = image.detach().to(device, torch.float32)
        self._check_finite(image)
        return image.clamp(0, 1).contiguous()


def _hash_of(checkpoint: Path | None) -> str:
    try:
        return sha256(checkpoint) if checkpoint is not None else ""
    except OSError:  # whoever reads it says what is wrong with it
        return ""


def _blended(image: Tensor, content: Tensor, share: float) -> Tensor:
    return content + share * (image - content)


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
    if not image.is_floating_point():  # of whole numbers torch pads none
        for axis, more in ((-1, right), (-2, bottom)):
            mirrored = image.narrow(axis, image.shape[axis] - 1 - more, more).flip(axis)
            image = torch.cat([image, mirrored], axis)
        return image
    return F.pad(image, (0, right, 0, bottom), mode="reflect")


__all__ = [
    "CONTEXT_FIELDS",
    "Call",
    "Context",
    "Mix",
    "Progress",
    "Style",
    "StyleCode",
    "Stylized",
    "Stylizer",
    "Traits",
    "check_images",
    "finite",
    "require_tensors",
]
