"""Deep image analogy: the parts of two pictures are matched by what they mean, and change looks with each other.

Liao, Yao, Yuan, Hua, Kang, *Visual Attribute Transfer through Deep Image Analogy*, ACM Transactions on Graphics
(SIGGRAPH) 2017. The authors' code is msracver/Deep-Image-Analogy.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo import device as devices
from zoo.config import Config, option
from zoo.encoders import load_encoder
from zoo.encoders.vgg import VGG
from zoo.errors import ConfigError
from zoo.methods._pixels import size_of
from zoo.nn.optimize import Fitting, Optimized, optimize_pixels
from zoo.nn.patchmatch import Windows, enlarged, exhaustive, patchmatch, voted, warped
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer, Traits

_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

# Root mean square, in levels of 255, that features are scaled to while they are fitted: moves of L-BFGS are bounded in
# these units (zoo.nn.optimize).
_SPREAD = 100.0


@dataclass(frozen=True)
class DeepAnalogyConfig(Config):
    """Options of :class:`DeepAnalogy`. The defaults are the preset ``deep-analogy.paper``."""

    num_steps: int = option(96, "Evaluations of the deconvolutions, four layers in both directions.", ge=1)
    time_limit: float | None = option(None, "Seconds per image, after which the best one so far is returned.", gt=0)
    content_weights: tuple[float, ...] = option(
        (0.8, 0.7, 0.6, 0.1), "Share of the content's own features at relu4_1 to relu1_1 (alpha).", ge=0, le=1
    )
    steepness: float = option(300.0, "How sharply strong features are told from weak ones (kappa).", gt=0)
    threshold: float = option(0.05, "Strength from which the content's features are kept (tau).", ge=0, le=1)
    patch_sizes: tuple[int, ...] = option((3, 3, 3, 5, 5), "Sides of patches at relu5_1 to relu1_1, odd.", ge=1)
    search_radii: tuple[int, ...] = option((6, 6, 4, 4), "Reach of the random search at relu4_1 to relu1_1.", ge=1)
    iterations: int = option(5, "Iterations of PatchMatch at every layer.", ge=1)
    history: int = option(5, "Curvature pairs that L-BFGS keeps; each costs two feature maps of memory.", ge=1)
    encoder: str = option("vgg19", "Feature network, a VGG.")

    def validate(self) -> None:
        for name, wanted in (("content_weights", 4), ("patch_sizes", 5), ("search_radii", 4)):
            if len(getattr(self, name)) != wanted:
                raise ConfigError(f"Option '{name}' takes {wanted} values, one a layer, not {getattr(self, name)}.")
        if any(size % 2 == 0 for size in self.patch_sizes):
            raise ConfigError(f"Option 'patch_sizes' takes odd numbers, not {self.patch_sizes}.")


@dataclass
class _Side:
    """One of the two pairs: its own picture's features, by layer, and at the present layer those of its counterpart.

    For the content these are A and A', for the style B' and B.
    """

    own: Mapping[str, Tensor]
    counterpart: Tensor

    def windows(self, layer: str, size: int, dtype: torch.dtype) -> Windows:
        """Both maps of unit length at every position, side by side."""
        parts = [part / part.norm(dim=1, keepdim=True).clamp_min(1e-12) for part in (self.own[layer], self.counterpart)]
        return Windows.of(torch.cat(parts, dim=1).to(dtype), size)


class DeepAnalogy(Stylizer):
    """Liao et al. 2017: content A and style B' are completed to an analogy A : A' :: B : B'.

    From relu5_1 down to relu1_1, two fields match the patches of both pictures, each on the features of both members of
    its pair: A and A' with B and B', forward and backward. At every layer the matched features of B' are carried one
    layer down by a deconvolution and blended with the content's where these are strong; that is A' of the next layer,
    and B comes likewise from A. The picture is the mean of the patches of B' that the last field puts over each pixel:
    colors and strokes are the style's own pixels. Best between pictures of like things, such as a face and a painted
    face.

    ``num_steps`` are evaluations of the deconvolutions, shared evenly; the loss is their squared error relative to the
    wanted features. Between two of them PatchMatch may take some seconds. ``strength`` blends pixels with the content.
    Extras: the fields ``forward`` and ``backward``, (H, W, 2) each, rows and columns in the other picture.

    | paper or authors' code | here | why |
    | --- | --- | --- |
    | random search over all of relu5_1 | all pairs compared | exact, and some hundred positions only |
    | PatchMatch in scan order, a thread a pixel | all positions at once (zoo.nn.patchmatch) | the same moves |
    | code: by default weights 0.9, 0.8, 0.7, 0.2, ten iterations, a threshold for strong features, and the mean of \
patches carried down | the paper's weights, five, a sigmoid, and the matched features | as the paper tells it |
    | deconvolution from noise | from the features of B' under the enlarged field | nearer to where it ends |
    | L-BFGS to convergence | 12 evaluations a layer and direction | by then it falls by 2 % a step |
    | patches end at the border | the border is repeated | all patches are alike |
    | pictures scaled to at most 700 x 500 | as they are | the size is the caller's choice |
    """

    traits = Traits(
        iterative=True,
        source="image",
        strength="blend",
        batched=False,
        min_size=32,
        cpu_precision="bf16",
        pixel_bytes=7000,
    )
    Config = DeepAnalogyConfig
    config: DeepAnalogyConfig

    def _build(self) -> None:
        self._encoder = load_encoder(self.config.encoder, taps=_LAYERS, device=self.device)
        if not isinstance(self._encoder, VGG):
            raise ConfigError(f"deep-analogy needs a VGG as its encoder, not '{self.config.encoder}'.")
        # Of the layers behind one tap the deconvolution runs only those up to the next.
        self._ending = {
            layer: load_encoder(self.config.encoder, taps=(layer,), device=self.device) for layer in _LAYERS[1:]
        }

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        with self.autocast():
            return {"image": style.image, "features": self._encoder(style.image)}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        ((code, _),) = style
        painting: Tensor = code.data["image"]
        with self.autocast():
            features = self._encoder(content)
        return _Analogy(self, content, painting, features, code.data["features"], call).run()

    def deconvolve(
        self, layer: str, deeper: str, start: Tensor, wanted: Tensor, **options: Any
    ) -> tuple[Optimized, Tensor]:
        """Features at ``layer`` whose features at ``deeper`` are ``wanted`` (1, C, h, w), from ``start``."""
        encoder = self._ending[deeper]
        assert isinstance(encoder, VGG)
        wanted = wanted.float()
        norm = wanted.square().sum().clamp_min(1e-12)
        unit = float(start.float().square().mean().sqrt().clamp_min(1e-12)) * 255 / _SPREAD

        def loss(scaled: Tensor) -> dict[str, Tensor]:
            with self.autocast():
                found = encoder.resume(layer, scaled * unit)[deeper]
            return {"total": (found.float() - wanted).square().sum() / norm}

        fitted = optimize_pixels(
            start.float() / unit,
            loss,
            Fitting("lbfgs", history=self.config.history, precision=self.precision),
            **options,
        )
        return fitted, fitted.image * unit


class _Analogy:
    """One content and one style on their way down the layers."""

    def __init__(
        self,
        model: DeepAnalogy,
        content: Tensor,
        painting: Tensor,
        features: Mapping[str, Tensor],
        style_features: Mapping[str, Tensor],
        call: Call,
    ) -> None:
        self.model, self.config, self.call = model, model.config, call
        self.content, self.painting = content, painting
        self.dtype = devices.dtype_of(model.precision)
        self.generator = call.generator()
        # Without a layer above, each counterpart begins as the picture itself.
        self.ours = _Side(features, features["relu5_1"])
        self.theirs = _Side(style_features, style_features["relu5_1"])
        self.rows: list[Mapping[str, float]] = []
        self.deadline = None
        if self.config.time_limit is not None:
            self.deadline = time.monotonic() + self.config.time_limit

    def run(self) -> Stylized:
        """Go through all layers; stopped in between, draw with the fields found so far."""
        windows = [side.windows("relu5_1", self.config.patch_sizes[0], self.dtype) for side in (self.ours, self.theirs)]
        forward, backward = exhaustive(windows[0], windows[1]), exhaustive(windows[1], windows[0])
        stopped = False
        for index, (deeper, layer) in enumerate(zip(_LAYERS[:0:-1], _LAYERS[-2::-1], strict=True)):
            fields = (self._enlarged(forward, layer, deeper), self._enlarged(backward, layer, deeper, back=True))
            stopped = self._descend(index, deeper, layer, (forward, backward), fields)
            forward, backward = fields
            if stopped:
                break
            windows = [
                side.windows(layer, self.config.patch_sizes[index + 1], self.dtype) for side in (self.ours, self.theirs)
            ]
            forward, backward = (
                patchmatch(
                    a,
                    b,
                    field,
                    radius=self.config.search_radii[index],
                    iterations=self.config.iterations,
                    generator=self.generator,
                )
                for a, b, field in ((*windows, forward), (*windows[::-1], backward))
            )
        fields = {"forward": forward, "backward": backward}
        return Stylized(self._drawn(forward), len(self.rows), self.rows, stopped, fields)

    def _enlarged(self, field: Tensor, layer: str, deeper: str, back: bool = False) -> Tensor:
        ours, theirs = (self.theirs, self.ours) if back else (self.ours, self.theirs)
        return enlarged(field, size_of(ours.own[layer]), size_of(theirs.own[layer]), size_of(theirs.own[deeper]))

    def _drawn(self, field: Tensor) -> Tensor:
        """The picture that a ``field`` of any layer makes of the style's pixels."""
        size, style_size = size_of(self.content), size_of(self.painting)
        if field.shape[:2] != size:
            # relu1_1 has the picture's size; of other layers each position stands for a square of pixels.
            layer = next(x for x in _LAYERS if size_of(self.ours.own[x]) == tuple(field.shape[:2]))
            field = enlarged(field, size, style_size, size_of(self.theirs.own[layer]))
        return voted(self.painting, field, self.config.patch_sizes[-1])

    def _descend(
        self, index: int, deeper: str, layer: str, fields: tuple[Tensor, Tensor], enlarged: tuple[Tensor, Tensor]
    ) -> bool:
        """Set both counterparts at ``layer`` from the matches at ``deeper``; True when asked to stop."""
        parts = []
        share = self.config.content_weights[index]
        for turn, (side, other) in enumerate(((self.ours, self.theirs), (self.theirs, self.ours))):
            start = warped(other.own[layer], enlarged[turn])
            # What does not divide goes to the finest layers.
            steps = (self.config.num_steps - len(self.rows)) // (8 - 2 * index - turn)
            if steps:
                fitted, start = self.model.deconvolve(
                    layer,
                    deeper,
                    start,
                    warped(other.own[deeper], fields[turn]),
                    num_steps=steps,
                    call=self.call,
                    deadline=self.deadline,
                    first_step=len(self.rows),
                    total_steps=self.config.num_steps,
                    show=lambda _: self._drawn(enlarged[0]),
                )
                self.rows += fitted.losses
                if fitted.stopped:
                    return True
            own = side.own[layer].float()
            weight = share * self._strong(own)
            parts.append(own * weight + start * (1 - weight))
        self.ours.counterpart, self.theirs.counterpart = parts
        return False

    def _strong(self, features: Tensor) -> Tensor:
        """Near 1 where features are strong, near 0 where they are weak, (1, 1, h, w)."""
        response = features.square().sum(dim=1, keepdim=True)
        low, high = response.min(), response.max()
        response = (response - low) / (high - low).clamp_min(1e-12)
        return torch.sigmoid(self.config.steepness * (response - self.config.threshold))
