"""Gatys et al. with a loss on histograms: Gram matrices alone do not hold contrast where mean and variance trade.

Risser, Wilmot, Barnes, *Stable and Controllable Neural Texture Synthesis and Style Transfer Using Histogram Losses*,
arXiv:1701.08893, 2017. A Gram matrix fixes the sum of squares of every channel, which a flat, bright channel reaches as
well as a varied, dark one (section 3.1). So each channel's values are moved, by their ranks, to the distribution that
the channel has over the style, and the features are drawn to what comes out, held constant (equation 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.config import option
from zoo.images import resize
from zoo.methods._pixels import Size, check_layers, in_regions, layer_weights, size_of, total
from zoo.methods.gatys import Gatys, GatysConfig
from zoo.nn.ranks import by_rank, quantiles, selected
from zoo.nn.regions import feature_masks
from zoo.stylizer import Call, Mix, Style


@dataclass(frozen=True)
class RisserConfig(GatysConfig):
    """Options of :class:`Risser`. The defaults are the preset ``risser.zoo``."""

    levels: int = option(2, "Sizes gone through, coarse to fine, with equal shares of the steps.", ge=1, le=8)
    histogram_layers: tuple[str, ...] = option(("relu1_1", "relu4_1"), "Layers whose histograms are matched.")
    histogram_layer_weights: tuple[float, ...] = option((1.0,), "One weight per such layer, or one for all.", ge=0)
    histogram_weight: float = option(1000.0, "Weight of the histogram loss.", ge=0)
    refresh: int = option(4, "Evaluations from one matching of ranks to the next.", ge=1)
    preserve_color: Literal["none"] = option("none", "Histograms of colors are the style's; use zoo's color control.")

    def validate(self) -> None:
        check_layers(self, "content", "style", "histogram")


class Risser(Gatys):
    """Risser et al. 2017: Gatys et al. plus histogram losses at relu1_1 and relu4_1, coarse to fine.

    Everything that :class:`~zoo.methods.gatys.Gatys` can do goes on, textures and regions too. Losses per step: those
    of Gatys and ``histogram``.

    | paper | here | why |
    |---|---|---|
    | histograms of 256 bins | ranks (zoo.nn.ranks) | exact, and no bins to choose |
    | matched anew at every evaluation | at every fourth (``refresh``) | sorting relu1_1 costs a third of an \
evaluation; between two matchings features are held to what they were, which slows the Gram matrices |
    | weights found from gradients' magnitudes (section 4.4) | fixed | with the default the histograms' gradient is \
a quarter to a half of the Gram matrices', at the start and after 80 steps |
    | total variation at the lowest levels | ``tv_weight``, default 0 | pixels are held in range instead |
    | multi-scale pyramid of the optimisation | ``levels``, 2 | at a quarter of 256 pixels relu4_2 holds no face |
    | localized losses by masks (section 4.3) | guided Gram matrices and ranks within the region | as Gatys |
    """

    # Ranks need all values at once.
    traits = replace(Gatys.traits, tiled=False, tiled_styles=False)
    Config = RisserConfig
    config: RisserConfig

    def _encode_style(self, style: Style, content_size: Size | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        kept = []
        for size in self._style_sizes(style.image):
            found = self._features(resize(style.image, size), self.config.histogram_layers)
            kept.append({})
            for layer, x in found.items():
                region = None if style.mask is None else feature_masks(style.mask[0], size_of(x))[0]
                kept[-1][layer] = quantiles(x, region)
        return {**super()._encode_style(style, content_size), "quantiles": kept}

    def _also(self, level: int, style: Mix, call: Call) -> Mapping[str, Callable[[Tensor], Mapping[str, Tensor]]]:
        return {
            layer: self._histogram_loss(layer, weight, level, style, call)
            for layer, weight in layer_weights(self.config, "histogram").items()
        }

    def _histogram_loss(
        self, layer: str, weight: float, level: int, style: Mix, call: Call
    ) -> Callable[[Tensor], Mapping[str, Tensor]]:
        """The weighted mean squared difference of features to themselves in the style's distribution."""
        factor = call.strength * self.config.histogram_weight * weight
        calls, targets = 0, []

        def matched(features: Tensor) -> list[tuple[Tensor, Tensor | None, float]]:
            """Of each style the features in its distribution, where its region is (None for all), and its weight."""
            found = []
            for code, share, region in in_regions(style, call.context.content_masks, size_of(features)):
                where = None if region is None else selected(region).view(region.shape)
                inside = slice(None) if where is None else where.flatten()
                values = features[0].flatten(1).float().clone()
                if values[:, inside].numel():
                    values[:, inside] = by_rank(values[:, inside], code.data["quantiles"][level][layer])
                # In the layout of the features: a change of layout at every evaluation costs a tenth of it.
                target = values.view(features.shape).contiguous(memory_format=torch.channels_last)
                found.append((target, where, share))
            return found

        def loss(features: Tensor) -> dict[str, Tensor]:
            nonlocal calls, targets
            if calls % self.config.refresh == 0:
                with torch.no_grad():
                    targets = matched(features)
            calls += 1
            terms = []
            for target, inside, share in targets:
                given = features.float()
                if inside is None:
                    apart = F.mse_loss(given, target)
                else:
                    apart = ((given - target) * inside).square().mean()
                terms.append(share * apart)
            return {"histogram": factor * total(terms)}

        return loss


__all__ = ["Risser", "RisserConfig"]
