"""``zoo.stylize``: one photograph, one painting, one picture back, in whatever form the caller has them."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from zoo import memory
from zoo.controls.tiles import side_of
from zoo.errors import InputError, UnknownNameError
from zoo.images import SizePolicy, read, resize
from zoo.images.decode import as_float, from_pillow
from zoo.names import DEFAULT_METHOD
from zoo.stylizer import Mix, Style, Stylizer, check_images
from zoo.words import shown

if TYPE_CHECKING:
    Picture = str | os.PathLike[str] | bytes | PILImage.Image | np.ndarray | Tensor


def stylize(
    content: Picture,
    style: Picture | Sequence[Picture],
    method: str = DEFAULT_METHOD,
    *,
    size: SizePolicy | int | str | None = 512,
    style_size: SizePolicy | int | str | None = 512,
    weights: Sequence[float] | None = None,
    strength: float = 1.0,
    seed: int = 0,
    preserve_color: str = "none",
    device: str = "auto",
    precision: str = "auto",
    tile: int | str = "auto",
    **options: Any,
) -> PILImage.Image:
    """Return ``content`` in the style of ``style`` as a PIL image, which a notebook shows.

    Pictures are paths, ``builtin:NAME``, bytes of a file, PIL images (turned upright by their EXIF orientation and
    converted from their profile, as files are), arrays (H, W, 3), (H, W, 4) or (H, W) or tensors (3, H, W) or
    (1, 3, H, W), both of uint8 or of floats in [0, 1]. ``style`` may also be the name of a style that
    ``method`` was trained on, or a list of styles that are mixed by ``weights`` (alike where none are given). ``size``
    is the longer side in pixels, or any size that :func:`zoo.read` takes; None keeps each picture's own.
    ``preserve_color`` is ``none``, ``luminance`` or ``coral``. ``tile`` is the side in pixels of the tiles by which a
    large picture is made, ``auto`` for tiles where it does not fit into memory, or ``off``. ``options`` are the
    method's own, as ``zoo info METHOD`` lists them: ``num_steps=300``. The two models used last stay loaded, so that a
    second call is quick.

    Raises ImageError (a file that is no picture), InputError (an array or tensor of another form, weights that do not
    fit), UnknownNameError and ConfigError (method, options), UnsupportedError (a mix, say, where the method takes one),
    MemoryLimitError (a picture that cannot fit into memory).
    """
    # Lists have no hash; nor has what no option takes, which the method then refuses in its own words.
    chosen = sorted((name, tuple(value) if isinstance(value, list) else value) for name, value in options.items())
    build = (
        _model
        if all(
            isinstance(value, Hashable)
            for value in (method, device, precision, preserve_color, *(v for _, v in chosen))
        )
        else _model.__wrapped__
    )
    model = build(method, device, precision, preserve_color, tuple(chosen))
    photo = as_tensor(content, "content", size)
    styles: list[Any] = list(style) if isinstance(style, list | tuple) else [style]
    if not styles:
        raise InputError("Give at least one style.")
    shares = [1 / len(styles)] * len(styles) if weights is None else weights
    if not isinstance(shares, Collection) or len(shares) != len(styles):
        given = len(shares) if isinstance(shares, Collection) else shown(shares)
        raise InputError(f"Give one weight for each of the {len(styles)} styles, not {given}.")
    area = (photo.shape[-2], photo.shape[-1])
    codes = [model.encode_style(_style(one, model, style_size), area) for one in styles]
    mix = Mix(list(zip(codes, shares, strict=True)))
    side = side_of(model, tile, *area)
    memory.require(model, *area, side)
    return as_picture(model.stylize(photo, mix, strength=strength, seed=seed, tile=side).image)


@functools.lru_cache(maxsize=2)
def _model(
    method: str, device: str, precision: str, preserve_color: str, options: tuple[tuple[str, Any], ...]
) -> Stylizer:
    from zoo.controls.color import in_color, own_option
    from zoo.loading import load

    chosen, keep = own_option(method, preserve_color, dict(options))
    return in_color(load(method, device=device, precision=precision, **chosen), keep)


def _style(style: Picture, model: Stylizer, size: SizePolicy | int | str | None) -> Style:
    if isinstance(style, str) and model.style_names and not os.path.exists(style) and ":" not in style:
        if style not in model.style_names:
            raise UnknownNameError("style", style, model.style_names, f"({model.name})")
        return Style(name=style)
    return Style(as_tensor(style, "style", size))


def as_tensor(picture: Picture, role: str = "picture", size: SizePolicy | int | str | None = None) -> Tensor:
    """Return a picture in any form as (1, 3, H, W) float32 RGB in [0, 1] of ``size``; transparency becomes white."""
    if isinstance(picture, str | os.PathLike | bytes):
        return read(picture, size=size).pixels
    if isinstance(picture, PILImage.Image):
        rgb, alpha = from_pillow(picture, f"The {role}")
        tensor = _over_white(rgb, alpha)
    elif isinstance(picture, np.ndarray):
        tensor = _from_array(picture, role)
    elif isinstance(picture, Tensor):
        tensor = (picture[None] if picture.dim() == 3 else picture).detach()
        tensor = tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()
    else:
        raise InputError(f"The {role} must be a path, a PIL image, an array or a tensor, not {type(picture).__name__}.")
    if tensor.dim() == 4 and tensor.shape[0] != 1:
        raise InputError(f"The {role} must be one picture, not a batch of {tensor.shape[0]}: call once for each.")
    check_images(tensor, role)
    return resize(tensor, SizePolicy.parse(size)).contiguous()


def _from_array(array: np.ndarray, role: str) -> Tensor:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 3 or array.shape[-1] not in (3, 4):
        raise InputError(f"An array of a {role} must have shape (H, W), (H, W, 3) or (H, W, 4), not {array.shape}.")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"An array of a {role} must hold uint8 or floats in [0, 1], not {array.dtype}.")
    planes = array.transpose(2, 0, 1)
    return _over_white(planes[:3], planes[3:] if len(planes) == 4 else None)


def _over_white(rgb: np.ndarray, alpha: np.ndarray | None) -> Tensor:
    """(3, H, W) and alpha (1, H, W) or None, uint8 or floats in [0, 1] -> (1, 3, H, W) float32."""
    pixels = torch.from_numpy(as_float(rgb).astype(np.float32))[None]
    if alpha is None:
        return pixels
    opacity = torch.from_numpy(as_float(alpha).astype(np.float32))[None]
    return pixels * opacity + (1 - opacity)


def as_picture(image: Tensor) -> PILImage.Image:
    """Return (1, 3, H, W) in [0, 1] as an 8-bit PIL image, rounded half up as :func:`zoo.write` does."""
    array = image[0].detach().cpu().clamp(0, 1).mul(255).add_(0.5).to(torch.uint8).permute(1, 2, 0)
    return PILImage.fromarray(array.contiguous().numpy())


__all__ = ["as_picture", "as_tensor", "stylize"]
