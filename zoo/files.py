"""Files that appear whole or not at all, their hashes and locks, and where packaged data lies.

Everything that the zoo writes goes through :func:`replacing` or :func:`new_folder`, so a full disk, a read-only folder
or a kill in the middle leaves what was there before and one sentence that names the path.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil

from zoo.errors import ConfigError, ZooError, reason

PACKAGE = Path(__file__).parent


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hex digits; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary(path: Path) -> Path:
    """Return an unused hidden name beside ``path``: short, because the name of ``path`` may be as long as names get.

    It tells the machine and the process, so that what a killed one left is removed by the next that writes there.
    """
    _sweep(path.parent)
    return path.with_name(f".zoo-{_HOST}-{os.getpid()}-{secrets.token_hex(6)}.part")


_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_LEFT = re.compile(rf"\.zoo-{_HOST}-(\d+)-[0-9a-f]+\.part")
_swept: set[str] = set()


def _sweep(folder: Path) -> None:
    """Remove what killed processes of this machine left in ``folder``; once per process, as folders may be large."""
    key = os.path.realpath(folder)
    if key in _swept:
        return
    _swept.add(key)
    with contextlib.suppress(OSError), os.scandir(key) as entries:
        for entry in entries:
            found = _LEFT.fullmatch(entry.name)
            if found and not psutil.pid_exists(int(found[1])):
                _remove(Path(entry.path))


def _remove(path: Path) -> None:
    """Remove a file or a folder, as far as the system lets; nothing where there is none."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def check_place(path: str | os.PathLike[str], error: type[ZooError] = ConfigError) -> Path:
    """Return the path; raise ``error`` where it is a folder, or its own folder does not exist."""
    path = Path(path)
    try:
        if path.is_dir():
            raise error(f"'{path}' is a folder: name the file to write in it.")
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise error(
                f"'{path}' cannot be written because its folder '{folder}' "
                + ("is a file: choose another." if folder.exists() else "does not exist: create it first.")
            )
    except (OSError, ValueError) as failure:
        raise error(f"'{path}' cannot be written ({reason(failure)}): choose another place.") from failure
    return path


def check_writable(path: str | os.PathLike[str], error: type[ZooError] = ConfigError) -> Path:
    """:func:`check_place`, and whether a file can be created there: tried, since permissions do not tell of read-only
    and full file systems. For before long work."""
    path = check_place(path, error)
    probe = temporary(Path(os.path.realpath(path)))
    try:
        try:
            probe.touch(exist_ok=False)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as failure:
        raise error(
            f"'{path}' cannot be written ({reason(failure)}): choose a folder in which you may create files."
        ) from failure
    return path


def check_creatable(path: str | os.PathLike[str], error: type[ZooError] = ConfigError) -> Path:
    """:func:`check_writable` of a file whose missing folders are made with it: nothing of them is made here."""
    first = Path(path)
    while not first.parent.exists() and first.parent != first:
        first = first.parent
    check_writable(first, error)
    return Path(path)


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], error: type[ZooError] = ConfigError, *, flush: bool = True
) -> Iterator[Path]:
    """Give the block a path to write to; its file becomes ``path`` in one move when the block ends without an error.

    A link keeps pointing where it did. Whatever happens, no temporary file stays. ``flush`` brings the file to the disk
    first, which thousands of pictures do not need. An OSError, in the block too, is raised as ``error``: one sentence
    with the path and the reason.
    """
    shown, target = Path(path), Path(os.path.realpath(path))
    work = temporary(target)
    try:
        try:
            yield work
            if flush:
                _flush(work)
            os.replace(work, target)
        finally:
            _remove(work)
    except OSError as failure:
        raise error(f"{shown} cannot be written ({reason(failure)}): choose another place.") from failure


def write(path: str | os.PathLike[str], data: bytes | memoryview | str, error: type[ZooError] = ConfigError) -> Path:
    """Write a file in one move, text as UTF-8; return its path. Raises ``error`` where it cannot be written.

    A byte of a file's name that is no text stands in Python's strings as a lone surrogate, and is written as an escape.
    """
    with replacing(path, error) as work:
        work.write_bytes(data.encode(errors="backslashreplace") if isinstance(data, str) else data)
    return Path(path)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], error: type[ZooError] = ConfigError) -> Iterator[Path]:
    """Give the block an empty folder to fill; it takes the place of ``path``, and of what was there, when it ends.

    Missing parents are made. A failing block, or a failing move, leaves ``path`` as it was and nothing beside it; links
    and errors as in :func:`replacing`.
    """
    shown, target = Path(path), Path(os.path.realpath(path))
    work, old = temporary(target), temporary(target)
    try:
        try:
            work.mkdir(parents=True)
            yield work
            if target.exists():
                os.replace(target, old)
            os.replace(work, target)
        finally:
            if old.exists() and not target.exists():
                os.replace(old, target)
            for rest in (work, old):
                _remove(rest)
    except OSError as failure:
        raise error(f"{shown} cannot be written ({reason(failure)}): choose another place.") from failure


def place(source: Path, target: Path, error: type[ZooError] = ConfigError, *, flush: bool = True) -> None:
    """Put the file ``source`` at ``target`` in one move: as a second name where the disk can, else as a copy.

    ``flush`` as in :func:`replacing`."""
    with replacing(target, error, flush=flush) as work:
        try:
            os.link(source, work)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, work)


def _flush(path: Path) -> None:
    """Bring a file to the disk before it replaces another: a machine that stops must not leave an empty one."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


__all__ = [
    "PACKAGE",
    "check_creatable",
    "check_place",
    "check_writable",
    "new_folder",
    "place",
    "replacing",
    "sha256",
    "temporary",
    "write",
]
