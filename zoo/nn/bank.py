"""All patches of feature maps, kept as the rows of their pixels.

A map is a table of its pixels, one row of C channels each; a patch is then only the row of its top left pixel, and
unfolding, pasting and differentiating are gathers of rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from zoo.errors import InputError

# Below glibc's largest mmap threshold (32 MiB): freed chunks are then reused instead of being given back to the system
# and faulted in again page by page, which costs as much as a tenth of the product itself.
CHUNK_BYTES = 24 << 20
# Share of the longest patch's norm below which a patch is nothing: what rounding leaves where features cancel (they are
# float32 sums, wrong by some 1e-6 of the largest) has a direction like any other, and no meaning.
NOTHING = 1e-6


def corners(length: int, patch: int, stride: int) -> list[int]:
    """First pixels of the patches along one side: every ``stride``, and the last that fits, so that no border of the
    map is left uncovered (CNNMRF mylib/helper.lua, computegrid). InputError where not even one fits."""
    if length < patch:
        raise InputError(f"A feature map {length} wide has no room for a patch of {patch}: use a larger image.")
    last = length - patch
    return [*range(0, last, stride), last]


def pixel_rows(item: Tensor) -> Tensor:
    """A map (C, H, W) or (1, C, H, W) as the rows of its pixels, (H · W, C); a view where it is in channels-last."""
    image = item.squeeze(0) if item.dim() == 4 else item
    return image.permute(1, 2, 0).reshape(-1, image.shape[0])


@dataclass(frozen=True, eq=False)
class PatchBank:
    """All patches of one or several feature maps, not unfolded.

    pixels: (P, C) the maps' pixels, row by row, one map after another
    first:  (N,) int64, each patch's top left pixel as a row of ``pixels``
    pitch:  (N,) int64, rows of ``pixels`` from one line of the patch's map to the next (the map's width)
    scale:  (N,) one over the patch's Euclidean norm, 0 for a patch of next to nothing (:data:`NOTHING`)
    shapes: height and width of each map
    size:   side of a patch
    stride: from one patch to the next
    allowed: (N,) bool, the patches that a query may be matched with; None for all of them
    """

    pixels: Tensor
    first: Tensor
    pitch: Tensor
    scale: Tensor
    shapes: tuple[tuple[int, int], ...]
    size: int
    stride: int
    allowed: Tensor | None = None

    @classmethod
    def of(cls, maps: Sequence[Tensor], size: int, stride: int) -> Self:
        """The bank of ``maps``, each (C, H, W) or (1, C, H, W). Patches are ``size`` wide and ``stride`` apart.

        A single map in channels-last layout is not copied. Raises InputError for a map smaller than a patch.
        """
        tables = [pixel_rows(item) for item in maps]
        pixels = tables[0] if len(tables) == 1 else torch.cat(tables)
        return cls.over(pixels, [(item.shape[-2], item.shape[-1]) for item in maps], size, stride)

    @classmethod
    def over(cls, pixels: Tensor, shapes: Sequence[tuple[int, int]], size: int, stride: int) -> Self:
        """The same from the maps' pixels and their heights and widths, without a copy."""
        energy = squares(pixels)
        first: list[Tensor] = []
        pitch: list[Tensor] = []
        norms: list[Tensor] = []
        row = 0
        for height, width in shapes:
            ys = torch.tensor(corners(height, size, stride), device=pixels.device)
            xs = torch.tensor(corners(width, size, stride), device=pixels.device)
            # |patch|² is the sum of |pixel|² over the window.
            window = energy[row : row + height * width].view(height, width).unfold(0, size, 1).unfold(1, size, 1)
            norms.append(window.sum((2, 3))[ys][:, xs].flatten().sqrt())
            first.append((ys[:, None] * width + xs).flatten() + row)
            pitch.append(torch.full_like(first[-1], width))
            row += height * width
        norm = torch.cat(norms)
        scale = torch.where(norm > NOTHING * norm.max(), 1 / norm, 0)
        return cls(pixels, torch.cat(first), torch.cat(pitch), scale, tuple(shapes), size, stride)

    def __len__(self) -> int:
        return len(self.first)

    def within(self, region: Tensor) -> Self:
        """The bank with only the patches allowed that lie inside ``region`` whole, (P,) weights in [0, 1] of its
        pixels; where none does, those that hold most of it."""
        everything = slice(None)
        share = torch.stack([region[self.rows(everything, dy, dx)] for dy, dx in self.offsets]).mean(dim=0)
        # Shares are float32 means of weights: those of patches that lie inside whole come as a little less than 1.
        return dataclasses.replace(self, allowed=share >= min(float(share.max()), 1.0) - 1e-3)

    @property
    def offsets(self) -> Iterator[tuple[int, int]]:
        """Lines and columns of the pixels of a patch, row by row."""
        return ((dy, dx) for dy in range(self.size) for dx in range(self.size))

    def rows(self, which: Tensor | slice, dy: int, dx: int) -> Tensor:
        """Rows of ``pixels`` that hold pixel (dy, dx) of the patches ``which``."""
        return self.first[which] + self.pitch[which] * dy + dx

    def unfold(self, which: Tensor | slice, dtype: torch.dtype) -> Tensor:
        """The patches ``which`` as vectors, (n, size · size · C)."""
        rows = torch.stack([self.rows(which, dy, dx) for dy, dx in self.offsets], dim=1)
        return self.pixels.index_select(0, rows.flatten()).view(len(rows), -1).to(dtype)


def squares(pixels: Tensor) -> Tensor:
    """|pixel|² in float32 or better; of half precision rows by blocks, a copy of all of them would double the bank."""
    if pixels.dtype.itemsize >= 4:
        return torch.linalg.vecdot(pixels, pixels)
    return torch.cat([block.float().square_().sum(1) for block in pixels.split(4096)])


def accurate_format(dtype: torch.dtype) -> torch.dtype:
    """float32, or the format itself where it is more precise."""
    return torch.promote_types(dtype, torch.float32)
