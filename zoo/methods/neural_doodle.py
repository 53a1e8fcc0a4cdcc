"""Semantic style transfer: patches of the style go where labels say; doodles become paintings.

Champandard, *Semantic Style Transfer and Turning Two-Bit Doodles into Fine Artworks*, arXiv:1603.01768, 2016. The
author's code is alexjc/neural-doodle; the patches are those of Li and Wand 2016 (:mod:`zoo.methods.cnnmrf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from zoo import device as devices
from zoo.config import option
from zoo.images import resize
from zoo.methods._pixels import (
    PixelConfig,
    PixelMethod,
    Problem,
    Size,
    Terms,
    check_layers,
    layer_weights,
    mean_squares,
    size_of,
)
from zoo.nn.patches import PatchBank, match, rebuild
from zoo.nn.regions import feature_masks, label_masks
from zoo.stylizer import Call, Mix, Style, Stylized, Traits

# Two 3 x 3 patches side by side at relu4_1, an eighth of the image's side.
_MIN_SIDE = 32
_PATCH = 3


@dataclass(frozen=True)
class NeuralDoodleConfig(PixelConfig):
    """Options of :class:`NeuralDoodle`. The defaults are the preset ``neural-doodle.photo``."""

    num_steps: int = option(300, "Evaluations of loss and gradient, over all levels.", ge=1)
    levels: int = option(3, "Sizes gone through, coarse to fine, with equal shares of the steps.", ge=1, le=8)
    style_layers: tuple[str, ...] = option(("relu3_1", "relu4_1"), "Layers whose patches are matched to the style's.")
    style_layer_weights: tuple[float, ...] = option((1.0,), "One weight per style layer, or one for all.", ge=0)
    content_layers: tuple[str, ...] = option(("relu4_2",), "Layers whose features are matched to the content's.")
    content_layer_weights: tuple[float, ...] = option((1.0,), "One weight per content layer, or one for all.", ge=0)
    style_weight: float = option(25.0, "Weight of the patches' loss.", ge=0)
    content_weight: float = option(10.0, "Weight of the content loss; 0 for a doodle.", ge=0)
    semantic_weight: float = option(10.0, "Weight of labels against features in the search (gamma).", ge=0)
    smoothness: float = option(1.0, "Weight of the total variation, to the power of 1.25.", ge=0)
    stride: int = option(1, "Distance of neighboring patches of image and style.", ge=1)
    match_precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Format of the products that find the best patches; auto is the network's (--precision)."
    )
    pool: Literal["max", "avg"] = option("avg", "Pooling of the feature network.")

    def validate(self) -> None:
        check_layers(self, "content", "style")


class NeuralDoodle(PixelMethod):
    """Champandard 2016: a Markov random field whose patches are compared by features and by labels.

    Every patch of the image takes after the one of the style that is most like it, where likeness is the correlation
    of features plus ``semantic_weight`` times that of the label maps. Only features are optimised; labels decide where
    they come from. Without labels this is the method of Li and Wand. Coarse to fine, as there.

    A doodle (preset ``doodle``) has no photograph: a map is drawn, noise is fitted to the style's patches alone, and
    the content given is the drawn map itself, of which only the size is used.

    Labels come with the style (``Style.labels``) and the content (``Context.content_labels``), which may have no label
    that the style lacks. ``strength`` scales the patches' loss. Losses per step: ``patches``, ``content``,
    ``smoothness``. Extras: ``agreement``, by layer the share of patches whose match has their label at the end.

    | paper or author's code | here | why |
    | --- | --- | --- |
    | features of a patch divided by its norm | of a position | both maps weigh as told at every position, and the \
search is one product (zoo.nn.patches) |
    | squared distances of patches | of features to the mean of the matches over them | the same gradient |
    | the label map's colors as channels | a channel a label, of unit length | labels are as far apart as they can be |
    | 100 L-BFGS iterations at each of 3 phases | ``num_steps`` in all, 300 | a step means one evaluation |
    | L-BFGS-B, pixels bounded | pixels put back into range before every evaluation | one optimizer in the zoo |
    | noise from 16 to 240 | normal noise of the same deviation | one kind of noise |
    | ``variety`` 0 | left out | off by default there |
    """

    traits = Traits(
        iterative=True,
        source="image",
        strength="loss",
        batched=False,
        context=frozenset({"init", "content_labels"}),
        min_size=_MIN_SIDE,
        cpu_precision="bf16",
        pixel_bytes=1400,
    )
    Config = NeuralDoodleConfig
    config: NeuralDoodleConfig

    def _encode_style(self, style: Style, content_size: Size | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        levels = [self._features(resize(style.image, at), self.config.style_layers) for at in self._sizes_of(style)]
        return {"levels": levels, **({} if style.labels is None else {"labels": style.labels})}

    def _sizes_of(self, style: Style) -> list[Size]:
        assert style.image is not None
        return self._sizes(size_of(style.image))

    def _problem(self, content: Tensor | None, style: Mix, size: Size, call: Call) -> Problem:
        assert content is not None  # no trait texture
        ((code, _),) = style
        levels = code.data["levels"]
        sizes = self._sizes(size)[-len(levels) :]
        levels = levels[len(levels) - len(sizes) :]
        labels = (call.context.content_labels, code.data.get("labels"))
        return Problem(
            sizes=sizes,
            start=self._start(call, content),
            loss=lambda at, image: self._loss(resize(content, sizes[at]), levels[at], labels, call.strength),
        )

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        result = super()._stylize(content, style, call)
        labels = call.context.content_labels
        ((code, _),) = style
        if labels is None or call.strength == 0:
            return result
        features = self._features(result.image, self.config.style_layers)
        found = {
            layer: self._field(features[layer], wanted, labels, code.data["labels"]).agreement(features[layer])
            for layer, wanted in code.data["levels"][-1].items()
        }
        return Stylized(result.image, result.steps, result.losses, result.stopped, {"agreement": found})

    def _field(
        self, features: Tensor, style: Tensor, labels: Tensor | None, style_labels: Tensor | None
    ) -> LabeledPatches:
        dtype = self.precision if self.config.match_precision == "auto" else self.config.match_precision
        return LabeledPatches(
            style,
            size_of(features),
            labels,
            style_labels,
            weight=self.config.semantic_weight,
            stride=self.config.stride,
            dtype=devices.dtype_of(dtype),
        )

    def _loss(
        self,
        content: Tensor,
        style: Mapping[str, Tensor],
        labels: tuple[Tensor | None, Tensor | None],
        strength: float,
    ) -> Terms:
        config = self.config
        style_weights = layer_weights(config, "style")
        content_weights = layer_weights(config, "content") if config.content_weight else {}
        layers = (*style_weights, *content_weights)
        wanted = self._features(content, content_weights) if content_weights else {}
        fields: dict[str, LabeledPatches] = {}

        def loss(image: Tensor) -> dict[str, Tensor]:
            features = self._features(image, layers)
            for layer in style_weights.keys() - fields.keys():
                fields[layer] = self._field(features[layer], style[layer], *labels)
            matched = {layer: fields[layer].matched(features[layer].detach()) for layer in style_weights}
            terms = {"patches": (strength * config.style_weight) * mean_squares(features, matched, style_weights)}
            if content_weights:
                terms["content"] = config.content_weight * mean_squares(features, wanted, content_weights)
            if config.smoothness:
                terms["smoothness"] = config.smoothness * _roughness(image)
            return terms

        return loss


class LabeledPatches:
    """The patches of the style's features (1, C, h, w), to be found by features and labels together.

    ``size`` is that of the image's features. Without ``labels`` of both sides, features alone decide.
    """

    def __init__(
        self,
        style: Tensor,
        size: Size,
        labels: Tensor | None,
        style_labels: Tensor | None,
        *,
        weight: float,
        stride: int,
        dtype: torch.dtype,
    ) -> None:
        self.stride, self.dtype = stride, dtype
        self.values = PatchBank.of([style], _PATCH, stride)
        self.map = self.style_map = self.truth = None
        if labels is not None and style_labels is not None:
            known = label_masks(style_labels)
            here = label_masks(labels)
            nothing = torch.zeros_like(labels[0], dtype=torch.float32)
            shares = feature_masks(torch.cat([here.get(label, nothing) for label in known]), size)
            style_shares = feature_masks(torch.cat([*known.values()]), size_of(style))
            self.map, self.style_map = _label_map(shares, weight), _label_map(style_shares, weight)
            self.truth = shares.argmax(dim=0).flatten(), style_shares.argmax(dim=0).flatten()
        self.keys = PatchBank.of([_together(style, self.style_map)], _PATCH, stride)

    def _search(self, features: Tensor) -> tuple[PatchBank, Tensor]:
        query = PatchBank.of([_together(features, self.map)], _PATCH, self.stride)
        return query, match(query, self.keys, dtype=self.dtype).index

    def matched(self, features: Tensor) -> Tensor:
        """``features`` (1, C, H, W), every position replaced by the mean of the matched patches over it."""
        _, index = self._search(features)
        _, channels, height, width = features.shape
        query = PatchBank.of([features], _PATCH, self.stride)
        return rebuild(query, self.values, index).view(1, height, width, channels).permute(0, 3, 1, 2)

    def agreement(self, features: Tensor) -> float:
        """The share of patches whose match has the same label in its middle."""
        assert self.truth is not None
        query, index = self._search(features)
        middle = _PATCH // 2
        ours = query.rows(slice(None), middle, middle)
        theirs = self.values.rows(index, middle, middle)
        return float((self.truth[0][ours] == self.truth[1][theirs]).float().mean())


def _label_map(shares: Tensor, weight: float) -> Tensor:
    """Labels' shares (K, h, w) of each position as channels of length sqrt(weight), (1, K, h, w)."""
    return (weight**0.5 * shares / shares.norm(dim=0, keepdim=True).clamp_min(1e-12))[None]


def _together(features: Tensor, labels: Tensor | None) -> Tensor:
    """Features of unit length at every position, with the label map as further channels."""
    unit = features.float()
    unit = unit / unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return unit if labels is None else torch.cat([unit, labels], dim=1)


def _roughness(image: Tensor) -> Tensor:
    """The mean of squared differences of neighbors, in levels of 255, to the power of 1.25."""
    pixels = image * 255
    corner = pixels[..., :-1, :-1]
    squares = (pixels[..., :-1, 1:] - corner).square() + (pixels[..., 1:, :-1] - corner).square()
    return (squares + 1e-6).pow(1.25).mean()
