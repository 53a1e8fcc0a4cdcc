"""Contact sheets: images in a labelled grid."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from zoo.errors import ImageError, InputError
from zoo.images.resample import resize
from zoo.images.sizes import MAX_PIXELS, MAX_SIDE, SizePolicy
from zoo.images.write import check_writable, largest_side
from zoo.words import shown

if TYPE_CHECKING:
    from torch import Tensor

# Of a sheet, which is put together in float32: half a gigabyte.
_MOST_PIXELS = MAX_PIXELS // 4
_LEAST_CELL = 32


def sheet_cell(path: str | os.PathLike[str], rows: int, columns: int, cell: int = 256) -> int:
    """Return the largest cell, up to ``cell`` pixels, with which a sheet of any images fits the format of ``path``.

    Raises :class:`ImageError`, before the work, where ``path`` cannot be written or a cell of 32 pixels is too large.
    """
    limit = largest_side(check_writable(path))
    for side in range(cell, _LEAST_CELL - 1, -1):
        # The gutters, and two lines of text above, as contact_sheet() draws them.
        gap = max(2, side // 32)
        height, width = rows * (side + gap) + 3 * gap + 40, columns * (side + gap) + gap
        if max(height, width) <= limit and height * width <= _MOST_PIXELS:
            return side
    raise ImageError(
        f"A contact sheet of {rows} rows does not fit '{path}': "
        + ("write it as PNG." if rows * _LEAST_CELL > limit else "make it of fewer pictures.")
    )


def contact_sheet(
    rows: Sequence[Sequence[Tensor | None]],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    cell: int = 256,
    gutter: int | None = None,
) -> Tensor:
    """Lay images out in a labelled grid on white: (1, 3, H, W) in [0, 1].

    rows           images (1, 3, H, W) or (3, H, W), or None for an empty place; rows may differ in length
    row_labels     one per row, at its left; ``column_labels`` one per column, above
    captions       one per image, below it, in the shape of ``rows``
    cell           the longer side of every image, in pixels; rows and columns shrink around images that are narrower
    gutter         white between and around the images; a 32nd of ``cell`` unless given

    Text that does not fit its place is cut with "...". Raises :class:`InputError` on no images, labels of another
    number, or a cell or gutter that is no such number of pixels.
    """
    import torch

    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise InputError("A contact sheet needs at least one image.")
    for labels, count, what in ((row_labels, len(rows), "row"), (column_labels, columns, "column")):
        if labels is not None and len(labels) != count:
            raise InputError(f"A contact sheet of {count} {what}s has {len(labels)} {what} labels: give one for each.")
    if captions is not None and [len(line) for line in captions] != [len(row) for row in rows]:
        raise InputError("The captions of a contact sheet must have the shape of its rows of images.")
    for what, value, least in (("cell", cell, 8), ("gutter", 0 if gutter is None else gutter, 0)):
        if not isinstance(value, int) or not least <= value <= MAX_SIDE:
            raise InputError(f"A contact sheet's {what} is {least} to {MAX_SIDE} whole pixels, not {shown(value)}.")
    gap = max(2, cell // 32) if gutter is None else gutter
    font = ImageFont.load_default(max(9, cell // 14))

    fitted = [[None if image is None else _fit(image, cell) for image in row] for row in rows]
    line = sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else 12
    shapes = [[(cell, cell) if image is None else tuple(image.shape[-2:]) for image in row] for row in fitted]
    heights = [max([line, *(height for height, _ in row)]) for row in shapes]
    widths = [max(row[i][1] for row in shapes if i < len(row)) for i in range(columns)]
    side = min(cell, max(_text_width(text, font) for text in row_labels)) + gap if row_labels else 0
    head = line + gap if column_labels else 0
    foot = line if captions else 0

    sheet = torch.ones(3, gap + head + sum(h + foot + gap for h in heights), gap + side + sum(w + gap for w in widths))
    lefts = [gap + side + sum(widths[:i]) + gap * i for i in range(columns)]
    for left, width, text in zip(lefts, widths, column_labels or (), strict=False):
        sheet[:, gap : gap + line, left : left + width] = _text(text, font, line, width)
    top = gap + head
    for i, (row, height) in enumerate(zip(fitted, heights, strict=True)):
        if row_labels:
            middle = top + (height - line) // 2
            sheet[:, middle : middle + line, gap:side] = _text(row_labels[i], font, line, side - gap)
        for j, (image, (tall, wide)) in enumerate(zip(row, shapes[i], strict=True)):
            y, x = top + (height - tall) // 2, lefts[j] + (widths[j] - wide) // 2
            if image is not None:
                sheet[:, y : y + tall, x : x + wide] = image
            if captions:
                strip = _text(captions[i][j], font, line, widths[j])
                sheet[:, y + tall : y + tall + line, lefts[j] : lefts[j] + widths[j]] = strip
        top += height + foot + gap
    return sheet[None]


def _fit(image: Tensor, cell: int) -> Tensor:
    """(3, H, W) whose longer side is ``cell``."""
    if image.ndim == 3:
        image = image[None]
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise InputError(f"A contact sheet takes images (1, 3, H, W), not {tuple(image.shape)}.")
    return resize(image.detach().cpu().float(), SizePolicy("long", cell))[0].clamp(0, 1)


def _text_width(text: str, font: Any) -> int:
    return int(font.getlength(text)) + 1


def _text(text: str, font: Any, height: int, width: int) -> Tensor:
    """Black on white, (1, height, width), cut with "..." where it is too long."""
    import torch

    # Pillow's own font knows ASCII alone: accents are dropped and anything else is shown as a question mark.
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = " ".join(plain.encode("ascii", "replace").decode().split())
    if _text_width(text, font) > width:
        while text and _text_width(text + "...", font) > width:
            text = text[:-1]
        text += "..."
    strip = PILImage.new("L", (max(1, width), height), 255)
    ImageDraw.Draw(strip).text((0, 0), text, fill=0, font=font)
    return torch.from_numpy(np.array(strip))[None].float().div_(255)
