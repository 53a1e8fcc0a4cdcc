"""What the page keeps for every visitor, and the line before the one worker.

Uploads are read into memory and their files deleted at once. Results lie in a private folder until the visitor's next
order, until the page is closed, or until there are too many visitors; the whole root goes when the server ends.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from zoo import images
from zoo.errors import ImageError, InputError
from zoo.images import Image
from zoo.serve.limits import Limits
from zoo.serve.work import Picture, Result

# An upload whose page went away before it could be read; uploads are read within seconds.
_STALE_SECONDS = 600.0


@dataclass(eq=False)
class Visit:
    """One open page: its uploads by their role (content, style, mask), its folder, and whether it asked to stop."""

    folder: Path
    uploads: dict[str, Picture] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def keep_preview(self, role: str, image: Image) -> Path:
        """The file of a small picture, in place of the earlier one of this role."""
        for old in self.folder.glob(f"{role}-*.png"):
            old.unlink(missing_ok=True)
        # A new name, because browsers keep what they fetched.
        return images.write(self.folder / f"{role}-{uuid.uuid4().hex[:8]}.png", image.pixels)

    def begin_results(self) -> Path:
        """An empty folder for the next order; the last order's results are deleted."""
        for old in self.folder.glob("results-*"):
            shutil.rmtree(old, ignore_errors=True)
        fresh = self.folder / f"results-{uuid.uuid4().hex[:8]}"
        fresh.mkdir()
        return fresh

    def keep_result(self, folder: Path, result: Result, content: str) -> Path:
        """Write a result as PNG, named after what it is; ImageError where the disk is full or the visitor left."""
        assert result.image is not None
        stem = "__".join(_plain(part) for part in (Path(content).stem, Path(result.style).stem, result.method))
        return images.write(folder / f"{stem}.png", result.image)


class Visits:
    """All open pages under one private ``root``, by their key; every call is safe from several threads."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root, self.limits = root, limits
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._line: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, key: str) -> Visit:
        """The visit of a page, begun if it is new."""
        with self._lock:
            if key not in self._visits:
                self._make_room()
                folder = self.root / "visits" / uuid.uuid4().hex
                folder.mkdir(parents=True, mode=0o700)
                self._visits[key] = Visit(folder)
            self._visits.move_to_end(key)
            return self._visits[key]

    def _make_room(self) -> None:
        idle = [key for key in self._visits if key not in self._line]
        for key in idle[: max(0, len(self._visits) - self.limits.visitors + 1)]:
            self.drop(key)

    def drop(self, key: str) -> None:
        """A page was closed: stop its work, leave the line, delete its files."""
        with self._lock:
            self._line.pop(key, None)
            visit = self._visits.pop(key, None)
        if visit is not None:
            visit.stop.set()
            shutil.rmtree(visit.folder, ignore_errors=True)

    def stop_all(self) -> None:
        """Ask whatever is in work to stop at its next step."""
        with self._lock:
            for visit in self._visits.values():
                visit.stop.set()

    def close(self) -> None:
        """End all visits and delete the root."""
        for key in list(self._visits):
            self.drop(key)
        shutil.rmtree(self.root, ignore_errors=True)

    # -- the line ---------------------------------------------------------------------------------------------------

    def enqueue(self, key: str) -> int:
        """A place in the line, and how many orders are before it; InputError where the line is full, or this page has
        an order in it already."""
        visit = self.get(key)
        with self._lock:
            if key in self._line:
                raise InputError("This page's last order is still in work: wait for it, or stop it.")
            if len(self._line) >= self.limits.waiting:
                raise InputError(
                    f"{len(self._line)} orders are in work or waiting already, which is the limit: try again in a "
                    "minute."
                )
            visit.stop.clear()
            self._line[key] = None
            return len(self._line) - 1

    def waits(self, key: str) -> bool:
        """Whether this page has a place in the line."""
        with self._lock:
            return key in self._line

    def done(self, key: str) -> None:
        """Give the place up."""
        with self._lock:
            self._line.pop(key, None)

    # -- uploads ----------------------------------------------------------------------------------------------------

    def take(self, path: str) -> Picture:
        """An uploaded file as bytes in memory; the file and its folder are deleted whatever comes of it.

        ImageError for a file that was not uploaded here, cannot be read, or is too large.
        """
        file = Path(path).resolve()
        if not file.is_relative_to(self.root.resolve()) or not file.is_file():
            raise ImageError(f"'{Path(path).name}' is not among the uploads: drop it again.")
        try:
            size = file.stat().st_size
            if size > self.limits.bytes:
                raise ImageError(
                    f"'{file.name}' has {size / 1e6:.1f} MB, above the limit of {self.limits.bytes / 1e6:g} MB: save "
                    "it smaller."
                )
            return Picture(file.read_bytes(), file.name)
        except OSError as error:
            raise ImageError(f"'{file.name}' cannot be read ({error.strerror}): drop it again.") from error
        finally:
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                file.parent.rmdir()
            self.sweep()

    def sweep(self, older_than: float = _STALE_SECONDS) -> None:
        """Delete uploads that nobody came to read."""
        for entry in self.root.iterdir():
            with contextlib.suppress(OSError):
                if entry.name != "visits" and time.time() - entry.stat().st_mtime > older_than:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)[:60] or "picture"
