"""Patches of feature maps and their nearest neighbours by normalised cross-correlation, in bounded memory.

The patch-based methods ask one question: which patch of the style is most like this patch of the image, where likeness
is the normalised cross-correlation (cosine) of the two patches as vectors (Li and Wand 2016, equation 3; Chen and
Schmidt 2016, equation 2). All pairs are compared by matrix products over chunks of both sides, so that nothing larger
than a given number of bytes is ever unfolded.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.nn.bank import CHUNK_BYTES, PatchBank, accurate_format, corners, pixel_rows, squares
from zoo.nn.fast import Matches, best_patches
from zoo.nn.shortlist import Shortlist, likely_match


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
    # What the scores cannot exceed; they are without the query's own norm, which comes in the end.
    limit = (1 - alike) / query.scale if alike else None
    # Autocast would choose another format than the one asked for.
    with torch.autocast(query.pixels.device.type, enabled=False):
        found = best_patches(query, style, dtype, chunk_bytes, limit)
    score = found.score * query.scale
    return Matches(found.index, score if limit is None else score.masked_fill(found.score >= limit, 1))


def _within_half(bank: PatchBank) -> PatchBank:
    """The bank with its longest pixel scaled to length 1: products of features in the thousands overflow float16.

    Patches next to nothing beside it lose: one over their norm would be infinite, and their products are rounding.
    """
    longest = squares(bank.pixels).max().sqrt().clamp_min(1e-12).item()
    pixels = torch.cat([(block.float() / longest).half() for block in bank.pixels.split(4096)])
    scale = (bank.scale * longest).clamp_max(torch.finfo(torch.float16).max)
    return dataclasses.replace(bank, pixels=pixels, scale=scale)


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
        accurate = accurate_format(table.dtype)
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
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch types ctx by position
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
    accurate = accurate_format(query.pixels.dtype)
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
def swap(
    features: Tensor,
    style: PatchBank,
    *,
    stride: int = 1,
    shortlist: Shortlist | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """``features`` (1, C, H, W) with every patch replaced by the style's most similar one, averaged where they overlap
    (Chen and Schmidt 2016, section 3.1); same shape and dtype. The content's patches are ``stride`` apart. With a
    ``shortlist`` of the style the most similar one is looked for in that."""
    query = PatchBank.of([features], style.size, stride)
    if shortlist is None:
        index = match(query, style, chunk_bytes=chunk_bytes).index
    else:
        index = likely_match(query, style, shortlist, chunk_bytes=chunk_bytes).index
    _, channels, height, width = features.shape
    table = rebuild(query, style, index, chunk_bytes=chunk_bytes).to(features.dtype)
    return table.view(1, height, width, channels).permute(0, 3, 1, 2)


__all__ = [
    "CHUNK_BYTES",
    "Matches",
    "PatchBank",
    "corners",
    "coverage",
    "match",
    "patch_energy",
    "pixel_rows",
    "rebuild",
    "swap",
]
