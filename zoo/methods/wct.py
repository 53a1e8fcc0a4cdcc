"""WCT: Li, Fang, Yang, Wang, Lu, Yang, *Universal Style Transfer via Feature Transforms*, NIPS 2017.

No style is ever trained. An encoder (normalised VGG-19) and, for each of its levels relu1_1 to relu5_1, a decoder
trained only to reconstruct images. Between them the content's features are whitened, then coloured with the style's
covariance (section 3.2, equations 3 and 4)::

    f_hat = Ec Dc^(-1/2) Ec^T (fc - mc)          f_cs = Es Ds^(1/2) Es^T f_hat + ms

both of which are matrices C x C, so one level is one matrix and one offset. Levels are run coarse to fine: each takes
the image that the level above decoded (section 3.3, figure 1c). Noise in place of the content gives textures (4.2).
The decoders are trained by :class:`zoo.training.reconstruction.ReconstructionTask`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zoo import device as devices
from zoo.config import Config, option
from zoo.encoders import Encoder
from zoo.errors import ConfigError, NumericalError, WeightsError
from zoo.memory import style_tile
from zoo.methods._features import load_pairs
from zoo.nn.decoder import VGGDecoder
from zoo.nn.regions import feature_masks
from zoo.nn.tiles import Local, Whole, boxes_of, each, store
from zoo.nn.whitening import Moments, MomentSums, add_affine, apply_affine_, coloring, whitening
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer, Traits, finite

# Pixels below which relu5_1 has fewer positions than channels (512, each of 16 x 16 pixels). Its covariance is singular
# then, and what one level rounds the next one whitens up to full strength: in bfloat16 pictures of 160 x 160 are 10
# levels of 255 away from float32's. Such small images are cheap, so they run in float32 in any precision.
SMALL = 512 * 16 * 16


@dataclass(frozen=True)
class WCTConfig(Config):
    """Options of WCT."""

    levels: tuple[int, ...] = option((5, 4, 3, 2, 1), "Levels reluK_1, in the order they are run.", ge=1, le=5)
    level_strengths: tuple[float, ...] | None = option(
        None, "A strength for each of the levels, multiplied by the call's; none is 1 for all.", ge=0, le=1
    )
    texture_strengths: tuple[float, ...] | None = option(
        None, "A strength for each of the levels of a texture; none is 1 for all (paper, section 4.2).", ge=0, le=1
    )
    texture_passes: int = option(3, "How often a texture runs through all levels (paper, section 4.2: 3).", ge=1)

    def validate(self) -> None:
        if len(set(self.levels)) != len(self.levels) or not self.levels:
            raise ConfigError(f"Option 'levels' takes each level at most once, got {self.levels}.")
        for kind in ("level", "texture"):
            strengths = getattr(self, f"{kind}_strengths")
            if strengths is not None and len(strengths) != len(self.levels):
                raise ConfigError(f"Give one {kind} strength per level: {len(self.levels)}, not {len(strengths)}.")


class WCT(Stylizer):
    """Whitening and colouring transforms (Li et al. 2017).

    ``strength`` is their alpha, applied at every level (section 3.2, last equation). Strength 0 passes the content
    through encoder and decoder of every level: a reconstruction.

    | paper / authors' code | here | why |
    |---|---|---|
    | SVD of the C x C covariances in float32 (code) | their eigendecomposition in float64 | the same for a symmetric \
matrix, 20 ms instead of 33 at relu5_1; float64 because whitening enlarges the flattest directions up to 300 times |
    | alpha 0.6; 1 for textures | strength 1 unless asked otherwise (``wct.paper``: 0.6), \
in textures too (``texture_strengths``) | one meaning of strength for all methods |
    | patches of whitened relu5_1 swapped for the style's (-swap5 of the code) | left out | off by default there |
    | two styles by averaging their coloured features | weighted average of the styles' maps, applied once | any \
number of styles; one matrix product |
    | float32 | 16 bits for large images | twice as fast on hardware that has them; not below 362 x 362 pixels, see \
SMALL |
    """

    traits = Traits(
        strength="feature",
        strength_zero="reconstruction",
        mixes=True,
        texture=True,
        context=frozenset({"content_masks"}),
        min_size=32,
        multiple_of=16,
        cpu_precision="bf16",
        pixel_bytes=310,
        tiled=True,
        kept_bytes=12,
        tiled_styles=True,
    )
    Config = WCTConfig
    reads_levels = True  # the first level; between levels the picture is float32
    config: WCTConfig

    def _build(self) -> None:
        if self.checkpoint is None:
            raise WeightsError("WCT needs the weights of its decoders: load 'wct' or give a checkpoint.")
        self.networks = {self.precision: self._load(self.precision)}

    def _load(self, precision: devices.Precision) -> dict[int, tuple[Encoder, VGGDecoder]]:
        """Encoder and decoder of every level."""
        assert self.checkpoint is not None  # _build refuses
        return load_pairs(self.checkpoint, self.config.levels, self.device, devices.dtype_of(precision))

    def _networks(self, image: Tensor, level: int) -> tuple[Encoder, VGGDecoder]:
        """Of ``level`` for this ``image``; in float32 for a small one, see SMALL."""
        precision: devices.Precision = "fp32" if image.shape[-2] * image.shape[-1] < SMALL else self.precision
        if precision not in self.networks:
            self.networks[precision] = self._load(precision)
        return self.networks[precision][level]

    def _map(self, image: Tensor, level: int) -> Local:
        """The features of ``image`` as a map."""
        encoder, _ = self._networks(image, level)
        tap = f"relu{level}_1"

        def encode(part: Tensor) -> Tensor:
            return encoder(part.contiguous(memory_format=torch.channels_last))[tap]

        return Local(encode, Whole(image), halo=encoder.reach(tap), down=encoder.stride(tap), floor=True)

    def _features(self, images: Tensor, level: int) -> Tensor:
        return self._map(images, level).function(images)

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        code: dict[str, dict[str, Tensor]] = {}
        height, width = style.image.shape[-2:]
        side = style_tile(height, width) or max(height, width)
        for level in self.config.levels:
            features, sums = self._map(style.image, level), MomentSums()
            region = None if style.mask is None else feature_masks(style.mask[0], features.size)[0]
            for box in boxes_of(features, side):
                sums.add(features.read(box), None if region is None else region[box])
            statistics = sums.moments()
            root = coloring(statistics.covariance, statistics.rounding)
            code[f"relu{level}_1"] = {"mean": statistics.mean, "coloring": root}
        return code

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        return Stylized(self._run(content, style, call, self._strengths(self.config.level_strengths)))

    def _synthesize(self, style: Mix, size: tuple[int, int], call: Call) -> Stylized:
        """Run the same transforms from uniform noise, at full strength and repeatedly (section 4.2)."""
        noise = torch.rand((1, 3, *(-(-side // 16) * 16 for side in size)), generator=call.generator()).to(self.device)
        strengths = self._strengths(self.config.texture_strengths)
        image = self._run(noise, style, call, strengths, self.config.texture_passes)
        return Stylized(image[..., : size[0], : size[1]])

    def _strengths(self, chosen: tuple[float, ...] | None) -> tuple[float, ...]:
        """One per level; 1 where none are chosen."""
        return chosen or (1.0,) * len(self.config.levels)

    def _run(self, image: Tensor, style: Mix, call: Call, strengths: Sequence[float], passes: int = 1) -> Tensor:
        total = passes * len(self.config.levels)
        # Who is watched is told of levels where there are no tiles, and may end between two of them.
        for step in range(total) if call.tile is not None else each(range(total)):
            index = step % len(self.config.levels)
            level = self.config.levels[index]
            run = self._through if call.tile is None else self._through_tiles
            image = run(image, style, level, replace(call, strength=call.strength * strengths[index]))
            # Looked at between levels: the next one's ReLUs may turn what is not a number into zero. This level's last
            # convolution has none after it.
            if not finite(image):
                raise NumericalError(f"The image that level {level} decoded is not finite; try --precision fp32.")
            call.report(step + 1, total, {}, lambda image=image: image.clamp(0, 1))
        return image

    def _through(self, image: Tensor, style: Mix, level: int, call: Call) -> Tensor:
        """``image`` encoded, moved and decoded at one level."""
        _, decoder = self._networks(image, level)
        moved = self._transform_(self._features(image, level), style, level, call.strength, call.context.content_masks)
        return decoder(moved.contiguous(memory_format=torch.channels_last)).float()

    def _through_tiles(self, image: Tensor, style: Mix, level: int, call: Call) -> Tensor:
        """The same by tiles. Features are computed twice, for their moments and to be moved: kept at relu1_1 they would
        take ten times the memory of the picture."""
        assert call.tile is not None  # what tiles are for
        side = call.tile
        _, decoder = self._networks(image, level)

        def decode(features: Tensor) -> Tensor:
            return decoder(features.contiguous(memory_format=torch.channels_last)).float()

        features = self._map(image, level)
        stride = features.stride
        if call.strength > 0:
            weights = self._weights(call.context.content_masks, features.size)
            parts = (
                (features.read(box), None if weights is None else weights[:, box[0], box[1]])
                for box in boxes_of(features, side)
            )
            maps = self._maps(parts, style, level, call.strength)
            sources = [features] if weights is None else [features, Whole(weights[None], stride)]
            features = Local(lambda part, *own: _moved_(part, maps, own[0][0] if own else None), *sources)
        return store(Local(decode, features, halo=decoder.reach, up=stride), side).tensor

    def _weights(self, masks: Tensor | None, size: tuple[int, int]) -> Tensor | None:
        return None if masks is None else feature_masks(masks, size)

    def _transform_(self, features: Tensor, style: Mix, level: int, strength: float, masks: Tensor | None) -> Tensor:
        """``strength`` of the way to the whitened and coloured features, of the whole map (in place) or of regions."""
        if strength == 0:
            return features
        weights = self._weights(masks, (features.shape[-2], features.shape[-1]))
        moved = [
            _moved_(one, self._maps([(one, weights)], style, level, strength), weights) for one in features.split(1)
        ]
        return features if weights is None else torch.cat(moved)

    def _maps(
        self, parts: Iterable[tuple[Tensor, Tensor | None]], style: Mix, level: int, strength: float
    ) -> list[tuple[Tensor, Tensor]]:
        """The map of the whole picture, or of each style's region, from the picture's features (1, C, h, w) in parts
        and the regions' weights (K, h, w) there."""
        sums: list[MomentSums] = []
        for features, weights in parts:
            regions = [None] if weights is None else list(weights)
            sums = sums or [MomentSums() for _ in regions]
            for one, region in zip(sums, regions, strict=True):
                one.add(features, region)
        if len(sums) == 1:
            return [self._affine(sums[0].moments(), style, level, strength)]
        own = [Mix([(code, 1.0)]) for code, _ in style]
        return [self._affine(one.moments(), mix, level, strength) for one, mix in zip(sums, own, strict=True)]

    def _affine(self, statistics: Moments, style: Mix, level: int, strength: float) -> tuple[Tensor, Tensor]:
        """That map as one matrix (C, C) and one offset (C,), float64, from the content's ``statistics``."""
        tap, zero = f"relu{level}_1", torch.zeros_like(statistics.mean[0])
        matrix = sum((weight * code.data[tap]["coloring"] for code, weight in style), zero)
        matrix = matrix @ whitening(statistics.covariance, statistics.rounding)
        mean = sum((weight * code.data[tap]["mean"] for code, weight in style), zero)
        offset = strength * (mean - matrix @ statistics.mean)
        identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        return strength * matrix + (1 - strength) * identity, offset


def _moved_(features: Tensor, maps: Sequence[tuple[Tensor, Tensor]], weights: Tensor | None) -> Tensor:
    """``features`` (1, C, h, w) after one map (in place), or after each region's own where its weight (K, h, w) is."""
    if weights is None:
        return apply_affine_(features, *maps[0])
    # Positions in no region keep their features.
    out = features.float() * (1 - weights.sum(dim=0))
    for (matrix, offset), weight in zip(maps, weights, strict=True):
        add_affine(out, features, matrix, offset, weight)
    return out.to(features.dtype)
