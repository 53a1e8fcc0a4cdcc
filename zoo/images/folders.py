"""Folders and lists of files: which images they stand for, in which order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from zoo.errors import ImageError, reason
from zoo.images.builtin import BUILTIN_PREFIX, builtin
from zoo.images.read import READABLE

READ_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def list_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files and folders -> the image files they stand for, each once.

    Named files stay in the order given, since style weights refer to it; a folder gives its own image files (not those
    of folders inside it, and no hidden ones), numbers in their names in numerical order. ``builtin:NAME`` passes
    through. A file reached twice, also through a link, is kept the first time.

    Raises :class:`ImageError` on a path that does not exist or a folder without images, :class:`UnknownNameError` on
    an unknown built-in name.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        if str(path).startswith(BUILTIN_PREFIX):
            builtin(str(path).removeprefix(BUILTIN_PREFIX))
            found.setdefault(str(path), path)
            continue
        try:
            files = [path]
            if path.is_dir():
                files = sorted((entry for entry in path.iterdir() if _is_listed(entry)), key=_natural_order)
                if not files:
                    raise ImageError(f"The folder '{path}' holds no images: put {READABLE} files into it.")
            elif not path.exists():
                raise ImageError(f"'{path}' does not exist: check the path.")
            for file in files:
                found.setdefault(os.path.realpath(file), file)
        except (OSError, ValueError) as error:
            raise ImageError(f"'{path}' cannot be read ({reason(error)}): check its permissions.") from error
    return list(found.values())


def _is_listed(path: Path) -> bool:
    return path.suffix.lower() in READ_EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _natural_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Orders frame2 before frame10; the name itself decides between equals, so the order is total."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", path.name.casefold())
    return [(0, int(digits), "") if digits else (1, 0, text) for digits, text in parts], path.name
