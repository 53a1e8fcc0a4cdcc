"""AdaIN: Huang and Belongie, *Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization*, ICCV 2017.

A fixed encoder (normalised VGG-19 up to relu4_1), one statistical operation, and a decoder trained once for all styles
(section 5). The operation gives every channel of the content's features the mean and standard deviation that the
channel has over the style (equation 8)::

    AdaIN(x, y) = sigma(y) (x - mu(x)) / sigma(x) + mu(y)

so a style is no more than 2 x 512 numbers, and strengths (equation 14), blends of styles (equation 15) and regions
(section 7.3) are arithmetic on features. The decoder is trained by :class:`AdaINTraining`, at the end of this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.config import Config, option
from zoo.encoders import load_encoder
from zoo.errors import ConfigError
from zoo.methods._features import FeatureMethod
from zoo.nn.decoder import VGGDecoder, of_level
from zoo.stylizer import Mix, Traits
from zoo.training.motion import move, temporal_loss
from zoo.training.task import Batch, HeldOut, TrainConfig, teacher
from zoo.training.whitened import WhitenedTask
from zoo.weights import read_state

TAP = "relu4_1"
STYLE_TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")  # equation 13
EPS = 1e-5  # added to the variance (AdaIN-style, lib/AdaptiveInstanceNormalization.lua)


@dataclass(frozen=True)
class AdaINConfig(Config):
    """AdaIN has no options of its own: strength, mixes and masks are arguments of every call."""


def mean_std(features: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of features (B, C, h, w) over positions, float32, (B, C, 1, 1) each.

    ``weight`` (h, w) in [0, 1] restricts them to a region. The variance is the population's, plus EPS (equations 5 and
    6). An empty region has mean 0 and deviation sqrt(EPS).
    """
    # One row per position: over channels-last features this is many times faster than torch.var_mean over (2, 3).
    rows = features.permute(0, 2, 3, 1).flatten(1, 2).float()
    shares = torch.full_like(rows[:1, :, :1], 1 / rows.shape[1])
    if weight is not None:
        shares = (weight / weight.sum().clamp_min(1e-12)).reshape(1, -1, 1)
    mean = (rows * shares).sum(dim=1, keepdim=True)
    variance = ((rows - mean).square() * shares).sum(dim=1, keepdim=True)
    batch, channels = features.shape[:2]
    return mean.view(batch, channels, 1, 1), (variance + EPS).sqrt().view(batch, channels, 1, 1)


def adain(features: Tensor, mean: Tensor, std: Tensor, weight: Tensor | None = None) -> Tensor:
    """Give ``features`` (B, C, h, w) the style's ``mean`` and ``std`` (B or 1, C, 1, 1) per channel (equation 8).

    ``weight`` (h, w) restricts the features' own moments to a region; the resulting map applies everywhere.
    Computed in float32: where a channel hardly varies over the content, a large scale and a large shift cancel.
    """
    own_mean, own_std = mean_std(features, weight)
    scale = std / own_std
    return (features.float() * scale + (mean - scale * own_mean)).to(features.dtype)


class AdaIN(FeatureMethod):
    """AdaIN (Huang and Belongie 2017). One decoder for every style; ``strength`` is their alpha (equation 14).

    Strength 0 decodes the content's own features: the decoder's reconstruction of the content, not the content itself.

    | paper / authors' code | here | why |
    |---|---|---|
    | VGG-19 as converted by them | the same network with our own normalisation scales | theirs is not on the package \
index; scales differ by a few percent and the decoder is trained on ours |
    | no epsilon in the style's deviation (code) | in both deviations (equation 6) | equal statistics change nothing |
    | pooling in ceil mode | sides padded to multiples of 8 by reflection, cut afterwards | the same pooling for \
every content; the result has the content's size |
    | one mask, two styles (test.lua, -mask) | any number of regions (Context.content_masks) | each region uses the \
moments of its own content positions and of its own style |
    | colours kept by CORAL on normalised channels, the identity added to their sums of products (lib/utils.lua) | \
CORAL on the covariances themselves; directions of the style's colours flatter than 0.01 of the range count as 0.01 \
(zoo.color.match_color) | one way for all methods; divided by the number of pixels their identity is next to nothing, \
and a nearly grey style's noise becomes colour |
    | decoder of 160,000 updates of 8 crops of 256, from random weights, with the loss of the paper | the shipped one: \
far fewer updates of fewer and smaller crops, begun from WCT's decoder of level 4, with other ``tap_weights``, a \
``color_weight``, some ``recolor`` and ``whiten`` (see :class:`AdaINTraining`) | hours of a CPU; \
zoo/checkpoints/adain.md has the figures of its run |
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
    Config = AdaINConfig

    def _code(self, features: Tensor, region: Tensor | None) -> Mapping[str, Any]:
        mean, std = mean_std(features, region)
        return {"mean": mean, "std": std}

    def _transform(self, features: Tensor, style: Mix, region: Tensor | None) -> Tensor:
        """The weighted sum of the targets, which is one affine map per channel (equation 15; regions: section 7.3)."""
        zero = torch.zeros((), device=features.device)
        mean = sum((weight * code.data["mean"] for code, weight in style), zero)
        std = sum((weight * code.data["std"] for code, weight in style), zero)
        return adain(features, mean, std, region)


@dataclass(frozen=True)
class AdaINTrainingConfig(Config):
    """The loss of the decoder (section 5 and 6.1)."""

    style_weight: float = option(0.1, "Weight of the style loss against the content loss (the paper's decoder).", ge=0)
    tap_weights: tuple[float, float, float, float] = option(
        (1.0, 1.0, 1.0, 1.0), "Factors of the style loss's terms of relu1_1 to relu4_1."
    )
    recolor: float = option(
        0.0,
        "Share of the style crops whose colours are exchanged at random, for styles unlike the paintings.",
        ge=0,
        le=1,
    )
    color_weight: float = option(0.0, "Weight of the difference in the mean and covariance of R, G and B.", ge=0)
    temporal_weight: float = option(
        0.0, "Weight of the change between two frames of synthetic motion; 0 trains for pictures alone.", ge=0
    )
    luminance_aware: bool = option(False, "Let results change where the frames' brightness does (Gao et al. 2018).")
    start: str | None = option(
        None, "Safetensors file of a level 4 decoder trained to reconstruct, to begin from; none is random."
    )
    whiten: bool = option(False, "Run Adam in the whitened coordinates of each convolution's inputs.")

    def validate(self) -> None:
        if len(self.tap_weights) != len(STYLE_TAPS):
            raise ConfigError(
                f"Option 'tap_weights' takes {len(STYLE_TAPS)} numbers, of {STYLE_TAPS[0]} to {STYLE_TAPS[-1]}; "
                f"got {len(self.tap_weights)}."
            )


class AdaINTraining(WhitenedTask):
    """Train the decoder: ``L = L_c + lambda L_s`` (equations 11 to 13).

    ``L_c`` is the mean squared error between the output's relu4_1 and the target ``t = AdaIN(f(c), f(s))``; ``L_s``
    sums, over relu1_1 to relu4_1 and over channels, the squared differences of means and of standard deviations
    between output and style, averaged over the batch, as in the authors' code. Ports that average over channels too
    write the same weight 64 to 512 times larger.

    | paper / authors' code | here | why |
    |---|---|---|
    | every tap's term counts alike | ``tap_weights``, default all 1 | summed over channels, relu4_1 outweighs \
relu1_1 eightfold, and a decoder trained for hours, not days, keeps casts of colour; 4, 2, 1, 1 weighs against it |
    | paintings as they are | ``recolor``, default 0 | exchanged channels, negatives and contrast widen a small set \
of paintings to palettes that it lacks |
    | no loss on pixels | ``color_weight``, default 0 | means and deviations of relu1_1 leave open which colours \
stand together, so a decoder of few hours scatters hues that the style lacks; 30 ties them |
    | pictures alone | ``temporal_weight``, default 0 | two frames of synthetic motion, as ReReVST, for films |
    | Adam | ``whiten``, default off | as in zoo.training.reconstruction |
    """

    Config = AdaINTrainingConfig
    method: ClassVar[str] = "adain"
    paper: ClassVar[str] = (
        "Huang and Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization, ICCV 2017"
    )
    sets: ClassVar[tuple[str, ...]] = ("content", "style")
    # train.lua: Adam 1e-4 with 1 / (1 + 5e-5 t), batches of 8, shorter side 512, crops of 256, 160 000 updates.
    defaults: ClassVar[TrainConfig] = TrainConfig(
        steps=160_000, batch_size=8, crop=256, store=512, lr=1e-4, schedule="inverse", decay=5e-5
    )

    def __init__(self, config: AdaINTrainingConfig | None = None) -> None:
        super().__init__()
        self.config = config or AdaINTrainingConfig()
        self.network: VGGDecoder = VGGDecoder(4)
        self.encoder = load_encoder("vgg19.normalised", taps=STYLE_TAPS, padding="reflect")
        self.teacher = teacher("vgg19.normalised", TAP, self.encoder.digest)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        config, frames, moved = self.config, batch["content"], None
        with torch.no_grad():
            painting = self._recolor(batch["style"])
            style = {tap: mean_std(f) for tap, f in self.encoder(painting).items()}
            if config.temporal_weight:
                moved = move(frames, brightness=config.luminance_aware)
                frames, painting = torch.cat([frames, moved.images]), torch.cat([painting, painting])
                style = {tap: (mean.repeat(2, 1, 1, 1), std.repeat(2, 1, 1, 1)) for tap, (mean, std) in style.items()}
            features = self.encoder(frames)[TAP]
            target = adain(features, *style[TAP])
        image = self.network(target).float()
        output = self.encoder(image)
        content_loss = F.mse_loss(output[TAP].float(), target.float())
        style_loss = _style_loss(output, style, self.config.tap_weights)
        total = content_loss + self.config.style_weight * style_loss
        losses = {"content": content_loss, "style": style_loss}
        if self.config.color_weight:
            losses["color"] = _color_loss(image, painting)
            total = total + self.config.color_weight * losses["color"]
        if moved is not None:
            first, second = image.chunk(2)
            losses["temporal"] = temporal_loss(first, second, batch["content"], moved, luminance=config.luminance_aware)
            total = total + config.temporal_weight * losses["temporal"]
        return {"total": total, **losses}

    def _recolor(self, styles: Tensor) -> Tensor:
        """``styles`` (B, 3, H, W) in [0, 1], each with probability ``recolor`` in exchanged colours."""
        if not self.config.recolor:
            return styles
        changed = []
        for image in styles:
            chance, negative, gain = torch.rand(3).tolist()
            order = torch.randperm(3)
            if chance < self.config.recolor:
                image = image[order.to(image.device)]
                image = 1 - image if negative < 0.25 else image
                mean = image.mean((-2, -1), keepdim=True)
                image = (mean + (0.8 + 0.7 * gain) * (image - mean)).clamp(0, 1)
            changed.append(image)
        return torch.stack(changed)

    def prepare(self, batches: Iterator[Batch]) -> None:
        if self.config.start is None:
            return
        state = of_level(read_state(Path(self.config.start)), 4)
        if missing := set(self.network.state_dict()) - set(state):
            raise ConfigError(
                f"{self.config.start} is no decoder of level 4: it lacks {', '.join(sorted(missing)[:3])}."
            )
        self.network.load_lower(state)

    @torch.no_grad()
    def evaluate(self, held_out: HeldOut) -> dict[str, float]:
        """Means over pairs of held-out images: both losses, and the style loss as a share of the content copy's."""
        sums: dict[str, list[float]] = {"content": [], "style": [], "style_of_copy": []}
        for content, style_image in zip(held_out.get("content", ()), held_out.get("style", ()), strict=False):
            style = {tap: mean_std(f) for tap, f in self.encoder(style_image).items()}
            copy = self.encoder(content)
            target = adain(copy[TAP], *style[TAP])
            output = self.encoder(self.network(target).float().clamp(0, 1))
            sums["content"].append(F.mse_loss(output[TAP].float(), target.float()).item())
            sums["style"].append(_style_loss(output, style).item())
            # Of a photograph that is the style itself nothing is left to reach.
            sums["style_of_copy"].append(sums["style"][-1] / max(_style_loss(copy, style).item(), 1e-6))
        return {name: sum(values) / len(values) for name, values in sums.items() if values}

    @torch.no_grad()
    def preview(self, held_out: HeldOut) -> list[list[Tensor]]:
        rows = []
        for content, style_image in zip(held_out.get("content", ()), held_out.get("style", ()), strict=False):
            target = adain(self.encoder(content)[TAP], *mean_std(self.encoder(style_image)[TAP]))
            rows.append([content, style_image, self.network(target).float().clamp(0, 1)])
        return rows

    def describe(self) -> dict[str, Any]:
        return self.config.to_dict()


def _style_loss(
    output: Mapping[str, Tensor],
    style: Mapping[str, tuple[Tensor, Tensor]],
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> Tensor:
    """Equation 13, summed over channels and averaged over the batch; ``weights`` are of relu1_1 to relu4_1."""
    total = torch.zeros((), device=output[TAP].device)
    for (tap, wanted), weight in zip(style.items(), weights, strict=True):
        for ours, theirs in zip(mean_std(output[tap]), wanted, strict=True):
            total = total + weight * (ours - theirs).square().sum() / len(ours)
    return total


def _color_loss(image: Tensor, painting: Tensor) -> Tensor:
    """Squared differences of the mean and covariance of R, G and B, relative to the painting's, mean over the batch.

    Of two images (B, 3, H, W) in [0, 1]; the mean counts against the painting's variance.
    """
    moments = []
    for pixels in (image.flatten(2), painting.flatten(2)):
        mean = pixels.mean(dim=2, keepdim=True)
        centered = pixels - mean
        moments.append((mean[..., 0], centered @ centered.mT / pixels.shape[2]))
    (mean, covariance), (wanted_mean, wanted) = moments
    variance = wanted.diagonal(dim1=1, dim2=2).sum(dim=1).clamp_min(1e-3)
    apart = (mean - wanted_mean).square().sum(dim=1) / variance
    turned = (covariance - wanted).square().sum(dim=(1, 2)) / wanted.square().sum(dim=(1, 2)).clamp_min(1e-6)
    return (apart + turned).mean()
