"""Style swap: Chen and Schmidt, *Fast Patch-based Style Transfer of Arbitrary Style*, arXiv:1612.04337, 2016.

One layer of a fixed network is enough: in VGG-19's relu3_1 every 3 x 3 patch of the content is replaced by the style's
patch of highest normalised cross-correlation, and patches are averaged where they overlap (section 3.1)::

    phi_ss(i) = argmax over j of <phi_i(C), phi_j(S)> / (|phi_i(C)| |phi_j(S)|)            (equations 1 and 2)

The content's norm is the same for all rivals and drops out. The image is what has those features, found either by
optimising its pixels (section 3.2)::

    I = argmin |Phi(I) - Phi_ss(C, S)|^2 + lambda TV(I)                                     (equations 3 and 4)

or at once by an inverse network, trained for all styles (section 4) by :class:`StyleSwapTraining` at the end of this
file::

    f = argmin over f of the sum over H of |Phi(f(H)) - H|^2 + lambda TV(f(H))              (equation 6)

where H ranges over features of photographs, of paintings, and of swaps between them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import device as devices
from zoo.config import Config, option
from zoo.encoders import Encoder, load_encoder
from zoo.encoders.sources import normalized_scales
from zoo.errors import ConfigError, WeightsError
from zoo.methods._features import by_region, style_region
from zoo.nn.decoder import VGGDecoder, of_level
from zoo.nn.losses import total_variation
from zoo.nn.optimize import Fitting, optimize_pixels
from zoo.nn.patches import PatchBank, swap
from zoo.nn.regions import bounding_box, feature_masks
from zoo.nn.shortlist import CANDIDATES, Shortlist, gap_of
from zoo.nn.tiles import Local, Map, Whole, collect
from zoo.stylizer import Call, Mix, Style, StyleCode, Stylized, Stylizer, Traits, require_tensors
from zoo.training.reconstruction import psnr, solve_decoder
from zoo.training.task import Batch, HeldOut, TrainConfig, teacher
from zoo.training.whitened import WhitenedTask
from zoo.weights import read_state

TAP = "relu3_1"
CELL = 4  # pixels of the image per position at relu3_1
LARGEST = 2 * CANDIDATES  # patches of a style that are all compared; a painting of 736 x 736 pixels has as many
SHORTLIST = tuple(field.name for field in dataclasses.fields(Shortlist))


@dataclass(frozen=True)
class StyleSwapConfig(Config):
    """Options of :class:`StyleSwap`."""

    patch_size: int = option(3, "Side of the patches, in positions of relu3_1 (4 pixels each).", ge=1, le=31)
    stride: int = option(1, "Positions from one patch to the next, in content and style.", ge=1, le=31)
    search: Literal["auto", "exact", "shortlist"] = option(
        "auto",
        "How the most similar patch is found: among all, or in a shortlist of the style; auto takes all of a style of "
        "up to 32768 patches, and of patches wider than 5.",
    )
    inversion: Literal["network", "optimisation"] = option(
        "network", "How features become an image: by the trained network, or by fitting pixels to them."
    )
    num_steps: int = option(100, "Evaluations of loss and gradient; only for the optimisation.", ge=1)
    learning_rate: float = option(12.75, "Adam's, in levels of 255 (0.05 of the range); only there too.", gt=0)
    tv_weight: float = option(1e-4, "Weight of the total variation against the features' mean error.", ge=0)
    time_limit: float | None = option(None, "Seconds per image, after which the best one so far is returned.", gt=0)

    def validate(self) -> None:
        if self.stride > self.patch_size:
            raise ConfigError(
                f"Option 'stride' ({self.stride}) must not exceed 'patch_size' ({self.patch_size}): "
                "positions between the patches would get no features."
            )


def load_swap_encoder(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Encoder:
    """Load VGG-19 up to relu3_1, as the swap and its training use it."""
    return load_encoder("vgg19", taps=(TAP,), padding="reflect", device=device, dtype=dtype)


def channel_scales() -> Tensor:
    """Return factors (1, 256, 1, 1) that bring the mean of each channel of relu3_1 to 1, for the inverse network."""
    return normalized_scales()["3_1"].float().view(1, -1, 1, 1)


class StyleSwap(Stylizer):
    """Style swap (Chen and Schmidt 2016). One inverse network for every style.

    ``strength`` blends the content's features with the swapped ones; 0 gives the inverse network's reconstruction of
    the content, not the content itself.

    | paper / authors' code | here | why |
    |---|---|---|
    | correlation by convolving with all style patches | products of pixels, summed over patches, in blocks | the \
same numbers by a ninth of the work, in bounded memory |
    | every patch of the style is compared | of a style of more than 32,768 patches a shortlist \
(zoo.nn.shortlist); ``search`` chooses | the cost of all pairs grows with the square of the pixels |
    | overlaps averaged by a second deconvolution | sums of slices, divided by the known count | the same numbers; \
the count depends on the size alone |
    | zero padding in VGG-19 | reflection | zeros mark a frame in content and style: on 4 pairs at 192 pixels 76 to \
87 % of the patches along the border matched patches along the style's, with reflection as many as elsewhere (6 \
to 47 %) |
    | inverse network with zero padding and batch or instance normalisation | VGGDecoder(3): reflection, no \
normalisation, channels scaled to mean 1 beforehand | same widths and upsampling (figure 6); statistics of the \
whole image in the way of single patches; the scales stand in for the normalisation |
    | stride 1 when the map ends before the last stride | the last patch that fits is always taken | no border is \
left without features at any stride |
    | style of one image | mixes, masks of content and style, strength | blends of swapped features, region by region |
    | optimisation: the features' gradient divided by the sum of its absolute values, beside 1e-7 times the total \
variation, squared differences of levels of 255 (authors' code) | the gradient of the mean squared error (equation 3), \
beside 1e-4 times half those squares | the loss as the paper writes it, total variation as everywhere in the zoo \
(zoo.nn.losses); with 1e-7 grain of single pixels is left all over the image |
    | result of the last step | evaluated image of lowest loss | Adam's last step is not its best |

    A mask of the style keeps the patches that lie inside it whole, or, where none does, those that hold most of it.
    """

    traits = Traits(
        strength="feature",
        strength_zero="reconstruction",
        batched=False,
        mixes=True,
        context=frozenset({"content_masks"}),
        min_size=16,
        multiple_of=CELL,
        cpu_precision="bf16",
        pixel_bytes=360,
        tiled=True,
    )
    Config = StyleSwapConfig
    reads_levels = True
    config: StyleSwapConfig

    def _build(self) -> None:
        # The weights stay in the working precision: autocast would cast them anew for every image.
        dtype = devices.dtype_of(self.precision)
        self.encoder = load_swap_encoder(self.device, dtype)
        self.decoder: VGGDecoder | None = None
        if self.config.inversion == "optimisation":
            self.traits = dataclasses.replace(self.traits, iterative=True, source="image", tiled=False)
        if self.config.inversion == "network":
            if self.checkpoint is None:
                raise WeightsError(
                    "Style swap needs the weights of its inverse network: load 'style_swap', give a checkpoint, "
                    "or use inversion 'optimisation', which needs none."
                )
            self.decoder = _inverse_network(self.checkpoint).to(self.device, dtype)

    # -- features and their swap (section 3.1) ------------------------------------------------------------------------

    def _features(self, image: Tensor) -> Tensor:
        return self.encoder(image.contiguous(memory_format=torch.channels_last))[TAP]

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        features = self._features(style.image)
        bank = PatchBank.of([features], self.config.patch_size, self.config.stride)
        code = {name: getattr(bank, name) for name in ("pixels", "first", "pitch", "scale")}
        region = style_region(style, features)
        if region is not None:
            bank = bank.within(region.flatten())
            code["allowed"] = bank.allowed
        many = len(bank) > LARGEST and self.config.patch_size <= 5
        if self.config.search == "shortlist" or (self.config.search == "auto" and many):
            shortlist = Shortlist.of(bank)
            code |= {name: getattr(shortlist, name) for name in SHORTLIST}
        return {**code, "shape": bank.shapes[0]}

    def _bank(self, code: StyleCode) -> PatchBank:
        fields = {name: value for name, value in code.data.items() if name not in ("shape", *SHORTLIST)}
        shapes = (tuple(code.data["shape"]),)
        return PatchBank(**fields, shapes=shapes, size=self.config.patch_size, stride=self.config.stride)

    def _swapped(self, features: Tensor, code: StyleCode) -> Tensor:
        shortlist = Shortlist(*(code.data[name] for name in SHORTLIST)) if SHORTLIST[0] in code.data else None
        return swap(features, self._bank(code), stride=self.config.stride, shortlist=shortlist)

    def _dependence(self, code: StyleCode) -> tuple[int, int]:
        """How far from a position its swap depends on features, and the grid on which patches are looked up."""
        near, stride = self.config.patch_size - 1, self.config.stride
        cell = gap_of(stride) * stride
        return (near + cell, cell) if SHORTLIST[0] in code.data else (near, stride)

    def _target(self, features: Tensor, style: Mix, masks: Tensor | None) -> Tensor:
        """Return the weighted sum of the swaps of a mix, or each style's own in its region."""
        if masks is None:
            if len(style) == 1:
                return self._swapped(features, next(iter(style))[0])
            return _total([weight * self._swapped(features, code).float() for code, weight in style]).to(features.dtype)
        return by_region(features, style, masks, self._swapped_within)

    def _swapped_within(self, features: Tensor, code: StyleCode, region: Tensor) -> Tensor:
        """The swap where ``region`` (h, w) reaches, zeros elsewhere."""
        reach, cell = self._dependence(code)
        rows, columns = bounding_box(region, reach if self.config.stride == 1 else None, cell)
        result = torch.zeros_like(features)
        part = features[..., rows, columns]
        if part.numel():
            dtype = devices.dtype_of(self.precision)
            result[..., rows, columns] = self._swapped(part.to(dtype), code).float()
        return result

    def _moved(self, features: Tensor, style: Mix, masks: Tensor | None, strength: float) -> Tensor:
        """``strength`` of the way from ``features`` to their swap."""
        if strength == 0:
            return features
        target = self._target(features, style, masks)
        return target if strength == 1 else torch.lerp(features.float(), target.float(), strength)

    def _decoded(self, features: Tensor) -> Tensor:
        assert self.decoder is not None  # without one pixels are fitted
        exact = features.to(devices.dtype_of(self.precision))
        return self.decoder(exact.contiguous(memory_format=torch.channels_last)).float()

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        target = self._moved(self._features(content), style, call.context.content_masks, call.strength)
        if self.decoder is None:
            return self._optimize(content, target, call)
        image = self._decoded(target)
        call.report(1, 1, {}, lambda: image.clamp(0, 1))
        return Stylized(image)

    def _stylize_tiles(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        """All is local given the style's patches: a tile's patches lie on the picture's grid, beyond its border too."""
        assert self.decoder is not None  # whatever fits pixels has no tiles
        sources: list[Map] = [Local(self._features, Whole(content), halo=self.encoder.reach(TAP), down=CELL)]
        if call.context.content_masks is not None:
            sources.append(Whole(feature_masks(call.context.content_masks, sources[0].size)[None], CELL))

        def move(features: Tensor, *weights: Tensor) -> Tensor:
            return self._moved(features, style, weights[0][0] if weights else None, call.strength)

        reach, cell = (max(each) for each in zip(*(self._dependence(code) for code, _ in style), strict=True))
        swapped = Local(move, *sources, halo=reach + 1, cell=cell)
        image = collect(Local(self._decoded, swapped, halo=self.decoder.reach, up=CELL), call, content)
        call.report(1, 1, {}, lambda: image)
        return Stylized(image)

    # -- inversion by optimisation (section 3.2) ----------------------------------------------------------------------

    def _optimize(self, content: Tensor, target: Tensor, call: Call) -> Stylized:
        config = self.config
        target = target.float()

        def loss(image: Tensor) -> dict[str, Tensor]:
            terms = {"feature": F.mse_loss(self._features(image).float(), target)}
            if config.tv_weight:
                terms["tv"] = config.tv_weight * total_variation(image)
            return {"total": _total(list(terms.values())), **terms}

        fitted = optimize_pixels(
            content,
            loss,
            Fitting("adam", config.learning_rate, clamp=True, precision=self.precision),
            num_steps=config.num_steps,
            call=call,
            deadline=None if config.time_limit is None else time.monotonic() + config.time_limit,
        )
        return Stylized(fitted.image, fitted.steps, fitted.losses, fitted.stopped)


def _inverse_network(path: Path) -> VGGDecoder:
    """The decoder of a checkpoint, with the channels' scales folded into its first convolution."""
    network = VGGDecoder(3)
    state = read_state(path)
    require_tensors(state, network.state_dict(), str(path))
    network.load_state_dict({**state, "conv3_1.weight": state["conv3_1.weight"] * channel_scales()})
    network = network.eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


def _total(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum(dim=0)


# -- training the inverse network (section 4) -------------------------------------------------------------------------


@dataclass(frozen=True)
class StyleSwapTrainingConfig(Config):
    """The loss of the inverse network and where it starts; the defaults are the paper's."""

    swaps: int | None = option(None, "Swapped maps per batch, each of its own pair of images; none is all pairs.", ge=0)
    # train-vgg-decoder.lua: 1e-6, of the sum of squares over the 8 images of an update; here of half their mean.
    tv_weight: float = option(1.6e-5, "Weight of the total variation against the features' mean error.", ge=0)
    pixel_weight: float = option(0.0, "Weight of the squared error of pixels, where features are not swapped.", ge=0)
    start: Literal["random", "least-squares"] = option("random", "How a new network's weights are found.")
    decoder: str | None = option(
        None, "Safetensors file of a level 3 decoder of vgg19.normalised (as WCT's), to start from instead."
    )
    whiten: bool = option(False, "Run Adam in the whitened coordinates of each convolution's inputs.")


class StyleSwapTraining(WhitenedTask):
    """Train the inverse network on features of photographs, of paintings and of their swaps (equation 6).

    ``feature`` is the squared error of the output's features relative to the squared features, so its root is the
    relative error; it is the paper's mean squared error over the mean square of the batch's features, and ``tv`` is
    divided by the same number. ``pixel`` is zero unless weighted.

    | paper / authors' code | here | why |
    |---|---|---|
    | 2 photographs, 2 paintings, their 4 swaps | the default: batches of 2, all pairs | ``swaps`` chooses fewer for \
larger batches |
    | orthogonal weights | Kaiming, least squares, or a decoder's | the last two start where random weights need \
hours; see zoo.training.reconstruction |
    | total variation: 1e-6 times the sum of squared differences over the 8 images of an update (authors' code) | \
1.6e-5 times half that sum per image | the same gradient, whatever the batch; the shipped network was trained with \
1e-6, a sixteenth of it |
    | features alone | ``pixel_weight``, default 0 | the image behind unswapped features is known, and pixels tell \
colour and contrast directly |
    | Adam | ``whiten``, default off | as in zoo.training.reconstruction |

    For a CPU, in place of the paper's::

        --decoder LEVEL3.safetensors --whiten true --lr 1.5e-4 --beta2 0.99 --schedule cosine --warmup 20 --ema 0.995
        --batch-size 4 --crop 160 --zoom 0.75,1.5 --swaps 2 --pixel-weight 1 --steps 3000

    or with ``--start least-squares`` where there is no decoder to begin from.
    """

    Config = StyleSwapTrainingConfig
    method: ClassVar[str] = "style-swap"
    paper: ClassVar[str] = (
        "Chen and Schmidt, Fast Patch-based Style Transfer of Arbitrary Style, arXiv:1612.04337, 2016"
    )
    sets: ClassVar[tuple[str, ...]] = ("content", "style")
    # train-vgg.lua: Adam 1e-3 with 1 / (1 + 1e-4 t), 80 000 updates of 2 + 2 crops of 256.
    defaults: ClassVar[TrainConfig] = TrainConfig(
        steps=80_000, batch_size=2, crop=256, store=288, lr=1e-3, schedule="inverse", decay=1e-4
    )

    scales: Tensor

    def __init__(self, config: StyleSwapTrainingConfig | None = None) -> None:
        super().__init__()
        self.config = config or StyleSwapTrainingConfig()
        self.network: VGGDecoder = VGGDecoder(3)
        self.encoder = load_swap_encoder()
        self.teacher = teacher("vgg19", TAP, self.encoder.digest)
        self.register_buffer("scales", channel_scales(), persistent=False)

    @property
    def multiple_of(self) -> int:
        """Pixels are compared with the image that the features were taken of, and least squares pairs positions."""
        return 4 if self.config.pixel_weight or self.config.start == "least-squares" else 1

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        images = torch.cat([batch["content"], batch["style"]])
        with torch.no_grad():
            target = self.encoder(images)[TAP]
            content, style = target.split([len(batch["content"]), len(batch["style"])])
            target = torch.cat([target, *self._swaps(content, style)])
        output = self.invert(target).float()
        again = self.encoder(output)[TAP].float()
        wanted = target.float()
        power = wanted.square().mean().clamp_min(1e-6)
        terms = {
            "feature": F.mse_loss(again, wanted) / power,
            "tv": self.config.tv_weight * total_variation(output) / len(output) / power,
        }
        if self.config.pixel_weight:
            terms["pixel"] = self.config.pixel_weight * F.mse_loss(output[: len(images)], images)
        return {"total": _total(list(terms.values())), **terms}

    def _swaps(self, content: Tensor, style: Tensor) -> list[Tensor]:
        """Swapped features of the configured number of pairs, first each content with its own style."""
        pairs = [(i, (i + k) % len(style)) for k in range(len(style)) for i in range(len(content))]
        return [
            swap(content[i : i + 1], PatchBank.of([style[j]], 3, 1), stride=1) for i, j in pairs[: self.config.swaps]
        ]

    def invert(self, features: Tensor) -> Tensor:
        """The network's image of features (B, 256, h, w) of relu3_1: (B, 3, 4 h, 4 w), near [0, 1]."""
        return self.network((features * self.scales).contiguous(memory_format=torch.channels_last))

    def prepare(self, batches: Iterator[Batch]) -> None:
        if self.config.decoder is not None:
            state = of_level(read_state(Path(self.config.decoder)), 3)
            require_tensors(state, self.network.state_dict(), self.config.decoder)
            self.network.load_state_dict(state)
        elif self.config.start == "least-squares":
            # Paintings too: a third of what the network inverts has no photograph's statistics.
            solve_decoder(self.network, "vgg19.normalised", (_both(batch) for batch in batches))

    @torch.no_grad()
    def evaluate(self, held_out: HeldOut) -> dict[str, float]:
        """Means over held-out photographs: ``relative_error`` of the features of the inverse network's clamped image,
        ``psnr`` of that image, and ``swapped_error``, the relative error for swaps of up to four pairs."""
        found: dict[str, list[float]] = {"relative_error": [], "psnr": [], "swapped_error": []}
        for image in map(_whole_cells, held_out.get("content", ())):
            features = self.encoder(image)[TAP]
            found["relative_error"].append(self._relative_error(features))
            found["psnr"].append(psnr(self.invert(features), image))
        for swapped in self._held_out_swaps(held_out):
            found["swapped_error"].append(self._relative_error(swapped))
        return {name: sum(values) / len(values) for name, values in found.items() if values}

    @torch.no_grad()
    def preview(self, held_out: HeldOut) -> list[list[Tensor]]:
        rows = []
        for content, style, swapped in zip(
            held_out.get("content", ()), held_out.get("style", ()), self._held_out_swaps(held_out), strict=False
        ):
            again = self.invert(self.encoder(_whole_cells(content))[TAP])
            images = (content, style, again, self.invert(swapped))
            rows.append([image.float().clamp(0, 1) for image in images])
        return rows

    def _held_out_swaps(self, held_out: HeldOut) -> Iterator[Tensor]:
        pairs = list(zip(held_out.get("content", ()), held_out.get("style", ()), strict=False))
        for content, style in pairs[:4]:
            features = self.encoder(_whole_cells(content))[TAP]
            yield swap(features, PatchBank.of([self.encoder(style)[TAP]], 3, 1))

    def _relative_error(self, features: Tensor) -> float:
        again = self.encoder(self.invert(features).float().clamp(0, 1))[TAP].float()
        power = features.float().square().sum().item()
        return math.sqrt((again - features.float()).square().sum().item() / max(power, 1e-12))

    def describe(self) -> dict[str, Any]:
        return self.config.to_dict()


def _both(batch: Batch) -> Batch:
    return {"content": torch.cat([batch["content"], batch["style"]])}


def _whole_cells(image: Tensor) -> Tensor:
    """``image`` without the last rows and columns that pooling would drop."""
    height, width = image.shape[-2:]
    return image[..., : height // CELL * CELL, : width // CELL * CELL]
