"""One feed-forward network per style, trained on a perceptual loss.

Johnson, Alahi, Fei-Fei, *Perceptual Losses for Real-Time Style Transfer and Super-Resolution*, ECCV 2016; network in
the supplementary material, table 1. Instance normalisation: Ulyanov, Vedaldi, Lempitsky, *Improved Texture Networks*,
CVPR 2017. Upsampling: Odena, Dumoulin, Olah, *Deconvolution and Checkerboard Artifacts*, Distill 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn

from zoo.config import Config, option
from zoo.errors import WeightsError
from zoo.methods._trained import TrainedMethod
from zoo.nn.fast import instance_norm
from zoo.nn.tiles import Local, Map, Normalized
from zoo.nn.transformer import RESIDUAL_BLOCKS, TransformBody, Upsampling, initialize
from zoo.styles import load_style, one_of
from zoo.stylizer import Traits, require_tensors
from zoo.training.motion import move, temporal_loss
from zoo.training.perceptual import PerceptualLoss, evaluating, objective
from zoo.training.task import Batch, HeldOut, TrainConfig, TrainingTask

Norm = Literal["instance", "batch"]
Output = Literal["linear", "tanh"]


@dataclass(frozen=True)
class JohnsonConfig(Config):
    """Johnson takes no options: the tensors of the checkpoint define the network."""


class JohnsonNet(nn.Module):
    """The transformation network: images (B, 3, H, W) in [0, 1] to stylised ones near [0, 1], of the same size.

    ``norm`` follows every convolution but the last: ``instance``, or ``batch`` as in the paper. ``width`` is the number
    of channels of the first layer: 32 in the paper, 16 in the authors' released models with instance normalisation.
    ``output`` is ``tanh`` scaled to [0, 1], as in the paper, or ``linear``.
    """

    def __init__(
        self, norm: Norm = "instance", width: int = 16, upsampling: Upsampling = "nearest", output: Output = "linear"
    ) -> None:
        super().__init__()
        if output == "tanh":
            # Saved with the weights, so that a checkpoint alone defines the network.
            self.register_buffer("tanh", torch.ones(()))
        self.body = TransformBody(width, upsampling=upsampling)
        initialize(self.body)
        with torch.no_grad():
            # Start from faint structure on mid grey, not from saturated pixels.
            self.body.out.weight.mul_(0.1)
            assert self.body.out.bias is not None  # made with one
            nn.init.constant_(self.body.out.bias, 0.5 if output == "linear" else 0.0)
        kind = Affine if norm == "instance" else nn.BatchNorm2d
        self.norm = nn.ModuleDict({name: kind(c) for name, c in self.body.channels().items() if name != "out"})

    def forward(self, images: Tensor) -> Tensor:
        return self._bounded(self.body(images, lambda name, x: x if name == "out" else self.norm[name](x)))

    def by_tiles(self, images: Tensor, side: int) -> Map:
        """The same in float32 as a map, with sides rounded up to a multiple of four and no more than tiles of ``side``
        pixels at the image's size in memory."""

        def normalize(name: str, x: Map) -> Map:
            layer = None if name == "out" else self.norm[name]
            if isinstance(layer, Affine):
                return Normalized(x, layer.weight, layer.bias, side)
            return x if layer is None else Local(layer, x)

        return Local(lambda x: self._bounded(x).float(), self.body.by_tiles(images, normalize, side))

    def _bounded(self, image: Tensor) -> Tensor:
        return (1 + torch.tanh(image)) / 2 if hasattr(self, "tanh") else image

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> JohnsonNet:
        """Return the network that fits ``state``, with these weights loaded; WeightsError where none does."""
        first, up = state.get("body.conv1.weight"), state.get("body.up1.weight")
        if first is None or up is None or first.dim() != 4 or up.dim() != 4:
            raise WeightsError("Not a Johnson network: the file has no body.conv1.weight or body.up1.weight.")
        width = first.shape[0]
        network = cls(
            "batch" if "norm.conv1.running_mean" in state else "instance",
            width,
            "transposed" if up.shape[0] == 4 * width else "nearest",
            "tanh" if "tanh" in state else "linear",
        )
        require_tensors(state, network.state_dict(), "The checkpoint")
        network.load_state_dict(state)
        return network


class Affine(nn.Module):
    """Instance normalisation with a learned scale and shift per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x, self.weight, self.bias)


class Johnson(TrainedMethod):
    """Johnson, Alahi and Fei-Fei 2016: a network per style; the checkpoint is a table of them.

    A checkpoint holds ``{style}.{tensor}`` for any number of styles, or the bare tensors of one run; the tensors define
    each network. ``strength`` blends the pixels of content and result. Sides that are no multiple of four need no
    padding: the network rounds up inside and the result is cropped. On a CPU with bfloat16 arithmetic ``auto`` means
    bf16: over three photographs at 256 the published networks then differ from float32 by 0.5 to 1.1 levels of 255 on
    average and take 0.51 to 0.57 of the time.

    | paper | here | why |
    |---|---|---|
    | batch normalisation | instance (default) or batch | instance is better for styles (Ulyanov et al. 2017) |
    | width 32 | 16 (default) or 32 | as the authors' released instance models; a quarter of the work |
    | transposed convolutions | nearest upsampling + 3x3 (default) or transposed | no checkerboard (Odena et al. 2016) |
    | tanh times 150 around ImageNet's mean colour | tanh scaled to [0, 1] (default) or linear | reaches every colour; \
linear for checkpoints of the PyTorch example |
    | 40 pixels of reflection at the input, residual blocks without padding, zeros elsewhere | reflection at every \
convolution | as the PyTorch example |
    | VGG-16 | VGG-19 (original weights), layers of the same names | it installs with pip |
    | content at relu2_2 | relu2_2 (preset paper), relu3_3 (presets code, zoo) | as the authors' code |
    | loss weights 1, 5, 1e-6 (authors' code) | 1, 10, 0.1 of relative terms (zoo), else theirs | for any contrast |
    | total variation summed over batches of 4, other terms averaged (authors' code) | 4e-6 of the average (presets \
code, paper) | the same objective, whatever the batch |
    | 40,000 updates of 4 images, Adam 1e-3 | 2,000 of 2, Adam 2e-3, cosine to zero | an hour on a CPU |
    | median filter on the result (authors' code) | none | the paper has none |
    """

    traits = Traits(
        styles="trained",
        strength="blend",
        min_size=16,
        cpu_precision="bf16",
        cuda_precision="fp32",
        pixel_bytes=150,
        tiled=True,
        kept_bytes=16,
    )
    Config = JohnsonConfig
    reads_levels = True
    FIRST = "body.conv1.weight"

    def _build(self) -> None:
        super()._build()
        self.traits = self.traits.of_width(max(one.body.width for one in self._networks.values()), 16)

    def _like(self, state: Mapping[str, Tensor]) -> nn.Module:
        return JohnsonNet.like(state)

    def _task(self) -> type[TrainingTask]:
        return JohnsonTask


# -- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JohnsonTaskConfig(Config):
    """The style, the network and its loss; an option left at none is the preset's."""

    style: str = option("builtin:swirls", "The style image: a file or builtin:NAME.")
    style_size: int = option(256, "Long side of the style image in pixels (fast-neural-style: 256).", ge=32)
    records: str | None = option(None, "JSON file with title, artist, year, source, licence of styles by file stem.")
    preset: Literal["zoo", "code", "paper"] = option("zoo", "Network and loss: ours, the code's, the paper's.")
    norm: Literal["instance", "batch"] | None = option(None, "Normalisation after every convolution but the last.")
    width: int | None = option(None, "Channels of the first layer.", ge=4)
    upsampling: Literal["nearest", "transposed"] | None = option(None, "How the network upsamples.")
    output: Literal["linear", "tanh"] | None = option(None, "Last non-linearity.")
    content_layer: str | None = option(None, "Layer whose features are the content.")
    style_layers: tuple[str, ...] = option(
        ("relu1_2", "relu2_2", "relu3_3", "relu4_3"), "Layers whose Gram matrices are the style (section 4.1)."
    )
    content_weight: float = option(1.0, "Weight of the content term.", ge=0)
    style_weight: float | None = option(None, "Weight of the style term.", gt=0)
    tv_weight: float | None = option(None, "Weight of the total variation.", ge=0)
    temporal_weight: float = option(
        0.0, "Weight of the change between two frames of synthetic motion; 0 trains for pictures alone.", ge=0
    )
    luminance_aware: bool = option(False, "Let results change where the frames' brightness does (Gao et al. 2018).")
    encoder: str = option("vgg19", "Network behind the loss.")


class _Choice(TypedDict):
    norm: Norm
    width: int
    upsampling: Upsampling
    output: Output
    content_layer: str
    relative: bool
    style_weight: float
    tv_weight: float


_PRESETS: dict[str, _Choice] = {
    "zoo": {
        "norm": "instance",
        "width": 16,
        "upsampling": "nearest",
        "output": "tanh",
        "content_layer": "relu3_3",
        "relative": True,
        "style_weight": 10.0,
        "tv_weight": 0.1,
    },
    # jcjohnson/fast-neural-style: train.lua's defaults, width of its instance_norm models. Its total variation of 1e-6
    # is summed over batches of 4, of which all other terms are means.
    "code": {
        "norm": "instance",
        "width": 16,
        "upsampling": "transposed",
        "output": "tanh",
        "content_layer": "relu3_3",
        "relative": False,
        "style_weight": 5.0,
        "tv_weight": 4e-6,
    },
    "paper": {
        "norm": "batch",
        "width": 32,
        "upsampling": "transposed",
        "output": "tanh",
        "content_layer": "relu2_2",
        "relative": False,
        "style_weight": 5.0,
        "tv_weight": 4e-6,
    },
}


class JohnsonTask(TrainingTask):
    """One network for one style, by the loss of section 3.2: content, style and total variation."""

    Config = JohnsonTaskConfig
    method: ClassVar[str] = "johnson"
    paper: ClassVar[str] = "Johnson et al., Perceptual Losses for Real-Time Style Transfer, ECCV 2016"
    sets: ClassVar[tuple[str, ...]] = ("content",)
    defaults: ClassVar[TrainConfig] = TrainConfig(
        steps=2000, batch_size=2, crop=256, lr=2e-3, schedule="cosine", warmup=20, beta2=0.99, preview_every=250
    )

    def __init__(self, config: JohnsonTaskConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or JohnsonTaskConfig()
        given = {key: value for key, value in config.to_dict().items() if value is not None}
        preset = _PRESETS[config.preset]
        chosen: dict[str, Any] = {**preset, **{key: given[key] for key in preset if key in given}}
        self.record, style = load_style(config.style, config.style_size, config.records)
        self.network: JohnsonNet = JohnsonNet(chosen["norm"], chosen["width"], chosen["upsampling"], chosen["output"])
        self.criterion = PerceptualLoss(
            encoder=config.encoder,
            content_layer=chosen["content_layer"],
            style_layers=config.style_layers,
            content_weight=config.content_weight,
            style_weight=chosen["style_weight"],
            tv_weight=chosen["tv_weight"],
            relative=chosen["relative"],
        )
        self.teacher = self.criterion.teacher
        self.described = {**config.to_dict(), **chosen, "style": self.record.name, "styles": [self.record.to_dict()]}
        self.described.pop("records")
        self.criterion.hold([style])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        content, config = batch["content"], self.config
        if not config.temporal_weight:
            return self.criterion(self.network(content), content, self.criterion.held())
        # Huang et al. 2017, eq. 2: content and style of both frames, and what changed between them.
        moved = move(content, brightness=config.luminance_aware)
        frames = torch.cat([content, moved.images])
        results = self.network(frames)
        losses = self.criterion(results, frames, self.criterion.held())
        first, second = results.chunk(2)
        apart = temporal_loss(first, second, content, moved, luminance=config.luminance_aware)
        losses["temporal"] = config.temporal_weight * apart
        return {**losses, "total": losses["total"] + losses["temporal"]}

    def adopt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return one_of(state, "body.conv1.weight", self.record.name)

    @torch.no_grad()
    def evaluate(self, held_out: HeldOut) -> dict[str, float]:
        """The objective and its terms on held-out photographs, and what the unchanged photographs score."""
        with evaluating(self.network):
            return objective(self.criterion, self.criterion.held(), self.network, held_out.get("content", ()))

    @torch.no_grad()
    def preview(self, held_out: HeldOut) -> list[list[Tensor]]:
        with evaluating(self.network):
            return [[image, self.network(image).float().clamp(0, 1)] for image in held_out.get("content", ())]

    def describe(self) -> dict[str, Any]:
        return self.described


# -- the checkpoints of others ----------------------------------------------------------------------------------------


def import_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a checkpoint of the PyTorch example fast_neural_style (width 32, instance norm) to JohnsonNet's weights.

    Its network works in levels of 255; the first and last convolution absorb that factor. Old files carry running
    statistics that instance normalisation never used; they are dropped. Raises WeightsError for the keys or shapes of
    another network. In half precision the result reproduces the original only roughly.
    """
    names = {"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "deconv1": "up1", "deconv2": "up2", "deconv3": "out"}
    norms = {"in1": "conv1", "in2": "conv2", "in3": "conv3", "in4": "up1", "in5": "up2"}
    for block in range(1, RESIDUAL_BLOCKS + 1):
        for number, part in ((1, "a"), (2, "b")):
            names[f"res{block}.conv{number}"] = f"res{block}{part}"
            norms[f"res{block}.in{number}"] = f"res{block}{part}"
    table = {f"{k}.conv2d.{end}": f"body.{v}.{end}" for k, v in names.items() for end in ("weight", "bias")}
    table |= {f"{k}.{end}": f"norm.{v}.{end}" for k, v in norms.items() for end in ("weight", "bias")}
    used = {k: v for k, v in state.items() if not k.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    unknown, missing = sorted(set(used) - set(table)), sorted(set(table) - set(used))
    if unknown or missing:
        parts = [f"unknown {', '.join(unknown[:3])}"] * bool(unknown) + [f"missing {', '.join(missing[:3])}"] * bool(
            missing
        )
        raise WeightsError(f"Not a checkpoint of the fast_neural_style example: {'; '.join(parts)}.")
    ours = {table[key]: value.detach().float().clone() for key, value in used.items()}
    ours["body.conv1.weight"] *= 255
    for end in ("weight", "bias"):
        ours[f"body.out.{end}"] /= 255
    JohnsonNet.like(ours)
    return ours


__all__ = ["Johnson", "JohnsonConfig", "JohnsonNet", "JohnsonTask", "JohnsonTaskConfig", "import_state"]
