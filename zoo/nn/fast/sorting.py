"""Sorting the rows of a matrix on the CPU, with numpy's vector instructions and on all of torch's threads.

torch sorts float32 with indices by comparing pairs one at a time. Here the place of a value is packed behind it into
one 64-bit integer, so that equals keep their order by themselves and numpy's sort of integers, many times as fast, will
do.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

_LOW = np.int64(0xFFFFFFFF)


def in_order(values: Tensor) -> Tensor:
    """Return each row of ``values`` (R, n), float32 without NaN, in ascending order."""
    if not _here(values):
        return plain_in_order(values)
    result = values.clone(memory_format=torch.contiguous_format)
    rows = result.numpy()
    _each(lambda row: rows[row].sort(), len(rows))
    return result


def plain_in_order(values: Tensor) -> Tensor:
    """The reference of :func:`in_order`."""
    return torch.sort(values, dim=1).values


def ranked(values: Tensor, wanted: Tensor) -> Tensor:
    """Return (R, n): the k-th smallest of each row of ``values`` (R, n) replaced by the k-th of ``wanted`` (R, n).

    Both float32, ``values`` without NaN. Of equals the earlier gets the earlier of ``wanted``.
    """
    if not _here(values):
        return plain_ranked(values, wanted)
    result = torch.empty_like(values, memory_format=torch.contiguous_format)
    # Adding 0 turns a negative zero, whose bits are another number's, into its equal.
    given, new, target = (values + 0).numpy(), wanted.contiguous().numpy(), result.numpy()
    places = np.arange(values.shape[1], dtype=np.int64)

    def rank(row: int) -> None:
        bits = given[row].view(np.int32)
        # As integers negative floats run backwards: all but the sign is turned over.
        packed = (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).astype(np.int64)
        packed <<= 32
        packed |= places
        packed.sort()
        packed &= _LOW
        target[row, packed] = new[row]

    _each(rank, len(given))
    return result


def plain_ranked(values: Tensor, wanted: Tensor) -> Tensor:
    """The reference of :func:`ranked`."""
    order = torch.sort(values, dim=1, stable=True).indices
    return torch.empty_like(values).scatter_(1, order, wanted.to(values.dtype))


def _here(values: Tensor) -> bool:
    """Whether numpy sees these values, outside of autograd and of what traces programs."""
    plain = type(values) is Tensor and values.device.type == "cpu" and values.dtype == torch.float32
    return plain and not values.requires_grad and not torch.compiler.is_compiling()


def _each(work: Callable[[int], None], rows: int) -> None:
    """Do ``work`` for every row. A row of a map of features stays in a core's cache."""
    threads = min(torch.get_num_threads(), rows)
    if threads <= 1:
        for row in range(rows):
            work(row)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda first: [work(row) for row in range(first, rows, threads)], range(threads)))
