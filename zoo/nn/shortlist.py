"""Matches among very many patches: a shortlist by projections, and the patches themselves decide.

An exact search compares every patch of the image with every patch of the style, so its cost grows with the square of
the pixels. But patches lie close to a few directions, and patches side by side are nearly alike. So all patches of the
style are projected onto the directions in which they are largest (randomized subspace iteration: Halko et al., *Finding
structure with randomness*, SIAM Review 2011, algorithm 4.4). In that basis every other patch of the image is compared
with a grid of them, and a few rivals climb from there to the best of their neighbours, step by step as the grid gets
finer. What suits a patch suits, moved along, those beside it (Barnes et al., *PatchMatch*, SIGGRAPH 2009, section 3.2):
all patches try the matches of the four around them, and the best few compete by their whole patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from zoo.nn.bank import CHUNK_BYTES, PatchBank, corners
from zoo.nn.fast.matching import Matches, correlation

CANDIDATES = 16_384  # patches of the grid, about: as many as a painting of 512 x 512 pixels has
RANK = 128  # directions: of the patches of a painting nine tenths of the norm
RIVALS = 8  # of as many interleaved parts of the grid
KEPT = 4  # matches of a patch that the patches around it try
FINALISTS = 3  # of all that a patch tries, by its whole pixels
_SAMPLE = 4096  # patches that the directions are found of; fewer where they take more than four chunks


@dataclass(frozen=True, eq=False)
class Shortlist:
    """What :func:`likely_match` needs of a style of N patches.

    which:  (M,) int64, the numbers of the grid's patches
    step:   from one of them to the next
    basis:  (D, RANK) with orthonormal columns; D is the length of a patch as a vector
    sketch: (N, RANK), all patches at length 1 in that basis
    """

    which: Tensor
    step: int
    basis: Tensor
    sketch: Tensor

    @classmethod
    def of(cls, style: PatchBank) -> Self:
        """The shortlist of ``style``, a bank of one map."""
        rows, columns = _grid(style)
        step = max(1, round(math.sqrt(len(style) / CANDIDATES)))
        which = torch.arange(rows * columns, device=style.pixels.device).view(rows, columns)[::step, ::step].flatten()
        if style.allowed is not None:
            inside = which[style.allowed[which]]
            which = inside if len(inside) >= RIVALS else style.allowed.nonzero()[:, 0]
        # Neighbours are near duplicates: they go into different parts, so that rivals are no neighbours.
        which = which.repeat(-(-RIVALS // len(which)))
        which = which[: len(which) // RIVALS * RIVALS].view(-1, RIVALS).T.flatten()
        most = max(1, min(_SAMPLE, CHUNK_BYTES // (style.pixels.shape[1] * style.size**2)))
        sample = _unit(style, which[:: -(-len(which) // most)]).cpu()
        basis = torch.randn(sample.shape[1], min(RANK, *sample.shape), generator=torch.Generator().manual_seed(0))
        for _ in range(3):
            basis = torch.linalg.qr(sample.T @ (sample @ basis))[0]
        basis = basis.to(style.pixels.device)
        everything = torch.arange(len(style), device=basis.device)
        sketch = torch.cat([_unit(style, part) @ basis for part in everything.split(most)])
        return cls(which, step, basis, sketch)


def gap_of(stride: int) -> int:
    """Patches of the image from one that is looked up in the whole grid to the next, both ways: two where patches lie
    at every pixel; further apart they have less in common."""
    return 2 if stride == 1 else 1


def _grid(style: PatchBank) -> tuple[int, int]:
    """Patches along the sides of the map."""
    height, width = style.shapes[0]
    return len(corners(height, style.size, style.stride)), len(corners(width, style.size, style.stride))


def _unit(style: PatchBank, which: Tensor) -> Tensor:
    """The patches at length 1, (n, D) float32."""
    return style.unfold(which, torch.float32) * style.scale[which, None].float()


@torch.no_grad()
def likely_match(
    query: PatchBank, style: PatchBank, shortlist: Shortlist, *, chunk_bytes: int = CHUNK_BYTES
) -> Matches:
    """As :func:`zoo.nn.patches.match`, without a promise that the patch found is the most similar of all."""
    length = query.pixels.shape[1] * query.size**2
    widest = max(len(shortlist.which), length, 5 * KEPT * shortlist.sketch.shape[1])
    step = max(1, chunk_bytes // (4 * widest))
    rows, columns = _grid(query)
    numbers = torch.arange(rows * columns, device=style.pixels.device)
    gap = gap_of(query.stride)
    leaders = numbers.view(rows, columns)[::gap, ::gap]
    coarse = shortlist.sketch[shortlist.which].T.contiguous()
    kept = torch.cat([_look_up(query, part, style, shortlist, coarse) for part in leaders.flatten().split(step)])
    kept = kept.view(*leaders.shape, -1)
    found = [_follow(query, part, kept, style, shortlist) for part in numbers.split(step)]
    return Matches(torch.cat([m.index for m in found]), torch.cat([m.score for m in found]) * query.scale)


def _look_up(query: PatchBank, which: Tensor, style: PatchBank, shortlist: Shortlist, coarse: Tensor) -> Tensor:
    """The best patches (n, KEPT) for the query's patches ``which`` (n,), from the whole grid ``coarse``."""
    sketch = query.unfold(which, torch.float32) @ shortlist.basis
    part = torch.arange(RIVALS, device=coarse.device) * (len(shortlist.which) // RIVALS)
    # The maximum of each of a few parts costs a tenth of the largest few of all.
    rivals = shortlist.which[(sketch @ coarse).view(len(sketch), RIVALS, -1).argmax(dim=2) + part]
    return _best(sketch, _climb(sketch, rivals, style, shortlist, shortlist.step), KEPT, style, shortlist)


def _follow(query: PatchBank, which: Tensor, kept: Tensor, style: PatchBank, shortlist: Shortlist) -> Matches:
    """Matches of the query's patches ``which`` (n,), from those of the leaders around them, moved as far as they lie
    from it; ``kept`` is (lines, columns, KEPT). Scores are without the query's norm."""
    rows, columns = _grid(style)
    width, gap = _grid(query)[1], gap_of(query.stride)
    y, x = which // width, which % width
    near = kept[y // gap, x // gap]  # as they are: where there is a mask, what is moved may leave it
    rivals = [near]
    for line in (y // gap, (y // gap + 1).clamp_max(kept.shape[0] - 1)):
        for column in (x // gap, (x // gap + 1).clamp_max(kept.shape[1] - 1)):
            theirs = kept[line, column]
            down = (theirs // columns + (y - line * gap)[:, None]).clamp(0, rows - 1)
            right = (theirs % columns + (x - column * gap)[:, None]).clamp(0, columns - 1)
            rivals.append(down * columns + right)
    sketch = query.unfold(which, torch.float32) @ shortlist.basis
    best = _best(sketch, torch.cat(rivals, dim=1), FINALISTS, style, shortlist)
    best = _climb(sketch, best, style, shortlist, 2)
    scores = torch.stack([correlation(query, which, style, one) for one in best.unbind(1)], dim=1)
    score, winner = scores.max(dim=1, keepdim=True)
    return Matches(best.gather(1, winner)[:, 0], score[:, 0])


def _scores(sketch: Tensor, numbers: Tensor, style: PatchBank, shortlist: Shortlist) -> Tensor:
    """Products of ``sketch`` (n, RANK) with the patches ``numbers`` (n, k); minus infinity outside a mask."""
    scores = torch.bmm(shortlist.sketch[numbers], sketch[:, :, None])[:, :, 0]
    return scores if style.allowed is None else scores.masked_fill_(~style.allowed[numbers], -math.inf)


def _best(sketch: Tensor, numbers: Tensor, count: int, style: PatchBank, shortlist: Shortlist) -> Tensor:
    """The ``count`` of ``numbers`` (n, k) whose scores are largest."""
    return numbers.gather(1, _scores(sketch, numbers, style, shortlist).topk(count, dim=1).indices)


def _climb(sketch: Tensor, numbers: Tensor, style: PatchBank, shortlist: Shortlist, far: int) -> Tensor:
    """From each of the patches ``numbers`` (n, k) to the best around it, half of ``far`` away, and half as far again
    until they are next to each other."""
    rows, columns = _grid(style)
    climbed = []
    for number in numbers.unbind(1):
        reach = far
        while reach > 1:
            reach = (reach + 1) // 2
            around = torch.arange(-reach, reach + 1, reach, device=number.device)
            y = (number[:, None] // columns + around).clamp(0, rows - 1)
            x = (number[:, None] % columns + around).clamp(0, columns - 1)
            near = (y[:, :, None] * columns + x[:, None, :]).flatten(1)
            best = _scores(sketch, near, style, shortlist).argmax(dim=1, keepdim=True)
            number = near.gather(1, best)[:, 0]
        climbed.append(number)
    return torch.stack(climbed, dim=1)


__all__ = ["CANDIDATES", "RANK", "RIVALS", "Shortlist", "gap_of", "likely_match"]
