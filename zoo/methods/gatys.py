"""Neural style transfer by optimising pixels: one image that has the content's features and the style's Gram matrices.

Gatys, Ecker, Bethge, *Image Style Transfer Using Convolutional Neural Networks*, CVPR 2016 (the equations below),
first as *A Neural Algorithm of Artistic Style*, arXiv:1508.06576, 2015. Colour: Gatys, Bethge, Hertzmann, Shechtman,
*Preserving Color in Neural Artistic Style Transfer*, 2016. Coarse to fine: Gatys et al., *Controlling Perceptual
Factors in Neural Style Transfer*, CVPR 2017, section 6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from zoo import device as devices
from zoo.color import luminance, match_color, match_luminance, with_luminance
from zoo.config import option
from zoo.errors import InputError
from zoo.images import resize
from zoo.methods._gram_tiles import GramTarget, Region, TiledLoss
from zoo.methods._pixels import (
    MIN_SIDE,
    PixelConfig,
    PixelMethod,
    Problem,
    Size,
    Terms,
    check_layers,
    layer_weights,
    size_of,
    total,
)
from zoo.stylizer import Call, Mix, Progress, Style, StyleCode, Stylized, Traits, check_images

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class GatysConfig(PixelConfig):
    """Options of :class:`Gatys`. The defaults are the preset ``gatys.zoo``."""

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
    init: Literal["content", "style", "noise"] = option("content", "The image the optimisation starts from.")
    content_weight: float = option(1.0, "Weight of the content loss (alpha in eq. 7).", ge=0)
    style_weight: float = option(1.0, "Weight of the style loss (beta in eq. 7).", gt=0)
    content_loss: Literal["mean", "half-sum"] = option("mean", "Squared differences of features: mean, or eq. 1.")
    gram_divisor: Literal["none", "hw", "chw"] = option("hw", "What a Gram matrix is divided by.")
    preserve_color: Literal["none", "luminance", "coral"] = option(
        "none", "Keep the content's colours: transfer luminance only, or give the style the content's colours first."
    )

    def validate(self) -> None:
        check_layers(self, "content", "style")


# -- the loss of one layer ------------------------------------------------------------------------------------------


def content_loss(features: Tensor, wanted: Tensor, reduction: Literal["mean", "half-sum"]) -> Tensor:
    """Squared difference of features: its mean, or eq. 1, half its sum."""
    wide = torch.promote_types(features.dtype, torch.float32)
    squares = (features.to(wide) - wanted.to(wide)).square()
    return squares.mean() if reduction == "mean" else squares.sum() / 2


class Gatys(PixelMethod):
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
    | L-BFGS of the framework | own, with bounded moves (zoo.nn.optimize) | does not overshoot without a line search |
    | the last image | the evaluated image of lowest loss | L-BFGS without line search is not monotone |
    | pixels clamped when saved | at every evaluation (zoo) | clamping at the end alone doubles the style loss |
    | Gram matrices of a style of the content's size | each divided by its own number of positions | any size of style |
    | alpha / beta from 1e-3 to 1e-4 | 1e-3 (paper) | eq. 1 grows with the image, so the best value depends on it |
    | VGG-19 scaled to mean activation 1 | the original weights | the stated alpha / beta suits only them |
    | white noise to start from | mean colour, noise of one level | less grain is left over |
    | loss to one style | weighted sum over several | as jcjohnson/neural-style |
    | 2017, section 4.1: every region counts alike | by its share of the positions | a position weighs the same \
whatever the regions, and a mask of everything changes nothing |
    | 2017: regions eroded by the receptive field, and one more for the whole image | by area, positions on a border \
shared | no option to choose per layer, and small regions keep their style |
    """

    traits = Traits(
        iterative=True,
        source="image",
        strength="loss",
        batched=False,
        mixes=True,
        texture=True,
        context=frozenset({"init", "content_masks"}),
        min_size=MIN_SIDE,
        cpu_precision="bf16",
        pixel_bytes=1400,
        tiled=True,
        kept_bytes=24,
        tiled_styles=True,
    )
    Config = GatysConfig
    config: GatysConfig

    def _build(self) -> None:
        super()._build()
        self._encoder((*self.config.content_layers, *self.config.style_layers))

    # -- what is kept of a style: Gram matrices at every level ------------------------------------------------------

    def _encode_style(self, style: Style, content_size: Size | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        mask = {} if style.mask is None else {"mask": style.mask}
        if self.config.preserve_color != "none":
            # The Gram matrices wait for the content, on whose colours they will depend.
            return {"image": style.image, **mask}
        kept = {"image": style.image} if self.config.init == "style" else {}
        return {**kept, "grams": self._grams(style.image, style.mask)}

    def _grams(self, image: Tensor, mask: Tensor | None) -> list[dict[str, Tensor]]:
        """Gram matrices (eq. 3) by layer, for each level down to the full size."""
        layers, divisor, masks = self.config.style_layers, self.config.gram_divisor, [None if mask is None else mask[0]]
        levels = (resize(image, size) for size in self._style_sizes(image))
        return [self._style_grams(one, layers, divisor, masks)[0] for one in levels]

    def _style_sizes(self, image: Tensor) -> list[Size]:
        """The size of a style at every level, down to the full size."""
        return [self._level_size(size_of(image), level) for level in range(self.config.levels - 1, -1, -1)]

    def _recall(self, code: StyleCode, content: Tensor | None) -> tuple[Tensor | None, list[dict[str, Tensor]]]:
        """A style's image, where it was kept, in the colours that suit ``content``; and its Gram matrices."""
        image: Tensor | None = code.data.get("image")
        if image is not None and content is not None:
            if self.config.preserve_color == "luminance":
                image = _as_gray(match_luminance(image, content))
            elif self.config.preserve_color == "coral":
                image = match_color(image, content).clamp(0, 1)
        if "grams" in code.data:
            return image, code.data["grams"]
        assert image is not None  # one of the two is always kept
        return image, self._grams(image, code.data.get("mask"))

    # -- what is optimised for --------------------------------------------------------------------------------------

    def _problem(self, content: Tensor | None, style: Mix, size: Size, call: Call) -> Problem:
        gray = self.config.preserve_color == "luminance" and content is not None
        photo = _as_gray(luminance(content)) if gray and content is not None else content
        images, grams = zip(*[self._recall(code, content) for code, _ in style], strict=True)
        sizes = self._sizes(size)

        def loss(at: int, image: Tensor) -> Terms:
            level = [one[at - len(sizes)] for one in grams]
            masks = call.context.content_masks
            regions = [Region(_targets(level, [weight for _, weight in style]))]
            if masks is not None:
                regions = [Region(_targets([one], [1.0]), masks, index) for index, one in enumerate(level)]
            guide = None if photo is None else resize(photo, size_of(image))
            if call.tile is not None and max(size_of(image)) > call.tile:
                return self._loss_by_tiles(guide, regions, call.strength, call.tile)
            return self._loss(guide, regions, call.strength, self._also(at - len(sizes), style, call))

        finish = None
        if gray and content is not None:
            finish = lambda image: with_luminance(content, luminance(image))  # noqa: E731
        return Problem(sizes, self._start(call, photo, images[0]), loss, finish)

    def _also(self, level: int, style: Mix, call: Call) -> Mapping[str, Callable[[Tensor], Mapping[str, Tensor]]]:
        """Further terms, by the layer whose features they are functions of, at a level (-1 is the finest)."""
        return _NOTHING

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

        def loss(at: int, current: Tensor) -> Terms:
            return model._loss(resize(image, size_of(current)), [])

        with torch.no_grad(), devices.ieee_float32(self.device):
            problem = Problem(model._sizes(size_of(image)), lambda size: model._noise(size, call), loss)
            result = model._fit(problem, call)
        return dataclasses.replace(result, image=self._finish(result.image, content.device))

    # -- the loss: eq. 7 ----------------------------------------------------------------------------------------------

    def _loss(
        self,
        content: Tensor | None,
        regions: Sequence[Region],
        strength: float = 1.0,
        also: Mapping[str, Callable[[Tensor], Mapping[str, Tensor]]] = _NOTHING,
    ) -> Terms:
        """Weighted terms as a function of the image; a term without target is left out. ``also`` are functions of
        further layers' features, whose terms, not yet weighted by anything, come after these."""
        config = self.config
        content_weights = layer_weights(config, "content") if content is not None else {}
        style_weights = layer_weights(config, "style") if regions else {}
        content_factor = config.content_weight if regions else 1.0
        layers = (*content_weights, *style_weights, *also)
        wanted = {} if content is None else self._features(content, content_weights)

        def loss(image: Tensor) -> dict[str, Tensor]:
            features = self._features(image, layers)
            terms: dict[str, Tensor] = {}
            if content is not None:
                terms["content"] = content_factor * total(
                    weight * content_loss(features[layer], wanted[layer], config.content_loss)
                    for layer, weight in content_weights.items()
                )
            if regions:
                terms["style"] = (strength * config.style_weight) * total(
                    weight * region.loss(layer, features[layer], config.gram_divisor)
                    for layer, weight in style_weights.items()
                    for region in regions
                )
            for layer, more in also.items():
                for name, value in more(features[layer]).items():
                    terms[name] = terms[name] + value if name in terms else value
            return terms

        return loss

    def _loss_by_tiles(self, content: Tensor | None, regions: Sequence[Region], strength: float, side: int) -> Terms:
        """The same terms, tile by tile of ``side`` pixels."""
        config = self.config
        content_weights = layer_weights(config, "content") if content is not None else {}
        layers = (*content_weights, *layer_weights(config, "style"))
        return TiledLoss(
            run=lambda image: self._features(image, layers),
            encoder=self._encoder(layers),
            side=side,
            content={layer: config.content_weight * weight for layer, weight in content_weights.items()},
            halves=config.content_loss == "half-sum",
            style={k: strength * config.style_weight * v for k, v in layer_weights(config, "style").items()},
            regions=regions,
            divisor=config.gram_divisor,
        ).of(content)


def _targets(grams: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, GramTarget]:
    """Targets by layer from each style's Gram matrices by layer."""
    return {layer: GramTarget.of([one[layer] for one in grams], weights) for layer in grams[0]}


def _as_gray(y: Tensor) -> Tensor:
    return y.clamp(0, 1).expand(-1, 3, -1, -1).contiguous()
