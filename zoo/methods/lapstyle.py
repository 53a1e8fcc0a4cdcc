"""Gatys et al. with a loss on edges: what a Laplacian filter sees of the content stays.

Li, Xu, Nie, Chua, *Laplacian-Steered Neural Style Transfer*, ACM Multimedia 2017; the authors' code is
askerlee/lapstyle, made from jcjohnson/neural-style. The image is averaged over squares, so that grain does not count,
and filtered; the squared difference to the content's is added to the loss (equations 3 and 4), at one scale or more.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.color import gray
from zoo.config import option
from zoo.errors import ConfigError
from zoo.images import resize
from zoo.methods._pixels import Problem, Size, Terms, size_of, total
from zoo.methods.gatys import Gatys, GatysConfig
from zoo.stylizer import Call, Mix

_KERNEL = ((0.0, -1.0, 0.0), (-1.0, 4.0, -1.0), (0.0, -1.0, 0.0))


@dataclass(frozen=True)
class LapstyleConfig(GatysConfig):
    """Options of :class:`Lapstyle`. The defaults are the preset ``lapstyle.zoo``."""

    content_weight: float = option(5.0, "Weight of the content loss.", ge=0)
    style_weight: float = option(100.0, "Weight of the style loss.", gt=0)
    style_layer_weights: tuple[float, ...] = option((1.0,), "One weight per style layer, or one for all.", ge=0)
    gram_divisor: Literal["none", "hw", "chw"] = option("chw", "What a Gram matrix is divided by.")
    tv_weight: float = option(1e-3, "Weight of the total variation, in neural-style's unit.", ge=0)
    pools: tuple[int, ...] = option((4,), "Sides of the squares that are averaged, a scale each.", ge=1, le=64)
    laplacian_weights: tuple[float, ...] = option((100.0,), "Weight of the Laplacian loss at each scale.", ge=0)

    def validate(self) -> None:
        super().validate()
        if len(self.pools) != len(self.laplacian_weights):
            raise ConfigError(
                f"Option 'laplacian_weights' has {len(self.laplacian_weights)} values for {len(self.pools)} pools."
            )


def laplacian(images: Tensor, pool: int) -> Tensor:
    """Return what a Laplacian filter makes of the sum of R, G and B, in levels of 255, averaged over squares.

    ``images`` (B, 3, H, W) in [0, 1]; the result is (B, 1, H / pool - 2, W / pool - 2). Empty for a side under three
    squares.
    """
    squares = F.avg_pool2d(255 * images.sum(dim=1, keepdim=True), pool)
    if min(size_of(squares)) < 3:
        return squares[..., :0, :0]
    return F.conv2d(squares, images.new_tensor(_KERNEL)[None, None])


class Lapstyle(Gatys):
    """Li et al. 2017: Gatys et al. plus the squared difference of Laplacians, which keeps the content's edges.

    Everything that :class:`~zoo.methods.gatys.Gatys` can do goes on. Losses per step: those of Gatys and ``laplacian``.

    | paper / authors' code | here | why |
    |---|---|---|
    | eq. 3: sum over positions | their mean, as the code has it | the weights belong to the mean |
    | 1,000 steps from noise (preset ``code``) | 500 from the content, pixels held in range (preset ``zoo``) | as \
Gatys' preset of the zoo |
    | pool and filter over a border of zeros | inside the image alone | a border is no edge of the content |
    | one content and style weight for all | strength scales the style's term alone | one meaning for all methods |
    """

    Config = LapstyleConfig
    config: LapstyleConfig

    def _problem(self, content: Tensor | None, style: Mix, size: Size, call: Call) -> Problem:
        problem = super()._problem(content, style, size, call)
        if content is None:
            return problem
        if self.config.preserve_color == "luminance":
            content = gray(content)  # what the picture is fitted as
        return dataclasses.replace(
            problem, loss=lambda at, image: self._steered(problem.loss(at, image), resize(content, size_of(image)))
        )

    def _steered(self, terms_of: Terms, content: Tensor) -> Terms:
        """``terms_of`` with the Laplacian loss to ``content`` (equation 4)."""
        config = self.config
        wanted = {pool: laplacian(content, pool) for pool in config.pools}

        def loss(image: Tensor) -> dict[str, Tensor]:
            losses = [
                weight * (laplacian(image, pool) - wanted[pool]).square().mean()
                for pool, weight in zip(config.pools, config.laplacian_weights, strict=True)
                if wanted[pool].numel()
            ]
            return {**terms_of(image), "laplacian": total(losses) if losses else torch.zeros_like(image[0, 0, 0, 0])}

        return loss


__all__ = ["Lapstyle", "LapstyleConfig", "laplacian"]
