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
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo import device as devices
from zoo.encoders import Encoder, load_encoder
from zoo.errors import WeightsError
from zoo.nn.decoder import VGGDecoder, of_level
from zoo.nn.regions import feature_masks
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
        there = decoder.to(device, dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
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


class FeatureMethod(Stylizer):
    """One level of the normalised VGG-19, one transform, one decoder; ``strength`` blends features with the result."""

    LEVEL: ClassVar[int] = 4

    def _build(self) -> None:
        if self.checkpoint is None:
            raise WeightsError(f"{self.name} needs the weights of its decoder: load it by name or give a checkpoint.")
        dtype = devices.dtype_of(self.precision)
        self.encoder, self.decoder = load_pairs(self.checkpoint, [self.LEVEL], self.device, dtype)[self.LEVEL]

    def _features(self, images: Tensor) -> Tensor:
        return self.encoder(images.contiguous(memory_format=torch.channels_last))[f"relu{self.LEVEL}_1"]

    @abstractmethod
    def _code(self, features: Tensor, region: Tensor | None) -> Mapping[str, Any]:
        """What is kept of a style: of its ``features`` (1, C, h, w), where ``region`` (h, w) is above 0."""

    @abstractmethod
    def _transform(self, features: Tensor, style: Mix, region: Tensor | None) -> Tensor:
        """The features that a mix asks for; their own statistics are those of ``region`` (h, w), where there is one."""

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert style.image is not None  # styles="any" takes images only
        features = self._features(style.image)
        return self._code(features, style_region(style, features))

    def _target(self, features: Tensor, style: Mix, masks: Tensor | None) -> Tensor:
        """What the decoder shall show: the transform of a mix, or of each region by its own style."""
        if masks is None:
            return self._transform(features, style, None)
        return by_region(features, style, masks, lambda x, code, region: self._transform(x, Mix([(code, 1.0)]), region))

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        features = self._features(content)
        target = self._target(features, style, call.context.content_masks)
        if call.strength < 1:
            target = features + call.strength * (target - features)
        image = self.decoder(target.contiguous(memory_format=torch.channels_last)).float()
        call.report(1, 1, {}, lambda: image.clamp(0, 1))
        return Stylized(image)
