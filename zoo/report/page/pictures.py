"""Pictures of a run as WebP: one to look at in full, one small enough to show a thousand of.

They are for the eye and lossy; the run's own PNG files, which the metrics read, stay where they are.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from zoo.errors import ImageError

THUMBNAIL = 320
_QUALITY, _THUMBNAIL_QUALITY = 90, 80
# The format's limit of a side.
_LARGEST_WEBP = 16_383


@dataclass(frozen=True)
class Published:
    """A picture of the page: addresses relative to index.html, and its size in pixels."""

    source: str
    thumbnail: str
    width: int
    height: int


def publish(picture: Path, folder: Path) -> Published | None:
    """Write ``pictures/NAME.webp`` and ``thumbnails/NAME.webp`` under ``folder``; None where there is no such picture.

    A side above WebP's 16383 pixels leaves the file as it is. Raises ImageError for a damaged picture.
    """
    if not picture.exists():
        return None
    try:
        with Image.open(picture) as opened:
            image = opened.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise ImageError(f"{picture} cannot be read ({error}): 'zoo bench --again' makes it anew.") from error
    if max(image.size) > _LARGEST_WEBP:
        source = folder / "pictures" / picture.name
        shutil.copyfile(picture, source)
    else:
        source = folder / "pictures" / f"{picture.stem}.webp"
        # Method 2 of 6: nearly as small, and several times faster than the default.
        image.save(source, "WEBP", quality=_QUALITY, method=2)
    thumbnail = folder / "thumbnails" / f"{picture.stem}.webp"
    width, height = image.size
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, reducing_gap=2.0)
    image.save(thumbnail, "WEBP", quality=_THUMBNAIL_QUALITY, method=2)
    return Published(_address(source, folder), _address(thumbnail, folder), width, height)


def _address(path: Path, folder: Path) -> str:
    return quote(os.path.relpath(path, folder).replace(os.sep, "/"))
