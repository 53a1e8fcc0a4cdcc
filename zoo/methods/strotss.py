"""Style transfer by optimal transport: the picture's features are moved onto the style's, the content's relations stay.

Kolkin, Salavon, Shakhnarovich, *Style Transfer by Relaxed Optimal Transport and Self-Similarity*, CVPR 2019 (the
equations below). Features are hypercolumns: pixels and nine layers of VGG at one position. Style is the relaxed earth
mover's distance between two samples of them (equation 5), their moments (7) and the colors' own distance (section 2.2);
content is that distances between the picture's own features are in proportion to those between the content's (8).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.config import option
from zoo.images import resize
from zoo.methods._pixels import (
    MIN_SIDE,
    PixelConfig,
    PixelMethod,
    Problem,
    Size,
    Terms,
    doubled_sizes,
    in_regions,
    size_of,
    total,
)
from zoo.nn.optimize import Fitting
from zoo.nn.patches import pixel_rows
from zoo.nn.regions import feature_masks
from zoo.stylizer import Call, Mix, Style, Traits

LAYERS = ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu4_3", "relu5_3")
# The authors' "decorrelated colorspace with mean color as one channel" (section 2.2).
_COLORS = ((0.577350, 0.577350, 0.577350), (-0.577350, 0.788675, -0.211325), (-0.577350, -0.211325, 0.788675))

# The authors give their network pixels from -0.5 to 0.5, this one takes levels of 255. A network of ReLUs grows with
# its input, and the moments' loss with the square of it: in levels it would drown all other terms.
_LEVELS = 255.0


@dataclass(frozen=True)
class STROTSSConfig(PixelConfig):
    """Options of :class:`STROTSS`. The defaults are the preset ``strotss.zoo``."""

    num_steps: int = option(400, "Evaluations of loss and gradient, over all sizes.", ge=1)
    levels: int = option(8, "Sizes gone through at most, each twice the one before.", ge=1, le=8)
    init: Literal["content", "style", "noise"] = option("content", "The image the optimisation starts from.")
    level_scale: float = option(0.5, "Side of one level relative to the next: always half.", ge=0.5, le=0.5)
    coarsest: int = option(64, "Long side of the first size in pixels, give or take half of it.", ge=32)
    optimizer: Literal["rmsprop", "adam"] = option("rmsprop", "RMSprop, as the authors, or Adam.")
    learning_rate: float = option(
        1.02, "Rate in levels of 255 (code: 0.51, which is 0.002); half of it at the end.", gt=0
    )
    clamp: Literal[False] = option(False, "Coefficients of a pyramid have no range to be put back into.")
    pyramid: int = option(5, "Levels of the Laplacian pyramid that is fitted; 0 for the pixels.", ge=0, le=12)
    content_weight: float = option(16.0, "Weight of the content loss at the first size, halved at each next.", gt=0)
    samples: int = option(1024, "Positions that a step looks at, drawn anew for each.", ge=16)
    style_samples: int = option(2048, "Positions of the style that they are compared with, drawn once a size.", ge=16)


class STROTSS(PixelMethod):
    """Kolkin et al. 2019: relaxed optimal transport of hypercolumns, and self-similarity.

    ``strength`` blends what is wanted of every position with the content's own, and the start with the content: the
    content's loss compares relations, which a picture in any colors can have. Losses per step, as weighted:
    ``content``, ``transport``, ``moments``, ``palette`` and ``total``.

    | paper / authors' code | here | why |
    |---|---|---|
    | VGG-16 of torchvision | VGG-19, layers of the same names, features divided by 255 | installs with pip; its input \
is in levels of 255, theirs goes from -0.5 to 0.5, and moments and pixels are compared as they are |
    | 1,024 positions, 5,000 of the style | 1,024 and 2,048, no more than one in four pixels | the search costs less \
than the network; a small image has no more to say |
    | 250 steps a size, RMSprop 0.002 (preset ``code``) | 400 in all, 0.004 | less than half the time |
    | positions on jittered grids | uniform at random | no grid to choose |
    | colors by cosine and Euclidean distance, weight 1/alpha but at most 1 (code) | Euclidean, 1/alpha (paper) | \
the paper's; above 1 only from a sixth size on |
    | pyramid: five halvings (preset ``code``) | four | the smallest image counts as a level |
    | images resized bilinearly | by antialiased bicubic, in range | one resampling everywhere |
    | style scaled to the content's long side | the style as it is, scaled by the same factors | sizes are the \
caller's choice (--style-size) |
    | guidance by pairs of regions: further samples, a cost of infinity elsewhere (section 2.4) | each region takes \
its own style, weighed by its share | as the other methods |
    | one style | mixes: weighted sums of the losses | as the other methods |
    """

    traits = Traits(
        iterative=True,
        source="image",
        strength="feature",
        batched=False,
        mixes=True,
        context=frozenset({"init", "content_masks"}),
        min_size=MIN_SIDE,
        cpu_precision="bf16",
        pixel_bytes=1800,
    )
    Config = STROTSSConfig
    config: STROTSSConfig

    def _build(self) -> None:
        super()._build()
        self._encoder(LAYERS)

    def _encode_style(self, style: Style, content_size: Size | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        return {"image": style.image} if style.mask is None else {"image": style.image, "mask": style.mask}

    def _fitting(self, at: int, problem: Problem) -> Fitting:
        # Losses of two steps are of different samples, and do not compare.
        config = self.config
        rate = config.learning_rate * (0.5 if at == len(problem.sizes) - 1 else 1.0)
        how = super()._fitting(at, problem)
        return dataclasses.replace(how, learning_rate=rate, pyramid=config.pyramid, keep="last")

    def _problem(self, content: Tensor | None, style: Mix, size: Size, call: Call) -> Problem:
        assert content is not None  # no trait texture
        sizes = doubled_sizes(size, self.config.levels, self.config.coarsest)

        def band(size: Size) -> Tensor:
            """What of the content at ``size`` is finer than half of it."""
            guide = resize(content, size)
            half = (max(1, size[0] // 2), max(1, size[1] // 2))
            return guide - resize(resize(guide, half), size)

        def start(size: Size) -> Tensor:
            if self.config.init != "content" or call.context.init is not None:
                return self._start(call, content, next(iter(style))[0].data["image"])(size)
            # The content's details on the style's mean color (section 2.5).
            color = sum((weight * code.data["image"].mean((2, 3), keepdim=True) for code, weight in style), 0.0)
            return torch.lerp(resize(content, size), band(size) + color, call.strength)

        def enter(at: int, image: Tensor) -> Tensor:
            # With fewer steps than sizes the first are left out; the start has the details already.
            first = max(0, len(sizes) - self.config.num_steps)
            return image + band(sizes[at]) if first < at < len(sizes) - 1 else image

        def loss(at: int, image: Tensor) -> Terms:
            weight = self.config.content_weight / 2**at
            return self._loss(resize(content, sizes[at]), style, sizes[at][0] / size[0], weight, call)

        return Problem(sizes, start, loss, enter=enter)

    # -- the loss: equation 1 ---------------------------------------------------------------------------------------

    def _loss(self, content: Tensor, style: Mix, scale: float, alpha: float, call: Call) -> Terms:
        generator = call.generator()
        own = self._maps(content)
        theirs = [self._style_maps(code.data, scale) for code, _ in style]
        regions = in_regions(style, call.context.content_masks, size_of(content))
        there = torch.rand(self.config.style_samples, 3, generator=generator)
        pools = [self._pool(maps, there, mask) for maps, mask in theirs]
        norm, strength = 2 + alpha + 1 / alpha, call.strength

        def loss(image: Tensor) -> dict[str, Tensor]:
            maps = self._maps(image)
            terms: dict[str, list[Tensor]] = {"content": [], "transport": [], "moments": [], "palette": []}
            for places, pool, share in self._draws(size_of(image), regions, pools, generator):
                ours, kept = _sampled(maps, places), _sampled(own, places)
                terms["content"].append(share * alpha * _self_similarity(ours, kept))
                if pool is None:
                    continue
                wanted, units, colors = pool.moments, None, None
                if strength < 1:
                    mean, covariance = map(torch.lerp, moments(kept), pool.moments, (strength, strength))
                    wanted, units, colors = (mean, covariance), F.normalize(kept, dim=1), _colors(kept)
                moved = transport(F.normalize(ours, dim=1), pool.units, units, strength)
                terms["transport"].append(share * moved)
                terms["moments"].append(share * moment_loss(moments(ours), wanted))
                moved = transport(_colors(ours), pool.colors, colors, strength, cosine=False)
                terms["palette"].append(share / alpha * moved)
            return {name: total(values) / norm for name, values in terms.items() if values}

        return loss

    def _maps(self, image: Tensor) -> list[Tensor]:
        """The image itself and its features, shallow to deep."""
        return [image, *(x / _LEVELS for x in self._features(image, LAYERS).values())]

    def _style_maps(self, data: Mapping[str, Tensor], scale: float) -> tuple[list[Tensor], Tensor | None]:
        height, width = size_of(data["image"])
        size = (max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale)))
        mask = feature_masks(data["mask"][0], size)[0] if "mask" in data else None
        return self._maps(resize(data["image"], size)), mask

    def _pool(self, maps: Sequence[Tensor], numbers: Tensor, mask: Tensor | None) -> Pool:
        """What is kept of a style at a size, sampled where random ``numbers`` (n, 3) say."""
        size = size_of(maps[0])
        sample = _sampled(maps, _places(size, numbers[: _most(self.config.style_samples, size)], mask))
        return Pool(F.normalize(sample, dim=1), moments(sample), _colors(sample))

    def _draws(
        self, size: Size, regions: Sequence[Any], pools: Sequence[Pool], generator: torch.Generator
    ) -> list[tuple[Tensor, Pool | None, float | Tensor]]:
        """For each style positions in its region, its pool and its share; last what no region covers, without one."""
        # The same numbers for every style: in a mix their order does not matter.
        here = torch.rand(_most(self.config.samples, size), 3, generator=generator)
        drawn: list[Any] = []
        left: Tensor | None = None
        for (_, weight, region), pool in zip(regions, pools, strict=True):
            share = weight if region is None else region.mean()
            if region is not None:
                left = 1 - region if left is None else left - region
                if not share > 0:
                    continue
            drawn.append((_places(size, here, region), pool, share))
        if left is not None and left.mean() > 1e-3:
            # What no region covers keeps its relations, and takes after nothing.
            drawn.append((_places(size, here, left), None, left.mean()))
        return drawn


@dataclass(frozen=True, eq=False)
class Pool:
    """Hypercolumns of a style of unit length (n, d), their moments and colors (n, 3) as they were before."""

    units: Tensor
    moments: tuple[Tensor, Tensor]
    colors: Tensor


def _most(samples: int, size: Size) -> int:
    return min(samples, max(16, size[0] * size[1] // 4))


def _places(size: Size, numbers: Tensor, region: Tensor | None) -> Tensor:
    """Positions (n, 2) in [0, 1) down and across, from random ``numbers`` (n, 3) in [0, 1), within ``region``."""
    chosen, jitter = numbers[:, 0].contiguous(), numbers[:, 1:]
    if region is None or bool((region == 1).all()):
        return jitter
    shares = region.flatten().clamp_min(0).cpu().double().cumsum(0)
    pixel = torch.searchsorted(shares, chosen.double() * shares[-1], right=True).clamp_max(len(shares) - 1)
    return (torch.stack([pixel // size[1], pixel % size[1]], dim=1) + jitter) / torch.tensor(size)


def _sampled(maps: Sequence[Tensor], places: Tensor) -> Tensor:
    """Hypercolumns (n, d), float32: every map interpolated bilinearly at ``places`` (n, 2)."""
    columns = []
    for x in maps:
        height, width = size_of(x)
        limits = torch.tensor([height - 1, width - 1], dtype=torch.float32)
        at = (places * torch.tensor([height, width]) - 0.5).clamp_min(0).minimum(limits)
        low = at.floor().minimum((limits - 1).clamp_min(0))
        down, across = (at - low).to(x.device)[:, :, None].unbind(1)
        top, left = low.long().to(x.device).unbind(1)
        corners, shares = [], []
        for dy, vertical in ((0, 1 - down), (1, down)):
            for dx, horizontal in ((0, 1 - across), (1, across)):
                corners.append((top + dy).clamp_max(height - 1) * width + (left + dx).clamp_max(width - 1))
                shares.append(vertical * horizontal)
        # In one call: the gradient of each is a map of its own.
        found = pixel_rows(x).index_select(0, torch.cat(corners)).float().unflatten(0, (4, len(places)))
        columns.append((torch.stack(shares) * found).sum(0))
    return torch.cat(columns, dim=1)


def _colors(columns: Tensor) -> Tensor:
    return columns[:, :3] @ columns.new_tensor(_COLORS).T


def transport(
    one: Tensor, two: Tensor, kept: Tensor | None = None, strength: float = 1.0, *, cosine: bool = True
) -> Tensor:
    """Return the relaxed earth mover's distance of two samples (n, d) and (m, d): equation 5.

    Distances are cosine, of samples of unit length, or Euclidean. Only the pairs that it is the mean of are
    differentiated: the same gradient in a fraction of the time. At a ``strength`` below 1 the second of a pair is moved
    towards what ``kept`` (n, d) has in the place of the first.
    """
    with torch.no_grad():
        apart = 1 - one @ two.T if cosine else torch.cdist(one, two)
        forth, back = apart.min(1), apart.min(0)
    if forth.values.mean() > back.values.mean():
        two = two[forth.indices]
    else:
        one = one[back.indices]
        kept = None if kept is None else kept[back.indices]
    if kept is not None:
        two = torch.lerp(kept, two, strength)
    return (1 - (one * two).sum(1)).mean() if cosine else F.pairwise_distance(one, two).mean()


def moments(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (d,) and covariance (d, d) of a sample (n, d)."""
    mean = sample.mean(0)
    return mean, (sample - mean).T @ (sample - mean) / len(sample)


def moment_loss(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> Tensor:
    """Return the sum of the mean absolute differences of two means and of two covariances: equation 7."""
    return torch.stack([(one - two).abs().mean() for one, two in zip(ours, theirs, strict=True)]).sum()


def _self_similarity(ours: Tensor, kept: Tensor) -> Tensor:
    """Mean absolute difference of cosine distances, each column in proportion to its sum: equation 8, times n."""
    shares = []
    for x in (ours, kept):
        unit = F.normalize(x, dim=1)
        distances = 1 - unit @ unit.T
        shares.append(distances / distances.sum(0, keepdim=True).clamp_min(1e-8))
    return (shares[0] - shares[1]).abs().sum(0).mean()


__all__ = ["STROTSS", "STROTSSConfig"]
