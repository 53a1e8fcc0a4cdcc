"""Colour as a thing apart from texture: luminance, and the mean and covariance of an image's RGB values.

Gatys, Bethge, Hertzmann, Shechtman, *Preserving Color in Neural Artistic Style Transfer*, 2016, gives the two ways in
which a stylised photograph keeps its colours: transfer the luminance alone (section 4), or first give the style image
the colours of the content (section 3). The second is also known as CORAL: Sun, Feng, Saenko, *Return of Frustratingly
Easy Domain Adaptation*, 2016. Older than both, and here a baseline of benchmarks: Reinhard, Ashikhmin, Gooch, Shirley,
*Color Transfer between Images*, 2001.

All images are (B, 3, H, W) float RGB. Nothing here clamps: values may leave [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.device import exact

# The Y row of YIQ, as in the paper; the rows of I and Q are never needed, see with_luminance.
_LUMA = (0.299, 0.587, 0.114)

# Spread of colour, in [0, 1], below which a direction counts as flat: 2.5 levels of 255. Dividing by less would turn
# the compression noise of a grey image into strong colours.
_FLAT = 0.01

# Eq. 4 of Reinhard et al., from RGB to the responses of the cones, and the two factors of eq. 6, from their logarithms
# to achromatic, yellow-blue and red-green.
_LMS = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_OPPONENT = ((1.0, 1.0, 1.0), (1.0, 1.0, -2.0), (1.0, -1.0, 0.0))
# Black has no logarithm: responses below one level of 255 count as one.
_BLACK = 1 / 255
# Deviation along an axis of lαβ below which it counts as flat: what rounding to 8 bits alone gives mid-grey.
_FLAT_LAB = 0.001


def luminance(images: Tensor) -> Tensor:
    """Luminance (B, 1, H, W) of images (B, 3, H, W): the Y of YIQ."""
    weights = images.new_tensor(_LUMA).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def with_luminance(images: Tensor, wanted: Tensor) -> Tensor:
    """The images with luminance ``wanted`` (B, 1, H, W) and their own chroma (I and Q).

    Y enters each of R, G and B with weight 1, so that replacing it is one addition.
    """
    return images + (wanted - luminance(images))


def match_luminance(images: Tensor, like: Tensor) -> Tensor:
    """Luminance (B, 1, H, W) of ``images``, moved and scaled to the mean and deviation of that of ``like``: eq. 10."""
    y, wanted = luminance(images), luminance(like)
    mean, deviation = _moments(y)
    wanted_mean, wanted_deviation = _moments(wanted)
    return (y - mean) * (wanted_deviation / deviation.clamp_min(_FLAT)) + wanted_mean


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    axes = (-2, -1)
    return values.mean(axes, keepdim=True), values.std(axes, keepdim=True, correction=0)


def gray(images: Tensor) -> Tensor:
    """``images`` (B, 3, H, W) without their colours: the luminance in all three channels."""
    return luminance(images).expand(-1, 3, -1, -1).contiguous()


def recolor_style(style: Tensor, content: Tensor, mode: str) -> Tensor:
    """The style image (1, 3, H, W) in [0, 1] that a transfer with the content's colours needs, clamped.

    ``coral``: in the colours of ``content`` (section 3); ``luminance``: grey, with the content's mean and deviation of
    luminance (section 4), for a content made grey too; ``none``: as it is.
    """
    if mode == "coral":
        return match_color(style, content).clamp(0, 1)
    if mode == "luminance":
        return match_luminance(style, content).expand(-1, 3, -1, -1).clamp(0, 1)
    return style


def color_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 3) and covariance (B, 3, 3) of each image's RGB values, in float64 (on the CPU beside an MPS device)."""
    values = exact(images).flatten(2).double()
    mean = values.mean(dim=2)
    centered = values - mean[:, :, None]
    return mean, centered @ centered.mT / values.shape[2]


def match_color(images: Tensor, like: Tensor) -> Tensor:
    """``images`` under the linear map of colours that gives them the mean and covariance of ``like``.

    The map is the whitening and colouring of eqs. 5 to 8 with symmetric square roots (the paper's "image analogies"
    variant), which moves colours least. Directions flatter than 0.01 are stretched as if they were 0.01 wide, so for
    them alone the covariance is not reached. ``like`` holds one image, or one for each of ``images``.
    """
    mean, covariance = color_statistics(images)
    wanted_mean, wanted_covariance = color_statistics(like)
    coloring = _symmetric_power(wanted_covariance, 0.5, floor=0.0)
    matrix = coloring @ _symmetric_power(covariance, -0.5, floor=_FLAT**2)
    offset = wanted_mean - (matrix @ mean[:, :, None])[:, :, 0]
    mixed = torch.einsum("bij,bjhw->bihw", matrix.to(images.dtype).to(images.device), images)
    return mixed + offset.to(images.dtype).to(images.device)[:, :, None, None]


def to_lab(images: Tensor) -> Tensor:
    """lαβ (B, 3, H, W) in float64 of Reinhard et al., whose axes correlate little in photographs; not CIE L*a*b*.

    On the CPU for images on an MPS device. Pixel values are taken as stored, as the paper does: it undoes no gamma.
    """
    responses = _mixed(_matrix(_LMS), exact(images).double()).clamp_min(_BLACK)
    return _mixed(_to_opponent(), responses.log10())


def from_lab(lab: Tensor) -> Tensor:
    """The inverse of :func:`to_lab`, exact (the paper prints rounded inverses)."""
    responses = 10 ** _mixed(torch.linalg.inv(_to_opponent()), lab)
    return _mixed(torch.linalg.inv(_matrix(_LMS)), responses)


def reinhard(images: Tensor, like: Tensor) -> Tensor:
    """``images`` with the mean and deviation that ``like`` has along each axis of lαβ: eqs. 10 and 11.

    ``like`` holds one image, or one for each of ``images``. An axis flatter than 0.001 is stretched as if it were
    0.001 wide, so for it alone the deviation is not reached.
    """
    lab = to_lab(images)
    mean, deviation = _moments(lab)
    wanted_mean, wanted_deviation = _moments(to_lab(like))
    moved = (lab - mean) * (wanted_deviation / deviation.clamp_min(_FLAT_LAB)) + wanted_mean
    return from_lab(moved).to(images.dtype).to(images.device)


def _to_opponent() -> Tensor:
    scale = torch.tensor([3.0, 6.0, 2.0], dtype=torch.float64).rsqrt()
    return scale[:, None] * _matrix(_OPPONENT)


def _matrix(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _mixed(matrix: Tensor, images: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", matrix.to(images.device), images)


def _symmetric_power(matrices: Tensor, power: float, floor: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp_min(floor)[:, None, :] ** power) @ vectors.mT
