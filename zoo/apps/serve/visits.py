"""What the page keeps for every visitor: uploads in memory, pictures on disk, and the order that is in work.

A page is there as long as its browser holds a connection open for that purpose (:meth:`Visits.came`), and a while
longer. Then its order is stopped and its files are deleted; the whole root goes when the server ends.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from torch import Tensor

from zoo import images
from zoo.apps.serve.limits import Limits
from zoo.apps.serve.line import Job, Line
from zoo.apps.serve.work import Order, Picture, Result
from zoo.errors import ImageError, InputError
from zoo.images import Image
from zoo.words import counted, visible

# How long a page is kept after its last sign of life: a reload of its connection takes a moment.
_GRACE_SECONDS = 10.0
# How long an upload waits for its page to ask for it; pages wait themselves where many are busy.
_UPLOAD_SECONDS = 120.0


@dataclass(eq=False)
class Visit:
    """One open page: its uploads by their role (content, style, mask), its pictures in ``folder``, its last order.

    Pictures are given out as addresses: ``/pictures/`` and the path below ``root``, whose first part nobody can guess.
    """

    root: Path
    folder: Path
    uploads: dict[str, Picture] = field(default_factory=dict)
    job: Job | None = None
    told: int = -1
    connections: int = 0
    seen: float = field(default_factory=time.monotonic)
    gone: bool = False

    def keep_preview(self, role: str, image: Image) -> str:
        """The address of a small picture, in place of the earlier one of this role."""
        with contextlib.suppress(FileNotFoundError):  # where the visitor leaves meanwhile, _keep says so
            for old in self.folder.glob(f"{role}-*.png"):
                old.unlink(missing_ok=True)
        # A new name, because browsers keep what they fetched.
        return self._keep(self.folder / f"{role}-{uuid.uuid4().hex[:8]}.png", image.pixels)

    def keep_result(self, folder: Path, result: Result, content: str) -> str:
        """The address of a result, a PNG or an MP4 in ``folder``, named after what it is."""
        stem = "__".join(_plain(part) for part in (Path(content).stem, Path(result.style).stem, result.method))
        if result.film is not None:
            path = folder / f"{stem}.mp4"
            try:
                result.film.replace(path)
            except OSError as error:
                raise ImageError(f"The film cannot be kept ({error.strerror}).") from error
            return self._address(path)
        assert result.image is not None  # only pictures and films are kept
        return self._keep(folder / f"{stem}.png", result.image)

    def _keep(self, path: Path, image: Tensor) -> str:
        """Write an image; ImageError where the disk is full or the visitor left."""
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ImageError(f"The picture cannot be kept ({error.strerror}).") from error
        try:
            images.write(path, image)
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), path.name)) from error
        return self._address(path)

    def _address(self, path: Path) -> str:
        if self.gone:
            # It left while this was written.
            self.clear()
        return "/pictures/" + quote(path.relative_to(self.root).as_posix())

    def clear(self) -> None:
        """Delete its files."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Visits:
    """All open pages, by their key; every call is safe from several threads."""

    def __init__(self, root: Path, limits: Limits, line: Line, grace: float = _GRACE_SECONDS) -> None:
        self.pictures, self.limits, self.line, self.grace = root / "pictures", limits, line, grace
        self.pictures.mkdir(mode=0o700)
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._received: dict[str, tuple[Picture, float]] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._visits)

    def get(self, key: str) -> Visit:
        """The visit of a page, begun if it is new; InputError where too many pages are open."""
        with self._lock:
            if key not in self._visits:
                self._make_room()
                folder = self.pictures / uuid.uuid4().hex
                folder.mkdir(mode=0o700)
                self._visits[key] = Visit(self.pictures, folder)
            visit = self._visits[key]
            visit.seen = time.monotonic()
            self._visits.move_to_end(key)
            return visit

    def _make_room(self) -> None:
        if len(self._visits) < self.limits.visitors:
            return
        # Whoever asks without an open page (a program, or a page that has just left) gives way.
        for key, visit in self._visits.items():
            if not visit.connections:
                self.drop(key)
                return
        raise InputError(f"No more than {counted(self.limits.visitors, 'page')} can be open at once: try again later.")

    def came(self, key: str) -> Visit:
        """A page's connection was opened; InputError where too many pages are open."""
        with self._lock:
            visit = self.get(key)
            visit.connections += 1
            return visit

    def went(self, visit: Visit) -> None:
        """A page's connection was closed."""
        with self._lock:
            visit.connections -= 1
            visit.seen = time.monotonic()

    def sweep(self) -> None:
        """Drop the pages that were left, and uploads that nobody came for."""
        with self._lock:
            now = time.monotonic()
            left = [k for k, visit in self._visits.items() if not visit.connections and now - visit.seen > self.grace]
            for key in left:
                self.drop(key)
            fresh = {token: kept for token, kept in self._received.items() if now - kept[1] <= _UPLOAD_SECONDS}
            self._received = fresh

    def drop(self, key: str) -> None:
        """A page was left: stop its work, give its place up, delete its files."""
        with self._lock:
            visit = self._visits.pop(key, None)
        if visit is not None:
            visit.gone = True
            if visit.job is not None:
                self.line.stop(visit.job)
            visit.clear()

    def close(self) -> None:
        """End all visits."""
        for key in list(self._visits):
            self.drop(key)

    # -- orders -----------------------------------------------------------------------------------------------------

    def order(self, key: str, order: Order) -> int:
        """Put an order in the line, and say how many are before it; InputError where the line is full, this page's last
        order is not done, or no page is open that could show what comes of it."""
        with self._lock:
            visit = self.get(key)
            if not visit.connections:
                raise InputError("The page has lost its connection: reload it.")
            if visit.job is not None and not visit.job.done:
                raise InputError("This page's last order is still in work: wait for it, or stop it.")
            earlier = list(visit.folder.glob("results-*"))
            folder = visit.folder / f"results-{uuid.uuid4().hex[:8]}"
            job = Job(
                order,
                folder,
                lambda result: visit.keep_result(folder, result, order.content.name),
                # A film that is being made when its page leaves may make its folder anew.
                lambda: visit.gone and visit.clear(),
            )
            self.line.join(job)
            visit.job, visit.told = job, -1
            for old in earlier:
                shutil.rmtree(old, ignore_errors=True)
            return self.line.before(job)

    # -- uploads ----------------------------------------------------------------------------------------------------

    def receive(self, name: str, data: bytes) -> str:
        """Keep a file that was uploaded for a moment, and return the token by which its page asks for it.

        ImageError where it is too large, or where too much is kept already.
        """
        name = _shown(name)
        if len(data) > self.limits.bytes:
            raise ImageError(
                f"'{name}' has {len(data) / 1e6:.1f} MB, above the limit of {self.limits.bytes / 1e6:g} MB: save it "
                "smaller."
            )
        with self._lock:
            self.sweep()
            kept = [picture for picture, _ in self._received.values()]
            kept += [picture for visit in self._visits.values() for picture in visit.uploads.values()]
            if sum(len(picture.source) for picture in kept) + len(data) > self.limits.held:
                raise ImageError(
                    f"All pages together hold {self.limits.held / 1e6:g} MB of pictures, which is the limit: try again "
                    "later, or a smaller file."
                )
            token = secrets.token_urlsafe(16)
            self._received[token] = (Picture(data, name), time.monotonic())
        return token

    def take(self, token: str) -> Picture:
        """Return what was received under a token, once; ImageError where there is nothing (any more)."""
        with self._lock:
            picture, _ = self._received.pop(token, (None, 0.0))
        if picture is None:
            raise ImageError("The file was not uploaded here, or too long ago: drop it again.")
        return picture


def _shown(name: str) -> str:
    """A file's name as it is shown: without folders."""
    return visible(name.replace("\\", "/").rpartition("/")[2])[:100] or "picture"


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)[:60] or "picture"
