"""Matches among very many patches: a shortlist by projections, and the patches themselves decide.

An exact search compares every patch of the image with every patch of the style, so its cost grows with the square of
the pixels. But patches lie close to a few directions, and patches side by side are nearly alike. So all patches of the
style are projected onto the directions in which they are largest (randomized subspace iteration: Halko et al., *Finding
structure with randomness*, SIAM Review 2011, algorithm 4.4). In that basis a patch of the image is compared with a grid
of them; a few rivals climb from there to the best of their neighbours, step by step as the grid gets finer; and the
rivals that are left compete by their whole patches.
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
    step = max(1, chunk_bytes // (4 * max(len(shortlist.which), length, 9 * shortlist.sketch.shape[1])))
    coarse = shortlist.sketch[shortlist.which].T.contiguous()
    part = torch.arange(RIVALS, device=coarse.device) * (len(shortlist.which) // RIVALS)
    grid, found = _grid(style), []
    for at in range(0, len(query), step):
        chunk = slice(at, at + step)
        sketch = query.unfold(chunk, torch.float32) @ shortlist.basis
        # The maximum of each of a few parts costs a tenth of the largest few of all.
        place = (sketch @ coarse).view(len(sketch), RIVALS, -1).argmax(dim=2)
        rivals = [_climb(sketch, one, grid, style, shortlist) for one in shortlist.which[place + part].unbind(1)]
        scores = torch.stack([correlation(query, chunk, style, one) for one in rivals], dim=1)
        score, kept = scores.max(dim=1, keepdim=True)
        found.append(Matches(torch.stack(rivals, dim=1).gather(1, kept)[:, 0], score[:, 0]))
    return Matches(torch.cat([m.index for m in found]), torch.cat([m.score for m in found]) * query.scale)


def _climb(sketch: Tensor, number: Tensor, grid: tuple[int, int], style: PatchBank, shortlist: Shortlist) -> Tensor:
    """From the patches ``number`` (n,) to the best around them, half as far away each time."""
    rows, columns = grid
    far = shortlist.step
    while far > 1:
        far = (far + 1) // 2
        around = torch.arange(-far, far + 1, far, device=number.device)
        y = (number[:, None] // columns + around).clamp(0, rows - 1)
        x = (number[:, None] % columns + around).clamp(0, columns - 1)
        near = (y[:, :, None] * columns + x[:, None, :]).flatten(1)
        scores = torch.bmm(shortlist.sketch[near], sketch[:, :, None])[:, :, 0]
        if style.allowed is not None:
            scores.masked_fill_(~style.allowed[near], -math.inf)
        number = near.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0]
    return number


__all__ = ["CANDIDATES", "RANK", "RIVALS", "Shortlist", "likely_match"]
