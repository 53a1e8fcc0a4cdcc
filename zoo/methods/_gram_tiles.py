"""Gram matrices as targets; their loss (Gatys et al.) and its gradient, tile by tile: what autograd makes of the whole
image, in bounded memory.

Both terms are sums over positions, but for the small function of the Gram matrices in the end. Going forward the tiles'
Gram matrices are added up; going backward each tile is run again and its share of both sums differentiated, with the
slope of the loss at the whole image's Gram matrices. A tile is run with a halo as wide as its features see, so that
they are the whole image's, and each position counts in one tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.encoders import Encoder
from zoo.nn.gram import Divisor, divisor_of, gram
from zoo.nn.regions import feature_masks
from zoo.nn.tiles import Box, boxes, each

Key = tuple[str, int]  # of a Gram matrix: layer and number of the region
Weights = Mapping[str, Sequence[Tensor | None]]


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


@dataclass(frozen=True, eq=False)
class Region:
    """What a region of the image (all of it where ``masks`` is None) should have: targets by layer."""

    targets: Mapping[str, GramTarget]
    masks: Tensor | None = None
    index: int = 0

    def loss(self, layer: str, features: Tensor, divisor: Divisor) -> Tensor:
        """The loss of one layer. A region counts by its share of the positions, so that a position weighs the same
        whatever the regions."""
        if self.masks is None:
            return self.targets[layer].loss(gram(features, divisor))
        region = feature_masks(self.masks, (features.shape[-2], features.shape[-1]))[self.index]
        return region.mean() * self.targets[layer].loss(gram(features, divisor, region))


@dataclass(frozen=True, eq=False)
class TiledLoss:
    """Weighted content and style terms of an image (1, 3, H, W), by tiles of ``side`` pixels and the halo around.

    ``run`` gives the features of ``encoder`` in the working precision. ``content`` and ``style`` are weights by layer;
    ``halves`` takes half the content's sum of squares in place of the mean (:func:`zoo.methods.gatys.content_loss`).
    """

    run: Callable[[Tensor], Mapping[str, Tensor]]
    encoder: Encoder
    side: int
    content: Mapping[str, float]
    halves: bool
    style: Mapping[str, float]
    regions: Sequence[Region]
    divisor: Divisor

    def of(self, photo: Tensor | None) -> Callable[[Tensor], dict[str, Tensor]]:
        """Return the terms as a function of the image: the content's where there is a ``photo``, and the style's."""
        wanted = {} if photo is None else self._kept(photo)
        names = [name for name, there in (("content", wanted), ("style", self.regions)) if there]

        def terms(image: Tensor) -> dict[str, Tensor]:
            found: tuple[Tensor, ...] = _Terms.apply(image, self, wanted)
            return {name: value for name, value in zip(("content", "style"), found, strict=True) if name in names}

        return terms

    # -- tiles --------------------------------------------------------------------------------------------------------

    def _tiles(self, image: Tensor) -> Iterator[tuple[Box, Box]]:
        """Each tile's rows and columns with its halo, and its own; both begin at whole cells of the deepest layer."""
        layers = (*self.content, *self.style)
        cell = max(self.encoder.stride(layer) for layer in layers)
        halo = -(-max(self.encoder.reach(layer) for layer in layers) // cell) * cell
        size = (image.shape[-2], image.shape[-1])
        for own in each(list(boxes(size, self.side, cell))):
            rows, columns = (
                slice(max(0, part.start - halo), min(length, part.stop + halo))
                for part, length in zip(own, size, strict=True)
            )
            yield (rows, columns), own

    def _own(self, features: Mapping[str, Tensor], layer: str, crop: Box, own: Box) -> tuple[Tensor, Box]:
        """A layer's features at a tile's own positions, and where these lie in the whole map."""
        stride, part = self.encoder.stride(layer), features[layer]
        rows, columns = (slice(one.start // stride, one.stop // stride) for one in own)
        for axis, (place, outer) in enumerate(zip((rows, columns), crop, strict=True)):
            part = part.narrow(axis - 2, place.start - outer.start // stride, place.stop - place.start)
        return part, (rows, columns)

    def _map_size(self, image: Tensor, layer: str) -> tuple[int, int]:
        stride = self.encoder.stride(layer)
        return image.shape[-2] // stride, image.shape[-1] // stride

    def _kept(self, photo: Tensor) -> dict[str, Tensor]:
        """The photo's features at the content's layers, (1, C, h, w)."""
        kept: dict[str, Tensor] = {}
        with torch.no_grad():
            for crop, own in self._tiles(photo):
                features = self.run(photo[..., crop[0], crop[1]])
                for layer in self.content:
                    part, (rows, columns) = self._own(features, layer, crop, own)
                    if layer not in kept:
                        kept[layer] = part.new_empty((1, part.shape[1], *self._map_size(photo, layer)))
                    kept[layer][..., rows, columns] = part
        return kept

    # -- both terms of one tile ---------------------------------------------------------------------------------------

    def _content(self, features: Mapping[str, Tensor], crop: Box, own: Box, wanted: Mapping[str, Tensor]) -> Tensor:
        """A tile's part of the weighted content term."""
        parts = []
        for layer, target in wanted.items():
            part, (rows, columns) = self._own(features, layer, crop, own)
            wide = torch.promote_types(part.dtype, torch.float32)
            squares = (part.to(wide) - target[..., rows, columns].to(wide)).square().sum()
            parts.append(squares * (self.content[layer] / (2 if self.halves else target.numel())))
        return torch.stack(parts).sum()

    def _products(self, features: Mapping[str, Tensor], crop: Box, own: Box, weights: Weights) -> dict[Key, Tensor]:
        """A tile's part of the Gram matrices before they are divided, by layer and number of the region."""
        found: dict[Key, Tensor] = {}
        for layer in self.style:
            part, (rows, columns) = self._own(features, layer, crop, own)
            for index, region in enumerate(weights[layer]):
                inside = part if region is None else part * region[rows, columns].to(part.dtype)
                found[layer, index] = gram(inside, "none")
        return found

    # -- forward and backward over all tiles --------------------------------------------------------------------------

    def weights(self, image: Tensor) -> Weights:
        """Each layer's weights (h, w) of every region; None for a region that is everything."""
        return {
            layer: [
                None if one.masks is None else feature_masks(one.masks, self._map_size(image, layer))[one.index]
                for one in self.regions
            ]
            for layer in self.style
        }

    def sums(self, image: Tensor, wanted: Mapping[str, Tensor]) -> tuple[Tensor, dict[Key, Tensor]]:
        """Return the content term and the Gram matrices (1, C, C), not yet divided."""
        content, grams, weights = image.new_zeros(()), dict[Key, Tensor](), self.weights(image)
        for crop, own in self._tiles(image):
            features = self.run(image[..., crop[0], crop[1]])
            if wanted:
                content = content + self._content(features, crop, own, wanted)
            if self.regions:
                for key, product in self._products(features, crop, own, weights).items():
                    grams[key] = grams[key] + product if key in grams else product
        return content, grams

    def grams(self, image: Tensor) -> list[dict[str, Tensor]]:
        """Return the Gram matrices of each region by layer, (1, C, C)."""
        (_, sums), weights = self.sums(image, {}), self.weights(image)
        return [
            {layer: self._divided(sums[layer, index], image, layer, weights[layer][index]) for layer in self.style}
            for index in range(len(self.regions))
        ]

    def _divided(self, product: Tensor, image: Tensor, layer: str, region: Tensor | None) -> Tensor:
        return product / divisor_of(product.shape[1], self._map_size(image, layer), self.divisor, region)

    def style_term(self, image: Tensor, grams: Mapping[Key, Tensor]) -> Tensor:
        """Return the weighted style term of the whole image's sums of products."""
        parts, weights = [image.new_zeros(())], self.weights(image)
        for (layer, index), product in grams.items():
            region = weights[layer][index]
            loss = self.regions[index].targets[layer].loss(self._divided(product, image, layer, region))
            parts.append(self.style[layer] * (loss if region is None else region.mean() * loss))
        return torch.stack(parts).sum()

    def gradient(
        self, image: Tensor, wanted: Mapping[str, Tensor], slopes: Mapping[Key, Tensor], shares: Sequence[Tensor]
    ) -> Tensor:
        """Return the gradient (1, 3, H, W) of ``shares`` of both terms; ``slopes`` are the style's at each product."""
        total, weights = torch.zeros_like(image), self.weights(image)
        for crop, own in self._tiles(image):
            tile = image[..., crop[0], crop[1]].detach().requires_grad_()
            features = self.run(tile)
            parts = [shares[0] * self._content(features, crop, own, wanted)] if wanted else []
            if slopes:
                products = self._products(features, crop, own, weights)
                parts += [shares[1] * (product * slopes[key]).sum() for key, product in products.items()]
            (found,) = torch.autograd.grad(torch.stack(parts).sum(), tile)
            total[..., crop[0], crop[1]] += found
        return total


class _Terms(torch.autograd.Function):
    """Content and style term of an image; the tiles are run again for their gradient."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, loss: TiledLoss, wanted: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        content, grams = loss.sums(image, wanted)
        with torch.enable_grad():
            leaves = {key: product.requires_grad_() for key, product in grams.items()}
            style = loss.style_term(image, leaves)
            slopes = torch.autograd.grad(style, list(leaves.values())) if leaves else ()
        ctx.save_for_backward(image)
        ctx.loss, ctx.wanted, ctx.slopes = loss, wanted, dict(zip(leaves, slopes, strict=True))
        return content, style.detach()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch types ctx by position
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (image,) = ctx.saved_tensors
        with torch.enable_grad():
            return ctx.loss.gradient(image, ctx.wanted, ctx.slopes, grad_outputs), None, None


__all__ = ["GramTarget", "Region", "TiledLoss"]
