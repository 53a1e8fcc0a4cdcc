"""Style transfer by nearest neighbors of features: every feature vector of the picture is one of the style's.

Kolkin, Kucera, Paris, Sykora, Shechtman, Shakhnarovich, *Neural Neighbor Style Transfer*, arXiv:2203.13215, 2022; the
authors' code is nkolkin13/NeuralNeighborStyleTransfer. At every size, coarse to fine, the features of the content (and
some of the picture so far) are replaced by the style's most alike, and the picture is fitted to what comes out (section
3.2). A last pass matches each layer on its own, anew at every step ("feature splitting"). The color of the result is an
affine map of the content's, so that it has the style's palette without its stains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import device as devices
from zoo.color import match_color
from zoo.config import option
from zoo.errors import ConfigError
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
from zoo.nn.palette import from_oklab, smoothed, to_oklab
from zoo.nn.patches import PatchBank, match
from zoo.nn.regions import feature_masks
from zoo.stylizer import Call, Mix, Style, Traits

# Ten convolutions of the first four blocks: the hypercolumns (section 3.1; the code leaves out the fifth).
LAYERS = ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu4_1", "relu4_2", "relu4_3")
CELL = 4  # pixels of the image per hypercolumn, along each side
# Positions along the longer side that a step of the last pass looks at: of the picture, and of each of the style's
# rotations. The code has 64 for both, and a step then costs three passes through VGG at 512 pixels.
SAMPLES, CHOICE = 32, 64
FLAT = 0.01  # deviation of a content's chroma in Oklab under which it has none to map

Columns = dict[str, Tensor]
Copy = tuple[Tensor, Tensor | None]  # an image of the style and its mask


@dataclass(frozen=True)
class NNSTConfig(PixelConfig):
    """Options of :class:`NNST`. The defaults are the preset ``nnst.zoo``."""

    num_steps: int = option(500, "Evaluations of loss and gradient, over all sizes and the last pass.", ge=1)
    levels: int = option(8, "Sizes gone through at most, each twice the one before.", ge=1, le=8)
    level_scale: float = option(0.5, "Side of one level relative to the next: always half.", ge=0.5, le=0.5)
    coarsest: int = option(64, "Long side of the first size in pixels, give or take half of it.", ge=32)
    optimizer: Literal["lbfgs", "adam"] = option("adam", "Adam, as the authors, or L-BFGS.")
    learning_rate: float = option(1.02, "Adam's rate in levels of 255 (the code: 0.51, which is 0.002).", gt=0)
    clamp: bool = option(False, "Put pixels back into range before every evaluation; needs pyramid 0.")
    pyramid: int = option(8, "Levels of the Laplacian pyramid that is fitted; 0 for the pixels.", ge=0, le=12)
    previous: float = option(0.25, "Share of the picture so far in what is matched, after the first size.", ge=0, le=1)
    rotations: bool = option(True, "Match the style's rotations by 90, 180 and 270 degrees too.")
    split: bool = option(True, "End with a pass that matches every layer on its own, anew at every step.")
    palette: bool = option(True, "Give the result the content's chroma, mapped to the style's palette.")

    def validate(self) -> None:
        if self.clamp and self.pyramid:
            raise ConfigError("Option 'clamp' needs option 'pyramid' 0: coefficients of a pyramid have no range.")


class NNST(PixelMethod):
    """Kolkin et al. 2022: features replaced by the style's nearest, at every size.

    ``strength`` blends the features that are wanted with the content's own, and the colors before and after they are
    mapped to the style's palette. Losses per step: ``match`` (1 minus the cosine to the wanted hypercolumns) or, in the
    last pass, ``split`` (centered cosine distance to the nearest, summed over layers), and ``total``.

    | paper / authors' code | here | why |
    |---|---|---|
    | VGG-16 of PyTorch's examples | VGG-19, layers of the same names | installs with pip |
    | 200 steps per size and for the last pass, Adam 0.002 (preset ``code``) | 500 in all, Adam 0.004 | \
half the time for nearly the same picture |
    | sizes 64 to 512 (1024 with an option) | down from the picture's to about 64 | the size is the caller's choice |
    | last pass: 64 x 64 positions of picture and style | 32 x 32 and 64 x 64, at most one in eight pixels along a \
side | an evaluation costs less than two passes through VGG |
    | mean of the style's features over all rotations | of each rotation | rotations are matched one after another: a \
quarter of the memory |
    | starts with the three (for 1024: two) finest of eight bands empty | starts from the content at the first size | \
the same at the authors' sizes |
    | mean of the content's features over chunks of it | over all of it | chunks are for the memory's sake |
    | pyramid: eight halvings at 512, five at 64 (preset ``code``) | seven at most | the smallest image counts as a \
level |
    | bands halved and doubled bilinearly, images too | images by antialiased bicubic, in range | one resampling \
everywhere |
    | features resized with the corners aligned | with the edges aligned | the same place in all layers |
    | gray style: moments of all of Oklab | the same map; for a gray content the result's own chroma is mapped | a \
gray content has no chroma to map |
    | style scaled to the content's long side | the style as it is, scaled by the same factors | sizes are the \
caller's choice (--style-size) |
    | one style | mixes (mean of the wanted features), regions by masks | as the other methods; positions in no region \
want the content's own features |
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
        pixel_bytes=2500,
    )
    Config = NNSTConfig
    config: NNSTConfig

    def _build(self) -> None:
        super()._build()
        self._encoder(LAYERS)

    def _encode_style(self, style: Style, content_size: Size | None) -> Mapping[str, Any]:
        # Hypercolumns of all sizes and rotations would take a gigabyte; making them anew is a few forward passes.
        assert style.image is not None  # styles="any" takes images only
        return {"image": style.image} if style.mask is None else {"image": style.image, "mask": style.mask}

    # -- sizes and steps --------------------------------------------------------------------------------------------

    def _fitting(self, at: int, problem: Problem) -> Fitting:
        # Losses of two steps of the last pass are of different samples, and do not compare.
        last = self.config.split and at == len(problem.sizes) - 1
        keep = "last" if last else "best"
        return dataclasses.replace(super()._fitting(at, problem), pyramid=self.config.pyramid, keep=keep)

    def _problem(self, content: Tensor | None, style: Mix, size: Size, call: Call) -> Problem:
        assert content is not None  # no trait texture
        sizes = doubled_sizes(size, self.config.levels, self.config.coarsest)
        masks = call.context.content_masks

        def loss(at: int, image: Tensor) -> Terms:
            scale = sizes[min(at, len(sizes) - 1)][0] / size[0]
            styles = [self._scaled_style(code.data, scale) for code, _ in style]
            guide = resize(content, size_of(image))
            if at == len(sizes):
                return self._split_loss(guide, style, styles, call)
            # What is matched: the content, and some of the picture so far with the content's finest band.
            query = guide
            if at > 0:
                band = guide - resize(resize(guide, sizes[at - 1]), size_of(guide))
                query = torch.lerp(guide, image + band, self.config.previous)
            return self._match_loss(self._wanted(query, guide, style, styles, call))

        def finish(image: Tensor) -> Tensor:
            if not self.config.palette:
                return image
            return torch.lerp(image, self._recolored(image, content, style, masks), call.strength)

        stages = [*sizes, sizes[-1]] if self.config.split else sizes
        return Problem(stages, self._start(call, content), loss, finish)

    def _scaled_style(self, data: Mapping[str, Tensor], scale: float) -> list[tuple[Tensor, Tensor | None]]:
        """The style at a size and its rotations, each with its mask."""
        height, width = size_of(data["image"])
        size = (max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale)))
        turns = range(4 if self.config.rotations else 1)
        mask = resize(data["mask"], size).clamp(0, 1) if "mask" in data else None
        return [
            (
                torch.rot90(resize(data["image"], size), turn, (2, 3)).contiguous(),
                None if mask is None else torch.rot90(mask, turn, (2, 3)),
            )
            for turn in turns
        ]

    # -- hypercolumns: section 3.1 ----------------------------------------------------------------------------------

    def _columns(self, image: Tensor) -> Columns:
        """Features at a quarter of the image's size, each layer divided by its channels, which else would count."""
        size = (max(1, image.shape[-2] // CELL), max(1, image.shape[-1] // CELL))
        return {
            layer: F.interpolate(x, size, mode="bilinear", align_corners=False) / x.shape[1]
            for layer, x in self._features(image, LAYERS).items()
        }

    def _wanted(self, query: Tensor, content: Tensor, style: Mix, styles: Sequence[Any], call: Call) -> Columns:
        """The hypercolumns that the picture shall have: of length 1 where one style's are wanted."""
        asked = self._columns(query)
        own = _normalized(asked if query is content else self._columns(content))
        size = size_of(asked[LAYERS[0]])
        found = {layer: torch.zeros_like(x, dtype=torch.float32) for layer, x in own.items()}
        left: Tensor | float = 1.0
        for copies, (_, weight, region) in zip(
            styles, in_regions(style, call.context.content_masks, size), strict=True
        ):
            share = call.strength * (weight if region is None else region)
            left = left - share
            nearest = self._nearest(asked, copies, region)
            for layer in found:
                found[layer] += share * nearest[layer]
        return {layer: x + left * own[layer] for layer, x in found.items()}

    def _nearest(self, asked: Columns, copies: Sequence[Copy], region: Tensor | None) -> Columns:
        """Each hypercolumn replaced by the style's nearest, of length 1; the mean of either side is left out."""
        query = _bank(asked, region, None)
        best: Tensor | None = None
        pixels = query.pixels.new_empty(0)
        for image, mask in copies:
            columns = self._columns(image)
            inside = None if mask is None else feature_masks(mask[0], size_of(columns[LAYERS[0]]))[0]
            bank = _bank(columns, inside, inside)
            found = match(query, bank, dtype=devices.dtype_of(self.precision))
            rows = torch.cat([x[0].flatten(1) for x in columns.values()]).T[found.index].float()
            if best is None:
                best, pixels = found.score, rows
            else:
                better = found.score > best
                best = torch.where(better, found.score, best)
                pixels = torch.where(better[:, None], rows, pixels)
        pixels = F.normalize(pixels, dim=1)
        size = size_of(asked[LAYERS[0]])
        widths = [x.shape[1] for x in asked.values()]
        return {layer: part.T.reshape(1, -1, *size) for layer, part in zip(asked, pixels.split(widths, 1), strict=True)}

    def _match_loss(self, wanted: Columns) -> Terms:
        """Mean over positions of 1 minus the cosine to the wanted hypercolumn (section 3.2)."""
        wanted = {layer: x.contiguous(memory_format=torch.channels_last) for layer, x in wanted.items()}

        def loss(image: Tensor) -> dict[str, Tensor]:
            products, squares = [], []
            for layer, x in self._columns(image).items():
                x = x.float()
                products.append((x * wanted[layer]).sum(1))
                squares.append(x.square().sum(1))
            length = torch.stack(squares).sum(0).clamp_min(1e-8).sqrt()
            return {"match": 1 - (torch.stack(products).sum(0) / length).mean()}

        return loss

    # -- feature splitting: section 3.3 -----------------------------------------------------------------------------

    def _split_loss(self, content: Tensor, style: Mix, styles: Sequence[Any], call: Call) -> Terms:
        """Per layer the mean over a grid of positions, a new one at every step, of the distance to the nearest."""
        generator = call.generator()
        # A small image has no more to say than one position in eight pixels along a side.
        most = max(1, max(size_of(content)) // (2 * CELL))
        theirs = [[(self._features(image, LAYERS), mask) for image, mask in copies] for copies in styles]
        plain = call.strength == 1 and call.context.content_masks is None
        own = {} if plain else self._features(content, LAYERS)

        def loss(image: Tensor) -> dict[str, Tensor]:
            features = self._features(image, LAYERS)
            distances = []
            for layer in LAYERS:
                step, pace = (max(1, max(size_of(features[layer])) // min(n, most)) for n in (SAMPLES, CHOICE))
                # Of a strip, a step along the longer side may be more than the other side has.
                offsets = torch.randint(step, (2,), generator=generator).tolist()
                dy, dx = (offset % side for offset, side in zip(offsets, size_of(features[layer]), strict=True))
                ours = _rows(features[layer], dy, dx, step)
                left: Tensor | float = 1.0
                for copies, (_, weight, region) in zip(
                    theirs, in_regions(style, call.context.content_masks, size_of(features[layer])), strict=True
                ):
                    share = call.strength * (weight if region is None else region[dy::step, dx::step].flatten())
                    left = left - share
                    pool = torch.cat([_sampled(one[layer], mask, dy % pace, dx % pace, pace) for one, mask in copies])
                    weighted = share if region is not None else None
                    distances.append((share * self._distances(ours, pool, weighted)).mean())
                if not plain:
                    kept = _rows(own[layer], dy, dx, step)
                    distances.append((left * (1 - F.cosine_similarity(ours, kept, dim=1))).mean())
            return {"split": total(distances)}

        return loss

    def _distances(self, ours: Tensor, theirs: Tensor, weight: Any) -> Tensor:
        """For each of ``ours`` (n, C) the cosine distance to the nearest of ``theirs`` (m, C), both without their
        means, ours weighted by ``weight`` (n,) where given. Matches are constants to the gradient."""
        if weight is None:
            mean = ours.mean(0, keepdim=True)
        else:
            mean = (ours * weight[:, None]).sum(0, keepdim=True) / weight.sum().clamp_min(1e-12)
        ours = F.normalize(ours - mean, dim=1)
        theirs = F.normalize(theirs - theirs.mean(0, keepdim=True), dim=1)
        dtype = devices.dtype_of(self.precision)
        with torch.no_grad():
            nearest = (ours.to(dtype) @ theirs.to(dtype).T).argmax(dim=1)
        return 1 - (ours * theirs[nearest]).sum(1)

    # -- color ------------------------------------------------------------------------------------------------------

    def _recolored(self, image: Tensor, content: Tensor, style: Mix, masks: Tensor | None) -> Tensor:
        """``image`` with the chroma of ``content`` under the affine map that gives it the style's mean and covariance,
        smoothed along the edges of its own lightness, and all of it held in the style's range."""
        lab, chroma = to_oklab(image), to_oklab(content)[:, 1:]
        if float(chroma.std(dim=(2, 3)).max()) < FLAT:
            chroma = lab[:, 1:]
        moved = torch.zeros_like(chroma)
        left: Tensor | float = 1.0
        ranges: list[Tensor] = []
        for code, weight, region in in_regions(style, masks, size_of(image)):
            theirs = to_oklab(code.data["image"]).flatten(2)
            if "mask" in code.data:
                theirs = theirs[..., code.data["mask"].flatten() > 0.5 * code.data["mask"].max()]
            ranges += [theirs.amin(2), theirs.amax(2)]
            here = chroma.flatten(2) if region is None else chroma.flatten(2)[..., region.flatten() > 0]
            if not here.numel():
                continue
            map_ = match_color(here[:, :, None], theirs[:, 1:, None])[:, :, 0]
            whole = map_.view_as(chroma) if region is None else _put(map_, region)
            share = weight if region is None else region
            moved, left = moved + share * whole, left - share
        chroma = moved + left * chroma
        if masks is not None:
            return from_oklab(torch.cat([lab[:, :1], smoothed(chroma, lab[:, :1])], dim=1))
        low, high = (bound(torch.cat(ranges), dim=0).view(1, 3, 1, 1) for bound in (torch.amin, torch.amax))
        lightness = lab[:, :1].clamp(low[:, :1], high[:, :1])
        return from_oklab(torch.cat([lightness, smoothed(chroma, lightness)], dim=1).clamp(low, high))


def _put(values: Tensor, region: Tensor) -> Tensor:
    """``values`` (1, C, n) at the positions (H, W) where ``region`` is above 0; zeros elsewhere."""
    whole = values.new_zeros(1, values.shape[1], region.numel())
    whole[..., region.flatten() > 0] = values
    return whole.view(1, -1, *region.shape)


def _normalized(columns: Columns) -> Columns:
    length = torch.stack([x.float().square().sum(1, keepdim=True) for x in columns.values()]).sum(0)
    return {layer: x.float() / length.clamp_min(1e-8).sqrt() for layer, x in columns.items()}


def _bank(columns: Columns, region: Tensor | None, allowed: Tensor | None) -> PatchBank:
    """Hypercolumns without their mean (over ``region`` (h, w)), to be matched; only those in ``allowed`` may be."""
    stacked = torch.cat([x[0].float() for x in columns.values()])
    rows = stacked.flatten(1)
    mean = rows.mean(1) if region is None else (rows @ region.flatten()) / region.sum().clamp_min(1e-12)
    bank = PatchBank.of([stacked - mean[:, None, None]], 1, 1)
    return bank if allowed is None else bank.within(allowed.flatten())


def _rows(features: Tensor, dy: int, dx: int, step: int) -> Tensor:
    """Features (1, C, h, w) at every ``step``-th position from (dy, dx), as rows (n, C) in float32."""
    return features[0, :, dy::step, dx::step].permute(1, 2, 0).flatten(0, 1).float()


def _sampled(features: Tensor, mask: Tensor | None, dy: int, dx: int, step: int) -> Tensor:
    height, width = size_of(features)
    rows = _rows(features, min(dy, height - 1), min(dx, width - 1), step)
    if mask is None:
        return rows
    weight = feature_masks(mask[0], (height, width))[0][min(dy, height - 1) :: step, min(dx, width - 1) :: step]
    return rows[weight.flatten() >= 0.5 * weight.max()]


__all__ = ["NNST", "NNSTConfig"]
