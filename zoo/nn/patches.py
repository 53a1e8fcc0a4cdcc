"""Patches of feature maps and their nearest neighbours by normalised cross-correlation, in bounded memory.

The patch-based methods ask one question: which patch of the style is most like this patch of the image, where likeness
is the normalised cross-correlation (cosine) of the two patches as vectors (Li and Wand 2016, equation 3; Chen and
Schmidt 2016, equation 2). All pairs are compared by matrix products over chunks of both sides, so that nothing larger
than a given number of bytes is ever unfolded. A map is kept as a table of its pixels, one row of C channels each; a
patch is then only the row of its top left pixel, and unfolding, pasting and differentiating are gathers of rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
        energy = _squares(pixels)
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


@dataclass(frozen=True, eq=False)
class Matches:
    """Per query patch: ``index`` (Q,) of the style's most similar patch and ``score`` (Q,), their normalised
    cross-correlation in [-1, 1] (0 where either is all zeros)."""

    index: Tensor
    score: Tensor


@torch.no_grad()
def match(
    query: PatchBank,
    style: PatchBank,
    *,
    dtype: torch.dtype | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    alike: float = 0.0,
) -> Matches:
    """For every patch of ``query`` (of one map) the patch of ``style`` with the highest normalised cross-correlation.

    Products are formed in ``dtype`` (default: the query's own). No tensor made on the way exceeds ``chunk_bytes``, as
    long as a single patch fits; the result does not depend on it otherwise than by rounding, or among equals. Which of
    equals wins is left to rounding, because what is pasted is the same; where it must not be, patches whose correlation
    is above 1 - ``alike`` count as equal, have score 1, and the first of them wins.
    """
    dtype = query.pixels.dtype if dtype is None else dtype
    if dtype == torch.float16:
        query, style = _within_half(query), _within_half(style)
    blocks = _blocks(query, style, dtype, chunk_bytes) if query.stride == style.stride == 1 else None
    # What the scores cannot exceed; they are without the query's own norm, which comes in the end.
    limit = (1 - alike) / query.scale if alike else None
    # Autocast would choose another format than the one asked for.
    with torch.autocast(query.pixels.device.type, enabled=False):
        if blocks is not None:
            found = _match_by_pixels(query, style, dtype, blocks, limit)
        else:
            found = _match_by_patches(query, style, dtype, chunk_bytes, limit)
    score = found.score * query.scale
    return Matches(found.index, score if limit is None else score.masked_fill(found.score >= limit, 1))


def _within_half(bank: PatchBank) -> PatchBank:
    """The bank with its longest pixel scaled to length 1: products of features in the thousands overflow float16.

    Patches next to nothing beside it lose: one over their norm would be infinite, and their products are rounding.
    """
    longest = _squares(bank.pixels).max().sqrt().clamp_min(1e-12).item()
    pixels = torch.cat([(block.float() / longest).half() for block in bank.pixels.split(4096)])
    scale = (bank.scale * longest).clamp_max(torch.finfo(torch.float16).max)
    return dataclasses.replace(bank, pixels=pixels, scale=scale)


def _match_by_patches(
    query: PatchBank, style: PatchBank, dtype: torch.dtype, chunk_bytes: int, limit: Tensor | None
) -> Matches:
    """Products of unfolded patches, chunk by chunk of both sides; scores without the query's norm, at most ``limit``.

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
            best = torch.stack([_correlation(query, chunk, style, column) for column in index.unbind(1)], dim=1)
        score, kept = best.max(dim=1, keepdim=True)
        found.append(Matches(index.gather(1, kept)[:, 0], score[:, 0]))
    return Matches(torch.cat([m.index for m in found]), torch.cat([m.score for m in found]))


# Bytes of the sums formed at a time on a CPU. Smaller blocks stay in nearer caches through the passes that follow, but
# share more pixels with their neighbours: between 1 and 24 MiB this was fastest, by some percent.
_BLOCK_BYTES = 8 << 20
_VECTOR = 16  # float32 numbers in the widest registers of a CPU


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


def _match_by_pixels(
    query: PatchBank, style: PatchBank, dtype: torch.dtype, blocks: _Blocks, limit: Tensor | None
) -> Matches:
    """Where patches lie at every pixel: products of pixels, then sums over the window, 9 times less work for 3 x 3.

    The product of patches at p and q is the sum over d in the window of <p + d, q + d>. Line after line of the query is
    multiplied with a block of the style; sums along lines are kept for as many lines as a patch is high, and their sum
    is the patches'. Every pass runs over whole rows of a block.
    """
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


def _correlation(query: PatchBank, chunk: slice, style: PatchBank, index: Tensor) -> Tensor:
    """Products of the query's patches with one patch each, divided by the norm of the latter; float32 or better."""
    total = torch.zeros(len(index), dtype=style.scale.dtype, device=index.device)
    for dy, dx in query.offsets:
        ours = query.pixels.index_select(0, query.rows(chunk, dy, dx)).to(total.dtype)
        theirs = style.pixels.index_select(0, style.rows(index, dy, dx)).to(total.dtype)
        total += torch.linalg.vecdot(ours, theirs)
    total *= style.scale[index]
    return total if style.allowed is None else total.masked_fill_(~style.allowed[index], -math.inf)


def patch_energy(
    features: Tensor,
    style: PatchBank,
    *,
    stride: int,
    overlap: Literal["sum", "mean"] = "sum",
    dtype: torch.dtype | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    region: Tensor | None = None,
) -> Tensor:
    """Squared distance of all patches of ``features`` to their best matches in ``style`` (Li and Wand, equation 2).

    ``features`` is (1, C, H, W); its patches, ``stride`` apart, are matched anew at every call, and the matches are
    constants to the gradient. With ``overlap`` ``sum`` this is the sum over patches of |patch - match|²; ``mean``
    divides each pixel's share by the number of patches that cover it, so that all pixels weigh the same. ``region``
    (H, W) in [0, 1] weighs the pixels.

    The gradient at a pixel is twice the sum (or mean) over the covering patches of pixel minus matched pixel: it is
    formed here by the same gathers that give the value, and no patch takes part in the autograd graph. Returns a
    scalar, float32 or better.
    """
    with torch.autocast(features.device.type, enabled=False):
        energy: Tensor = _PatchEnergy.apply(features, style, stride, overlap == "mean", dtype, chunk_bytes, region)
    return energy


class _PatchEnergy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        style: PatchBank,
        stride: int,
        mean: bool,
        dtype: torch.dtype | None,
        chunk_bytes: int,
        region: Tensor | None,
    ) -> Tensor:
        query = PatchBank.of([features], style.size, stride)
        index = match(query, style, dtype=dtype, chunk_bytes=chunk_bytes).index
        table = query.pixels
        accurate = _accurate(table.dtype)
        gradient = torch.zeros(table.shape, dtype=accurate, device=table.device)
        weight = coverage(query).to(accurate).reciprocal_() if mean else None
        if region is not None:
            shares = region.flatten().to(accurate)
            weight = shares if weight is None else weight * shares
        energy = gradient.new_zeros(())
        step = max(1, chunk_bytes // (table.shape[1] * gradient.element_size()))
        for at in range(0, len(query), step):
            chunk = slice(at, at + step)
            for dy, dx in query.offsets:
                rows = query.rows(chunk, dy, dx)
                difference = table.index_select(0, rows).to(accurate)
                difference -= style.pixels.index_select(0, style.rows(index[chunk], dy, dx))
                # At one (dy, dx) no two patches share a pixel, so the order of additions is fixed.
                gradient.index_add_(0, rows, difference)
                squares = torch.linalg.vecdot(difference, difference)
                energy += squares.sum() if weight is None else squares.dot(weight[rows])
        gradient *= 2.0 if weight is None else 2.0 * weight[:, None]
        _, channels, height, width = features.shape
        ctx.save_for_backward(gradient.view(1, height, width, channels).permute(0, 3, 1, 2))
        ctx.dtype = features.dtype
        return energy

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # Weighed before it is rounded: as a sum over all covering patches it may be beyond float16.
        return (gradient * grad_outputs[0]).to(ctx.dtype), None, None, None, None, None, None


def coverage(bank: PatchBank) -> Tensor:
    """How many patches cover each pixel of the bank, (P,) int64; at least 1 wherever ``corners`` placed them."""
    count = torch.zeros(len(bank.pixels), dtype=torch.int64, device=bank.first.device)
    everything = slice(None)
    for dy, dx in bank.offsets:
        rows = bank.rows(everything, dy, dx)
        count.index_add_(0, rows, torch.ones_like(rows))
    return count


def rebuild(query: PatchBank, style: PatchBank, index: Tensor, *, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """The query's pixels (P, C) replaced by the mean of the matched patches that cover them (the style swap of Chen
    and Schmidt 2016, section 3.1). ``index`` (Q,) is :attr:`Matches.index`. In float32 or better, whatever the banks'.
    """
    accurate = _accurate(query.pixels.dtype)
    total = torch.zeros(query.pixels.shape, dtype=accurate, device=query.pixels.device)
    row_bytes = query.pixels.shape[1] * total.element_size()
    if query.stride == 1 and len(query.shapes) == 1:
        height, width = query.shapes[0]
        columns = width - query.size + 1
        index = index.view(-1, columns)
        grid = total.view(height, width, -1)
        step = max(1, chunk_bytes // (columns * row_bytes))
        for top in range(0, len(index), step):
            which = index[top : top + step]
            # The patches of one (dy, dx) lie side by side: their sum is one of slices, several times faster than
            # additions by index.
            for dy, dx in query.offsets:
                theirs = style.pixels.index_select(0, style.rows(which.flatten(), dy, dx))
                grid[top + dy : top + dy + len(which), dx : dx + columns] += theirs.view(len(which), columns, -1)
    else:
        step = max(1, chunk_bytes // row_bytes)
        for at in range(0, len(query), step):
            chunk = slice(at, at + step)
            for dy, dx in query.offsets:
                theirs = style.pixels.index_select(0, style.rows(index[chunk], dy, dx))
                total.index_add_(0, query.rows(chunk, dy, dx), theirs.to(accurate))
    return total.div_(coverage(query).clamp(min=1).to(accurate)[:, None])


@torch.no_grad()
def swap(features: Tensor, style: PatchBank, *, stride: int = 1, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """``features`` (1, C, H, W) with every patch replaced by the style's most similar one, averaged where they overlap
    (Chen and Schmidt 2016, section 3.1); same shape and dtype. The content's patches are ``stride`` apart."""
    query = PatchBank.of([features], style.size, stride)
    index = match(query, style, chunk_bytes=chunk_bytes).index
    _, channels, height, width = features.shape
    table = rebuild(query, style, index, chunk_bytes=chunk_bytes).to(features.dtype)
    return table.view(1, height, width, channels).permute(0, 3, 1, 2)


def _squares(pixels: Tensor) -> Tensor:
    """|pixel|² in float32 or better; of half precision rows by blocks, a copy of all of them would double the bank."""
    if pixels.dtype.itemsize >= 4:
        return torch.linalg.vecdot(pixels, pixels)
    return torch.cat([block.float().square_().sum(1) for block in pixels.split(4096)])


def _accurate(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
