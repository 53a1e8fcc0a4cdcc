"""Training the decoders that WCT needs and AdaIN starts from: features of relu{k}_1 back to the image they came from.

Li et al. 2017 (Universal Style Transfer via Feature Transforms), section 3.1: pixel and feature reconstruction,
``|I_o - I_i|^2 + lambda |Phi(I_o) - Phi(I_i)|^2`` with lambda = 1. Their training code was not released.

| paper | here | why |
|---|---|---|
| random start | least squares, layer by layer | hours on a CPU become minutes: each convolution is solved for the \
encoder's activation that stands in its place |
| Adam (not stated) | Adam on whitened inputs | from the same start plain Adam first loses 4 dB at level 3 and takes \
hundreds of steps to win them back |
| lambda = 1 | ``feature_weight``, default 0 | it needs a second pass of the encoder with its gradient; at first it \
outweighs the pixels and holds the decoder back |
| COCO | any photographs | |
| all of it at once | ``upper_only``, default off | level 5 on a CPU: its own four convolutions first, against the \
features of level 4, at a fraction of the cost of a step |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import device as devices
from zoo.config import Config, option
from zoo.encoders import load_encoder
from zoo.errors import ConfigError
from zoo.nn.decoder import VGGDecoder, of_level, undone
from zoo.nn.fast import reflect
from zoo.stylizer import require_tensors
from zoo.training.task import Batch, HeldOut, TrainConfig, teacher
from zoo.training.whitened import WhitenedTask, sample_patches
from zoo.weights import read_state

# Relative to each input's own power, so the scale of a channel does not matter; enough that directions which bf16
# cannot tell from zero are not followed.
_RIDGE = 1e-3


@dataclass(frozen=True)
class ReconstructionConfig(Config):
    """Options of training the decoder of one level."""

    level: int = option(4, "Decode from relu1_1 (1) to relu5_1 (5).", ge=1, le=5)
    encoder: str = option("vgg19.normalised", "The encoder whose features are decoded.")
    feature_weight: float = option(0.0, "Weight of the feature term, which re-encodes the output (paper: 1).", ge=0)
    whiten: bool = option(True, "Run Adam in the whitened coordinates of each convolution's inputs.")
    start: Literal["least-squares", "random"] = option("least-squares", "How a new decoder's weights are found.")
    upper_only: bool = option(
        False, "Train only what is above the next lower level, against that level's features: no step at image size."
    )
    lower: str | None = option(None, "Safetensors file of the next lower level's decoder, whose convolutions are kept.")


class ReconstructionTask(WhitenedTask):
    """Train a :class:`VGGDecoder` to give back the photograph from relu{level}_1 alone."""

    Config = ReconstructionConfig
    method: ClassVar[str] = "wct"
    paper: ClassVar[str] = "Li et al., Universal Style Transfer via Feature Transforms, NeurIPS 2017"
    sets: ClassVar[tuple[str, ...]] = ("content",)
    defaults: ClassVar[TrainConfig] = TrainConfig(
        steps=10_000, batch_size=8, crop=160, lr=1e-4, beta2=0.99, schedule="cosine", warmup=20, ema=0.995
    )

    def __init__(self, config: ReconstructionConfig | None = None) -> None:
        super().__init__()
        self.config = config or ReconstructionConfig()
        if self.config.level == 1 and (self.config.upper_only or self.config.lower is not None):
            raise ConfigError("Level 1 has no level below it: leave upper_only and lower out.")
        self.tap = f"relu{self.config.level}_1"
        self.network: VGGDecoder = VGGDecoder(self.config.level)
        self.below = f"relu{self.config.level - 1}_1" if self.config.upper_only else None
        taps = (self.tap,) if self.below is None else (self.tap, self.below)
        self.encoder = load_encoder(self.config.encoder, taps=taps, padding="reflect")
        if self.below is not None:
            self.network.requires_grad_(False)
            for parameter in self.network.stage_parameters(self.config.level):
                parameter.requires_grad_()
        self.teacher = teacher(self.config.encoder, self.tap, self.encoder.digest)

    @property
    def multiple_of(self) -> int:
        # Pooling drops an odd row, which no upsampling gives back.
        return 2 ** (self.config.level - 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        image = batch["content"]
        with torch.no_grad():
            taps = self.encoder(image)
            features = taps[self.tap]
        if self.below is not None:
            reached = self.network.descend(features, self.config.level - 1)[self.config.level - 1]
            wanted = taps[self.below].float()
            # Relative, so that figures of different levels can be compared.
            return {"total": F.mse_loss(reached.float(), wanted) / wanted.square().mean().clamp_min(1e-6)}
        output = self.network(features)
        pixel = F.mse_loss(output.float(), image)
        if not self.config.feature_weight:
            return {"total": pixel}
        again = self.encoder(output.float())[self.tap]
        feature = F.mse_loss(again.float(), features.float())
        return {"total": pixel + self.config.feature_weight * feature, "pixel": pixel, "feature": feature}

    def adopt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return of_level(state, self.config.level)

    def prepare(self, batches: Iterator[Batch]) -> None:
        kept: tuple[str, ...] = ()
        if self.config.lower is not None:
            kept = self.network.load_lower(self._lower(self.config.lower))
        if self.config.start == "least-squares":
            solve_decoder(self.network, self.config.encoder, batches, keep=kept)

    def _lower(self, file: str) -> dict[str, Tensor]:
        """The decoder of the next lower level in ``file``; WeightsError where it lacks any of that decoder."""
        level = self.config.level - 1
        with torch.device("meta"):
            wanted = VGGDecoder(level).state_dict()
        state = of_level(read_state(Path(file)), level)
        # A file of a higher level holds it too, as its lower part.
        state = {name: value for name, value in state.items() if name in wanted}
        require_tensors(state, wanted, file)
        return state

    @torch.no_grad()
    def evaluate(self, held_out: HeldOut) -> dict[str, float]:
        values = [psnr(self.reconstruct(image), image) for image in held_out.get("content", ())]
        return {"psnr": sum(values) / len(values)} if values else {}

    @torch.no_grad()
    def preview(self, held_out: HeldOut) -> list[list[Tensor]]:
        return [[image, self.reconstruct(image).float().clamp(0, 1)] for image in held_out.get("content", ())]

    def reconstruct(self, image: Tensor) -> Tensor:
        """The decoder's image of ``image`` (B, 3, H, W), of the same size."""
        height, width = image.shape[-2:]
        # Pooling drops an odd last row: pad to whole cells, as the methods do, and cut back.
        cell = 2 ** (self.config.level - 1)
        padded = F.pad(image, (0, -width % cell, 0, -height % cell), mode="reflect")
        return self.network(self.encoder(padded)[self.tap])[..., :height, :width]

    def describe(self) -> dict[str, Any]:
        return self.config.to_dict()


def psnr(output: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1], over all pixels and channels; ``output`` is clamped."""
    return -10 * math.log10(max(F.mse_loss(output.float().clamp(0, 1), target.float()).item(), 1e-12))


@torch.no_grad()
def solve_decoder(
    decoder: VGGDecoder, encoder: str, batches: Iterator[Batch], *, keep: Sequence[str] = (), samples: int = 8
) -> None:
    """Set every convolution of ``decoder`` but those in ``keep`` by ridge regression, from the top down.

    Each is solved for the encoder's activation that stands where its output goes, given what the convolutions above
    it really deliver, over ``samples`` times as many positions as it has weights per output channel. Works on the
    device of ``decoder``. The normal equations are summed and solved in float64, beside a device that has none.
    """
    convs = decoder.convolutions()
    device = next(decoder.parameters()).device
    wanted = [undone(name) for name, _, _ in convs]
    source = f"relu{decoder.level}_1"
    network = load_encoder(encoder, taps=[source, *filter(None, wanted)], padding="reflect", device=device)
    generator = torch.Generator().manual_seed(0)

    images: list[Tensor] = []
    taps: list[dict[str, Tensor]] = []
    current: list[Tensor] = []
    uses: dict[str, int] = {}
    first = next(batches)["content"]
    for (name, conv, _), target in zip(convs, wanted, strict=True):
        # Positions per batch shrink fourfold with every level, the weights per channel grow: deep layers need more.
        stride = 2 ** (int(name[4]) - 1)
        positions = first[:, 0].numel() // stride**2
        uses[target] = max(2, math.ceil(samples * 9 * conv.in_channels / positions))
    while len(images) < max(uses.values()):
        image = first if not images else next(batches)["content"]
        with devices.autocast(device, "bf16" if devices.fast_bf16(device) else "fp32"):
            features = network(image)
        current.append(features[source].bfloat16())
        taps.append({t: (features[t] if t else image).bfloat16() for t in wanted if len(images) < uses[t]})
        images.append(image)
    del images

    for (name, conv, upsample), target in zip(convs, wanted, strict=True):
        del current[uses[target] :]
        if name not in keep:
            size = 9 * conv.in_channels + 1
            exact = devices.exact_device(device)
            gram = torch.zeros(size, size, dtype=torch.float64, device=exact)
            moment = torch.zeros(size, conv.out_channels, dtype=torch.float64, device=exact)
            for features, tap in zip(current, taps, strict=False):
                x, places = sample_patches(reflect(features.float()), conv, samples, uses[target], generator)
                y = tap[target].float().permute(0, 2, 3, 1).flatten(0, 2)[places]
                gram += devices.exact(x.T @ x)
                moment += devices.exact(x.T @ y)
            power = gram.diagonal().clone()
            gram.diagonal().add_(_RIDGE * power.clamp_min(1e-6 * power.max().item()))
            solved = torch.cholesky_solve(moment, torch.linalg.cholesky(gram)).float().to(device)
            weight = solved[:-1].view(3, 3, conv.in_channels, conv.out_channels).permute(3, 2, 0, 1)
            conv.weight.copy_(weight)
            assert conv.bias is not None  # made with one
            conv.bias.copy_(solved[-1])
        for index, features in enumerate(current):
            features = conv(reflect(features.float()))
            if target:
                features = F.relu(features)
            if upsample:
                features = F.interpolate(features, scale_factor=2, mode="nearest")
            current[index] = features.bfloat16()


__all__ = ["ReconstructionConfig", "ReconstructionTask", "psnr", "solve_decoder"]
