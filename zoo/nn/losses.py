"""Loss terms that several methods share."""

from __future__ import annotations

from torch import Tensor


def total_variation(images: Tensor) -> Tensor:
    """Half the sum of squared differences of neighbouring pixels, in levels of 255; a scalar.

    ``images`` (B, 3, H, W) in [0, 1]. This is the loss whose gradient the ``TVLoss`` layer of jcjohnson/neural-style
    and chuanli11/CNNMRF adds without ever reporting its value, so ``--tv-weight`` means here what it means there. Like
    theirs it leaves out the differences along the last row and column.
    """
    pixels = images * 255
    corner = pixels[..., :-1, :-1]
    along_x = pixels[..., :-1, 1:] - corner
    along_y = pixels[..., 1:, :-1] - corner
    return (along_x.square().sum() + along_y.square().sum()) / 2
