"""Maps computed region by region: a picture too large for memory passes through a network by tiles, without seams.

A :class:`Map` gives any region of itself when it is read. Reading a :class:`Local` map reads what the region depends
on, a halo wider, from the map before it, runs the network on that and cuts the halo off again, so a chain of maps adds
up the halos by itself and the result is that of the whole picture up to rounding. What depends on the whole picture,
such as the moments of a normalisation, is gathered over :func:`boxes` first; what would be computed too often is kept
by :func:`store`::

    features = Local(Whole(photo), encoder, halo=30, down=8)
    result = store(Local(Normalized(features, scale, shift, 1024), decoder, halo=4, up=8), 1024)
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import NumericalError
from zoo.nn.fast.normalize import EPS, joined_moments

if TYPE_CHECKING:
    from zoo.contract import Call

# Bytes per pixel of the picture that :func:`kept` grants a map: as much as two float32 pictures, and a third more where
# few others are kept beside it.
KEPT_BYTES, KEPT_ALONE_BYTES = 24, 32

Box = tuple[slice, slice]  # rows and columns, both with start and stop
Told = Callable[[int, int], bool | None]
T = TypeVar("T")

_told: ContextVar[Told | None] = ContextVar("told", default=None)


class Stopped(KeyboardInterrupt):
    """Who watches the regions of a picture asked to end before it was made."""


class Map(ABC):
    """Features or a picture, (B, C, H, W). ``size`` is (H, W), ``stride`` the pixels of the picture per position."""

    size: tuple[int, int]
    stride: int = 1

    @abstractmethod
    def read(self, box: Box) -> Tensor:
        """Return the region (B, C, h, w); it may be a view of what is kept, so nobody changes it in place."""


class Whole(Map):
    """A map that is in memory; a picture may be there as levels, uint8, and is read as float32 in [0, 1]."""

    def __init__(self, tensor: Tensor, stride: int = 1) -> None:
        self.tensor, self.stride = tensor, stride
        self.size = (tensor.shape[-2], tensor.shape[-1])

    def read(self, box: Box) -> Tensor:
        return from_levels(self.tensor[..., box[0], box[1]])


class Local(Map):
    """What ``function`` makes of one or more maps of equal size: tensors (B, C, h, w) to (B, D, h * up / down, ...).

    A position depends on what lies under it and ``halo`` positions of ``sources`` around that. Regions handed to
    ``function`` begin at multiples of ``cell`` positions (``down`` unless given) and end at the map's border or beyond
    the halo, so that it pads where the whole map would be padded and nowhere else that counts. ``floor`` leaves out
    what a cell of ``down`` positions that the border cuts would give, as poolings do that round down.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        *sources: Map,
        halo: int = 0,
        up: int = 1,
        down: int = 1,
        cell: int | None = None,
        floor: bool = False,
    ) -> None:
        self.function, self.sources = function, sources
        self.halo, self.up, self.down = halo, up, down
        self.cell = down if cell is None else cell
        height, width = sources[0].size
        more = 0 if floor else down - 1
        self.size = ((height + more) // down * up, (width + more) // down * up)
        self.stride = sources[0].stride * down // up

    def read(self, box: Box) -> Tensor:
        rows, columns = (self._needed(part, side) for part, side in zip(box, self.sources[0].size, strict=True))
        found = self.function(*(source.read((rows, columns)) for source in self.sources))
        for axis, (part, whole) in enumerate(zip(box, (rows, columns), strict=True)):
            found = found.narrow(axis - 2, part.start - whole.start * self.up // self.down, part.stop - part.start)
        return found

    def _needed(self, part: slice, side: int) -> slice:
        start = part.start * self.down // self.up - self.halo
        stop = -(-part.stop * self.down // self.up) + self.halo
        return slice(max(0, start) // self.cell * self.cell, min(side, -(-stop // self.cell) * self.cell))


class Normalized(Map):
    """Instance normalisation of the map ``source``: each channel to mean ``shift`` and deviation ``scale``, (C,) each.

    The moments are gathered here, over regions of ``side`` pixels of the picture; EPS is added to the population's
    variance, as :func:`zoo.nn.fast.instance_norm` does.
    """

    def __init__(self, source: Map, scale: Tensor, shift: Tensor, side: int) -> None:
        self.source, self.scale, self.shift = source, scale, shift
        self.size, self.stride = source.size, source.stride
        mean, variance = mean_and_variance(source, side)
        self.mean, self.variance = mean.to(scale), variance.to(scale)

    def read(self, box: Box) -> Tensor:
        return F.batch_norm(self.source.read(box), self.mean, self.variance, self.scale, self.shift, eps=EPS)


def boxes(size: tuple[int, int], side: int, cell: int = 2) -> Iterator[Box]:
    """Cut (H, W) into regions of at most about ``side`` a side, row by row, of nearly equal sides; each begins at a
    multiple of ``cell``."""
    rows, columns = (_parts(length, max(cell, side), cell) for length in size)
    return ((row, column) for row in rows for column in columns)


def boxes_of(source: Map, side: int) -> Iterator[Box]:
    """Cut ``source`` into the regions that :func:`boxes` makes of the picture, ``side`` pixels each."""
    return each(list(boxes(source.size, side // source.stride)))


def each(regions: Sequence[T]) -> Iterator[T]:
    """Give the regions of one pass, and tell who is :func:`watched`; raises :class:`Stopped` where these ask to end.

    What takes long and is not cut into regions may give its own parts, such as levels.
    """
    told = _told.get() if len(regions) > 1 else None
    for done, region in enumerate(regions, 1):
        yield region
        # After the last one there may be nothing left to stop.
        if told is not None and told(done, len(regions)) and done < len(regions):
            raise Stopped


@contextlib.contextmanager
def watched(told: Told | None) -> Iterator[None]:
    """Call ``told`` (regions done, regions of this pass) in this thread after each region of every pass over more than
    one; None tells nobody.

    Where it returns True :class:`Stopped` is raised, or an optimisation ends with its best image so far.
    """
    token = _told.set(told)
    try:
        yield
    finally:
        _told.reset(token)


def _parts(length: int, side: int, cell: int) -> list[slice]:
    step = -(-length // -(-length // side))
    step = -(-step // cell) * cell
    starts = list(range(0, max(1, length - cell + 1), step))  # what is left over under a cell goes to the last
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], length], strict=True)]


def store(source: Map, side: int, out: Tensor | None = None) -> Whole:
    """Compute all of ``source``, region by region of ``side`` pixels of the picture, into new memory or into ``out``.

    ``out`` may be the tensor that ``source`` reads where no halo lies between.
    """
    for box in boxes_of(source, side):
        part = source.read(box)
        if out is None:
            shape = (*part.shape[:2], *source.size)
            # Channels last, as the networks run.
            format = torch.channels_last if part.shape[1] > 3 else torch.contiguous_format
            out = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=format)
        out[..., box[0], box[1]] = part
    assert out is not None  # a map has a position
    return Whole(out, source.stride)


def collect(source: Map, call: Call, content: Tensor) -> Tensor:
    """Return ``source`` stored by tiles as what ``call`` makes of ``content``, (1, 3, H, W) of its size: levels where
    these are wanted, so that nothing of the picture's size is float32."""
    assert call.tile is not None  # what tiles are for
    if call.levels:
        source = Local(to_levels, source)
    return store(source, call.tile).tensor[..., : content.shape[-2], : content.shape[-1]]


def from_levels(image: Tensor) -> Tensor:
    """Return levels, uint8, as float32 in [0, 1], and anything else as it is."""
    if image.dtype != torch.uint8:
        return image
    # By a tensor: a GPU multiplies with the inverse of a number, which is not what the CPU gives.
    return image.float().div_(torch.full((), 255.0, device=image.device))


def to_levels(image: Tensor) -> Tensor:
    """Return floats as levels, uint8: clamped to [0, 1] and rounded half up, as :func:`zoo.write` does.

    Raises NumericalError for values that are not finite.
    """
    if not torch.isfinite(image).all():
        raise NumericalError("The method produced values that are not finite; try --precision fp32.")
    return image.float().clamp(0, 1).mul_(255).add_(0.5).to(torch.uint8)


def kept(source: Map, side: int, granted: int = KEPT_BYTES) -> Map:
    """Return ``source`` stored where that takes at most ``granted`` bytes per pixel of the picture, else itself, to be
    computed again at each reading."""
    corner = source.read((slice(0, 1), slice(0, 1)))
    if corner.shape[1] * corner.element_size() > granted * source.stride**2:
        return source
    return store(source, side)


def mean_and_variance(source: Map, side: int) -> tuple[Tensor, Tensor]:
    """Mean and population variance (C,), float64, of each channel of a map of one picture, region by region."""
    return joined_moments(source.read(box) for box in boxes_of(source, side))


__all__ = [
    "KEPT_ALONE_BYTES",
    "KEPT_BYTES",
    "Box",
    "Local",
    "Map",
    "Normalized",
    "Stopped",
    "Whole",
    "boxes",
    "boxes_of",
    "collect",
    "each",
    "from_levels",
    "kept",
    "mean_and_variance",
    "store",
    "to_levels",
    "watched",
]
