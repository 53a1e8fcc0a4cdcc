"""Style transfer as a Markov random field: every neural patch of the image shall look like one of the style.

Li and Wand, *Combining Markov Random Fields and Convolutional Neural Networks for Image Synthesis*, CVPR 2016 (the
equations below); the authors' code is chuanli11/CNNMRF.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import device as devices
from zoo.config import Config, option
from zoo.encoders import Encoder, load_encoder
from zoo.errors import ConfigError, InputError, UnsupportedError
from zoo.images import resize
from zoo.nn.losses import total_variation
from zoo.nn.optimise import optimise_pixels
from zoo.nn.patches import PatchBank, patch_energy, pixel_rows
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer, Traits

# Mean colour of ImageNet, RGB in levels of 255: what the network sees as zero. Noise is drawn around it.
_MEAN = (123.68, 116.779, 103.939)

# Sides of relu4_1 are an eighth of the image's: four positions hold two 3 x 3 patches side by side.
_MIN_SIDE = 32

# Long side of the images that the authors' weights were chosen for (run_trans.lua).
_AUTHORS_SIDE = 384


@dataclass(frozen=True)
class CNNMRFConfig(Config):
    """Options of :class:`CNNMRF`. The defaults are the preset ``cnnmrf.code``."""

    num_steps: int = option(300, "Evaluations of loss and gradient, over all levels.", ge=1)
    time_limit: float | None = option(None, "Seconds per image, after which the best one so far is returned.", gt=0)
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
    level_scale: float = option(0.5, "Side of one level relative to the next.", ge=0.25, lt=1)
    init: Literal["content", "noise"] = option("content", "The image the coarsest level starts from.")
    noise_scale: float = option(50.0, "Deviation of the noise around the mean colour, in levels of 255.", ge=0)
    optimizer: Literal["lbfgs", "adam"] = option("lbfgs", "L-BFGS with a fixed step, or Adam.")
    learning_rate: float = option(1.0, "Length of the L-BFGS step, or Adam's rate in levels of 255.", gt=0)
    history: int = option(25, "Curvature pairs that L-BFGS keeps; each costs two images of memory.", ge=1)
    clamp: bool = option(False, "Put pixels back into range before every evaluation.")
    encoder: str = option("vgg19", "Feature network.")
    pool: Literal["max", "avg"] = option("max", "Pooling of the feature network.")
    match_precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Format of the products that find the best patches; auto is the network's (--precision)."
    )
    chunk_mb: int = option(24, "Largest block of patches or scores held while matching, in MiB.", ge=1)

    def validate(self) -> None:
        if not self.mrf_layers:
            raise ConfigError("CNNMRF needs at least one MRF layer.")
        for kind in ("mrf", "content"):
            layers, weights = getattr(self, f"{kind}_layers"), getattr(self, f"{kind}_layer_weights")
            if len(weights) not in (1, len(layers)):
                raise ConfigError(
                    f"Option '{kind}_layer_weights' has {len(weights)} values for {len(layers)} {kind} layers: "
                    "give one each, or one for all."
                )
            if len(set(layers)) < len(layers):
                raise ConfigError(f"Option '{kind}_layers' names a layer twice.")

    def weights(self, kind: Literal["mrf", "content"]) -> dict[str, float]:
        """Weight of each layer, by name."""
        layers, weights = getattr(self, f"{kind}_layers"), getattr(self, f"{kind}_layer_weights")
        return dict(zip(layers, weights * len(layers) if len(weights) == 1 else weights, strict=True))


class CNNMRF(Stylizer):
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
    | code: own L-BFGS, no line search, history 25, first move of L1 norm 1 | :mod:`zoo.nn.optimise`: the same \
without a line search, moves bounded instead, best image kept | a move of L1 norm 1 is lost in rounding |
    | code: each level has its own number of iterations, 100 | ``num_steps`` in all, shared evenly | a step means one \
evaluation across the zoo |
    | code: pixels times 256 | times 255 | 0.4 %; the network was trained on 255 |
    | code: all sides scaled to 384 first | the size of the image given | the size is the caller's choice |
    | code: bilinear resampling | antialiased bicubic, bilinear for rotations | one resampling everywhere |
    | code: noise of 0.001 levels | ``noise_scale``, 50 levels | a flat start gives every patch the same few matches |
    | code: rotated images are cut by an own rule | the largest upright rectangle | more of the style is kept |
    | paper: alpha 1 = 1 | 9 (preset ``paper``) | at stride 1 nine patches cover a position, so eq. 2 counts it nine \
times; with 1 the result is the style image |
    """

    traits = Traits(
        kind="optimisation",
        strength="loss",
        batched=False,
        texture=True,
        context=frozenset({"init"}),
        min_size=_MIN_SIDE,
        cpu_precision="bf16",
        pixel_bytes=1300,
    )
    Config = CNNMRFConfig
    config: CNNMRFConfig

    def _build(self) -> None:
        config = self.config
        self._encoder = self._network((*config.mrf_layers, *config.content_layers))
        # A style, and a texture, need nothing behind the deepest MRF layer.
        self._mrf_encoder = self._network(config.mrf_layers)
        self._smallest = max(_MIN_SIDE, *(config.patch_size * self._encoder.stride(tap) for tap in config.mrf_layers))

    def _network(self, taps: tuple[str, ...]) -> Encoder:
        # Caffe pools a last odd row or column on its own. Dropped, it would belong to no patch: at the coarsest level
        # that is a border of the content, left as it was, as wide as half a patch.
        return load_encoder(
            self.config.encoder,
            taps=tuple(dict.fromkeys(taps)),
            pool=self.config.pool,
            ceil_mode=not self.config.encoder.startswith("timm:"),
            device=self.device,
        )

    # -- the style: feature maps of its rotated and scaled copies, level by level (section 4.1, "Implementation") -----

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        if style.image is None or style.mask is not None:
            raise UnsupportedError("cnnmrf takes a style as one whole image: leave the mask out.")
        return {"levels": [self._style_maps(resize(style.image, size)) for size in self._sizes(_size(style.image))]}

    def _style_maps(self, image: Tensor) -> dict[str, tuple[Tensor, list[tuple[int, int]]]]:
        """Per MRF layer the pixels of all copies' maps as one table, and each map's height and width."""
        tables: dict[str, list[Tensor]] = {tap: [] for tap in self.config.mrf_layers}
        shapes: dict[str, list[tuple[int, int]]] = {tap: [] for tap in self.config.mrf_layers}
        for copy in variants(image, self.config):
            with self.autocast():
                features = self._mrf_encoder(copy)
            for tap, item in features.items():
                if min(item.shape[-2:]) >= self.config.patch_size:
                    tables[tap].append(pixel_rows(item))
                    shapes[tap].append(_size(item))
        return {tap: (torch.cat(tables.pop(tap)), shapes[tap]) for tap in self.config.mrf_layers}

    def _sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Height and width at each level, the full size first; coarse levels too small for a patch are left out."""
        if min(size) < self._smallest:
            raise InputError(
                f"Patches of {self.config.patch_size} on {', '.join(self.config.mrf_layers)} need images of at least "
                f"{self._smallest} pixels a side, not {size[1]} x {size[0]}."
            )
        sizes = [scaled(size, self.config.level_scale**level) for level in range(self.config.levels)]
        return [at for at in sizes if min(at) >= self._smallest]

    # -- what is optimised: an image under a photograph's guidance, or free ------------------------------------------

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        if call.strength == 0:
            # Without the MRF term the content itself is the minimum.
            return Stylized(content.clone(), steps=0)
        size = _size(content)
        start = content if self.config.init == "content" else None
        start = call.context.init if call.context.init is not None else start
        return self._optimise(size, start, content, style, call)

    def _synthesize(self, style: Mix, size: tuple[int, int], call: Call) -> Stylized:
        return self._optimise(size, None, None, style, call)

    def _optimise(
        self, size: tuple[int, int], start: Tensor | None, content: Tensor | None, style: Mix, call: Call
    ) -> Stylized:
        """Coarse to fine from ``start``, or from noise, at every size that image and style both reach."""
        config = self.config
        deadline = None if config.time_limit is None else time.monotonic() + config.time_limit
        ((code, _),) = style
        sizes = self._sizes(size)[: len(code.data["levels"])][: config.num_steps]
        image = resize(start, sizes[-1]) if start is not None else self._noise(sizes[-1], call)
        steps, rows, stopped = 0, [], False
        for level in reversed(range(len(sizes))):
            guide = None if content is None else resize(content, sizes[level])
            result = optimise_pixels(
                resize(image, sizes[level]),
                self._loss(guide, code.data["levels"][level], call.strength, max(size)),
                optimiser=config.optimizer,
                num_steps=(config.num_steps - steps) // (level + 1),
                learning_rate=config.learning_rate,
                call=call,
                deadline=deadline,
                first_step=steps,
                total_steps=config.num_steps,
                clamp=config.clamp,
                history=config.history,
                precision=self.precision,
                show=lambda image: resize(image, size),
            )
            image, steps, stopped = result.image, steps + result.steps, result.stopped
            rows.extend(result.losses)
            if stopped:
                break
        return Stylized(resize(image, size), steps, rows, stopped)

    def _noise(self, size: tuple[int, int], call: Call) -> Tensor:
        noise = torch.randn(1, 3, *size, generator=call.generator()) * self.config.noise_scale
        mean = torch.tensor(_MEAN).view(1, 3, 1, 1)
        return ((mean + noise) / 255).clamp(0, 1).to(self.device)

    # -- the loss: eq. 1 --------------------------------------------------------------------------------------------

    def _loss(
        self,
        content: Tensor | None,
        style: Mapping[str, tuple[Tensor, list[tuple[int, int]]]],
        strength: float,
        long_side: int,
    ) -> Callable[[Tensor], dict[str, Tensor]]:
        """The weighted terms and their sum as a function of the image; without ``content`` that term is left out.
        ``strength`` scales the MRF term; ``long_side`` is that of the pyramid's finest level."""
        config = self.config
        mrf_weights = config.weights("mrf")
        content_weights = config.weights("content") if content is not None and config.content_weight else {}
        encoder = self._encoder if content_weights else self._mrf_encoder
        banks = {tap: PatchBank.over(*style[tap], config.patch_size, config.style_stride) for tap in mrf_weights}
        dtype = devices.dtype_of(self.precision if config.match_precision == "auto" else config.match_precision)
        wanted: dict[str, Tensor] = {}
        if content is not None and content_weights:
            with self.autocast():
                wanted = encoder(content)
        # Half of the mean: its gradient is the mean difference itself, which is what the authors' code adds up.
        half = 0.5 if config.mrf_loss == "mean" else 1.0
        # A mean weighs the less against a sum, the larger the image; the authors' weights belong to their size.
        balance = (long_side / _AUTHORS_SIDE) ** 2 if config.content_loss == "mean" else 1.0

        def loss(image: Tensor) -> dict[str, Tensor]:
            with self.autocast():
                features = encoder(image)
            mrf = [
                (strength * config.mrf_weight * weight * half)
                * patch_energy(
                    features[tap],
                    banks[tap],
                    stride=config.stride,
                    overlap=config.mrf_loss,
                    dtype=dtype,
                    chunk_bytes=config.chunk_mb << 20,
                )
                for tap, weight in mrf_weights.items()
            ]
            terms = {"mrf": torch.stack(mrf).sum()}
            if content_weights:
                guided = [
                    (balance * config.content_weight * weight)
                    * _content_loss(features[tap], wanted[tap], config.content_loss)
                    for tap, weight in content_weights.items()
                ]
                terms["content"] = torch.stack(guided).sum()
            if config.tv_weight:
                terms["tv"] = config.tv_weight * total_variation(image)
            return {"total": torch.stack(list(terms.values())).sum(), **terms}

        return loss


def _content_loss(features: Tensor, wanted: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
    difference = (features.float() - wanted.float()).square()
    return difference.mean() if reduction == "mean" else difference.sum()


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """``size`` times ``factor``, rounded up as in the authors' pyramid; 20 x 1.05 is 21, whatever its last bit says."""
    height, width = size
    return max(1, math.ceil(height * factor - 1e-6)), max(1, math.ceil(width * factor - 1e-6))


def variants(image: Tensor, config: CNNMRFConfig) -> list[Tensor]:
    """The style (1, 3, H, W) in every rotation and scale: (2 · rotations + 1) · (2 · scales + 1) images."""
    return [
        resize(turned, scaled(_size(turned), (1 + config.scale_step) ** growth))
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
