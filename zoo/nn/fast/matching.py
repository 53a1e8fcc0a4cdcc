"""Matches of patches that lie at every pixel, by products of pixels instead of patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.nn.bank import PatchBank

# Bytes of the sums formed at a time on a CPU. Smaller blocks stay in nearer caches through the passes that follow, but
# share more pixels with their neighbours: between 1 and 24 MiB this was fastest, by some percent.
_BLOCK_BYTES = 8 << 20
_VECTOR = 16  # float32 numbers in the widest registers of a CPU


@dataclass(frozen=True, eq=False)
class Matches:
    """Per query patch: ``index`` (Q,) of the style's most similar patch and ``score`` (Q,), their normalised
    cross-correlation in [-1, 1] (0 where either is all zeros)."""

    index: Tensor
    score: Tensor


@dataclass(frozen=True)
class _Blocks:
    """How the products of pixels are cut: ``columns`` of patches along a line of the query, against ``lines`` of
    patches of the style."""

    columns: int
    lines: int


def _blocks(query: PatchBank, style: PatchBank, dtype: torch.dtype, chunk_bytes: int) -> _Blocks | None:
    """The cut for ``chunk_bytes``; None where not even single patches against one line of them fit."""
    reach = query.size - 1
    longest = max(width for _, width in style.shapes)
    width = query.shapes[0][1]
    small = chunk_bytes if query.pixels.device.type == "cuda" else min(_BLOCK_BYTES, chunk_bytes)
    accurate = style.scale.element_size()
    # The style's pixels are converted, a block at a time.
    rows = chunk_bytes // (query.pixels.shape[1] * dtype.itemsize)
    for allowed in (small, chunk_bytes):
        # Of equal blocks the square one wastes least on the pixels that neighbours share.
        for segment in (min(width, max(128, query.size)), min(width, 2 * query.size), query.size):
            lines = min(rows, allowed // (accurate * segment)) // longest - reach
            if lines >= min(query.size, max(height for height, _ in style.shapes) - reach):
                return _Blocks(segment - reach, lines)
    return None


def best_patches(
    query: PatchBank, style: PatchBank, dtype: torch.dtype, chunk_bytes: int, limit: Tensor | None
) -> Matches:
    """The patches of ``style`` most like those of ``query``; scores without the query's norm, at most ``limit`` (Q,).

    No tensor made on the way exceeds ``chunk_bytes`` where that is possible. Where patches lie at every pixel: products
    of pixels in ``dtype``, then sums over the window, 9 times less work for 3 x 3.

    The product of patches at p and q is the sum over d in the window of <p + d, q + d>. Line after line of the query is
    multiplied with a block of the style; sums along lines are kept for as many lines as a patch is high, and their sum
    is the patches'. Every pass runs over whole rows of a block.
    """
    blocks = _blocks(query, style, dtype, chunk_bytes) if query.stride == style.stride == 1 else None
    if blocks is None:
        return plain_best_patches(query, style, dtype, chunk_bytes, limit)
    reach = query.size - 1
    height, width = query.shapes[0]
    accurate = style.scale.dtype
    device = query.pixels.device
    shape = (height - reach, width - reach)
    limit = None if limit is None else limit.view(shape)
    best = torch.full(shape, -math.inf, dtype=accurate, device=device)
    index = torch.zeros(shape, dtype=torch.int64, device=device)
    pixel = patch = 0
    for theirs_height, theirs_width in style.shapes:
        columns = theirs_width - reach
        for line in range(0, theirs_height - reach, blocks.lines):
            lines = min(blocks.lines, theirs_height - reach - line)
            begin = pixel + line * theirs_width
            theirs = style.pixels[begin : begin + (lines + reach) * theirs_width].to(dtype)
            start = patch + line * columns
            scale = style.scale[start : start + lines * columns].view(lines, columns)
            allowed = None if style.allowed is None else style.allowed[start : start + lines * columns]
            for left in range(0, width - reach, blocks.columns):
                part = slice(left, min(left + blocks.columns, width - reach))
                ours = query.pixels.view(height, width, -1)[:, part.start : part.stop + reach]
                most = None if limit is None else limit[:, part]
                _match_block(ours, theirs, scale, allowed, most, query.size, start, best[:, part], index[:, part])
        pixel += theirs_height * theirs_width
        patch += (theirs_height - reach) * columns
    return Matches(index.flatten(), best.flatten())


def _match_block(
    ours: Tensor,
    theirs: Tensor,
    scale: Tensor,
    allowed: Tensor | None,
    limit: Tensor | None,
    size: int,
    start: int,
    best: Tensor,
    index: Tensor,
) -> None:
    """Matches of the patches of ``ours`` (height, n + reach, C) among those of a block of the style: ``theirs``, the
    pixels of (lines + reach) lines, ``scale`` (lines, columns), and which are ``allowed`` (lines * columns,), None for
    all. No score counts for more than ``limit`` (height - reach, n). Where they beat ``best`` (height - reach, n), that
    and ``index`` are overwritten; the block's first patch has number ``start``."""
    reach = size - 1
    lines, columns = scale.shape
    pitch = columns + reach
    n = ours.shape[1] - reach
    length = len(theirs)
    products = theirs.new_empty(n + reach, length)
    exact = products if products.dtype == scale.dtype else scale.new_empty(products.shape)
    along = [scale.new_empty(n, length - reach) for _ in range(size)]
    sums = scale.new_empty(n, lines * pitch)
    # Whole vectors: a maximum over lines of an odd length takes several times as long.
    padded = scale.new_full((n, lines, -(-columns // _VECTOR) * _VECTOR), -math.inf)
    scores = padded[..., :columns]
    reached = lines * pitch - reach
    everyone = torch.arange(n, device=scale.device)
    excluded = None if allowed is None else ~allowed.view(lines, columns)
    for y in range(len(ours)):
        torch.mm(ours[y].to(theirs.dtype), theirs.T, out=products)
        if exact is not products:
            exact.copy_(products)
        _shifted_sum([exact[k : k + n, k : length - reach + k] for k in range(size)], along[y % size])
        if y < reach:
            continue
        top = y - reach
        window = [along[(top + k) % size][:, k * pitch : k * pitch + reached] for k in range(size)]
        _shifted_sum(window, sums[:, :reached])
        torch.mul(sums.view(n, lines, pitch)[..., :columns], scale, out=scores)
        if limit is not None:
            torch.minimum(scores, limit[top][:, None, None], out=scores)
        if excluded is not None:
            scores.masked_fill_(excluded, -math.inf)
        # A maximum without its place is many times faster than one with it: find the line first, then the place in it.
        score, winner = padded.amax(dim=2).max(dim=1)
        place = padded[everyone, winner].argmax(dim=1)
        better = score > best[top]
        best[top] = torch.where(better, score, best[top])
        index[top] = torch.where(better, start + winner * columns + place, index[top])


def _shifted_sum(parts: Sequence[Tensor], out: Tensor) -> Tensor:
    """The sum of equally large ``parts``, into ``out``."""
    if len(parts) == 1:
        return out.copy_(parts[0])
    torch.add(parts[0], parts[1], out=out)
    for part in parts[2:]:
        out += part
    return out


def plain_best_patches(
    query: PatchBank, style: PatchBank, dtype: torch.dtype, chunk_bytes: int, limit: Tensor | None
) -> Matches:
    """The reference of :func:`best_patches`: products of unfolded patches, chunk by chunk of both sides.

    Formats of 16 bits round the scores to 8 or 11 bits, which confuses near neighbours: there the style is split into
    at least four interleaved parts, and the best of each compete once more in float32.
    """
    shortlist = 1 if dtype.itemsize >= 4 else min(4, len(style))
    width = query.pixels.shape[1] * query.size**2
    widest = max(dtype.itemsize, query.pixels.element_size(), style.pixels.element_size())
    most = max(1, chunk_bytes // (width * widest))
    parts = min(len(style), max(shortlist, math.ceil(len(style) / most)))
    longest = math.ceil(len(style) / parts)
    step = max(1, min(most, chunk_bytes // (longest * dtype.itemsize)))
    found: list[Matches] = []
    for at in range(0, len(query), step):
        chunk = slice(at, at + step)
        patches = query.unfold(chunk, dtype)
        best = patches.new_empty(len(patches), 0)
        index = torch.empty_like(best, dtype=torch.int64)
        for part in range(parts):
            # Neighbouring patches are near duplicates: taking every parts-th puts rivals into different parts.
            which = slice(part, None, parts)
            scores = patches @ style.unfold(which, dtype).T
            scores.mul_(style.scale[which].to(dtype))
            if limit is not None:
                torch.minimum(scores, limit[chunk, None].to(dtype), out=scores)
            if style.allowed is not None:
                scores.masked_fill_(~style.allowed[which], -math.inf)
            score, winner = scores.max(dim=1, keepdim=True)
            best = torch.cat([best, score], dim=1)
            index = torch.cat([index, winner * parts + part], dim=1)
            if best.shape[1] > shortlist:
                best, kept = best.topk(shortlist, dim=1)
                index = index.gather(1, kept)
        if shortlist > 1:
            best = torch.stack([correlation(query, chunk, style, column) for column in index.unbind(1)], dim=1)
        score, kept = best.max(dim=1, keepdim=True)
        found.append(Matches(index.gather(1, kept)[:, 0], score[:, 0]))
    return Matches(torch.cat([m.index for m in found]), torch.cat([m.score for m in found]))


def correlation(query: PatchBank, chunk: Tensor | slice, style: PatchBank, index: Tensor) -> Tensor:
    """Products of the query's patches with one patch each, divided by the norm of the latter; float32 or better."""
    total = torch.zeros(len(index), dtype=style.scale.dtype, device=index.device)
    for dy, dx in query.offsets:
        ours = query.pixels.index_select(0, query.rows(chunk, dy, dx)).to(total.dtype)
        theirs = style.pixels.index_select(0, style.rows(index, dy, dx)).to(total.dtype)
        total += torch.linalg.vecdot(ours, theirs)
    total *= style.scale[index]
    return total if style.allowed is None else total.masked_fill_(~style.allowed[index], -math.inf)
