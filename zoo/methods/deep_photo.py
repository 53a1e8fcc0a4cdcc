"""Deep photo style transfer: the colors of another photograph, with every edge and line where it was.

Luan, Paris, Shechtman, Bala, *Deep Photo Style Transfer*, CVPR 2017; the equations below. The authors' code is
luanfujun/deep-photo-styletransfer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.config import option
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
    mean_squares,
    total,
)
from zoo.nn.matting import LocalAffine, TiledAffine
from zoo.nn.regions import label_masks
from zoo.stylizer import Call, Mix, Style, Traits


@dataclass(frozen=True)
class DeepPhotoConfig(PixelConfig):
    """Options of :class:`DeepPhoto`. The defaults are the preset ``deep-photo.zoo``."""

    num_steps: int = option(400, "Evaluations of loss and gradient, half of them without the affine term.", ge=1)
    levels: int = option(1, "Sizes gone through: the picture's alone.", ge=1, le=1)
    level_scale: float = option(0.5, "Without a meaning at one size.", ge=0.5, le=0.5)
    content_layers: tuple[str, ...] = option(("relu4_2",), "Layers whose features are matched to the content's.")
    content_layer_weights: tuple[float, ...] = option((1.0,), "One weight per content layer, or one for all.", ge=0)
    style_layers: tuple[str, ...] = option(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        "Layers whose Gram matrices are matched to the style's, label by label.",
    )
    style_layer_weights: tuple[float, ...] = option((1.0,), "One weight per style layer, or one for all.", ge=0)
    content_weight: float = option(5.0, "Weight of the content loss (alpha in eq. 4).", ge=0)
    style_weight: float = option(100.0, "Weight of the style loss (Gamma in eq. 4).", gt=0)
    affine_weight: float = option(1e4, "Weight of the departure from local affine maps (lambda in eq. 4).", ge=0)
    epsilon: float = option(1e-7, "Regularization of the affine map of a window of 3 x 3.", gt=0)
    smoothing_radius: int = option(15, "Radius of the affine smoothing of the result; 0 for none.", ge=0)
    smoothing_epsilon: float = option(0.01, "Regularization of the smoothing's affine maps.", gt=0)
    tv_weight: float = option(1e-3, "Weight of the total variation, in neural-style's unit.", ge=0)
    clamp: bool = option(False, "Put pixels back into range before every evaluation, and not only at the end.")

    def validate(self) -> None:
        check_layers(self, "content", "style")


class DeepPhoto(PixelMethod):
    """Luan et al. 2017: Gatys' losses, label by label, under a penalty for all that is no recoloring of the photograph.

    The style loss compares Gram matrices within regions of one label (eq. 3), so that sky takes its colors from sky.
    The photorealism term (eq. 2) is what is left of the picture when in every window of 3 x 3 pixels the best affine
    map of the photograph's colors is taken away: V^T L V with the matting Laplacian. The first half of the steps runs
    without it. Then and at the end the picture is smoothed: every pixel gets the photograph's color under the mean
    affine map around it.

    Labels come with the style (``Style.labels``) and the content (``Context.content_labels``); without them the whole
    pictures are matched. ``strength`` scales the style loss.

    | paper or authors' code | here | why |
    | --- | --- | --- |
    | 1,000 + 1,000 L-BFGS iterations | 200 + 200 evaluations (``zoo``), 1,000 + 1,000 (``paper``) | minutes on a CPU |
    | the sparse matrix L | sums over windows (zoo.nn.matting) | the same numbers, without 25 entries a pixel |
    | paper: every label counts alike | by its share of the positions, as the code has it | a position weighs the same \
whatever the labels |
    | code: the first half begins with noise | with the content | fewer steps, and it is what a photograph keeps |
    | labels dilated with the network's layers | by area | one way of scaling regions |
    | the second half begins with the first one's result | with that, smoothed | without a line search L-BFGS takes \
hundreds of steps to undo what the affine term forbids |
    | smoothing: maps of 3 x 3 windows, averaged with weights of a bilateral filter (radius 15, edge 0.01) | a guided \
filter of that radius, the edge as its epsilon | sums over windows |
    | stopped by the number of iterations | the same, or ``time_limit``; Ctrl-C keeps the best picture | as everywhere |
    """

    traits = Traits(
        iterative=True,
        source="image",
        strength="loss",
        batched=False,
        context=frozenset({"init", "content_labels"}),
        min_size=MIN_SIDE,
        cpu_precision="bf16",
        pixel_bytes=1800,
        tiled=True,
        kept_bytes=24,
        tiled_styles=True,
    )
    Config = DeepPhotoConfig
    config: DeepPhotoConfig

    def _encode_style(self, style: Style, content_size: Size | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        masks = {"all": None} if style.labels is None else label_masks(style.labels)
        grams = self._style_grams(style.image, self.config.style_layers, "chw", list(masks.values()))
        return {"grams": {str(label): one for label, one in zip(masks, grams, strict=True)}}

    def _problem(self, content: Tensor | None, style: Mix, size: Size, call: Call) -> Problem:
        assert content is not None  # no trait texture
        ((code, _),) = style
        grams: Mapping[str, Mapping[str, Tensor]] = code.data["grams"]
        labels = call.context.content_labels
        masks: dict[str, Tensor | None] = {"all": None}
        if labels is not None:
            masks = {str(label): mask for label, mask in label_masks(labels).items()}
        regions = [
            Region({layer: GramTarget.of([one], [1.0]) for layer, one in grams[label].items()}, mask)
            for label, mask in masks.items()
        ]
        windows = _windows(content, 1, self.config.epsilon, call.tile) if self.config.affine_weight else None
        smooth = self._smoothing(content, call.tile)
        return Problem(
            sizes=[size, size],
            start=self._start(call, content),
            loss=lambda at, image: self._loss(content, regions, windows if at else None, call),
            enter=lambda at, image: smooth(image) if at and smooth is not None else image,
            finish=smooth,
        )

    def _smoothing(self, content: Tensor, tile: int | None) -> Callable[[Tensor], Tensor] | None:
        """The local affine smoothing of a picture, by the photograph; None without it."""
        if not self.config.smoothing_radius:
            return None
        windows: list[LocalAffine | TiledAffine] = []

        def finish(image: Tensor) -> Tensor:
            if not windows:
                radius, epsilon = self.config.smoothing_radius, self.config.smoothing_epsilon
                windows.append(_windows(content, radius, epsilon, tile))
            return windows[0].filtered(image)

        return finish

    def _loss(
        self, content: Tensor, regions: Sequence[Region], windows: LocalAffine | TiledAffine | None, call: Call
    ) -> Terms:
        matched = self._matched(content, regions, call)

        def loss(image: Tensor) -> dict[str, Tensor]:
            terms = matched(image)
            if windows is not None:
                terms["affine"] = self.config.affine_weight * windows.energy(image)
            return terms

        return loss

    def _matched(self, content: Tensor, regions: Sequence[Region], call: Call) -> Terms:
        """The terms of features."""
        config = self.config
        content_weights, style_weights = layer_weights(config, "content"), layer_weights(config, "style")
        layers = (*content_weights, *style_weights)
        if call.tile is not None:
            return TiledLoss(
                run=lambda image: self._features(image, layers),
                encoder=self._encoder(layers),
                side=call.tile,
                content={layer: config.content_weight * weight for layer, weight in content_weights.items()},
                halves=False,
                style={layer: call.strength * config.style_weight * weight for layer, weight in style_weights.items()},
                regions=regions,
                divisor="chw",
            ).of(content)
        wanted = self._features(content, content_weights)

        def loss(image: Tensor) -> dict[str, Tensor]:
            features = self._features(image, layers)
            return {
                "content": config.content_weight * mean_squares(features, wanted, content_weights),
                "style": (call.strength * config.style_weight)
                * total(
                    weight * region.loss(layer, features[layer], "chw")
                    for region in regions
                    for layer, weight in style_weights.items()
                ),
            }

        return loss


def _windows(guide: Tensor, radius: int, epsilon: float, tile: int | None) -> LocalAffine | TiledAffine:
    return LocalAffine(guide, radius, epsilon) if tile is None else TiledAffine(guide, radius, epsilon, tile)
