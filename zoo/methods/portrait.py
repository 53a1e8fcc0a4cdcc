"""Portraits: a painted face is laid over a photographed one, and lends it its colors and strokes place by place.

Selim, Elgharib, Doyle, *Painting Style Transfer for Head Portraits using Convolutional Neural Networks*, ACM
Transactions on Graphics (SIGGRAPH) 2016.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import device as devices
from zoo.config import option
from zoo.errors import ConfigError, UnsuitedError
from zoo.faces import landmarks
from zoo.images import resize
from zoo.methods._pixels import (
    MIN_SIDE,
    PixelConfig,
    PixelMethod,
    Problem,
    Size,
    Terms,
    check_layers,
    layer_weights,
    mean_squares,
    size_of,
    total,
)
from zoo.nn.gram import gram
from zoo.nn.patchmatch import Windows, patchmatch, positions
from zoo.stylizer import Call, Mix, Style, Stylized, Traits


@dataclass(frozen=True)
class PortraitConfig(PixelConfig):
    """Options of :class:`Portrait`. The defaults are the preset ``portrait.paper``."""

    num_steps: int = option(300, "Evaluations of loss and gradient, over all levels.", ge=1)
    content_layers: tuple[str, ...] = option(
        ("relu3_1", "relu4_1"), "Layers whose features are matched to the content's times the gain maps."
    )
    content_layer_weights: tuple[float, ...] = option((1.0,), "One weight per content layer, or one for all.", ge=0)
    style_layers: tuple[str, ...] = option(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        "Layers whose Gram matrices are matched to the painting's.",
    )
    style_layer_weights: tuple[float, ...] = option(
        (0.244140625, 0.06103515625, 0.0152587890625, 0.003814697265625, 0.003814697265625),
        "One weight per style layer, or one for all.",
        ge=0,
    )
    content_weight: float = option(5.0, "Weight of the features under the gain maps.", ge=0)
    style_weight: float = option(1.0, "Weight of the Gram matrices.", ge=0)
    least_gain: float = option(0.7, "Lower bound of the gain maps.", ge=0)
    largest_gain: float = option(5.0, "Upper bound of the gain maps.", ge=0)
    align: Literal["face", "none"] = option(
        "face", "Lay the painting's face over the content's, or picture on picture."
    )
    search_radius: int = option(2, "How far the aligned painting is moved further, in positions of relu4_1.", ge=0)

    def validate(self) -> None:
        check_layers(self, "content", "style")
        if self.least_gain > self.largest_gain:
            raise ConfigError(
                f"Option 'least_gain' is {self.least_gain:g}, above 'largest_gain' {self.largest_gain:g}."
            )


class Portrait(PixelMethod):
    """Selim et al. 2016: the content's features, multiplied place by place by how much stronger the painting's are.

    Five landmarks are found in both faces and the painting is moved, turned and scaled until they lie on each other;
    then its features are moved a little further to where they match best. The gain map of a layer is the
    painting's features divided by the content's, within bounds; the content's features times it are the
    target at relu3_1 and relu4_1. So skin takes its color from skin and hair from hair, and the face stays
    whose it is. Gram matrices of the whole painting bring its strokes.

    Landmarks need the extra ``faces``; with ``align=none`` the painting is laid over the content as it is, for pictures
    framed alike. ``strength`` scales the Gram matrices' loss, the gain's departure from 1 and the start's from the
    content. Raises UnsuitedError where a picture has no face. Extras: ``landmarks`` and ``style_landmarks``, (5, 2), x
    and y in pixels.

    | paper | here | why |
    | --- | --- | --- |
    | 66 landmarks and a morph, then SIFT flow | 5 landmarks and a similarity, then PatchMatch on relu4_1, smoothed | \
no detector of 66 points may be shipped with |
    | gain clamped to [0.7, 5] | the same | - |
    | F_style / (F_content + 1e-4) | the same | - |
    | weights | Gatys' 1000 / C^2 for Gram matrices, 5 for content | chosen by looking |
    | starts from the content | from the content with the aligned painting's mean colors, place by place | features \
of flat places, such as a background, say little of their color |
    | - | beyond its border the painting is mirrored | a face laid over another leaves gaps |
    """

    traits = Traits(
        iterative=True,
        source="image",
        strength="loss",
        batched=False,
        context=frozenset({"init"}),
        min_size=MIN_SIDE,
        cpu_precision="bf16",
        pixel_bytes=1600,
        tiled_styles=True,
    )
    Config = PortraitConfig
    config: PortraitConfig

    def _encode_style(self, style: Style, content_size: Size | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        grams = [
            self._style_grams(resize(style.image, size), self.config.style_layers, "hw")[0]
            for size in self._sizes(size_of(style.image))
        ]
        code: dict[str, Any] = {"image": style.image, "grams": grams}
        if self.config.align == "face":
            code["landmarks"] = _found(style.image, "painting").to(self.device)
        return code

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        result = super()._stylize(content, style, call)
        ((code, _),) = style
        if "landmarks" not in code.data or call.strength == 0:
            return result
        extras = {"landmarks": _found(content, "content"), "style_landmarks": code.data["landmarks"].cpu()}
        return dataclasses.replace(result, extras=extras)

    def _problem(self, content: Tensor | None, style: Mix, size: Size, call: Call) -> Problem:
        assert content is not None  # no trait texture
        ((code, _),) = style
        painting: Tensor = code.data["image"]
        if "landmarks" in code.data:
            aligned = moved(painting, code.data["landmarks"], _found(content, "content").to(self.device), size)
        else:
            aligned = resize(painting, size)
        grams = code.data["grams"]
        sizes = self._sizes(size)[-len(grams) :]
        grams = grams[len(grams) - len(sizes) :]
        return Problem(
            sizes=sizes,
            start=self._start(call, torch.lerp(content, tinted(content, aligned), call.strength)),
            loss=lambda at, image: self._loss(resize(content, sizes[at]), resize(aligned, sizes[at]), grams[at], call),
        )

    def targets(self, content: Tensor, aligned: Tensor, call: Call) -> dict[str, Tensor]:
        """The content's features times the gain maps by layer."""
        config = self.config
        layers = dict.fromkeys((*config.content_layers, "relu4_1"))
        ours, theirs = self._features(content, layers), self._features(aligned, layers)
        motion = None
        if config.search_radius:
            motion = self._motion(ours["relu4_1"], theirs["relu4_1"], call)
        wanted = {}
        for layer in config.content_layers:
            features, painted = ours[layer].float(), theirs[layer].float()
            if motion is not None:
                painted = _carried(painted, motion)
            gain = (painted / (features + 1e-4)).clamp(config.least_gain, config.largest_gain)
            wanted[layer] = features * (1 + call.strength * (gain - 1))
        return wanted

    def _motion(self, ours: Tensor, theirs: Tensor, call: Call) -> Tensor:
        """How far, in shares of the picture, each position's best match nearby is away; smooth, (1, 2, h, w)."""
        units = [f.float() / f.float().norm(dim=1, keepdim=True).clamp_min(1e-12) for f in (ours, theirs)]
        a, b = (Windows.of(unit, 3) for unit in units)
        at = positions(size_of(ours), ours.device)
        field = patchmatch(a, b, at, radius=self.config.search_radius, iterations=2, generator=call.generator())
        reach = self.config.search_radius
        shift = (field - at).clamp(-reach, reach).permute(2, 0, 1)[None].float()
        shift = F.avg_pool2d(F.pad(shift, (2, 2, 2, 2), mode="replicate"), 5, 1)
        return shift / shift.new_tensor(size_of(ours)).view(1, 2, 1, 1)

    def _loss(self, content: Tensor, aligned: Tensor, grams: Mapping[str, Tensor], call: Call) -> Terms:
        config = self.config
        content_weights, style_weights = layer_weights(config, "content"), layer_weights(config, "style")
        layers = (*content_weights, *style_weights)
        wanted = self.targets(content, aligned, call)

        def loss(image: Tensor) -> dict[str, Tensor]:
            features = self._features(image, layers)
            return {
                "content": config.content_weight * mean_squares(features, wanted, content_weights),
                "style": (call.strength * config.style_weight)
                * total(
                    weight * (gram(features[layer], "hw") - grams[layer]).square().mean()
                    for layer, weight in style_weights.items()
                ),
            }

        return loss


def _found(image: Tensor, role: str) -> Tensor:
    points = landmarks(image)
    if points is None:
        raise UnsuitedError(
            f"No face was found in the {role}: portrait needs one of at least 24 pixels, seen from the front."
        )
    return points


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """Return turn, scale and shift (2, 3) that bring points ``source`` (N, 2) nearest to ``target``: least squares."""
    # With x + i y a similarity is one product and one sum, z -> a z + b.
    ours, theirs = (torch.view_as_complex(p.double().contiguous()) for p in (source, target))
    centered = ours - ours.mean()
    a = (centered.conj() * (theirs - theirs.mean())).sum() / centered.abs().square().sum()
    b = theirs.mean() - a * ours.mean()
    return torch.stack([torch.stack([a.real, -a.imag, b.real]), torch.stack([a.imag, a.real, b.imag])])


def moved(image: Tensor, points: Tensor, target: Tensor, size: Size) -> Tensor:
    """Return ``image`` (1, 3, H, W), moved so that its ``points`` (N, 2) lie near ``target`` (N, 2), at ``size``."""
    # Beside an MPS device, whose sampling mirrors nothing.
    device, image, points, target = image.device, *(devices.exact(x) for x in (image, points, target))
    back = similarity(target, points).float()
    shrink = float(back[:, 0].norm())
    if shrink > 1:
        # Sampling reads four pixels for each of the result: strokes between them would become noise.
        small = (max(2, round(image.shape[-2] / shrink)), max(2, round(image.shape[-1] / shrink)))
        scale = back.new_tensor([small[1] / image.shape[-1], small[0] / image.shape[-2]])
        # Positions are those of pixels' middles.
        back = torch.cat([back[:, :2] * scale[:, None], ((back[:, 2] + 0.5) * scale - 0.5)[:, None]], dim=1)
        image = resize(image, small)
    at = positions(size, image.device).flip(-1).float()
    source = at @ back[:, :2].T + back[:, 2]
    limit = source.new_tensor([image.shape[-1] - 1, image.shape[-2] - 1])
    grid = 2 * source / limit - 1
    found = F.grid_sample(image, grid[None], mode="bilinear", padding_mode="reflection", align_corners=True)
    return found.clamp(0, 1).to(device)


def tinted(content: Tensor, aligned: Tensor) -> Tensor:
    """Return ``content`` (1, 3, H, W) with the mean colors of ``aligned`` in every twelfth of its side."""
    size = size_of(content)
    coarse = (max(2, 12 * size[0] // max(size)), max(2, 12 * size[1] // max(size)))
    shift = resize(aligned, coarse) - resize(content, coarse)
    return (content + F.interpolate(shift, size, mode="bilinear", align_corners=False)).clamp(0, 1)


def _carried(features: Tensor, motion: Tensor) -> Tensor:
    """``features`` (1, C, h, w) from where ``motion`` (1, 2, H, W), rows and columns in shares, points to."""
    height, width = size_of(features)
    # Beside an MPS device, whose sampling has no padding by the border.
    device, features, motion = features.device, devices.exact(features), devices.exact(motion)
    shift = F.interpolate(motion, (height, width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    scale = shift.new_tensor([height, width])
    source = positions((height, width), features.device) + shift * scale
    grid = (2 * source / (scale - 1).clamp_min(1) - 1).flip(-1)[None]
    return F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=True).to(device)
