"""Masks: pictures that say where in a content something holds, as people's tools write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.errors import InputError
from zoo.images.read import Image
from zoo.images.resample import resize
from zoo.images.sizes import SizePolicy

if TYPE_CHECKING:
    from torch import Tensor

_LEVEL = 1 / 255
_GRAY = 4 * _LEVEL  # the channels of a grey JPEG may differ by so much
_DARK = 8 * _LEVEL  # a mask of labels counts them upwards from zero, and is all darker than this


def selection(mask: Image, label: str) -> Tensor:
    """Return where a mask is white, (1, 1, H, W) in [0, 1].

    Grey in any depth is taken as it is. Transparent parts select nothing, so that a white picture selects by its alpha.
    A picture of two levels selects what is not black where these are 0 and 1, or black and one colour, as tools that
    write labels and palettes do. Raises :class:`InputError` where several colours, several labels, or a black picture
    with transparent parts leave open what is meant.
    """
    color = mask.pixels
    if mask.alpha is not None:  # over black, where reading put it over white
        color = (color - (1 - mask.alpha)).clamp(0, 1)
        if float(color.max()) < _LEVEL / 512 and float(mask.alpha.min()) < 1:
            raise InputError(f"The mask '{label}' is black where it is not transparent: paint its region white.")
    gray, lit = color.mean(1, keepdim=True), color.amax(1, keepdim=True) > _LEVEL / 512
    if float((color.amax(1) - color.amin(1)).max()) > _GRAY:
        ink = color.masked_fill(~lit, -1).amax((-1, -2), keepdim=True)
        if float(((color - ink).abs() * lit).max()) > _LEVEL / 2:
            raise InputError(f"The mask '{label}' has several colours: give a grey one, white for its region.")
        return lit.float()
    brightest = float(gray.max())
    if 0 < brightest <= 1.01 * _LEVEL:
        return lit.float()
    if 0 < brightest < _DARK:
        raise InputError(
            f"The mask '{label}' is all but black, its brightest level is {round(brightest * 255)} of 255: give one "
            "that is white for its region."
        )
    return gray


def fitted(mask: Tensor, label: str, content: Image, size: SizePolicy) -> Tensor:
    """Return a :func:`selection` at the size of a content that was read with ``size``, (1, H, W).

    The mask belongs to the content as it was in its file or as it is now, larger or smaller; what ``size`` crops of the
    content is cropped of it. Raises :class:`InputError`, with both sizes, where its shape is neither's.
    """
    height, width = mask.shape[-2:]
    if same_shape((height, width), content.source_size):
        if size.mode == "exact":
            mask = resize(mask, size)
    elif not same_shape((height, width), content.size):
        tall, wide = content.source_size
        raise InputError(
            f"The mask '{label}' is {width} x {height} pixels and the content '{content.name}' is {wide} x {tall}: "
            "give the mask the content's shape."
        )
    return resize(mask, content.size)[0]


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes are the same up to scale and one pixel of the smaller, which is at most a tenth."""
    crossed = one[0] * other[1], one[1] * other[0]
    return abs(crossed[0] - crossed[1]) <= min(max(*one, *other), max(crossed) / 10)
