"""What methods share that encode a picture, transform its features, and decode them: weights, regions, mixes.

A method is its transform::

    class MyMethod(FeatureMethod):
        LEVEL = 4                                             # of the encoder's tap relu4_1 and of the decoder
        def _code(self, features, region): ...                # what it keeps of a style's features
        def _transform(self, features, style, region): ...    # the features that it wants, for a mix or a region
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo import device as devices
from zoo.encoders import Encoder, load_encoder
from zoo.errors import WeightsError
from zoo.memory import style_tile
from zoo.nn.decoder import VGGDecoder, of_level
from zoo.nn.regions import feature_masks
from zoo.nn.tiles import Local, Whole, collect, store
from zoo.stylizer import Call, Mix, Style, StyleCode, Stylized, Stylizer, require_tensors
from zoo.weights import read_state


def load_pairs(
    checkpoint: Path, levels: Iterable[int], device: torch.device, dtype: torch.dtype
) -> dict[int, tuple[Encoder, VGGDecoder]]:
    """Return, by level, the encoder up to relu{level}_1 and the decoder of that level in ``checkpoint``, in ``dtype``.

    The weights stay in the working precision: autocast would cast them anew for every image. Raises WeightsError for a
    file of another network.
    """
    state = read_state(checkpoint)
    pairs = {}
    for level in levels:
        decoder = VGGDecoder(level)
        own = of_level(state, level)
        require_tensors(own, decoder.state_dict(), f"{checkpoint}, level {level}")
        decoder.load_state_dict(own)
        decoder.eval().requires_grad_(False)
        encoder = load_encoder(
            "vgg19.normalised", taps=(f"relu{level}_1",), padding="reflect", device=device, dtype=dtype
        )
        there = decoder.to(device, dtype).to(memory_format=torch.channels_last)
        pairs[level] = (encoder, there)
    return pairs


def style_region(style: Style, features: Tensor) -> Tensor | None:
    """Return the style's mask at the positions (h, w) of its ``features``; None without one."""
    if style.mask is None:
        return None
    return feature_masks(style.mask[0], (features.shape[-2], features.shape[-1]))[0]


def by_region(
    features: Tensor, style: Mix, masks: Tensor, transform: Callable[[Tensor, StyleCode, Tensor], Tensor]
) -> Tensor:
    """Give each region of ``features`` (B, C, h, w) its own style; positions in no region keep their features.

    ``transform(features, code, region)`` may return what it likes where ``region`` (h, w) is 0: the map of a small
    region, where a channel hardly varies, may be beyond the range of 16 bits at the positions of the others. Hence
    float32 until the end.
    """
    weights = feature_masks(masks, (features.shape[-2], features.shape[-1]))
    exact = features.float()
    target = exact * (1 - weights.sum(dim=0))
    for (code, _), region in zip(style, weights, strict=True):
        target = target + torch.where(region > 0, transform(exact, code, region) * region, 0.0)
    return target.to(features.dtype)


# Channels that are moved at a time: of 16 bits, what a line of the processor's cache holds of a position.
_GROUP = 32


class FeatureMethod(Stylizer):
    """One level of the normalised VGG-19, one transform, one decoder; ``strength`` blends features with the result."""

    LEVEL: ClassVar[int] = 4
    reads_levels = True

    def _build(self) -> None:
        if self.checkpoint is None:
            raise WeightsError(f"{self.name} needs the weights of its decoder: load it by name or give a checkpoint.")
        dtype = devices.dtype_of(self.precision)
        self.encoder, self.decoder = load_pairs(self.checkpoint, [self.LEVEL], self.device, dtype)[self.LEVEL]

    def _features(self, images: Tensor) -> Tensor:
        return self.encoder(images.contiguous(memory_format=torch.channels_last))[f"relu{self.LEVEL}_1"]

    @abstractmethod
    def _code(self, features: Tensor, region: Tensor | None) -> Mapping[str, Any]:
        """What is kept of a style: of its ``features`` (1, C, h, w), where ``region`` (h, w) is above 0.

        With the trait ``tiled`` these are tensors (1, C, ...), each channel's by itself.
        """

    @abstractmethod
    def _transform(self, features: Tensor, style: Mix, region: Tensor | None) -> Tensor:
        """The features that a mix asks for; their own statistics are those of ``region`` (h, w), where there is one."""

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        side = style_tile(style.image.shape[-2], style.image.shape[-1])
        if side is None:
            features = self._features(style.image)
            return self._code(features, style_region(style, features))
        features = store(self._map(style.image), side).tensor
        region = style_region(style, features)
        parts = [self._code(features[:, part], region) for part in _groups(features)]
        return {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}

    def _target(self, features: Tensor, style: Mix, masks: Tensor | None) -> Tensor:
        """What the decoder shall show: the transform of a mix, or of each region by its own style."""
        if masks is None:
            return self._transform(features, style, None)
        return by_region(features, style, masks, lambda x, code, region: self._transform(x, Mix([(code, 1.0)]), region))

    def _moved(self, features: Tensor, style: Mix, masks: Tensor | None, strength: float) -> Tensor:
        """``strength`` of the way from ``features`` to their target."""
        target = self._target(features, style, masks)
        return target if strength == 1 else features + strength * (target - features)

    def _decoded(self, features: Tensor) -> Tensor:
        return self.decoder(features.contiguous(memory_format=torch.channels_last)).float()

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        features = self._features(content)
        image = self._decoded(self._moved(features, style, call.context.content_masks, call.strength))
        call.report(1, 1, {}, lambda: image.clamp(0, 1))
        return Stylized(image)

    # -- by tiles, for a transform that treats every channel by itself ------------------------------------------------

    def _map(self, image: Tensor) -> Local:
        """The features of an image as a map."""
        tap = f"relu{self.LEVEL}_1"
        halo, stride = self.encoder.reach(tap), self.encoder.stride(tap)
        return Local(self._features, Whole(image), halo=halo, down=stride, floor=True)

    def _stylize_tiles(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        """Encode and decode by tiles. The features between, a few bytes per pixel, are whole, and moved by groups of
        channels, so that their statistics are those of the whole picture."""
        assert call.tile is not None  # what this hook is for
        source, masks = self._map(content), call.context.content_masks
        features = store(source, call.tile).tensor
        if masks is not None:
            masks = feature_masks(masks, (features.shape[-2], features.shape[-1]))
        for part in _groups(features):
            codes = [(replace(code, data=_of_channels(code.data, part)), weight) for code, weight in style]
            features[:, part] = self._moved(features[:, part], Mix(codes), masks, call.strength)
        decoded = Local(self._decoded, Whole(features, source.stride), halo=self.decoder.reach, up=source.stride)
        image = collect(decoded, call, content)
        call.report(1, 1, {}, lambda: image)
        return Stylized(image)


def _groups(features: Tensor) -> list[slice]:
    return [slice(at, at + _GROUP) for at in range(0, features.shape[1], _GROUP)]


def _of_channels(code: Mapping[str, Any], part: slice) -> Mapping[str, Any]:
    """What a style's ``code`` says of the channels ``part``."""
    return {name: value[:, part] for name, value in code.items()}
