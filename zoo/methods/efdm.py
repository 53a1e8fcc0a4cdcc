"""EFDM: Zhang, Li, Li, Jia, Zhang, *Exact Feature Distribution Matching for Arbitrary Style Transfer and Domain
Generalization*, CVPR 2022.

AdaIN gives every channel of the content's features the style's mean and deviation; here it gets the style's whole
distribution. The k-th smallest value of a channel becomes the k-th smallest that the channel has over the style (sort
matching, equation 7). Encoder and decoder are AdaIN's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.config import Config
from zoo.methods._features import FeatureMethod
from zoo.nn.ranks import by_rank, quantiles, selected
from zoo.stylizer import Mix, Traits


@dataclass(frozen=True)
class EFDMConfig(Config):
    """EFDM has no options of its own: strength, mixes and masks are arguments of every call."""


class EFDM(FeatureMethod):
    """Exact feature distribution matching (Zhang et al. 2022) with AdaIN's decoder, which was not trained on it.

    ``strength`` blends the content's features with the matched ones (equation 10 blends styles in training); 0 decodes
    the content's own.

    | paper / authors' code | here | why |
    |---|---|---|
    | a decoder trained with this layer, style weight 10 | AdaIN's | the paper's layer is the same function on any \
decoder; no second checkpoint |
    | content and style of one size | quantiles interpolated where the numbers of positions differ | any two sizes |
    | ties by whatever order the sort gives | the earlier position gets the smaller value | the same pixels on every \
machine |
    | two styles by interpolating matched features | by interpolating quantiles | the same: the content's \
ranks do not change |
    | no regions | each region has ranks of its own | as AdaIN |
    """

    traits = Traits(
        strength="feature",
        strength_zero="reconstruction",
        mixes=True,
        context=frozenset({"content_masks"}),
        min_size=16,
        multiple_of=8,
        cpu_precision="bf16",
        pixel_bytes=280,
        tiled=True,
        kept_bytes=16,
        tiled_styles=True,
    )
    Config = EFDMConfig

    def _code(self, features: Tensor, region: Tensor | None) -> Mapping[str, Any]:
        return {"quantiles": quantiles(features, region)[None]}

    def _transform(self, features: Tensor, style: Mix, region: Tensor | None) -> Tensor:
        inside = slice(None) if region is None else selected(region)
        result = features.float().flatten(2).clone()
        for one in result:
            values = one[:, inside]
            if values.numel():
                zero = torch.zeros_like(values)
                found = (weight * by_rank(values, code.data["quantiles"][0]) for code, weight in style)
                one[:, inside] = sum(found, zero)
        return result.view(features.shape).to(features.dtype)


__all__ = ["EFDM", "EFDMConfig"]
