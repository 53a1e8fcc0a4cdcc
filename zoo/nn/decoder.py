"""The decoder that mirrors VGG-19: from the features of relu{k}_1 back to an image.

AdaIN (Huang and Belongie 2017, level 4) and WCT (Li et al. 2017, levels 1 to 5) use the same network: the encoder's
convolutions in reverse order, each 3x3 with reflection padding, nearest-neighbour upsampling where the encoder pools,
ReLU after every convolution but the last, no normalisation, no skips. Each convolution bears the name of the encoder
convolution that it undoes, so the decoder of level k holds the one of level k-1 as its lower part, with the same keys::

    level 2:  relu2_1 -> conv2_1 -> ReLU -> upsample -> conv1_2 -> ReLU -> conv1_1 -> image
                                                                  ^ as the input of level 1
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError, InputError
from zoo.nn.fast import reflected, upsampled, upsampled_twice_convolved
from zoo.nn.fast.fused import conv_relu, fusible

# VGG-19: convolutions per block and channels per block (Simonyan and Zisserman 2015, configuration E).
_BLOCKS = {1: (2, 64), 2: (2, 128), 3: (4, 256), 4: (4, 512), 5: (4, 512)}
LEVELS = tuple(_BLOCKS)
# Pixels of the image from which convolutions of upsampled maps are done in phases: for less, the weights of the phases
# take longer to make than they save.
_WORTHWHILE = 128 * 128


def channels(level: int) -> int:
    """Channels of relu{level}_1."""
    return _BLOCKS[level][1]


def _stage(level: int) -> list[tuple[str, int, int, bool]]:
    """(name, channels in, channels out, upsample after it) of the convolutions from relu{level}_1 to the one below."""
    top = (f"conv{level}_1", channels(level), channels(level - 1) if level > 1 else 3, level > 1)
    count, width = _BLOCKS.get(level - 1, (1, 3))
    return [top, *((f"conv{level - 1}_{i}", width, width, False) for i in range(count, 1, -1))]


class VGGDecoder(nn.Module):
    """From relu{level}_1 (B, C, h, w) of normalised VGG-19 to RGB (B, 3, h * 2^(level-1), w * 2^(level-1)).

    The output is linear, near [0, 1] but not clamped. ``level`` is 1 to 5; level 4 has 3,505,219 parameters.
    Raises ConfigError for another level and InputError for features of another number of channels.
    """

    def __init__(self, level: int) -> None:
        super().__init__()
        if level not in _BLOCKS:
            raise ConfigError(f"A decoder exists for levels 1 to 5 (relu1_1 to relu5_1), not {level!r}.")
        self.level = level
        for stage in range(level, 0, -1):
            for name, wide, narrow, _ in _stage(stage):
                conv = nn.Conv2d(wide, narrow, 3)
                # Kaiming's gain keeps the signal's size through the ReLUs; torch's default shrinks it layer by layer.
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu" if narrow > 3 else "linear")
                assert conv.bias is not None  # made with one
                nn.init.zeros_(conv.bias)
                self.add_module(name, conv)

    def forward(self, features: Tensor) -> Tensor:
        """The image, (B, 3, H, W). The same, up to rounding, as ``descend(features)[0]``."""
        if not self._quick(features):
            return self.descend(features)[0]
        doubled = bordered = False
        for name, conv, upsample in self.convolutions():
            if name == "conv1_2":
                # The last two at once: at the size of the image everything costs most.
                last = self.get_submodule("conv1_1")
                assert isinstance(last, nn.Conv2d)
                return upsampled_twice_convolved(conv, last, features)
            if doubled:
                features = upsampled(conv, features, relu=True, border="reflect")
            elif bordered:
                features = conv_relu(features, conv.weight, conv.bias)
            else:
                features = reflected(conv, features, relu=True)
            bordered, doubled = doubled, upsample
        raise AssertionError("a decoder of level 2 or more has a conv1_2")

    def _quick(self, features: Tensor) -> bool:
        """Whether forward may go by phases: on the CPU, without gradients, with no hook that wants to see a layer."""
        convolutions = [conv for _, conv, _ in self.convolutions()]
        pixels = features.shape[-2] * features.shape[-1] * 4 ** (self.level - 1)
        return (
            self.level > 1
            and features.dim() == 4
            and features.shape[1] == channels(self.level)
            and min(features.shape[-2:]) > 1
            and pixels >= _WORTHWHILE
            and fusible(features)
            and not any(conv._forward_pre_hooks or conv._forward_hooks for conv in convolutions)
        )

    def descend(self, features: Tensor, down_to: int = 0) -> dict[int, Tensor]:
        """What stands where the encoder has relu{k}_1, for each k below ``level`` down to ``down_to``; 0 is the image.

        Nothing below ``down_to`` is computed, so training only the upper part costs no convolution at image size.
        """
        if features.dim() != 4 or features.shape[1] != channels(self.level):
            wanted = f"(B, {channels(self.level)}, h, w)"
            raise InputError(f"Level {self.level} decodes features {wanted}, got {tuple(features.shape)}.")
        reached: dict[int, Tensor] = {}
        for stage in range(self.level, down_to, -1):
            for name, _, narrow, upsample in _stage(stage):
                conv = self.get_submodule(name)
                assert isinstance(conv, nn.Conv2d)
                features = reflected(conv, features, relu=narrow > 3)
                if upsample:
                    features = F.interpolate(features, scale_factor=2, mode="nearest")
            reached[stage - 1] = features
        return reached

    @property
    def reach(self) -> int:
        """Positions of the features around the one under a pixel that the pixel depends on, along each side."""
        scale, pixels = 2 ** (self.level - 1), 0
        for _, _, upsample in self.convolutions():
            pixels += scale
            scale //= 2 if upsample else 1
        return -(-pixels // 2 ** (self.level - 1))

    def stage_parameters(self, stage: int) -> list[nn.Parameter]:
        """The parameters between relu{stage}_1 and the level below it."""
        return [p for name, *_ in _stage(stage) for p in self.get_submodule(name).parameters()]

    def load_lower(self, state: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Take over every convolution that ``state`` (of a decoder of any level) also has; returns their names."""
        own = self.state_dict()
        shared = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        self.load_state_dict({**own, **{key: value.to(own[key].dtype) for key, value in shared.items()}})
        return tuple(sorted({key.rpartition(".")[0] for key in shared}))

    def convolutions(self) -> list[tuple[str, nn.Conv2d, bool]]:
        """(name, convolution, whether upsampling follows) in the order they run."""
        return [
            (name, getattr(self, name), upsample)
            for stage in range(self.level, 0, -1)
            for name, _, _, upsample in _stage(stage)
        ]


def of_level(state: Mapping[str, Tensor], level: int) -> dict[str, Tensor]:
    """The decoder of ``level`` in the tensors of a checkpoint: of one decoder, or of several as ``level{k}.`` keys (the
    one that ships with WCT), of which the others are left out."""
    prefix = f"level{level}."
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return found or dict(state)


def undone(name: str) -> str:
    """The encoder's tap that the decoder's convolution ``name`` gives back: what the encoder's ``name`` was fed.

    ``conv3_2`` gives relu3_1, ``conv3_1`` gives pool2 (upsampling follows), ``conv1_1`` the image, as ``""``.
    """
    block, index = (int(part) for part in name.removeprefix("conv").split("_"))
    if index > 1:
        return f"relu{block}_{index - 1}"
    return f"pool{block - 1}" if block > 1 else ""
