"""One network for many styles: a style is a scale and a shift per channel, and styles mix by mixing these.

Dumoulin, Shlens, Kudlur, *A Learned Representation for Artistic Style*, ICLR 2017. The network is that of Johnson et
al. (2016) with conditional instance normalisation (eq. 5) after every convolution; all styles share the convolutions::

    z = gamma_s (x - mean(x)) / deviation(x) + beta_s
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo import weights
from zoo.config import Config, option
from zoo.errors import ConfigError, WeightsError
from zoo.images import builtin_styles
from zoo.nn.fast import instance_norm
from zoo.nn.tiles import Local, Map, Normalized, collect, store
from zoo.nn.transformer import TransformBody, initialize
from zoo.registry import load_registry
from zoo.styles import TrainedStyle, find_styles, load_style, read_metadata, trained_name
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer, Traits, require_tensors
from zoo.training.optimizers import make_optimizer
from zoo.training.perceptual import PerceptualLoss, objective
from zoo.training.task import Batch, HeldOut, TrainConfig, TrainingTask
from zoo.weights import read_state

# Updates offered for a new style: an eighth of a whole run, as only its scales and shifts are learned.
_ADDING = 1000


@dataclass(frozen=True)
class CINConfig(Config):
    """CIN takes no options: the tensors of the checkpoint give the width and the number of styles."""


class CINNet(nn.Module):
    """Johnson's convolutions without biases, and a row of scales and one of shifts for each style.

    ``scale`` and ``shift`` are (styles, channels of all layers in the order they run): 1,603 each at width 32.
    """

    def __init__(self, styles: int, width: int = 32) -> None:
        super().__init__()
        self.body = TransformBody(width, bias=False)
        initialize(self.body)
        self._split = list(self.body.channels().values())
        self._names = list(self.body.channels())
        total = sum(self._split)
        # Section 5.1 of the appendix leaves them at the usual start of a normalisation.
        self.scale = nn.Parameter(torch.ones(styles, total))
        self.shift = nn.Parameter(torch.zeros(styles, total))

    def forward(self, images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Stylised images (B, 3, H, W) in [0, 1]; ``scale`` and ``shift`` are one row for all, (C,), or (B, C)."""
        parts = zip(scale.split(self._split, -1), shift.split(self._split, -1), strict=True)
        rows = dict(zip(self._names, parts, strict=True))
        return torch.sigmoid(self.body(images, lambda name, x: instance_norm(x, *rows[name])))

    @classmethod
    def like(cls, state: Mapping[str, Tensor], source: str) -> CINNet:
        """Return the network that fits ``state``, with these weights loaded; WeightsError where none does."""
        first, scale = state.get("body.conv1.weight"), state.get("scale")
        if first is None or scale is None or first.dim() != 4 or scale.dim() != 2:
            raise WeightsError(f"{source} is not a CIN network: it has no body.conv1.weight or scale.")
        network = cls(scale.shape[0], first.shape[0])
        require_tensors(state, network.state_dict(), source)
        network.load_state_dict(state)
        return network


class FixedStyle(nn.Module):
    """A CINNet with one row of scales and shifts, (C,) each, of a style or a mix; images to images."""

    def __init__(self, network: CINNet, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.body = network.body
        counts = network.body.channels()
        parts = zip(counts, scale.split([*counts.values()]), shift.split([*counts.values()]), strict=True)
        for name, scales, shifts in parts:
            self.register_buffer(f"scale_{name}", scales.clone())
            self.register_buffer(f"shift_{name}", shifts.clone())

    def forward(self, images: Tensor) -> Tensor:
        return torch.sigmoid(self.body(images, self._normalize))

    def by_tiles(self, images: Tensor, side: int) -> Map:
        """The same in float32 as a map, with sides rounded up to a multiple of four and no more than tiles of ``side``
        pixels at the image's size in memory."""

        def normalize(name: str, x: Map) -> Map:
            # The last layer's three channels are kept: of all layers they take the longest way to compute again.
            return Normalized(store(x, side) if name == "out" else x, *self._row(name), side)

        return Local(lambda x: torch.sigmoid(x).float(), self.body.by_tiles(images, normalize, side))

    def _row(self, name: str) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"scale_{name}"), self.get_buffer(f"shift_{name}")

    def _normalize(self, name: str, x: Tensor) -> Tensor:
        return instance_norm(x, *self._row(name))


def _records(checkpoint: Path, count: int) -> list[TrainedStyle]:
    """Return the checkpoint's record of each row, in order; WeightsError where it names more or fewer."""
    found = list(find_styles(read_metadata(checkpoint)).values())
    if len(found) != count:
        raise WeightsError(f"{checkpoint} holds {count} styles but names {len(found)}: train or download it again.")
    return found


class CIN(Stylizer):
    """Dumoulin, Shlens and Kudlur 2017: a style is 2 x 1,603 numbers, and a mix of styles is one pass.

    ``strength`` blends the pixels of content and result. Scales and shifts cannot be moved towards an identity style:
    the normalisation after the last convolution gives every image the same mean and contrast, so no row of them
    returns the content.

    | paper | here | why |
    |---|---|---|
    | VGG-16, average pooling | VGG-19 (original weights), average pooling, same layer names | installs with pip |
    | zero padding ("SAME"); the released code reflects | reflection | no frame |
    | weights from N(0, 0.01) | Kaiming's | the same behind a normalisation, and Adam's steps suit them |
    | 40,000 updates of 16 images, Adam 1e-3 | 8,000 of 4, Adam 2e-3, cosine to zero | hours on a CPU |
    | loss weights 1, 1e-4 (released code) | 1, 10 of relative terms | one weight suits styles of any contrast |
    | one learning rate | ten-fold for scales and shifts | half the style term after 160 updates of 2 x 96 px |
    | ImageNet | any photographs | |
    """

    traits = Traits(
        styles="trained",
        strength="blend",
        mixes=True,
        min_size=16,
        cpu_precision="bf16",
        pixel_bytes=260,
        tiled=True,
        kept_bytes=32,
    )
    Config = CINConfig
    reads_levels = True
    config: CINConfig

    def _build(self) -> None:
        if self.checkpoint is None:
            raise WeightsError("CIN needs trained weights: load 'cin' or give a checkpoint.")
        network = CINNet.like(read_state(self.checkpoint), str(self.checkpoint))
        self._styles = {record.name: record for record in _records(self.checkpoint, len(network.scale))}
        self._rows = {name: row for row, name in enumerate(self._styles)}
        self.traits = self.traits.of_width(network.body.width, 32)
        network = network.to(self.device).to(memory_format=torch.channels_last)
        self._network = network.eval().requires_grad_(False)

    @property
    def style_names(self) -> tuple[str, ...]:
        return tuple(self._styles)

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        flags = f"--add-style FILE --steps {_ADDING}"
        row = self._rows[trained_name(style, self._styles, self.name, CINTask, flags=flags, steps=_ADDING)]
        return {"scale": self._network.scale[row].clone(), "shift": self._network.shift[row].clone()}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        with self.autocast():
            image = self._network(content, *_mixed(style)).float()
        call.report(1, 1, {}, lambda: image.clamp(0, 1))
        return Stylized(image)

    def _stylize_tiles(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        assert call.tile is not None  # what tiles are for
        with self.autocast():
            image = collect(FixedStyle(self._network, *_mixed(style)).by_tiles(content, call.tile), call, content)
        call.report(1, 1, {}, lambda: image)
        return Stylized(image)

    def _as_network(self, style: Mix) -> nn.Module:
        return FixedStyle(self._network, *_mixed(style))


def _mixed(style: Mix) -> tuple[Tensor, Tensor]:
    """Scales and shifts of a mix of styles: those of its parts, weighted."""
    scale = torch.stack([weight * code.data["scale"] for code, weight in style]).sum(0)
    return scale, torch.stack([weight * code.data["shift"] for code, weight in style]).sum(0)


# -- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CINTaskConfig(Config):
    """The styles to train, all from the start or more of them in a trained network, and the loss."""

    styles: tuple[str, ...] = option((), "Style images: files or builtin:NAME; none given: the built-in ones.")
    add_style: tuple[str, ...] = option((), "Train only the scales and shifts of these, in the network 'base'.")
    base: str | None = option(None, "Checkpoint that add_style extends; none: the one that comes with the zoo.")
    style_size: int = option(256, "Long side of the style images in pixels (the code: 256 square).", ge=32)
    records: str | None = option(None, "JSON file with title, artist, year, source, licence of styles by file stem.")
    width: int = option(32, "Channels of the first layer (the paper: 32).", ge=4)
    content_layer: str = option("relu3_3", "Layer whose features are the content.")
    style_layers: tuple[str, ...] = option(
        ("relu1_2", "relu2_2", "relu3_3", "relu4_3"), "Layers whose Gram matrices are the style."
    )
    relative: bool = option(True, "Terms relative to the images' own features; false: in magenta's units.")
    content_weight: float = option(1.0, "Weight of the content term.", ge=0)
    style_weight: float | None = option(
        None, "Weight of the style term; none: 10 if relative, else magenta's 1e-4.", gt=0
    )
    coefficients: tuple[float, ...] = option((), "Factors of the style weight, one per style; none: 1 each.", gt=0)
    tv_weight: float = option(0.0, "Weight of the total variation (the paper has none).", ge=0)
    row_rate: float = option(10.0, "Learning rate of scales and shifts relative to that of the convolutions.", gt=0)
    encoder: str = option("vgg19", "Network behind the loss.")

    def validate(self) -> None:
        if self.add_style and self.styles:
            raise ConfigError("Give either 'styles' for a new network or 'add_style' for one more in a trained one.")
        if self.base is not None and not self.add_style:
            raise ConfigError("Option 'base' goes with 'add_style'.")


class CINTask(TrainingTask):
    """All styles at once: every image of a batch is given one at random, and the loss is Johnson's (section 2)."""

    Config = CINTaskConfig
    factors: Tensor
    method: ClassVar[str] = "cin"
    paper: ClassVar[str] = "Dumoulin et al., A Learned Representation for Artistic Style, ICLR 2017"
    sets: ClassVar[tuple[str, ...]] = ("content",)
    defaults: ClassVar[TrainConfig] = TrainConfig(
        steps=8000, batch_size=4, crop=256, lr=2e-3, schedule="cosine", warmup=20, beta2=0.99, preview_every=500
    )

    def __init__(self, config: CINTaskConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CINTaskConfig()
        sources = config.add_style or config.styles or tuple(f"builtin:{name}" for name in builtin_styles())
        loaded = [load_style(source, config.style_size, config.records) for source in sources]
        if len(config.coefficients) not in (0, len(loaded)):
            raise ConfigError(f"Option 'coefficients' needs a factor for each of the {len(loaded)} styles trained.")
        old = self._extend(len(loaded)) if config.add_style else self._begin(len(loaded))
        self.records = [*old, *(record for record, _ in loaded)]
        names = [record.name for record in self.records]
        if len(set(names)) < len(names):
            raise ConfigError(f"Two styles have the same name among {', '.join(names)}: rename the file.")
        self.first = len(old)
        self.criterion = PerceptualLoss(
            encoder=config.encoder,
            content_layer=config.content_layer,
            style_layers=config.style_layers,
            content_weight=config.content_weight,
            style_weight=config.style_weight or (10.0 if config.relative else 1e-4),
            tv_weight=config.tv_weight,
            relative=config.relative,
            divide_by="hw",
            pool="avg",
        )
        self.teacher = f"{self.criterion.teacher}; average pooling"
        self.criterion.hold([image for _, image in loaded])
        factors = torch.tensor(config.coefficients or [1.0] * len(loaded))
        self.register_buffer("factors", factors, persistent=False)

    def _begin(self, count: int) -> list[TrainedStyle]:
        self.network: CINNet = CINNet(count, self.config.width)
        return []

    def _extend(self, count: int) -> list[TrainedStyle]:
        """The trained network with more rows. Only rows get gradients, and the loss only ever uses the new ones: Adam
        leaves parameters without a gradient as they are, so old styles stay bit-identical."""
        if self.config.base is not None:
            path = Path(self.config.base)
        else:
            resolved = load_registry().resolve(self.method)
            if resolved.checkpoint is None:
                raise ConfigError("Option 'add_style' needs a trained network: give its checkpoint as 'base'.")
            path = weights.path(resolved.weights, resolved.checkpoint)
        state = read_state(path)
        old = CINNet.like(state, str(path))
        records = _records(path, len(old.scale))
        # From the mean of the styles it knows, which is a style too.
        for key in ("scale", "shift"):
            state[key] = torch.cat([state[key], state[key].mean(0, keepdim=True).expand(count, -1)])
        self.network = CINNet.like(state, str(path))
        self.network.body.requires_grad_(False)
        return records

    def optimizer(self, config: TrainConfig, batches: Iterator[Batch] | None) -> torch.optim.Optimizer:
        rows = [self.network.scale, self.network.shift]
        convolutions = [p for p in self.network.body.parameters() if p.requires_grad]
        groups = [{"params": rows, "factor": self.config.row_rate}, {"params": convolutions, "factor": 1.0}]
        return make_optimizer([g for g in groups if g["params"]], config)

    def targets(self, rows: Tensor) -> dict[str, Tensor]:
        """Gram matrices (B, C, C) by layer of the trained styles numbered ``rows`` (from 0, old styles not counted)."""
        return {layer: grams[rows] for layer, grams in self.criterion.held().items()}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        content = batch["content"]
        count = len(self.records) - self.first
        chosen = torch.randint(count, (content.shape[0],)).to(content.device)
        rows = self.first + chosen
        output = self.network(content, self.network.scale[rows], self.network.shift[rows])
        each = self.criterion.each(output, content, self.targets(chosen))
        each["style"] = each["style"] * self.factors[chosen]
        terms = {name: values.mean() for name, values in each.items()}
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def render(self, image: Tensor, index: int) -> Tensor:
        """``image`` (B, 3, H, W) in the trained style of this number (from 0, old styles not counted)."""
        row = self.first + index
        return self.network(image, self.network.scale[row], self.network.shift[row])

    @torch.no_grad()
    def evaluate(self, held_out: HeldOut) -> dict[str, float]:
        """The objective and its terms, means over styles and photographs; and each style's total beside what the
        unchanged photographs score (without the coefficients)."""
        means: dict[str, float] = {}
        single: dict[str, float] = {}
        trained: Sequence[TrainedStyle] = self.records[self.first :]
        for index, record in enumerate(trained):
            targets = self.targets(torch.tensor([index]))
            found = objective(
                self.criterion, targets, lambda x, i=index: self.render(x, i), held_out.get("content", ())
            )
            for name, value in found.items():
                means[name] = means.get(name, 0.0) + value / len(trained)
            if found:
                single |= {f"{record.name}.{key}": found[key] for key in ("total", "unchanged")}
        return means | single

    @torch.no_grad()
    def preview(self, held_out: HeldOut) -> list[list[Tensor]]:
        count = len(self.records) - self.first
        return [
            [image, *(self.render(image, i).float() for i in range(count))] for image in held_out.get("content", ())
        ]

    def describe(self) -> dict[str, Any]:
        own = {key: value for key, value in self.config.to_dict().items() if key not in ("records", "base")}
        names = [record.name for record in self.records[self.first :]]
        own["add_style" if self.config.add_style else "styles"] = names
        # The records come last and under a key of their own: their order is that of the rows.
        return {**own, "width": self.network.body.width, "rows": [record.to_dict() for record in self.records]}


__all__ = ["CIN", "CINConfig", "CINNet", "CINTask", "CINTaskConfig"]
