"""Neural style transfer by optimising pixels: one image that has the content's features and the style's Gram matrices.

Gatys, Ecker, Bethge, *Image Style Transfer Using Convolutional Neural Networks*, CVPR 2016 (the equations below),
first as *A Neural Algorithm of Artistic Style*, arXiv:1508.06576, 2015. Colour: Gatys, Bethge, Hertzmann, Shechtman,
*Preserving Color in Neural Artistic Style Transfer*, 2016. Coarse to fine: Gatys et al., *Controlling Perceptual
Factors in Neural Style Transfer*, CVPR 2017, section 6.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from zoo import device as devices
from zoo.color import luminance, match_color, match_luminance, with_luminance
from zoo.config import Config, option
from zoo.encoders import Encoder, load_encoder
from zoo.errors import ConfigError, InputError, UnsupportedError
from zoo.images import resize
from zoo.nn.gram import gram
from zoo.nn.losses import total_variation
from zoo.nn.optimise import optimise_pixels
from zoo.stylizer import Call, Mix, Progress, Style, StyleCode, Stylized, Stylizer, Traits, check_images

Size = tuple[int, int]
Loss = Callable[[Tensor], dict[str, Tensor]]

# Mean colour of ImageNet, RGB in levels of 255: what the network sees as zero. Noise is drawn around it.
_MEAN = (123.68, 116.779, 103.939)

# relu5_1 has a sixteenth of the image's side; with a single position its Gram matrix says nothing.
_MIN_SIDE = 32


@dataclass(frozen=True)
class GatysConfig(Config):
    """Options of :class:`Gatys`. The defaults are the preset ``gatys.zoo``."""

    num_steps: int = option(500, "Evaluations of loss and gradient, over all levels.", ge=1)
    time_limit: float | None = option(None, "Seconds per image, after which the best one so far is returned.", gt=0)
    content_layers: tuple[str, ...] = option(("relu4_2",), "Layers whose features are matched to the content's.")
    content_layer_weights: tuple[float, ...] = option((1.0,), "One weight per content layer, or one for all.", ge=0)
    style_layers: tuple[str, ...] = option(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        "Layers whose Gram matrices are matched to the style's.",
    )
    style_layer_weights: tuple[float, ...] = option(
        (0.244140625, 0.06103515625, 0.0152587890625, 0.003814697265625, 0.003814697265625),
        "One weight per style layer, or one for all.",
        ge=0,
    )
    content_weight: float = option(1.0, "Weight of the content loss (alpha in eq. 7).", ge=0)
    style_weight: float = option(1.0, "Weight of the style loss (beta in eq. 7).", gt=0)
    tv_weight: float = option(0.0, "Weight of the total variation, in neural-style's unit.", ge=0)
    content_loss: Literal["mean", "half-sum"] = option("mean", "Squared differences of features: mean, or eq. 1.")
    gram_divisor: Literal["none", "hw", "chw"] = option("hw", "What a Gram matrix is divided by.")
    init: Literal["content", "style", "noise"] = option("content", "The image the optimisation starts from.")
    noise_scale: float = option(1.0, "Deviation of the noise around the mean colour, in levels of 255.", ge=0)
    optimizer: Literal["lbfgs", "adam"] = option("lbfgs", "L-BFGS with a fixed step, or Adam.")
    learning_rate: float = option(1.0, "Length of the L-BFGS step, or Adam's rate in levels of 255.", gt=0)
    history: int = option(25, "Curvature pairs that L-BFGS keeps; each costs two images of memory.", ge=1)
    clamp: bool = option(True, "Put pixels back into range before every evaluation, and not only at the end.")
    encoder: str = option("vgg19", "Feature network.")
    pool: Literal["max", "avg"] = option("max", "Pooling of the feature network.")
    levels: int = option(1, "Sizes gone through, coarse to fine, with equal shares of the steps.", ge=1, le=8)
    level_scale: float = option(0.5, "Side of one level relative to the next.", ge=0.25, lt=1)
    preserve_color: Literal["none", "luminance", "coral"] = option(
        "none", "Keep the content's colours: transfer luminance only, or give the style the content's colours first."
    )

    def validate(self) -> None:
        for kind in ("content", "style"):
            layers, weights = getattr(self, f"{kind}_layers"), getattr(self, f"{kind}_layer_weights")
            if not layers or len(set(layers)) < len(layers):
                raise ConfigError(f"Option '{kind}_layers' needs at least one layer, each once, not {layers}.")
            if len(weights) not in (1, len(layers)):
                raise ConfigError(
                    f"Option '{kind}_layer_weights' has {len(weights)} values for {len(layers)} {kind} layers: "
                    "give one each, or one for all."
                )

    def layer_weights(self, kind: Literal["content", "style"]) -> dict[str, float]:
        """Weight of each content or style layer, by name."""
        layers, weights = getattr(self, f"{kind}_layers"), getattr(self, f"{kind}_layer_weights")
        return dict(zip(layers, weights * len(layers) if len(weights) == 1 else weights, strict=True))


# -- the loss of one layer ------------------------------------------------------------------------------------------


def content_loss(features: Tensor, wanted: Tensor, reduction: Literal["mean", "half-sum"]) -> Tensor:
    """Squared difference of features: its mean, or eq. 1, half its sum."""
    wide = torch.promote_types(features.dtype, torch.float32)
    squares = (features.to(wide) - wanted.to(wide)).square()
    return squares.mean() if reduction == "mean" else squares.sum() / 2


@dataclass(frozen=True, eq=False)
class GramTarget:
    """The Gram matrix a layer should have, from one style or from a weighted set of them.

    The weighted mean of the losses to several styles is the loss to their mean Gram matrix plus a constant, their
    weighted ``spread`` around it: any number of styles costs as much as one.
    """

    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, grams: Sequence[Tensor], weights: Sequence[float]) -> GramTarget:
        """``weights`` sum to 1."""
        if len(grams) == 1:
            return cls(grams[0], torch.zeros_like(grams[0][0, 0, 0]))
        mean = torch.stack([w * g for g, w in zip(grams, weights, strict=True)]).sum(0)
        spread = torch.stack([w * (g - mean).square().mean() for g, w in zip(grams, weights, strict=True)]).sum()
        return cls(mean, spread)

    def loss(self, found: Tensor) -> Tensor:
        """Mean squared difference to the Gram matrix ``found``: four times eq. 4 where Gram matrices are divided by
        the number of positions."""
        return (found - self.mean).square().mean() + self.spread


def _targets(styles: Sequence[Sequence[Mapping[str, Tensor]]], weights: Sequence[float]) -> list[dict[str, GramTarget]]:
    """Targets by layer, for each level, from each style's Gram matrices by layer for each level."""
    return [
        {layer: GramTarget.of([grams[layer] for grams in level], weights) for layer in level[0]}
        for level in zip(*styles, strict=True)
    ]


class Gatys(Stylizer):
    """Gatys, Ecker and Bethge: style is the Gram matrices of a network's layers, content the features themselves.

    The presets, as the sources set them (all: L-BFGS, style on relu1_1 to relu5_1, content on relu4_2, VGG-19 with max
    pooling, unless the row says otherwise). Layer weights multiply the style weight; a mean is over all elements.

    | preset | Gram / | content loss | content : style weight | layer weights | TV | start | steps | else |
    |---|---|---|---|---|---|---|---|---|
    | zoo | HW | mean | 1 : 1 | 1000 / C^2 | - | content | 500 | clamp, history 25 |
    | pytorch | HW | mean | 1 : 1 | 1000 / C^2 | - | content | 500 | no clamp, history 100 |
    | neural-style | CHW | mean | 5 : 100 | 1 | 1e-3 | noise 0.001 | 1000 | no clamp, history 100 |
    | paper | HW | half sum (eq. 1) | 1 : 1000 | 1/4 (eq. 4) x 1/5 | - | noise | 500 | average pooling |
    | tutorial | CHW | mean | 1 : 1e6 | 1 | - | content | 300 | clamp; convolutions 1 to 5, content on the 4th |

    Sources: *pytorch* leongatys/PytorchNeuralStyleTransfer, the first author's own code; *neural-style*
    jcjohnson/neural-style; *paper* CVPR 2016, eqs. 1 to 7 and figure 3; *tutorial* the PyTorch tutorial "Neural
    Transfer Using PyTorch", made for torchvision's weights and therefore for the encoder ``vgg19.torchvision``. *zoo*
    is *pytorch* with pixels held in range and a quarter of the memory for L-BFGS.

    | paper | here | why |
    |---|---|---|
    | steps as an L-BFGS counts its iterations | one evaluation of loss and gradient | comparable between optimisers |
    | L-BFGS of the framework | own, with bounded moves (zoo.nn.optimise) | does not overshoot without a line search |
    | the last image | the evaluated image of lowest loss | L-BFGS without line search is not monotone |
    | pixels clamped when saved | at every evaluation (zoo) | clamping at the end alone doubles the style loss |
    | Gram matrices of a style of the content's size | each divided by its own number of positions | any size of style |
    | alpha / beta from 1e-3 to 1e-4 | 1e-3 (paper) | eq. 1 grows with the image, so the best value depends on it |
    | VGG-19 scaled to mean activation 1 | the original weights | the stated alpha / beta suits only them |
    | white noise to start from | mean colour, noise of one level | less grain is left over |
    | loss to one style | weighted sum over several | as jcjohnson/neural-style |
    """

    traits = Traits(
        kind="optimisation",
        strength="loss",
        batched=False,
        mixes=True,
        texture=True,
        context=frozenset({"init"}),
        min_size=_MIN_SIDE,
        cpu_precision="bf16",
        pixel_bytes=1400,
    )
    Config = GatysConfig
    config: GatysConfig

    def _build(self) -> None:
        self._encoders: dict[tuple[str, ...], Encoder] = {}
        self._encoder((*self.config.content_layers, *self.config.style_layers))

    def _encoder(self, layers: tuple[str, ...]) -> Encoder:
        """The network cut behind the deepest of ``layers``."""
        if layers not in self._encoders:
            self._encoders[layers] = load_encoder(
                self.config.encoder, taps=layers, pool=self.config.pool, device=self.device
            )
        return self._encoders[layers]

    # -- what is kept of a style: Gram matrices at every level ------------------------------------------------------

    def _encode_style(self, style: Style, content_size: Size | None) -> Mapping[str, Any]:
        if style.image is None or style.mask is not None:
            raise UnsupportedError("gatys takes a style as one whole image: leave the mask out.")
        if self.config.preserve_color != "none":
            # The Gram matrices wait for the content, on whose colours they will depend.
            return {"image": style.image}
        kept = {"image": style.image} if self.config.init == "style" else {}
        return {**kept, "grams": self._grams(style.image)}

    def _grams(self, image: Tensor) -> list[dict[str, Tensor]]:
        """Gram matrices (eq. 3) by layer, for each level from the full size down."""
        encoder = self._encoder(self.config.style_layers)
        grams = []
        for level in range(self.config.levels):
            with self.autocast():
                features = encoder(resize(image, self._level_size(_size(image), level)))
            grams.append({layer: gram(f, self.config.gram_divisor) for layer, f in features.items()})
        return grams

    def _recall(self, code: StyleCode, content: Tensor | None) -> tuple[Tensor | None, list[dict[str, Tensor]]]:
        """A style's image, where it was kept, in the colours that suit ``content``; and its Gram matrices."""
        image: Tensor | None = code.data.get("image")
        if image is not None and content is not None:
            if self.config.preserve_color == "luminance":
                image = _as_grey(match_luminance(image, content))
            elif self.config.preserve_color == "coral":
                image = match_color(image, content).clamp(0, 1)
        if "grams" in code.data:
            return image, code.data["grams"]
        assert image is not None  # one of the two is always kept
        return image, self._grams(image)

    # -- the three things to optimise for ---------------------------------------------------------------------------

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        if call.strength == 0:
            # Without the style term the content itself is the minimum.
            return Stylized(content.clone(), steps=0)
        grey = self.config.preserve_color == "luminance"
        photo = _as_grey(luminance(content)) if grey else content
        images, grams = zip(*[self._recall(code, content) for code, _ in style], strict=True)
        targets = _targets(grams, [weight for _, weight in style])

        def start(size: Size) -> Tensor:
            if call.context.init is not None:
                return resize(call.context.init, size)
            if self.config.init == "noise":
                return self._noise(size, call)
            image = images[0] if self.config.init == "style" else None
            return resize(photo if image is None else image, size)

        return self._optimise(
            _size(content),
            start,
            lambda size, level: self._loss(resize(photo, size), targets[level], call.strength),
            call,
            finish=(lambda image: with_luminance(content, luminance(image))) if grey else None,
        )

    def _synthesize(self, style: Mix, size: Size, call: Call) -> Stylized:
        grams = [self._recall(code, None)[1] for code, _ in style]
        targets = _targets(grams, [weight for _, weight in style])
        return self._optimise(
            size,
            lambda size: self._noise(size, call),
            lambda size, level: self._loss(None, targets[level]),
            call,
        )

    def reconstruct_content(
        self, content: Tensor, layer: str | None = None, *, seed: int = 0, progress: Progress | None = None
    ) -> Stylized:
        """What a layer knows of an image: noise fitted to its features alone (section 2.1 and figure 1).

        ``content`` is (1, 3, H, W) float32 in [0, 1]; ``layer`` a tap such as ``relu2_2``, else the configured content
        layers. The counterpart for style, from any set of layers, is :meth:`synthesize`. Raises InputError for a
        malformed image, UnknownNameError for a layer that the network lacks.
        """
        check_images(content, "content", self.traits.min_size)
        if content.shape[0] != 1:
            raise InputError(f"reconstruct_content takes one image, shape (1, 3, H, W), not {tuple(content.shape)}.")
        model = self
        if layer is not None and self.config.content_layers != (layer,):
            model = self.with_config(content_layers=(layer,), content_layer_weights=(1.0,))
        image, call = content.to(self.device), Call(seed=seed, progress=progress)
        with torch.no_grad(), devices.ieee_float32(self.device):
            result = model._optimise(
                _size(image),
                lambda size: model._noise(size, call),
                lambda size, level: model._loss(resize(image, size), None),
                call,
            )
        return dataclasses.replace(result, image=self._finish(result.image, content.device))

    # -- the loss: eq. 7 ----------------------------------------------------------------------------------------------

    def _loss(self, content: Tensor | None, style: Mapping[str, GramTarget] | None, strength: float = 1.0) -> Loss:
        """Weighted terms and their ``total`` as a function of the image; a term without target is left out."""
        config = self.config
        content_weights = config.layer_weights("content") if content is not None else {}
        style_weights = config.layer_weights("style") if style is not None else {}
        content_factor = config.content_weight if style is not None else 1.0
        encoder = self._encoder((*content_weights, *style_weights))
        wanted: Mapping[str, Tensor] = {}
        if content is not None:
            with self.autocast():
                wanted = self._encoder(tuple(content_weights))(content)

        def loss(image: Tensor) -> dict[str, Tensor]:
            with self.autocast():
                features = encoder(image)
            terms: dict[str, Tensor] = {}
            if content is not None:
                terms["content"] = content_factor * _total(
                    weight * content_loss(features[layer], wanted[layer], config.content_loss)
                    for layer, weight in content_weights.items()
                )
            if style is not None:
                terms["style"] = (strength * config.style_weight) * _total(
                    weight * style[layer].loss(gram(features[layer], config.gram_divisor))
                    for layer, weight in style_weights.items()
                )
            if config.tv_weight:
                terms["tv"] = config.tv_weight * total_variation(image)
            return {"total": _total(terms.values()), **terms}

        return loss

    # -- from the start to the best image, coarse to fine -------------------------------------------------------------

    def _optimise(
        self,
        size: Size,
        start: Callable[[Size], Tensor],
        loss: Callable[[Size, int], Loss],
        call: Call,
        finish: Callable[[Tensor], Tensor] | None = None,
    ) -> Stylized:
        """Fit an image of ``size``, from ``start(size)``, to the ``loss(size, level)`` of each level in turn.

        ``finish`` is applied to the image at its full size, here and for whoever watches.
        """
        config = self.config
        deadline = None if config.time_limit is None else time.monotonic() + config.time_limit
        levels = [k for k in range(config.levels) if k == 0 or min(size) * config.level_scale**k >= _MIN_SIDE]
        levels = levels[: config.num_steps][::-1]
        share, rest = divmod(config.num_steps, len(levels))

        def full(image: Tensor) -> Tensor:
            image = resize(image, size)
            return finish(image) if finish is not None else image

        image: Tensor | None = None
        rows: list[Mapping[str, float]] = []
        stopped = False
        for level in levels:
            small = self._level_size(size, level)
            fitted = optimise_pixels(
                start(small) if image is None else resize(image, small),
                loss(small, level),
                optimiser=config.optimizer,
                num_steps=share + (rest if level == 0 else 0),
                learning_rate=config.learning_rate,
                call=call,
                deadline=deadline,
                first_step=len(rows),
                total_steps=config.num_steps,
                clamp=config.clamp,
                history=config.history,
                precision=self.precision,
                show=full,
            )
            image, stopped = fitted.image, fitted.stopped
            rows += fitted.losses
            if stopped:
                break
        assert image is not None  # there is always the full size
        return Stylized(full(image), len(rows), rows, stopped)

    def _level_size(self, size: Size, level: int) -> Size:
        """``size`` at a level (0 is the full size), not under the smallest the deepest layer takes."""
        factor = max(self.config.level_scale**level, _MIN_SIDE / min(size))
        return max(_MIN_SIDE, round(size[0] * factor)), max(_MIN_SIDE, round(size[1] * factor))

    def _noise(self, size: Size, call: Call) -> Tensor:
        noise = torch.randn((1, 3, *size), generator=call.generator()) * self.config.noise_scale
        return ((noise + torch.tensor(_MEAN).view(1, 3, 1, 1)) / 255).to(self.device)


def _size(image: Tensor) -> Size:
    height, width = image.shape[-2:]
    return height, width


def _as_grey(y: Tensor) -> Tensor:
    return y.clamp(0, 1).expand(-1, 3, -1, -1).contiguous()


def _total(terms: Any) -> Tensor:
    return torch.stack(list(terms)).sum()
