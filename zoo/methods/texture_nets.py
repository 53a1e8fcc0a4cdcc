"""Texture networks: a small pyramid of convolutions turns noise into a texture, or noise and a photograph into a style.

Ulyanov, Lebedev, Vedaldi, Lempitsky, *Texture Networks: Feed-forward Synthesis of Textures and Stylized Images*, ICML
2016 (v1 below). Ulyanov, Vedaldi, Lempitsky, *Improved Texture Networks: Maximizing Quality and Diversity in
Feed-forward Stylization and Texture Synthesis*, CVPR 2017 (v2): instance normalisation, and an entropy term against
generators that give the same sample for every seed.

Figure 2 of the first paper, for K scales, each half as large as the one before::

    z_K ─ block ─ up ─ norm ┐
    z_K-1 ─ block ──── norm ┴ join ─ block ─ up ─ norm ┐
    z_K-2 ─ block ──────────────────────────────  norm ┴ join ─ block ─ ... ─ 1x1 ─ image

A block is 3x3, 3x3, 1x1, each with normalisation and (leaky) ReLU; every scale brings 8 channels, so the join of i
scales has 8 i. With circular padding a texture tiles without a seam.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.config import Config, option
from zoo.errors import ConfigError, UnsupportedError
from zoo.methods._trained import TrainedMethod
from zoo.nn.noise_pyramid import NOISE, Norm, OfPhotograph, Pyramid, draw, with_image
from zoo.nn.tiles import collect
from zoo.styles import TEXTURE, load_style, one_of
from zoo.stylizer import Call, Mix, Stylized, Traits
from zoo.training.perceptual import PerceptualLoss, evaluating, objective
from zoo.training.task import Batch, HeldOut, TrainConfig, TrainingTask

Mode = Literal["texture", "stylise"]


@dataclass(frozen=True)
class TextureNetsConfig(Config):
    """Texture networks take no options: the tensors of the checkpoint define the pyramid of each style."""


# -- the method -------------------------------------------------------------------------------------------------------


class TextureNets(TrainedMethod):
    """Ulyanov et al. 2016 and 2017: a pyramid per style, for textures (``synthesize``) and for photographs.

    A checkpoint holds ``{name}.{tensor}``; a network trained for textures is named ``{style}-texture``, so that one
    style can have both. :meth:`encode_style` finds whichever there is; asking for the other is an UnsupportedError.
    ``strength`` blends the pixels of content and result. Textures can have any size: noise is drawn in whole cells of
    the coarsest scale and the result is cropped; a size of whole cells tiles without a seam. On a CPU with bfloat16
    arithmetic ``auto`` means bf16: three shipped styles on two photographs at 256 then differ from float32 by 0.5 to
    1.5 levels of 255 on average.

    | paper | v1 | v2 | why |
    |---|---|---|---|
    | normalisation in training | batch | instance (2017) | |
    | the same in use | each image by itself | each image by itself | the authors' v1 never leaves training mode and \
runs one image at a time; its textures, drawn four at a time, are normalised together there |
    | non-linearity | leaky ReLU | ReLU | as the authors' two versions |
    | scales: textures, stylisation | 5, 6 | 6, 6 | v1 the paper's; v2 the code's |
    | input when stylising | image and noise | image | the improved paper drops the noise |
    | padding | circular | circular for textures, replication for photographs | a photograph has no opposite edge |
    | start | Xavier's, the last layer a tenth of it | the same | the first updates stay in range |
    | descriptor | relu1_1 to relu5_1 | relu1_2, 2_2, 3_2, 4_2 | README of each version |
    | content | relu4_2 | relu4_2 | |
    | Adam: v1 0.1, x 0.7 per 200 from update 1,000, 2,000 updates of 16; v2 1e-2, x 0.8 per 2,000, 50,000 of 4 | \
1e-2, cosine, 2,000 updates of 4 | the same | minutes on a CPU; theirs by --lr, --schedule and so on |
    | style : content weight 1,000 : 0.6 (v1's code), 10 : 1 (v2's README) | 10 : 1 of relative terms | the same | \
suits any style's contrast |
    | gradients divided by their L1 norm (v1's README) | as they are | as they are | relative terms are of one size |
    | network for photographs | pyramid | pyramid | v2's README recommends Johnson's, in the zoo a method of its own |
    | entropy | none | with weight ``diversity`` (textures) | eq. 8 of the improved paper, on pixels |
    """

    traits = Traits(
        styles="trained",
        strength="blend",
        texture=True,
        # 64 pixels are two by two positions at the coarsest of six scales; one alone has no variance to normalise.
        min_size=64,
        multiple_of=32,
        cpu_precision="bf16",
        pixel_bytes=420,
        tiled=True,
        kept_bytes=8,
    )
    Config = TextureNetsConfig
    reads_levels = True
    FIRST = "enter.0.conv.0.weight"

    def _build(self) -> None:
        super()._build()
        # The name of a network that makes textures ends in TEXTURE; its style may have one for photographs too.
        self._able = {
            (name.removesuffix(TEXTURE), "texture" if name.endswith(TEXTURE) else "stylise"): network
            for name, network in self._networks.items()
        }
        self._styles = {name.removesuffix(TEXTURE): record for name, record in self._styles.items()}

    def _like(self, state: Mapping[str, Tensor]) -> nn.Module:
        return Pyramid.like(state)

    def _task(self) -> type[TrainingTask]:
        return TextureNetsTask

    @property
    def style_names(self) -> tuple[str, ...]:
        # Those that can do both first, then those for photographs.
        def order(name: str) -> tuple[bool, bool, str]:
            able = [(name, mode) in self._able for mode in ("stylise", "texture")]
            return not all(able), not able[0], name

        return tuple(sorted(self._styles, key=order))

    def _pyramid(self, style: Mix, mode: Mode) -> Pyramid:
        ((code, _),) = style
        name = code.data["name"]
        if (name, mode) not in self._able:
            able = sorted(style for style, other in self._able if other == mode)
            verb = "synthesise textures" if mode == "texture" else "stylise photographs"
            raise UnsupportedError(
                f"{self.name} was not trained to {verb} in the style {name!r}"
                + (f", only in {', '.join(able)}." if able else ", nor in any other: train it for that.")
            )
        return self._able[name, mode]

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        network = self._pyramid(style, "stylise")
        noise = None
        if network.inputs > NOISE:
            noise = draw(network, 1, (content.shape[-2], content.shape[-1]), call.generator())
        if call.tile is None:
            return self._run(network, with_image(network, content, noise), call)
        side = call.tile
        return self._run(lambda image: collect(network.by_tiles(image, noise, side), call, image), content, call)

    def _as_network(self, style: Mix) -> nn.Module:
        network = self._pyramid(style, "stylise")
        if network.inputs > NOISE:
            raise UnsupportedError(
                f"{self.name} cannot be exported: this style's network draws noise for every picture."
            )
        return OfPhotograph(network)

    def _synthesize(self, style: Mix, size: tuple[int, int], call: Call) -> Stylized:
        network = self._pyramid(style, "texture")
        cell = network.cell
        whole = (-(-size[0] // cell) * cell, -(-size[1] // cell) * cell)
        noise = [z.to(self.device) for z in draw(network, 1, whole, call.generator())]
        result = self._run(network, noise, dataclasses.replace(call, progress=None))
        image = result.image[..., : size[0], : size[1]]
        call.report(1, 1, {}, lambda: image.clamp(0, 1))
        return Stylized(image)


# -- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextureNetsTaskConfig(Config):
    """The style, the network and its loss; an option left at none is the preset's for the mode."""

    style: str = option("builtin:swirls", "The style image: a file or builtin:NAME.")
    mode: Literal["texture", "stylise"] = option("stylise", "Textures from noise, or stylised photographs.")
    preset: Literal["v1", "v2"] = option("v2", "The first paper's network, or the improved one's.")
    style_size: int = option(256, "Long side of the style image in pixels.", ge=32)
    records: str | None = option(None, "JSON file with title, artist, year, source, licence of styles by file stem.")
    scales: int | None = option(None, "Scales of the pyramid.", ge=2, le=6)
    style_layers: tuple[str, ...] = option((), "Layers whose Gram matrices are the style; none: the preset's.")
    content_layer: str = option("relu4_2", "Layer whose features are the content.")
    relative: bool = option(True, "Terms relative to the images' own features; false: in the authors' units.")
    content_weight: float = option(1.0, "Weight of the content term.", ge=0)
    style_weight: float = option(10.0, "Weight of the style term (README of texture_nets: 10, not relative).", gt=0)
    tv_weight: float = option(0.0, "Weight of the total variation (texture_nets: 0).", ge=0)
    diversity: float | None = option(None, "Weight of the entropy term.", ge=0)
    encoder: str = option("vgg19", "Network behind the loss.")


class _Choice(TypedDict):
    norm: Norm
    scales: dict[str, int]
    layers: tuple[str, ...]
    diversity: float


_PRESETS: dict[str, _Choice] = {
    "v1": {
        "norm": "batch",
        "scales": {"texture": 5, "stylise": 6},
        "layers": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        "diversity": 0.0,
    },
    "v2": {
        "norm": "instance",
        "scales": {"texture": 6, "stylise": 6},
        "layers": ("relu1_2", "relu2_2", "relu3_2", "relu4_2"),
        "diversity": 0.2,
    },
}


class TextureNetsTask(TrainingTask):
    """Train one pyramid for one style: the texture loss, plus content for photographs or entropy for textures.

    Textures use nothing of the photographs but the size of crop and batch.
    """

    Config = TextureNetsTaskConfig
    method: ClassVar[str] = "texture-nets"
    paper: ClassVar[str] = "Ulyanov et al., Texture Networks, ICML 2016; Improved Texture Networks, CVPR 2017"
    sets: ClassVar[tuple[str, ...]] = ("content",)
    defaults: ClassVar[TrainConfig] = TrainConfig(
        steps=2000, batch_size=4, crop=256, lr=1e-2, schedule="cosine", warmup=20, beta2=0.99, preview_every=250
    )

    def __init__(self, config: TextureNetsTaskConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TextureNetsTaskConfig()
        chosen = _PRESETS[config.preset]
        texture = config.mode == "texture"
        self.record, style = load_style(config.style, config.style_size, config.records)
        inputs = NOISE if texture or config.preset == "v2" else 3 + NOISE
        self.network: Pyramid = Pyramid(
            config.scales or chosen["scales"][config.mode], inputs, chosen["norm"], texture or config.preset == "v1"
        )
        self.criterion = PerceptualLoss(
            encoder=config.encoder,
            content_layer=None if texture else config.content_layer,
            style_layers=config.style_layers or chosen["layers"],
            content_weight=config.content_weight,
            style_weight=config.style_weight,
            tv_weight=config.tv_weight,
            relative=config.relative,
        )
        self.teacher = self.criterion.teacher
        self.criterion.hold([style])
        self.diversity = (chosen["diversity"] if config.diversity is None else config.diversity) if texture else 0.0

    @property
    def multiple_of(self) -> int:
        """Every scale has exactly half the side of the next."""
        return self.network.cell

    @property
    def min_crop(self) -> int:
        """Two by two positions at the coarsest scale: one alone has no variance to normalise."""
        return 2 * self.network.cell

    def generate(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A texture for each of a batch, of its size, or the batch stylised; sides are multiples of the cell."""
        batch, size = len(image), (image.shape[-2], image.shape[-1])
        if any(side % self.network.cell for side in size):
            raise ConfigError(f"Crops must be multiples of {self.network.cell} pixels, not {size}: set --crop.")
        noise = [z.to(image.device) for z in draw(self.network, batch, size, generator)]
        if self.config.mode == "texture":
            return self.network(noise)
        return self.network(with_image(self.network, image, noise))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        content = batch["content"]
        output = self.generate(content)
        terms = self.criterion(output, None if self.config.mode == "texture" else content, self.criterion.held())
        if self.diversity and len(output) > 1:
            terms["entropy"] = -self.diversity * log_spacing(output)
            terms["total"] = terms["total"] + terms["entropy"]
        return terms

    @property
    def _name(self) -> str:
        """Under which a checkpoint of several networks keeps this one."""
        return self.record.name + (TEXTURE if self.config.mode == "texture" else "")

    def adopt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return one_of(state, "enter.0.conv.0.weight", self._name)

    @torch.no_grad()
    def evaluate(self, held_out: HeldOut) -> dict[str, float]:
        """The objective on held-out photographs and what the unchanged ones score; for textures the style term of
        samples of the style's size, and the root mean square difference of nearest samples' pixels."""
        contents = held_out.get("content", ())
        with evaluating(self.network):
            if self.config.mode == "stylise":
                return objective(self.criterion, self.criterion.held(), self._any_size, contents)
            if not contents:
                return {}
            found = self._samples(4, contents[0].device).clamp(0, 1)
            each = self.criterion.each(found, None, self.criterion.held())["style"]
            return {"style": float(each.mean()), "spacing": float(log_spacing(found).exp())}

    @torch.no_grad()
    def preview(self, held_out: HeldOut) -> list[list[Tensor]]:
        contents = held_out.get("content", ())
        with evaluating(self.network):
            if self.config.mode == "texture":
                return [list(self._samples(4, contents[0].device).clamp(0, 1).split(1))] if contents else []
            return [[image, self._any_size(image).float().clamp(0, 1)] for image in contents]

    def _samples(self, count: int, device: torch.device) -> Tensor:
        side = max(2, self.config.style_size // self.network.cell) * self.network.cell
        noise = draw(self.network, count, (side, side), torch.Generator().manual_seed(0))
        return self.network([z.to(device) for z in noise]).float()

    def _any_size(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        cell = self.network.cell
        padded = F.pad(image, (0, -width % cell, 0, -height % cell), mode="reflect")
        return self.generate(padded, torch.Generator().manual_seed(0))[..., :height, :width]

    def describe(self) -> dict[str, Any]:
        own = {key: value for key, value in self.config.to_dict().items() if key != "records"}
        record = {**self.record.to_dict(), "name": self._name}
        return {**own, "style": self.record.name, "diversity": self.diversity, "styles": [record]}


def log_spacing(images: Tensor) -> Tensor:
    """Return the mean, over a batch, of the log distance (root mean square of pixels) to the nearest other image.

    Up to a constant and a factor this is Kozachenko and Leonenko's estimate of the entropy (Improved Texture Networks,
    section 3.2). A generator that ignores its noise has distances near 0, where the slope is steepest.
    """
    flat = images.float().flatten(1)
    squares = (flat[:, None] - flat[None]).square().mean(2)
    own = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    # Plus one level of 255: closer than that the slope of the logarithm would drown the texture loss.
    nearest = squares.masked_fill(own, torch.inf).amin(1) + 1 / 255**2
    return nearest.log().mean() / 2


__all__ = ["Pyramid", "TextureNets", "TextureNetsConfig", "TextureNetsTask", "TextureNetsTaskConfig", "log_spacing"]
