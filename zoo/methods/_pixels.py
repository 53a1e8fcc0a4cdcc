"""What methods share that fit the pixels of one image: sizes coarse to fine, starts, limits, and layers with weights.

A method says what is fitted; everything else is here::

    class MyMethod(PixelMethod):
        traits = Traits(iterative=True, source="image", strength="loss", batched=False, ...)
        Config = MyConfig                                     # derived from PixelConfig

        def _encode_style(self, style, content_size): ...     # per size of self._sizes, usually
        def _problem(self, content, style, size, call):       # content is None for a texture
            sizes = self._sizes(size)
            return Problem(sizes, start=..., loss=lambda at, image: self._loss(...))

``loss(at, image)`` is called once for each size, in the order of ``sizes``, with the image that its steps begin at; it
returns the loss of an image as weighted terms by name. Their sum, the total variation, progress, time limits and the
best image so far are added here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.config import Config, option
from zoo.encoders import Encoder, load_encoder
from zoo.errors import ConfigError, UnsupportedError
from zoo.images import resize
from zoo.memory import style_tile
from zoo.methods._gram_tiles import Region, TiledLoss
from zoo.nn.gram import Divisor, gram
from zoo.nn.losses import total_variation
from zoo.nn.optimize import PIXEL_SCALE, Fitting, optimize_pixels
from zoo.nn.regions import feature_masks
from zoo.nn.tiles import Stopped, watched
from zoo.stylizer import Call, Mix, StyleCode, Stylized, Stylizer

Size = tuple[int, int]
Terms = Callable[[Tensor], dict[str, Tensor]]

# Mean color of ImageNet, RGB in levels of 255: what the network sees as zero. Noise is drawn around it.
MEAN = (123.68, 116.779, 103.939)

# relu5_1 has a sixteenth of the image's side, and with a single position its statistics say nothing; sides of relu4_1
# are an eighth: four positions hold two 3 x 3 patches side by side.
MIN_SIDE = 32

# What L-BFGS may keep of an image by tiles: 5 pairs at 4096 x 4096, all 25 of them up to 1890 x 1890.
HISTORY_BYTES = 2 << 30

# Traits are measured over five steps, of which L-BFGS has so many pairs; each takes two float32 images.
_MEASURED_PAIRS = 4
_PAIR_BYTES = 24


@dataclass(frozen=True)
class PixelConfig(Config):
    """Options that every method has that fits pixels; a method states its own defaults where they differ."""

    num_steps: int = option(500, "Evaluations of loss and gradient, over all levels.", ge=1)
    time_limit: float | None = option(None, "Seconds per image, after which the best one so far is returned.", gt=0)
    init: Literal["content", "noise"] = option("content", "The image the optimisation starts from.")
    noise_scale: float = option(1.0, "Deviation of the noise around the mean color, in levels of 255.", ge=0)
    levels: int = option(1, "Sizes gone through, coarse to fine, with equal shares of the steps.", ge=1, le=8)
    level_scale: float = option(0.5, "Side of one level relative to the next.", ge=0.25, lt=1)
    temporal_weight: float = option(1e4, "Weight of the difference to earlier frames of a film.", ge=0)
    tv_weight: float = option(0.0, "Weight of the total variation, in neural-style's unit.", ge=0)
    optimizer: Literal["lbfgs", "adam"] = option("lbfgs", "L-BFGS with a fixed step, or Adam.")
    learning_rate: float = option(1.0, "Length of the L-BFGS step, or Adam's rate in levels of 255.", gt=0)
    history: int = option(25, "Curvature pairs that L-BFGS keeps; each costs two images of memory.", ge=1)
    clamp: bool = option(True, "Put pixels back into range before every evaluation, and not only at the end.")
    encoder: str = option("vgg19", "Feature network.")
    pool: Literal["max", "avg"] = option("max", "Pooling of the feature network.")


def check_layers(config: Config, *kinds: str) -> None:
    """ConfigError unless options ``{kind}_layers`` name layers, each once, with weights that fit in number."""
    for kind in kinds:
        layers, weights = getattr(config, f"{kind}_layers"), getattr(config, f"{kind}_layer_weights")
        if not layers or len(set(layers)) < len(layers):
            raise ConfigError(f"Option '{kind}_layers' needs at least one layer, each once, not {layers}.")
        if len(weights) not in (1, len(layers)):
            raise ConfigError(
                f"Option '{kind}_layer_weights' has {len(weights)} values for {len(layers)} {kind} layers: "
                "give one each, or one for all."
            )


def layer_weights(config: Config, kind: str) -> dict[str, float]:
    """Return the weight of each of the ``{kind}_layers`` of ``config``, by the layer's name."""
    layers, weights = getattr(config, f"{kind}_layers"), getattr(config, f"{kind}_layer_weights")
    return dict(zip(layers, weights * len(layers) if len(weights) == 1 else weights, strict=True))


@dataclass(frozen=True, eq=False)
class Problem:
    """What one picture is fitted to.

    ``sizes`` in the order they are gone through, usually the coarsest first; the last is the picture's. ``start(size)``
    is the first image, ``loss(at, image)`` the loss at ``sizes[at]``, from where ``image`` stands. ``enter(at, image)``
    changes the image that a later size begins with. ``finish`` is applied at full size, for watchers too.
    ``shares`` are the sizes' parts of the steps, equal for None; what does not divide goes to the last.
    """

    sizes: Sequence[Size]
    start: Callable[[Size], Tensor]
    loss: Callable[[int, Tensor], Terms]
    finish: Callable[[Tensor], Tensor] | None = None
    enter: Callable[[int, Tensor], Tensor] | None = None
    shares: Sequence[float] | None = None


class PixelMethod(Stylizer):
    """A method that fits one image to a loss. Strength 0 is the content: without its style nothing pulls it away.

    Every such method can hold on to earlier frames of a film (``Context.anchors``), by the temporal loss of Ruder,
    Dosovitskiy and Brox, *Artistic Style Transfer for Videos*, GCPR 2016, eqs. 7 and 8: mean squares of differences in
    levels of 255, each pixel with its own weight. Their weight of 1000 stands beside a style weight of 100 in
    neural-style's unit (preset ``gatys.neural-style``); the default beside Gatys' own, which is 1000 in that unit.
    """

    config: PixelConfig

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "traits" in cls.__dict__:
            cls.traits = replace(cls.traits, context=cls.traits.context | {"anchors"})

    def _build(self) -> None:
        self._encoders: dict[tuple[str, ...], Encoder] = {}
        config = self.config
        if config.optimizer == "lbfgs":
            more = max(0, min(config.history, config.num_steps - 1) - _MEASURED_PAIRS)
            self.traits = replace(self.traits, pixel_bytes=self.traits.pixel_bytes + _PAIR_BYTES * more)

    def _encoder(self, layers: Iterable[str]) -> Encoder:
        """The network cut behind the deepest of ``layers``."""
        taps = tuple(dict.fromkeys(layers))
        if taps not in self._encoders:
            self._encoders[taps] = self._network(taps)
        return self._encoders[taps]

    def _network(self, taps: tuple[str, ...]) -> Encoder:
        return load_encoder(self.config.encoder, taps=taps, pool=self.config.pool, device=self.device)

    def _features(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Features of ``image`` (1, 3, H, W) at ``layers``, in the working precision."""
        encoder = self._encoder(layers)
        with self.autocast():
            return encoder(image)

    def _style_grams(
        self, image: Tensor, layers: Sequence[str], divisor: Divisor, masks: Sequence[Tensor | None] = (None,)
    ) -> list[dict[str, Tensor]]:
        """Gram matrices (1, C, C) by layer of each region of a style: of its mask (1, H, W), or of everything."""
        encoder, side = self._encoder(layers), style_tile(*size_of(image))
        if side is not None and _cuts(encoder, layers):
            run, regions = lambda part: self._features(part, layers), [Region({}, mask) for mask in masks]
            return TiledLoss(run, encoder, side, {}, False, dict.fromkeys(layers, 1.0), regions, divisor).grams(image)
        features = self._features(image, layers)
        return [
            {
                layer: gram(f, divisor, None if mask is None else feature_masks(mask, size_of(f))[0])
                for layer, f in features.items()
            }
            for mask in masks
        ]

    # -- what a method implements -----------------------------------------------------------------------------------

    def _problem(self, content: Tensor | None, style: Mix, size: Size, call: Call) -> Problem:
        """What a picture of ``size`` is fitted to; without ``content`` it is a texture."""
        raise NotImplementedError

    # -- sizes and starts -------------------------------------------------------------------------------------------

    def _sizes(self, size: Size) -> list[Size]:
        """The sizes that an image of ``size`` goes through, the coarsest first; none smaller than its layers take."""
        scale = self.config.level_scale
        levels = [k for k in range(self.config.levels) if k == 0 or min(size) * scale**k >= MIN_SIDE]
        return [self._level_size(size, k) for k in reversed(levels)]

    def _level_size(self, size: Size, level: int) -> Size:
        """``size`` at a level (0 is the full size), not under the smallest the deepest layer takes."""
        factor = max(self.config.level_scale**level, MIN_SIDE / min(size))
        return max(MIN_SIDE, round(size[0] * factor)), max(MIN_SIDE, round(size[1] * factor))

    def _noise(self, size: Size, call: Call) -> Tensor:
        noise = torch.randn((1, 3, *size), generator=call.generator()) * self.config.noise_scale
        return ((noise + torch.tensor(MEAN).view(1, 3, 1, 1)) / 255).to(self.device)

    def _start(self, call: Call, content: Tensor | None, style: Tensor | None = None) -> Callable[[Size], Tensor]:
        """The first image at a size: the caller's, or what option ``init`` says; noise for a texture."""

        def start(size: Size) -> Tensor:
            if call.context.init is not None:
                return resize(call.context.init, size)
            if content is None or self.config.init == "noise":
                return self._noise(size, call)
            image = style if self.config.init == "style" else None
            return resize(content if image is None else image, size)

        return start

    # -- from the start to the best image, coarse to fine -----------------------------------------------------------

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        if call.strength == 0:
            return Stylized(content.clone(), steps=0)
        return self._fit(self._problem(content, style, size_of(content), call), call)

    def _synthesize(self, style: Mix, size: Size, call: Call) -> Stylized:
        return self._fit(self._problem(None, style, size, call), call)

    def _fitting(self, at: int, problem: Problem) -> Fitting:
        """How the image is fitted at ``problem.sizes[at]``."""
        config = self.config
        return Fitting(config.optimizer, config.learning_rate, config.history, config.clamp, precision=self.precision)

    def _fit(self, problem: Problem, call: Call) -> Stylized:
        config, size = self.config, problem.sizes[-1]
        deadline = None if config.time_limit is None else time.monotonic() + config.time_limit

        def full(image: Tensor) -> Tensor:
            image = resize(image, size)
            with watched(None):  # what was found is not given up
                return problem.finish(image) if problem.finish is not None else image

        image: Tensor | None = None
        rows: list[Mapping[str, float]] = []
        stopped = False
        # A frame that others tell how it should look has all its detail in its start, which coarser sizes would lose.
        last = [(len(problem.sizes) - 1, config.num_steps)]
        for at, steps in _shared(config.num_steps, problem) if call.context.anchors is None else last:
            small = problem.sizes[at]
            image = problem.start(small) if image is None else resize(image, small)
            try:
                if problem.enter is not None:
                    image = problem.enter(at, image)
                fitted = optimize_pixels(
                    image,
                    self._summed(problem.loss(at, image), call.context.anchors, problem.finish),
                    self._within(self._fitting(at, problem), small, call),
                    num_steps=steps,
                    call=call,
                    deadline=deadline,
                    first_step=len(rows),
                    total_steps=config.num_steps,
                    show=full,
                )
            except Stopped:  # before the first step at this size: the best is that of the size before
                if not rows:
                    raise
                stopped = True
                break
            image, stopped = fitted.image, fitted.stopped
            rows += fitted.losses
            if stopped:
                break
        assert image is not None  # there is always the full size
        return Stylized(full(image), len(rows), rows, stopped)

    def _within(self, how: Fitting, size: Size, call: Call) -> Fitting:
        """``how`` with no more curvature pairs than memory is granted, for an image by tiles."""
        if call.tile is None:
            return how
        return replace(how, history=max(1, min(how.history, HISTORY_BYTES // (_PAIR_BYTES * size[0] * size[1]))))

    def _summed(self, terms_of: Terms, anchors: Tensor | None, finish: Callable[[Tensor], Tensor] | None) -> Terms:
        """The loss with its total variation, its distance to ``anchors`` and its total."""
        weight, steadiness = self.config.tv_weight, self.config.temporal_weight

        def loss(image: Tensor) -> dict[str, Tensor]:
            terms = terms_of(image)
            if weight:
                terms["tv"] = weight * total_variation(image)
            if anchors is not None and steadiness:
                shown = image if finish is None else finish(image)
                squares = (PIXEL_SCALE * (shown - anchors[:, :3])).square() * anchors[:, 3:]
                terms["temporal"] = steadiness * squares.mean((1, 2, 3)).sum()
            return {"total": total(terms.values()), **terms}

        return loss


def _cuts(encoder: Encoder, layers: Iterable[str]) -> bool:
    """Whether ``encoder`` can be run by tiles."""
    try:
        return all(encoder.reach(layer) >= 0 for layer in layers)
    except UnsupportedError:
        return False


def doubled_sizes(size: Size, levels: int, coarsest: int) -> list[Size]:
    """Return sizes that double from about ``coarsest`` on the long side to ``size``, at most ``levels`` of them."""
    sizes = [size]
    while len(sizes) < levels and max(sizes[0]) >= 1.5 * coarsest:
        smaller = (round(sizes[0][0] / 2), round(sizes[0][1] / 2))
        if min(smaller) < MIN_SIDE:
            break
        sizes.insert(0, smaller)
    return sizes


def _shared(num_steps: int, problem: Problem) -> list[tuple[int, int]]:
    """The number of each size that gets steps, and how many; with fewer steps than sizes, the last get one each."""
    count = len(problem.sizes)
    chosen = range(max(0, count - num_steps), count)
    parts = [problem.shares[at] if problem.shares else 1.0 for at in chosen]
    found, left = [], num_steps
    for place, (at, part) in enumerate(zip(chosen, parts, strict=True)):
        later = len(parts) - 1 - place
        steps = left if not later else min(max(1, int(num_steps * part / sum(parts) + 1e-9)), left - later)
        found.append((at, steps))
        left -= steps
    return found


def in_regions(style: Mix, masks: Tensor | None, size: Size) -> list[tuple[StyleCode, float, Tensor | None]]:
    """Each style with its weight and, where there are ``masks`` (K, H, W), its region's weights (h, w) at ``size``."""
    if masks is None:
        return [(code, weight, None) for code, weight in style]
    weights = feature_masks(masks, size)
    return [(code, 1.0, region) for (code, _), region in zip(style, weights, strict=True)]


def mean_squares(features: Mapping[str, Tensor], wanted: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the weighted sum over the layers of ``weights`` of mean squared differences of features."""
    return total(
        weight * (features[layer].float() - wanted[layer].float()).square().mean() for layer, weight in weights.items()
    )


def size_of(image: Tensor) -> Size:
    """Return height and width of images (B, C, H, W)."""
    return image.shape[-2], image.shape[-1]


def total(terms: Any) -> Tensor:
    """Return the sum of scalars."""
    return torch.stack(list(terms)).sum()
