"""Label maps: pictures of a few flat colors that say what is where, the same color for the same thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.errors import InputError
from zoo.images.masks import same_shape
from zoo.images.read import Image

if TYPE_CHECKING:
    from torch import Tensor

# More colors than these are no map that somebody drew, but a photograph or edges that a program has softened.
MOST = 64


def label_colors(drawn: Image, name: str) -> Tensor:
    """Return the colors of a label map as whole numbers 0xRRGGBB, (1, 1, H, W) int64.

    Raises :class:`InputError` for a map of more than 64 colors.
    """
    levels = (drawn.pixels * 255).round().long()
    colors = (levels[:, :1] << 16) + (levels[:, 1:2] << 8) + levels[:, 2:]
    count = len(colors.unique())
    if count > MOST:
        raise InputError(
            f"The label map '{name}' has {count} colors: draw it with a few flat ones, hard edges, and save it as PNG."
        )
    return colors


def fitted_labels(colors: Tensor, name: str, picture: Image) -> Tensor:
    """Return a map of :func:`label_colors` at the size of ``picture``, every pixel of one of its colors.

    Raises :class:`InputError`, with both sizes, where the map has not the picture's shape.
    """
    height, width = colors.shape[-2:]
    if not same_shape((height, width), picture.size):
        tall, wide = picture.size
        raise InputError(
            f"The label map '{name}' is {width} x {height} pixels and the picture '{picture.name}' is {wide} x {tall}: "
            "give the map the picture's shape."
        )
    from torch.nn import functional as F

    # float64 holds every color exactly.
    return F.interpolate(colors.double(), picture.size, mode="nearest-exact").long()


def paired_labels(content: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """Return two fitted maps as labels 0, 1, 2, ... in the order of the style's colors.

    Raises :class:`InputError` naming the colors that the content has and the style lacks.
    """
    import torch

    known, style_labels = style.unique(return_inverse=True)
    here = content.unique()
    lacking = [f"#{color:06x}" for color in here.tolist() if color not in known]
    if lacking:
        raise InputError(f"The content's label map has colors that the style's lacks: {', '.join(lacking[:5])}.")
    return torch.searchsorted(known, content), style_labels


__all__ = ["MOST", "fitted_labels", "label_colors", "paired_labels"]
