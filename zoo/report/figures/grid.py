"""The qualitative grid: a row per pair, content and style at the left, then every method; zoomed insets on request.

The automatic zoom is chosen on the content alone, before any method's picture is looked at: the square of a third of
its shorter side that holds the most detail (the largest sum of the luma's gradient magnitude).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import InputError
from zoo.report.figures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Picture = NDArray[np.float32]

AUTOMATIC_SHARE = 1 / 3
# The inset's largest width and height as shares of the picture's.
_INSET, _INSET_TALL = 0.42, 0.6
_LABEL_MM, _TWO_LABELS_MM = 3.4, 5.4
_SMALLEST_POINTS = 4.5
_GAP_MM = 0.9
# Rec. 709, as everywhere in the zoo where luma is meant.
_LUMA = (0.2126, 0.7152, 0.0722)


@dataclass(frozen=True)
class Region:
    """A rectangle as shares of width and height: left, top, width, height, all within [0, 1]."""

    left: float
    top: float
    width: float
    height: float

    def __post_init__(self) -> None:
        inside = self.left >= 0 and self.top >= 0 and self.left + self.width <= 1 + 1e-9
        if not (inside and self.top + self.height <= 1 + 1e-9 and self.width > 0 and self.height > 0):
            raise InputError(
                "A zoom region is LEFT,TOP,WIDTH,HEIGHT as shares of the picture, inside it: 0.4,0.3,0.2,0.2."
            )

    @classmethod
    def parse(cls, text: str) -> Region:
        """``0.4,0.3,0.2,0.2``; InputError otherwise."""
        try:
            left, top, width, height = (float(part) for part in text.split(","))
        except ValueError:
            raise InputError(
                f"{text!r} is no zoom region: give 'auto', or LEFT,TOP,WIDTH,HEIGHT as shares of the picture."
            ) from None
        return cls(left, top, width, height)

    def pixels(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of a picture of this size, at least one of each."""
        top, left = min(round(self.top * height), height - 1), min(round(self.left * width), width - 1)
        return (
            slice(top, max(top + 1, round((self.top + self.height) * height))),
            slice(left, max(left + 1, round((self.left + self.width) * width))),
        )


def most_detailed(content: Picture) -> Region:
    """The square of a third of the shorter side with the largest summed gradient magnitude of the luma; (H, W, 3).

    Of equal squares the first in reading order is taken.
    """
    height, width = content.shape[:2]
    side = max(2, round(min(height, width) * AUTOMATIC_SHARE))
    luma = content.astype(np.float64) @ np.asarray(_LUMA)
    down, across = np.gradient(luma) if min(luma.shape) > 1 else (np.zeros_like(luma), np.zeros_like(luma))
    summed = np.zeros((height + 1, width + 1))
    summed[1:, 1:] = np.hypot(down, across).cumsum(0).cumsum(1)
    side = min(side, height, width)
    totals = summed[side:, side:] - summed[:-side, side:] - summed[side:, :-side] + summed[:-side, :-side]
    top, left = np.unravel_index(int(totals.argmax()), totals.shape)
    return Region(float(left) / width, float(top) / height, side / width, side / height)


def sample_pairs(pairs: Sequence[tuple[str, str]], count: int, seed: int) -> list[tuple[str, str]]:
    """``count`` of the pairs in their own order, drawn with this seed; all where there are no more than that.

    A pair whose content and style are both new is taken first, so that a small sample shows many of each.
    """
    if len(pairs) <= count:
        return list(pairs)
    shuffled = list(pairs)
    random.Random(seed).shuffle(shuffled)
    chosen: list[tuple[str, str]] = []
    while len(chosen) < count:
        contents, styles = {c for c, _ in chosen}, {s for _, s in chosen}
        rest = [pair for pair in shuffled if pair not in chosen]
        chosen.append(min(rest, key=lambda pair: (pair[0] in contents) + (pair[1] in styles)))
    return [pair for pair in pairs if pair in chosen]


@dataclass(frozen=True)
class GridRow:
    """A pair: its label, its pictures (None where one is missing) in column order, and where to zoom, if anywhere.

    The first picture is the content, the second the style, which is not zoomed: it has no corresponding place.
    """

    label: str
    pictures: Sequence[Picture | None]
    zoom: Region | None = None


def grid(rows: Sequence[GridRow], columns: Sequence[str], *, width_mm: float) -> Figure:
    """The grid at exactly ``width_mm``; pictures (H, W, 3) in [0, 1] keep their pixels and their aspect ratio.

    A missing picture is an empty frame that says so. Raises InputError without rows or pictures.
    """
    if not rows or not columns or any(len(row.pictures) != len(columns) for row in rows):
        raise InputError("A grid needs at least one row, and in every row a picture (or none) for every column.")
    labels, label, cell = [row.label for row in rows], _LABEL_MM, _cell(_LABEL_MM, len(columns), width_mm)
    if any(_points(row.label, cell * _aspect(row)) <= _SMALLEST_POINTS for row in rows):
        # Content over style: half as long, twice as wide.
        labels, label = [text.replace(" × ", " ×\n") for text in labels], _TWO_LABELS_MM
        cell = _cell(label, len(columns), width_mm)
    left = label + _GAP_MM
    # Column heads: as many lines as the longest needs at about 1.25 mm per letter of 6.5 points.
    heads = [_wrapped(name, max(4, int(cell / 1.25))) for name in columns]
    head_size = min(_points(line, cell) for text in heads for line in text.split("\n"))
    head = 2.9 * max(text.count("\n") + 1 for text in heads) + _GAP_MM
    heights = [cell * _aspect(row) for row in rows]
    total = head + sum(heights) + _GAP_MM * (len(rows) - 1)
    figure = canvas.new(width_mm, total, layout=None)
    size = min(_points(line, height) for text, height in zip(labels, heights, strict=True) for line in text.split("\n"))
    top = head
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        middle = 1 - (top + height / 2) / total
        x = label / 2 / width_mm
        figure.text(x, middle, labels[number], rotation=90, ha="center", va="center", fontsize=size)
        for index, picture in enumerate(row.pictures):
            x = left + index * (cell + _GAP_MM)
            place = (x / width_mm, 1 - (top + height) / total, cell / width_mm, height / total)
            axes = figure.add_axes(place, gid=f"{row.label} / {columns[index]}")
            _draw(axes, picture, cell / height, row.zoom if index != 1 else None)
            if number == 0:
                y = 1 - (head - _GAP_MM) / total
                figure.text((x + cell / 2) / width_mm, y, heads[index], ha="center", va="bottom", fontsize=head_size)
        top += height + _GAP_MM
    return figure


def _cell(label_mm: float, columns: int, width_mm: float) -> float:
    """The width of a picture, beside labels and gaps."""
    return (width_mm - label_mm - _GAP_MM * columns) / columns


def _aspect(row: GridRow) -> float:
    """Height over width of the row: the content's, and of any picture where the content is missing."""
    picture = next((picture for picture in row.pictures if picture is not None), None)
    return 1.0 if picture is None else min(2.0, picture.shape[0] / picture.shape[1])


def _draw(axes: Axes, picture: Picture | None, shape: float, zoom: Region | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is None:
        axes.spines[:].set(visible=True, color="0.7", linewidth=0.5)
        axes.text(0.5, 0.5, "missing", ha="center", va="center", color="0.4", transform=axes.transAxes)
        return
    axes.axis("off")
    height, width = picture.shape[:2]
    # The axes have the cell's shape; a picture of another one stands in its middle.
    wide, tall = max(width, height * shape), max(height, width / shape)
    axes.imshow(picture, aspect="auto", extent=(0, width, height, 0), vmin=0, vmax=1)
    axes.set_xlim((width - wide) / 2, (width + wide) / 2)
    axes.set_ylim((height + tall) / 2, (height - tall) / 2)
    if zoom is not None:
        _draw_zoom(axes, picture, zoom)


def _draw_zoom(axes: Axes, picture: Picture, zoom: Region) -> None:
    """The region framed, and enlarged in the corner that lies farthest from it."""
    from matplotlib.patches import Rectangle

    height, width = picture.shape[:2]
    rows, columns = zoom.pixels(height, width)
    crop = picture[rows, columns]
    scale = min(_INSET * width / crop.shape[1], _INSET_TALL * height / crop.shape[0])
    wide, tall = crop.shape[1] * scale, crop.shape[0] * scale
    center = ((columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2)
    x = 0.0 if center[0] > width / 2 else width - wide
    y = 0.0 if center[1] > height / 2 else height - tall
    axes.imshow(crop, aspect="auto", extent=(x, x + wide, y + tall, y), vmin=0, vmax=1, zorder=3)
    # White inside black can be seen on every ground, in grey as well.
    frames = [
        ((columns.start, rows.start), columns.stop - columns.start, rows.stop - rows.start),
        ((x, y), wide, tall),
    ]
    for corner, across, down in frames:
        for color, line in (("black", 1.5), ("white", 0.7)):
            axes.add_patch(Rectangle(corner, across, down, fill=False, edgecolor=color, linewidth=line, zorder=4))


def _wrapped(text: str, letters: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, letters, break_long_words=False)) or text


def _points(text: str, millimetres: float) -> float:
    """The size of type at which a line keeps within a length: a letter is about two thirds of its size wide."""
    return max(_SMALLEST_POINTS, min(6.5, millimetres / 25.4 * 72 / (0.68 * max(1, len(text)))))
