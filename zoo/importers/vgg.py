"""How published files lay out VGG-19 and its mirrored decoder: one nn.Sequential, keys by position.

Both the authors' Torch files (as converted to PyTorch) and the ports of AdaIN write every step as an entry of its own:
reflection padding, convolution, ReLU, and pooling or upsampling in between. The first convolution of a decoder is
therefore entry 1, and of an encoder entry 2, behind a 1x1 convolution that takes RGB in [0, 1] to the network's range.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zoo.encoders import sources
from zoo.encoders.catalog import encoder_info, vgg_layers
from zoo.errors import WeightsError
from zoo.importers import Draft, Source
from zoo.nn.decoder import LEVELS, VGGDecoder

# Ours has 8-bit kernels, 0.4 to 0.9 % from the exact ones; several times that is another network.
_TOLERANCE = 0.05


def decoder_entries(level: int) -> dict[str, str]:
    """Our name of each convolution of the decoder by its entry: ``{"1": "conv2_1", "5": "conv1_2", ...}``."""
    with torch.device("meta"):
        convolutions = VGGDecoder(level).convolutions()
    entries, entry = {}, 1
    for name, _, upsample in convolutions:
        entries[str(entry)] = name
        entry += 4 if upsample else 3
    return entries


def encoder_entries() -> dict[str, str]:
    """Label of each convolution of VGG-19 by its entry: ``{"2": "1_1", "5": "1_2", "9": "2_1", ...}``."""
    entries, entry = {}, 2
    for layer in vgg_layers("vgg19"):
        if layer.kind == "conv":
            entries[str(entry)] = layer.label
        entry += 3 if layer.kind == "conv" else 1
    return entries


def convert_decoder(source: Source, level: int, prefix: str = "") -> Draft:
    """A mirrored decoder's file as ``prefix`` + our keys."""
    entries = decoder_entries(level)
    with torch.device("meta"):
        expected = {prefix + key: tuple(value.shape) for key, value in VGGDecoder(level).state_dict().items()}
    draft = Draft({}, expected, [])
    for key, value in source.state.items():
        entry, _, kind = key.rpartition(".")
        if entry in entries and kind in ("weight", "bias"):
            ours = f"{prefix}{entries[entry]}.{kind}"
            draft.state[ours] = value
            draft.renamed.append((f"{source.name}: {key}", ours))
        else:
            draft.unexpected.append(f"{source.name}: {key}")
    return draft


def guess_level(source: Source) -> int:
    """The level whose decoder agrees with most of the file's keys and shapes."""

    def agreement(level: int) -> int:
        draft = convert_decoder(source, level)
        right = sum(tuple(v.shape) == draft.expected.get(k) for k, v in draft.state.items())
        return 3 * right - len(draft.expected) - len(source.state)

    return max(LEVELS, key=agreement)


def fit_to_our_encoder(draft: Draft, level: int, encoder: Source, prefix: str = "") -> None:
    """Divide the first convolution's inputs by :func:`channel_ratios`, so that the decoder reads our features."""
    key = f"{prefix}conv{level}_1.weight"
    ratios = channel_ratios(encoder, level)
    weight = draft.state.get(key)
    if weight is not None and weight.dim() == 4 and weight.shape[1] == len(ratios):
        draft.state[key] = (weight.double() / ratios.view(1, -1, 1, 1)).to(weight.dtype)


def channel_ratios(encoder: Source, level: int) -> Tensor:
    """Our normalised VGG-19's relu{level}_1 over the authors', by channel, float64, from the weights alone.

    Both are the same network up to a positive scale s per channel: a kernel is s_out W / s_in. With the ratio r = ours
    / theirs of the layer before, r_out is the least-squares factor from W_theirs / r_in to W_ours. WeightsError where
    they are not the same network, or where the encoder's file ends before that layer.
    """
    labels = [layer.label for layer in vgg_layers("vgg19") if layer.kind == "conv"]
    labels = labels[: labels.index(f"{level}_1") + 1]
    theirs = _encoder_kernels(encoder, labels)
    first = encoder.state["0.weight"].double()[:, :, 0, 0]
    # Their 1x1 convolution takes RGB to BGR in 0..255 minus the mean; folded in, both kernels see RGB in [0, 1].
    theirs["1_1"] = torch.einsum("oikl,ij->ojkl", theirs["1_1"], first)
    ours = sources.read(encoder_info("vgg19.normalised"), labels).layers
    ratio = torch.ones(3, dtype=torch.float64)
    for label in labels:
        kernel, wanted = theirs[label] / ratio.view(1, -1, 1, 1), ours[label][0].double()
        power = kernel.square().sum((1, 2, 3))
        factor = (kernel * wanted).sum((1, 2, 3)) / power.clamp_min(1e-30)
        ratio = torch.where(power > 0, factor, torch.ones_like(factor))
        rest = (wanted - kernel * ratio.view(-1, 1, 1, 1)).norm() / wanted.norm()
        if rest > _TOLERANCE or not bool((ratio > 0).all()):
            raise WeightsError(
                f"{encoder.name} is not VGG-19 with scaled channels: conv{label} differs from ours by {rest:.0%}."
            )
    return ratio


def _encoder_kernels(encoder: Source, labels: list[str]) -> dict[str, Tensor]:
    entry_of = {label: entry for entry, label in encoder_entries().items()}
    kernels: dict[str, Tensor] = {}
    shapes: Mapping[str, tuple[int, ...]] = {
        layer.label: (layer.channels, layer.inputs, 3, 3) for layer in vgg_layers("vgg19") if layer.kind == "conv"
    }
    for label in labels:
        kernel = encoder.state.get(f"{entry_of[label]}.weight")
        if kernel is None or tuple(kernel.shape) != shapes[label]:
            raise WeightsError(
                f"{encoder.name} is not an encoder that reaches conv{labels[-1]}: {entry_of[label]}.weight is missing "
                "or of another shape."
            )
        kernels[label] = kernel.double()
    first = encoder.state.get("0.weight")
    if first is None or tuple(first.shape) != (3, 3, 1, 1):
        raise WeightsError(f"{encoder.name} lacks the 1x1 convolution in front of conv1_1 (0.weight).")
    return kernels
