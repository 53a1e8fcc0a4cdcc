"""Style transfer as a Markov random field: every neural patch of the image shall look like one of the style.

Li and Wand, *Combining Markov Random Fields and Convolutional Neural Networks for Image Synthesis*, CVPR 2016 (the
equations below); the authors' code is chuanli11/CNNMRF.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import device as devices
from zoo.config import option
from zoo.encoders import Encoder, load_encoder
from zoo.errors import InputError
from zoo.images import resize
from zoo.methods._pixels import (
    MIN_SIDE,
    PixelConfig,
    PixelMethod,
    Problem,
    Size,
    Terms,
    check_layers,
    in_regions,
    layer_weights,
    size_of,
    total,
)
from zoo.nn.patches import PatchBank, patch_energy, pixel_rows
from zoo.nn.regions import bounding_box, feature_masks
from zoo.stylizer import Call, Mix, Style, StyleCode, Traits

# Long side of the images that the authors' weights were chosen for (run_trans.lua).
_AUTHORS_SIDE = 384


@dataclass(frozen=True)
class CNNMRFConfig(PixelConfig):
    """Options of :class:`CNNMRF`. The defaults are the preset ``cnnmrf.code``."""

    num_steps: int = option(300, "Evaluations of loss and gradient, over all levels.", ge=1)
    mrf_layers: tuple[str, ...] = option(("relu3_1", "relu4_1"), "Layers whose patches are matched to the style's.")
    mrf_layer_weights: tuple[float, ...] = option((1.0,), "One weight per MRF layer, or one for all.", ge=0)
    content_layers: tuple[str, ...] = option(("relu4_2",), "Layers whose features are matched to the content's.")
    content_layer_weights: tuple[float, ...] = option((1.0,), "One weight per content layer, or one for all.", ge=0)
    mrf_weight: float = option(1e-4, "Weight of the MRF loss.", ge=0)
    content_weight: float = option(20.0, "Weight of the content loss (alpha 1 in eq. 1).", ge=0)
    tv_weight: float = option(1e-3, "Weight of the total variation, in neural-style's unit (alpha 2 in eq. 1).", ge=0)
    mrf_loss: Literal["mean", "sum"] = option(
        "mean", "Squared distances of patches: half their mean over the patches that cover a position, or eq. 2."
    )
    content_loss: Literal["mean", "sum"] = option("mean", "Squared differences of features: mean, or eq. 4.")
    patch_size: int = option(3, "Side of a patch, in positions of its layer.", ge=1)
    stride: int = option(2, "Distance of neighbouring patches of the image.", ge=1)
    style_stride: int = option(2, "Distance of neighbouring patches of the style.", ge=1)
    rotations: int = option(0, "Rotated copies of the style each way.", ge=0, le=12)
    rotation_step: float = option(7.5, "Degrees from one rotated copy to the next.", gt=0, le=45)
    scales: int = option(0, "Larger and smaller copies of the style each way.", ge=0, le=12)
    scale_step: float = option(0.05, "Growth from one scaled copy to the next; 0.05 is 5 %.", gt=0, le=1)
    levels: int = option(3, "Sizes gone through, coarse to fine, with equal shares of the steps.", ge=1, le=8)
    init: Literal["content", "noise"] = option("content", "The image the coarsest level starts from.")
    noise_scale: float = option(50.0, "Deviation of the noise around the mean colour, in levels of 255.", ge=0)
    clamp: bool = option(False, "Put pixels back into range before every evaluation.")
    match_precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Format of the products that find the best patches; auto is the network's (--precision)."
    )
    chunk_mb: int = option(24, "Largest block of patches or scores held while matching, in MiB.", ge=1)

    def validate(self) -> None:
        check_layers(self, "mrf", *(["content"] if self.content_layers else []))


class CNNMRF(PixelMethod):
    """Li and Wand: every 3 x 3 patch of features takes after its best match in the style.

    The energy of an image x is the MRF loss, over relu3_1 and relu4_1, plus the content loss at relu4_2 plus the total
    variation (eq. 1). Each patch is compared with all patches of the style, of its rotated and of its scaled copies, by
    normalised cross-correlation (eq. 3), again at every evaluation; the squared distance to the best is its share of
    the MRF loss (eq. 2). The image is optimised coarse to fine, half the size per level, each level starting from the
    last one's result. ``num_steps`` are all evaluations: levels share them evenly, what does not divide goes to the
    finest. Levels too small for a patch, or under 32 pixels, of image or style are left out; so are copies of the
    style. :meth:`synthesize` leaves out the content: the paper's texture synthesis, from noise.

    ``strength`` scales the MRF loss; 0 is the content. Losses per step: ``mrf``, ``content``, ``tv`` (weighted) and
    ``total``. In memory are the style's feature maps at all levels and blocks of at most ``chunk_mb``; at 512 pixels
    nine copies of the style take 0.3 GB in float32, half of that in bf16.

    Presets: ``code``, the authors' defaults (cnnmrf.lua) with content at relu4_2 as in their examples; ``paper``, as
    the text has it: patches at every position, five rotations and seven scales, from noise, 200 evaluations per level.
    To follow run_trans.lua add ``rotations=1, scales=1``.

    | paper or authors' code | here | why |
    | --- | --- | --- |
    | code: adds w · mean over covering patches of (current - matched) to the gradient, returns loss 0 | the loss of \
which that is the gradient: half the mean of squares (``mrf_loss`` mean) | a true loss can be watched, compared and \
minimised; the default weights keep their meaning |
    | code: content is a mean over features, the MRF a sum, at 384 pixels | the mean times (long side / 384)² | their \
balance at every size; the coarse levels still follow the content more, as theirs |
    | code: own L-BFGS, no line search, history 25, first move of L1 norm 1 | :mod:`zoo.nn.optimize`: the same \
without a line search, moves bounded instead, best image kept | a move of L1 norm 1 is lost in rounding |
    | code: each level has its own number of iterations, 100 | ``num_steps`` in all, shared evenly | a step means one \
evaluation across the zoo |
    | code: pixels times 256 | times 255 | 0.4 %; the network was trained on 255 |
    | code: all sides scaled to 384 first | the size of the image given | the size is the caller's choice |
    | code: bilinear resampling | antialiased bicubic, bilinear for rotations | one resampling everywhere |
    | code: noise of 0.001 levels | ``noise_scale``, 50 levels | a flat start gives every patch the same few matches |
    | code: rotated images are cut by an own rule | the largest upright rectangle | more of the style is kept |
    | one style | weighted sums over several; regions by masks | as Gatys'; patches of a region see only its own style |
    | paper: alpha 1 = 1 | 9 (preset ``paper``) | at stride 1 nine patches cover a position, so eq. 2 counts it nine \
times; with 1 the result is the style image |
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
        pixel_bytes=1300,
    )
    Config = CNNMRFConfig
    config: CNNMRFConfig

    def _build(self) -> None:
        super()._build()
        config = self.config
        # A style, and a texture, need nothing behind the deepest MRF layer.
        layers = [*config.mrf_layers, *config.content_layers]
        encoder = self._encoder(layers)
        self._smallest = max(MIN_SIDE, *(config.patch_size * encoder.stride(tap) for tap in config.mrf_layers))

    def _network(self, taps: tuple[str, ...]) -> Encoder:
        # Caffe pools a last odd row or column on its own. Dropped, it would belong to no patch: at the coarsest level
        # that is a border of the content, left as it was, as wide as half a patch.
        return load_encoder(
            self.config.encoder,
            taps=taps,
            pool=self.config.pool,
            ceil_mode=not self.config.encoder.startswith("timm:"),
            device=self.device,
        )

    # -- the style: feature maps of its rotated and scaled copies, level by level (section 4.1, "Implementation") -----

    def _encode_style(self, style: Style, content_size: Size | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        return {"levels": [self._style_maps(style, size) for size in self._sizes(size_of(style.image))]}

    def _style_maps(self, style: Style, size: Size) -> dict[str, dict[str, Any]]:
        """Per MRF layer the ``pixels`` of all copies' maps as one table, each map's height and width as ``shapes``, and
        with a mask the ``region`` of the table."""
        assert style.image is not None
        found: dict[str, dict[str, Any]] = {tap: {"pixels": [], "shapes": []} for tap in self.config.mrf_layers}
        masks: list[Tensor] = []
        if style.mask is not None:
            masks = variants(resize(style.mask.expand(-1, 3, -1, -1), size), self.config)
        for number, copy in enumerate(variants(resize(style.image, size), self.config)):
            for tap, item in self._features(copy, self.config.mrf_layers).items():
                if min(item.shape[-2:]) < self.config.patch_size:
                    continue
                found[tap]["pixels"].append(pixel_rows(item))
                found[tap]["shapes"].append(size_of(item))
                if masks:
                    region = feature_masks(masks[number][0, :1].clamp(0, 1), size_of(item))
                    found[tap].setdefault("region", []).append(region.flatten())
        return {
            tap: {name: torch.cat(one.pop(name)) if name != "shapes" else one[name] for name in list(one)}
            for tap, one in found.items()
        }

    def _sizes(self, size: Size) -> list[Size]:
        """Height and width at each level, the coarsest first; those too small for a patch are left out."""
        if min(size) < self._smallest:
            raise InputError(
                f"Patches of {self.config.patch_size} on {', '.join(self.config.mrf_layers)} need images of at least "
                f"{self._smallest} pixels a side, not {size[1]} x {size[0]}."
            )
        sizes = [scaled(size, self.config.level_scale**level) for level in reversed(range(self.config.levels))]
        return [at for at in sizes if min(at) >= self._smallest]

    # -- what is optimised: an image under a photograph's guidance, or free ------------------------------------------

    def _problem(self, content: Tensor | None, style: Mix, size: Size, call: Call) -> Problem:
        """Coarse to fine at every size that image and styles all reach."""
        sizes = self._sizes(size)[-min(len(code.data["levels"]) for code, _ in style) :]

        def loss(at: int, image: Tensor) -> Terms:
            guide = None if content is None else resize(content, sizes[at])
            return self._loss(guide, style, at - len(sizes), call, max(size))

        return Problem(sizes, self._start(call, content), loss)

    def _noise(self, size: Size, call: Call) -> Tensor:
        return super()._noise(size, call).clamp(0, 1)

    # -- the loss: eq. 1 --------------------------------------------------------------------------------------------

    def _bank(self, code: StyleCode, level: int, tap: str) -> PatchBank:
        kept = code.data["levels"][level][tap]
        bank = PatchBank.over(kept["pixels"], kept["shapes"], self.config.patch_size, self.config.style_stride)
        return bank.within(kept["region"]) if "region" in kept else bank

    def _loss(self, content: Tensor | None, style: Mix, level: int, call: Call, long_side: int) -> Terms:
        """The weighted terms as a function of the image at ``level`` (-1 is the finest); without ``content`` that term
        is left out. Strength scales the MRF term; ``long_side`` is that of the pyramid's finest level."""
        config = self.config
        mrf_weights = layer_weights(config, "mrf")
        content_weights = layer_weights(config, "content") if content is not None and config.content_weight else {}
        layers = (*mrf_weights, *content_weights)
        banks = {tap: [self._bank(code, level, tap) for code, _ in style] for tap in mrf_weights}
        wanted = {} if content is None or not content_weights else self._features(content, layers)
        # Half of the mean: its gradient is the mean difference itself, which is what the authors' code adds up.
        half = 0.5 if config.mrf_loss == "mean" else 1.0
        # A mean weighs the less against a sum, the larger the image; the authors' weights belong to their size.
        balance = (long_side / _AUTHORS_SIDE) ** 2 if config.content_loss == "mean" else 1.0

        def loss(image: Tensor) -> dict[str, Tensor]:
            features = self._features(image, layers)
            mrf = [
                (call.strength * config.mrf_weight * weight * half)
                * self._energy(features[tap], banks[tap], style, call.context.content_masks)
                for tap, weight in mrf_weights.items()
            ]
            terms = {"mrf": total(mrf)}
            if content_weights:
                terms["content"] = total(
                    (balance * config.content_weight * weight)
                    * _content_loss(features[tap], wanted[tap], config.content_loss)
                    for tap, weight in content_weights.items()
                )
            return terms

        return loss

    def _energy(self, features: Tensor, banks: list[PatchBank], style: Mix, masks: Tensor | None) -> Tensor:
        """Eq. 2 for one layer: of a mix the weighted sum, of regions each one's by its own style."""
        config = self.config
        energies = []
        for bank, (_, weight, region) in zip(banks, in_regions(style, masks, size_of(features)), strict=True):
            # No patch further away than its size sees the region.
            rows, columns = (slice(None), slice(None))
            if region is not None:
                rows, columns = bounding_box(region, config.patch_size - 1 if config.stride == 1 else None)
            part = features[..., rows, columns]
            if not part.numel():
                continue
            energy = patch_energy(
                part,
                bank,
                stride=config.stride,
                overlap=config.mrf_loss,
                dtype=devices.dtype_of(self.precision if config.match_precision == "auto" else config.match_precision),
                chunk_bytes=config.chunk_mb << 20,
                region=None if region is None else region[rows, columns],
            )
            energies.append(energy if weight == 1 else weight * energy)
        return total(energies) if energies else 0.0 * features.float().sum()


def _content_loss(features: Tensor, wanted: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
    difference = (features.float() - wanted.float()).square()
    return difference.mean() if reduction == "mean" else difference.sum()


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """``size`` times ``factor``, rounded up as in the authors' pyramid; 20 x 1.05 is 21, whatever its last bit says."""
    height, width = size
    return max(1, math.ceil(height * factor - 1e-6)), max(1, math.ceil(width * factor - 1e-6))


def variants(image: Tensor, config: CNNMRFConfig) -> list[Tensor]:
    """The style (1, 3, H, W) in every rotation and scale: (2 · rotations + 1) · (2 · scales + 1) images."""
    return [
        resize(turned, scaled(size_of(turned), (1 + config.scale_step) ** growth))
        for step in range(-config.rotations, config.rotations + 1)
        for turned in [rotated(image, step * config.rotation_step)]
        for growth in range(-config.scales, config.scales + 1)
    ]


def inscribed(height: int, width: int, degrees: float) -> tuple[int, int]:
    """Height and width of the largest upright rectangle within an image rotated by ``degrees``, in whole pixels."""
    sine, cosine = abs(math.sin(math.radians(degrees))), abs(math.cos(math.radians(degrees)))
    short, long = min(height, width), max(height, width)
    if short <= 2 * sine * cosine * long or math.isclose(sine, cosine):
        # A long strip: two corners touch its long sides, the other two touch nothing.
        reach = short / 2
        tall, wide = (reach / cosine, reach / sine) if width >= height else (reach / sine, reach / cosine)
    else:
        # All four corners touch: the equations are linear in height and width.
        tall, wide = ((height * cosine - width * sine), (width * cosine - height * sine))
        tall, wide = tall / (cosine**2 - sine**2), wide / (cosine**2 - sine**2)
    return math.floor(tall + 1e-6), math.floor(wide + 1e-6)


def rotated(image: Tensor, degrees: float) -> Tensor:
    """The image (1, 3, H, W) turned about its centre and cut to its :func:`inscribed` rectangle; bilinear."""
    if degrees == 0:
        return image
    # Beside an MPS device, whose sampling has no padding by the border.
    device, image = image.device, devices.exact(image)
    height, width = image.shape[-2:]
    tall, wide = inscribed(height, width, degrees)
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    # From the crop's coordinates in [-1, 1] to the image's.
    turn = image.new_tensor(
        [[cosine * wide / width, -sine * tall / width, 0], [sine * wide / height, cosine * tall / height, 0]]
    )
    grid = F.affine_grid(turn[None], [1, 3, max(1, tall), max(1, wide)], align_corners=False)
    turned = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return turned.clamp(0, 1).to(device)
