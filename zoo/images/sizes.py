"""Sizes: how large an image is made before a method sees it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, cast

from zoo.errors import ConfigError, ImageError, InputError
from zoo.words import shown

# Twice Pillow's own warning level: the size from which Pillow takes a header for a decompression bomb. As float32 RGB
# that is 2.1 GB, and it lets the largest medium-format photographs (150 megapixels) through.
MAX_PIXELS = 178_956_970

# The largest side of a JPEG; a typing error such as long:5120000 should not allocate before it fails.
MAX_SIDE = 65_500


@dataclass(frozen=True)
class SizePolicy:
    """How large an image is made before a method sees it; sizes are honoured exactly, upwards too.

    mode   ``long``: the longer side becomes ``value``, the other follows;
           ``short``: the shorter side becomes ``value``;
           ``exact``: resized until it just covers ``value`` = (height, width), then cropped at the centre;
           ``keep``: as it is (``value`` is 0).

    Raises :class:`ConfigError` on a mode or value outside these.
    """

    mode: Literal["long", "short", "exact", "keep"] = "keep"
    value: int | tuple[int, int] = 0

    def __post_init__(self) -> None:
        if self.mode not in ("long", "short", "exact", "keep"):
            raise ConfigError(f"Size mode {self.mode!r} does not exist: use long, short, exact or keep.")
        if self.mode == "exact" and isinstance(self.value, int):
            object.__setattr__(self, "value", (self.value, self.value))
        wanted = 2 if self.mode == "exact" else 1
        sides = self.value if isinstance(self.value, tuple) else (self.value,)
        low, high = (0, 0) if self.mode == "keep" else (1, MAX_SIDE)
        if len(sides) != wanted or not all(type(side) is int and low <= side <= high for side in sides):
            raise ConfigError(
                f"Size {shown(self.value)} does not fit mode {self.mode!r}: give "
                + ("no value." if self.mode == "keep" else f"whole pixels from 1 to {MAX_SIDE}.")
            )

    @classmethod
    def parse(
        cls, text: str | int | SizePolicy | None, *, default: Literal["long", "short", "exact"] = "long"
    ) -> SizePolicy:
        """``long:512``, ``short:256``, ``exact:256``, ``exact:640x480`` (width x height), ``0`` or ``keep``.

        A number alone takes the mode ``default`` and width x height alone is ``exact``; labels parse too, and None
        keeps. Raises :class:`ConfigError`.
        """
        if isinstance(text, SizePolicy):
            return text
        plain = "keep" if text is None else str(text).strip().lower()
        if plain in ("0", "keep"):
            return cls()
        match = re.fullmatch(r"(?:(long|short|exact)[:-])?([0-9]{1,4000})(?:x([0-9]{1,4000}))?", plain)
        if not match or (match[3] and match[1] in ("long", "short")):
            raise ConfigError(
                f"Size {shown(text)} is not understood: write long:512, short:256, exact:256, exact:640x480 "
                f"(width x height), a number from 1 to {MAX_SIDE} alone, or 0 to keep the size."
            )
        if match[3]:
            return cls("exact", (int(match[3]), int(match[2])))
        return cls(cast(Literal["long", "short", "exact"], match[1] or default), int(match[2]))

    @property
    def label(self) -> str:
        """For result rows: ``long-512``, ``short-256``, ``exact-256``, ``exact-640x480`` (width x height), ``keep``."""
        if isinstance(self.value, tuple):
            height, width = self.value
            return f"exact-{width}" if height == width else f"exact-{width}x{height}"
        return "keep" if self.mode == "keep" else f"{self.mode}-{self.value}"

    def __str__(self) -> str:
        return self.label.replace("-", ":", 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of an image of that size under this policy."""
        return self.value if isinstance(self.value, tuple) else self.cover_size(height, width)

    def cover_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing, before the crop of ``exact``."""
        if isinstance(self.value, tuple):
            tall, wide = self.value
            # Whichever side needs the larger factor is met exactly; the other comes out at least as large.
            if tall * width >= wide * height:
                return tall, max(wide, _scaled(width, tall, height))
            return max(tall, _scaled(height, wide, width)), wide
        if self.mode == "keep":
            return height, width
        side = (max if self.mode == "long" else min)(height, width)
        return _scaled(height, self.value, side), _scaled(width, self.value, side)


def _scaled(length: int, numerator: int, denominator: int) -> int:
    """length * numerator / denominator, rounded half up in whole numbers, at least one pixel."""
    return max(1, (2 * length * numerator + denominator) // (2 * denominator))


def planned(
    shape: tuple[int, int], size: SizePolicy | int | str | tuple[int, int], max_pixels: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of an image of ``shape`` after resizing, and after the crop; ``size`` as :func:`resize` takes it.

    Raises :class:`InputError` for a size below one pixel and :class:`ImageError` for more than ``max_pixels``.
    """
    height, width = shape
    if isinstance(size, tuple):  # as when a result goes back to its content's shape: all of it, no crop
        if len(size) != 2 or not all(isinstance(side, Integral) for side in size):
            raise InputError(f"An image is resized to (height, width) in whole pixels, not {shown(size)}.")
        cover = wanted = size
        asked = f"{size[1]} x {size[0]}"
    else:
        policy = SizePolicy.parse(size)
        cover, wanted = policy.cover_size(height, width), policy.output_size(height, width)
        asked = str(policy)
    if min(cover) < 1:
        raise InputError(f"An image cannot be resized to {asked} pixels: give at least 1 x 1.")
    if cover != shape and cover[0] * cover[1] > max_pixels:
        raise ImageError(
            f"Resizing {width:,} x {height:,} pixels to {asked} takes {cover[1]:,} x {cover[0]:,} pixels, above the "
            f"limit of {max_pixels:,}: choose a smaller size, or raise max_pixels (--max-pixels)."
        )
    return cover, wanted


def centered(array: Any, cover: tuple[int, int], wanted: tuple[int, int]) -> Any:
    """The middle of (..., H, W) of size ``cover``, of size ``wanted``."""
    top, left = (cover[0] - wanted[0]) // 2, (cover[1] - wanted[1]) // 2
    return array[..., top : top + wanted[0], left : left + wanted[1]]
