"""Folders and lists of files: which images they stand for, in which order, and what is left out."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from zoo.errors import ImageError, reason
from zoo.images.builtin import BUILTIN_PREFIX, builtin
from zoo.images.decode import READABLE
from zoo.names import on_disk

# Names that browsers, cameras and systems give to the formats that are read.
READ_EXTENSIONS = (
    ".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pjp", ".pjpeg", ".png", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
# What systems put into folders by themselves is nobody's picture, so it is not spoken of.
_OF_THE_SYSTEM = ("desktop.ini", "thumbs.db")
_NAMED = 3  # so many files left out are named; more are counted by their extension


def list_images(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, told: Callable[[str], None] | None = None
) -> list[Path]:
    """Return the image files that files and folders stand for, each once.

    Named files stay in the order given, since style weights refer to it; a folder gives its own image files (not those
    of folders inside it, and no hidden ones), numbers in their names in numerical order. ``builtin:NAME`` passes
    through. A file reached twice, also through a link, is kept the first time. ``told`` is given one sentence for every
    folder of which files are left out.

    Raises :class:`ImageError` on a path that does not exist or a folder without images, :class:`UnknownNameError` on
    an unknown built-in name.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: dict[str, Path] = {}
    for given in paths:
        if given == "":  # which Path takes for the folder it is called in
            raise ImageError("A path is empty: name a file or a folder.")
        path = on_disk(given)
        if str(path).startswith(BUILTIN_PREFIX):
            builtin(str(path).removeprefix(BUILTIN_PREFIX))
            found.setdefault(str(path), path)
            continue
        try:
            if path.is_dir():
                files, others, folders = scan(path)
                if not files:
                    raise ImageError(_no_images(path, others, folders))
                if others and told is not None:
                    told(f"{path}: {_count(others)} left out ({_named(others)}); the zoo reads {READABLE}.")
                for real, file in sorted(files, key=lambda pair: _natural_order(pair[1].name)):
                    found.setdefault(real, file)
            elif path.exists():
                found.setdefault(os.path.realpath(path), path)
            else:
                raise ImageError(f"'{path}' does not exist: check the path.")
        except (OSError, ValueError) as error:
            raise ImageError(f"'{path}' cannot be read ({reason(error)}): check its permissions.") from error
    return list(found.values())


def scan(folder: Path) -> tuple[list[tuple[str, Path]], list[str], list[Path]]:
    """Return what lies in a folder, in no order: images with their real paths, names left out, folders.

    Hidden entries are in none of the three. One call to the system for the whole folder and none for its ordinary
    files: a folder may hold a hundred thousand. Raises OSError where the folder cannot be read.
    """
    files: list[tuple[str, Path]] = []
    others: list[str] = []
    folders: list[Path] = []
    real = os.path.realpath(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is(entry.is_dir):
                folders.append(folder / entry.name)
            elif _is(entry.is_file) and os.path.splitext(entry.name)[1].lower() in READ_EXTENSIONS:
                target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                files.append((target, folder / entry.name))
            elif entry.name.lower() not in _OF_THE_SYSTEM:
                others.append(entry.name)
    return files, others, folders


def walk(folder: Path) -> list[Path]:
    """Return the images of a folder and of all folders inside it, sorted by their paths.

    Hidden files and folders are left out. A link to a folder is followed, but no folder is entered twice, so that links
    in a circle end. Raises :class:`ImageError` where a folder cannot be read.
    """
    found: list[Path] = []
    entered: set[str] = set()
    waiting, links = [folder], []
    while waiting or links:
        # Links last: what can be reached by a path of its own is listed under that.
        folder = waiting.pop() if waiting else links.pop()
        real = os.path.realpath(folder)
        if real in entered:
            continue
        entered.add(real)
        try:
            files, _, folders = scan(folder)
        except OSError as error:
            raise ImageError(f"'{folder}' cannot be read ({reason(error)}): check its permissions.") from error
        found += [file for _, file in files]
        for inner in sorted(folders, reverse=True):
            (links if inner.is_symlink() else waiting).append(inner)
    return sorted(found)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link that leads to itself
        return False


def _no_images(folder: Path, others: list[str], folders: list[Path]) -> str:
    what = f" (left out: {_named(others)})" if others else ""
    if folders and not others:
        first = min(folders, key=lambda path: _natural_order(path.name))
        return f"The folder '{folder}' holds no images itself, only folders: name one of them, such as '{first}'."
    return f"The folder '{folder}' holds no images{what}: put {READABLE} files into it."


def _count(names: list[str]) -> str:
    return "1 file is" if len(names) == 1 else f"{len(names)} files are"


def _named(names: list[str]) -> str:
    """A few names, or how many there are of every extension."""
    if len(names) <= _NAMED:
        return ", ".join(sorted(names, key=_natural_order))
    kinds = Counter(os.path.splitext(name)[1].lower() or "without extension" for name in names)
    shown = [f"{count} {kind}" for kind, count in kinds.most_common(_NAMED)]
    rest = len(names) - sum(count for _, count in kinds.most_common(_NAMED))
    return ", ".join(shown + ([f"{rest} others"] if rest else []))


def _natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Orders frame2 before frame10; the name itself decides between equals, so the order is total."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", name.casefold())
    return [(0, int(digits), "") if digits else (1, 0, text) for digits, text in parts], name
