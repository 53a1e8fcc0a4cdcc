"""LP: local patterns, how well the output's patches are patches of the style, and how many of the style's it uses.

Wang et al., "Evaluate and improve the quality of neural style transfer", Computer Vision and Image Understanding 207,
2021: over 3 x 3 patches of relu3_1 and of relu4_1 of VGG-19 with average pooling,

    LP = 1/2 mean over patches of the best match's normalised cross-correlation
       + 1/2 (number of different style patches that are someone's best match) / (number of different style patches)

each averaged over the two layers. Different style patches are counted as their code counts them: by the matches that
the style's patches find among themselves, so that patches of one direction count once.

| authors' code (EndyWon/StyleEval) | here | why |
|---|---|---|
| all pairs in memory | chunks of both sides (zoo.nn.patches) | 15,876 patches a side at 512 |
| undefined for a patch of zeros | correlation 0 | it is like no other patch |
| of equal patches the one that rounding prefers | the first of them, see ALIKE | one count on every processor |
| means of blue, green, red taken from red, green, blue | every channel its own mean | what the network was trained on |
| a style of another size is resized | it keeps its size | its patches are what they are |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.config import Config, option
from zoo.metrics.base import FeatureMetric
from zoo.nn.patches import PatchBank, match

PATCH = 3
# Patches of one direction correlate by 1 up to the rounding of float32 sums over 9 x 512 products, some 1e-6. Which of
# them a processor finds most alike must not change how many are counted.
ALIKE = 4e-6


@dataclass(frozen=True)
class LPConfig(Config):
    """Options of :class:`LP`."""

    encoder: str = option("vgg19", "Feature network.")
    taps: tuple[str, ...] = option(("relu3_1", "relu4_1"), "Layers of the patches.")
    pool: Literal["max", "avg"] = option("avg", "Pooling of the feature network.")


class LP(FeatureMetric):
    """Similarity and variety of the style's patches in the output, in [0, 1]; 1 for the style itself. Not symmetric.

    Raises InputError for images without room for a patch at the deepest layer (24 pixels a side at relu4_1).
    """

    Config = LPConfig
    config: LPConfig

    def _banks(self, image: Tensor) -> list[PatchBank]:
        features = self.encoder(image)
        return [PatchBank.of([features[tap].float()], PATCH, 1) for tap in self.config.taps]

    def _style(self, image: Tensor) -> list[tuple[PatchBank, Tensor]]:
        """The style's patches at each layer, and of each the first one that is like it."""
        return [(bank, _first(match(bank, bank, alike=ALIKE).index)) for bank in self._banks(image)]

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        each = []
        for query, (bank, first) in zip(self._banks(output), self.remember(style, self._style), strict=True):
            found = match(query, bank, alike=ALIKE)
            variety = len(first[found.index].unique()) / len(first.unique())
            each.append((found.score.double().mean().clamp(-1, 1) + variety) / 2)
        return torch.stack(each).mean()


def _first(alike: Tensor) -> Tensor:
    """Of each patch (N,) the first that a chain of ``alike``, earlier ones, leads to; in a smooth picture every patch
    is like the one before it and not like the one before that."""
    for _ in range(len(alike).bit_length()):  # each time twice as far
        alike = alike[alike]
    return alike
