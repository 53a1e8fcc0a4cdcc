"""Nearest-neighbor fields between two feature maps: which patch of one is most like each patch of the other.

Barnes, Shechtman, Finkelstein, Goldman, *PatchMatch: A Randomized Correspondence Algorithm for Structural Image
Editing*, SIGGRAPH 2009. A good match of one patch is mostly a good one for its neighbors, shifted: matches spread from
neighbor to neighbor, and random tries around them find what no neighbor knows. Where the paper walks over the image in
scan order, every step here moves all positions at once.

A *field* is (H, W, 2) int64: row and column in the other map of the match of each position. Patches reach over the
border of a map by repeating its outermost positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

# Two blocks of patches that are compared fit a processor's second-level cache.
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Windows:
    """The patches of a feature map, not unfolded: a patch is ``size`` rows of ``lines``.

    lines: (N, size * C), row k of which is position k of the padded map and the ``size`` - 1 to its right; a view
    pitch: positions of the padded map along one line
    shape: height and width of the map
    size:  side of a patch, odd
    """

    lines: Tensor
    pitch: int
    shape: tuple[int, int]
    size: int

    @classmethod
    def of(cls, features: Tensor, size: int) -> Self:
        """The patches of ``features`` (1, C, H, W), in the format of these."""
        reach = size // 2
        _, channels, height, width = features.shape
        padded = F.pad(features, (reach, reach, reach, reach), mode="replicate")
        table = padded[0].permute(1, 2, 0).contiguous().view(-1, channels)
        lines = table.as_strided((len(table) - 2 * reach, size * channels), (channels, 1))
        return cls(lines, width + 2 * reach, (height, width), size)

    def places(self, field: Tensor) -> Tensor:
        """The first row of ``lines`` of each match in ``field`` (..., 2), flat."""
        return (field[..., 0] * self.pitch + field[..., 1]).flatten()


def positions(shape: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """The field (H, W, 2) that matches every position with itself."""
    lines, columns = (torch.arange(side, device=device) for side in shape)
    return torch.stack(torch.meshgrid(lines, columns, indexing="ij"), dim=-1)


def similarity(ours: Windows, theirs: Windows, at: Tensor, match: Tensor) -> Tensor:
    """Products of patches: of ``ours`` at ``at`` (N, 2) with those of ``theirs`` at ``match`` (N, 2); float32 (N,)."""
    here, there = ours.places(at), theirs.places(match)
    step = max(64, _CHUNK_BYTES // (ours.lines.shape[1] * ours.lines.element_size()))
    found = []
    for a, b in zip(here.split(step), there.split(step), strict=True):
        total = torch.zeros(len(a), device=a.device)
        for line in range(ours.size):
            left = ours.lines.index_select(0, a + line * ours.pitch)
            left *= theirs.lines.index_select(0, b + line * theirs.pitch)
            total += left.sum(1, dtype=torch.float32)
        found.append(total)
    return torch.cat(found)


def exhaustive(ours: Windows, theirs: Windows, *, chunk: int = 1024) -> Tensor:
    """The field of the best of all matches: as many products as both maps have positions, for the smallest maps."""
    here = ours.places(positions(ours.shape, ours.lines.device))
    there = theirs.places(positions(theirs.shape, theirs.lines.device))
    best = []
    for part in here.split(chunk):
        score = torch.zeros(len(part), len(there), device=part.device)
        for k in range(ours.size):
            score += ours.lines[part + k * ours.pitch].float() @ theirs.lines[there + k * theirs.pitch].float().T
        best.append(score.argmax(dim=1))
    index = torch.cat(best).view(ours.shape)
    width = theirs.shape[1]
    return torch.stack([index // width, index % width], dim=-1)


def patchmatch(
    ours: Windows, theirs: Windows, start: Tensor, *, radius: int, iterations: int, generator: torch.Generator
) -> Tensor:
    """The field from ``ours`` to ``theirs``, improved from ``start`` (H, W, 2), whose matches may lie outside.

    Similarity is the product of two patches, so features of unit length are compared by their cosine. An iteration
    tries the matches of the four neighbors, shifted, and random ones within ``radius``, half of it, and so on down to
    one position. Random numbers come from ``generator`` (on the CPU). No match gets worse than it was.
    """
    device = ours.lines.device
    at = positions(ours.shape, device)
    limit = torch.tensor(theirs.shape, device=device) - 1
    field = start.to(device).clamp(min=torch.zeros_like(limit), max=limit)
    score = similarity(ours, theirs, at.view(-1, 2), field.view(-1, 2)).view(ours.shape)

    def consider(tried: Tensor) -> None:
        tried = tried.clamp(min=torch.zeros_like(limit), max=limit)
        # Where neighbors move together, as nearly everywhere after a while, there is nothing to compare.
        new = (tried != field).any(dim=-1)
        if not bool(new.any()):
            return
        found = similarity(ours, theirs, at[new], tried[new])
        better = found > score[new]
        where = new.nonzero()[better]
        field[where[:, 0], where[:, 1]] = tried[new][better]
        score[where[:, 0], where[:, 1]] = found[better]

    for _ in range(iterations):
        for axis, step in ((0, 1), (1, 1), (0, -1), (1, -1)):
            # The border has no neighbor on one side: there the roll brings the far border's match, one more try.
            tried = field.roll(step, dims=axis)
            tried[..., axis] += step
            consider(tried)
        reach = radius
        while reach >= 1:
            noise = torch.randint(-reach, reach + 1, field.shape, generator=generator)
            consider(field + noise.to(device))
            reach //= 2
    return field


def enlarged(field: Tensor, ours: tuple[int, int], theirs: tuple[int, int], small: tuple[int, int]) -> Tensor:
    """``field`` (h, w, 2) between maps of half the size, into one ``small``, for maps of ``ours`` and ``theirs``."""
    at = positions(ours, field.device)
    shape = torch.tensor(field.shape[:2], device=field.device)
    size, limit = (torch.tensor(s, device=field.device) for s in (ours, theirs))
    scale = size / shape
    coarse = torch.minimum((at / scale).long(), shape - 1)
    growth = torch.tensor(theirs, device=field.device) / torch.tensor(small, device=field.device)
    # A position within a cell keeps its offset from the middle of the cell.
    offset = at + 0.5 - (coarse + 0.5) * scale
    moved = (field[coarse[..., 0], coarse[..., 1]] + 0.5) * growth + offset
    return torch.minimum(moved.floor().long().clamp(min=0), limit - 1)


def warped(features: Tensor, field: Tensor) -> Tensor:
    """``features`` (1, C, h, w) as the ``field`` (H, W, 2) brings them: (1, C, H, W)."""
    return features[:, :, field[..., 0], field[..., 1]]


def voted(image: Tensor, field: Tensor, size: int) -> Tensor:
    """The mean at every position of all patches of ``image`` (1, C, h, w) that ``field`` puts over it; (1, C, H, W)."""
    reach = size // 2
    height, width = field.shape[:2]
    limit = torch.tensor(image.shape[-2:], device=field.device) - 1
    total = image.new_zeros((*image.shape[:2], height, width))
    count = image.new_zeros((height, width))
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            # The patch around (y + dy, x + dx) covers (y, x) with the pixel at (-dy, -dx) from its middle.
            top, left = max(0, -dy), max(0, -dx)
            bottom, right = min(height, height - dy), min(width, width - dx)
            source = field[top + dy : bottom + dy, left + dx : right + dx] - torch.tensor([dy, dx]).to(field.device)
            inside = ((source >= 0) & (source <= limit)).all(dim=-1)
            source = torch.minimum(source.clamp(min=0), limit)
            total[..., top:bottom, left:right] += warped(image, source) * inside
            count[top:bottom, left:right] += inside
    return total / count.clamp(min=1)


def disagreement(forward: Tensor, backward: Tensor) -> Tensor:
    """How far from each position (H, W) one lands by going ``forward`` and ``backward`` again, in positions."""
    there_and_back = backward[forward[..., 0], forward[..., 1]]
    return (there_and_back - positions((forward.shape[0], forward.shape[1]), forward.device)).float().norm(dim=-1)


__all__ = [
    "Windows",
    "disagreement",
    "enlarged",
    "exhaustive",
    "patchmatch",
    "positions",
    "similarity",
    "voted",
    "warped",
]
