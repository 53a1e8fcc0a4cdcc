"""Colour profiles: every picture becomes sRGB, by LittleCMS where its file says what its colours are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageCms

# Relative colorimetric conversion with black point compensation keeps white and black up to rounding; a profile that
# moves one of them by so many levels of 255 is damaged.
_ENDS = 64


def to_srgb(image: PILImage.Image, profile: bytes | None) -> PILImage.Image:
    """L, RGB, CMYK or LAB, with its embedded profile or None -> RGB in sRGB."""
    if image.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb_profile(), "LAB", "RGB")
        converted = ImageCms.applyTransform(image, transform)
    else:
        found = transform_to_srgb(profile, image.mode)
        converted = ImageCms.applyTransform(image.convert(found[0]), found[1]) if found else image.convert("RGB")
    assert converted is not None  # None only for in-place transforms
    return converted


def gray_to_srgb(gray: np.ndarray, profile: bytes | None) -> np.ndarray:
    """(H, W) float32 in [0, 1] -> (H, W, 3). LittleCMS is asked for 256 levels and the rest is interpolated."""
    if transform_to_srgb(profile, "L") is None:
        return np.repeat(gray[..., None], 3, axis=-1)
    ramp = np.array(to_srgb(_ramp(), profile))[0].astype(np.float64) / 255
    levels = np.arange(256) / 255
    return np.stack([np.interp(gray, levels, ramp[:, channel]) for channel in range(3)], -1).astype(np.float32)


def transform_to_srgb(profile: bytes | None, mode: str) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """(mode to convert to first, transform to sRGB), or None where the pixels should stay as they are."""
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        core: Any = source.profile
        space = core.xcolor_space.strip()
        if mode == "L" and space == "RGB":  # a grey picture that kept the profile of the colour one
            mode = "RGB"
        if mode != {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space):
            return None
        transform = ImageCms.buildTransform(
            source,
            _srgb_profile(),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode == "CMYK":
            return mode, transform
        probe = _ramp() if mode == "L" else _lattice()
        converted = np.array(ImageCms.applyTransform(probe, transform)).astype(int)
        if converted[0, 0].max() > _ENDS or converted[-1, -1].min() < 255 - _ENDS:
            return None  # black is not black any more, or white not white: a damaged curve or matrix
        moved = converted - np.array(probe.convert("RGB"))
        return None if np.abs(moved).max() <= 1 else (mode, transform)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


def _srgb_profile() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _ramp() -> PILImage.Image:
    """All 256 grey levels in one row."""
    return PILImage.fromarray(np.arange(256, dtype=np.uint8)[None])


def _lattice() -> PILImage.Image:
    """RGB on a lattice of 18 levels per channel (0, 15, ... 255), ends included."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    return PILImage.fromarray(colors.reshape(len(levels), -1, 3))
