"""Names as people, keyboards and file systems spell them: an accent is one character, or a letter and a mark."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

# Where none is named: any style, in one pass, with weights that ship.
DEFAULT_METHOD = "adain"


def composed(name: str) -> str:
    """Return the name with every accent and its letter as one character where there is one (Unicode's form NFC)."""
    return unicodedata.normalize("NFC", name)


def find(name: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that is ``name``, or reads the same; None where there is none."""
    names = list(known)
    if name in names:
        return name
    return next((other for other in names if composed(other) == composed(name)), None)


def on_disk(path: str | os.PathLike[str]) -> Path:
    """Return the path as the file system spells it: itself, or, where nothing is there, one that reads the same."""
    path = Path(path)
    if str(path).isascii() or os.path.lexists(path):
        return path
    folder = on_disk(path.parent) if path.parent != path else path
    try:
        return folder / (find(path.name, os.listdir(folder)) or path.name)
    except (OSError, ValueError):
        return path
