"""Files that are fetched once and kept: where they go, what forbids fetching, and a download that can be broken off.

Environment: ``ZOO_HOME`` is the folder that keeps what is fetched; ``ZOO_MIRROR`` a base URL that replaces scheme and
host of every URL, so that no other host is asked, not where it redirects to one either; ``ZOO_OFFLINE=1`` forbids
contacting any. ``TORCH_HOME`` is the
folder of what torch's users share, and ``XDG_CACHE_HOME`` that of both where they are not set.
"""

from __future__ import annotations

import http.client
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from zoo.errors import DownloadRequiredError, ZooError
from zoo.files import sha256 as file_sha256

Progress = Callable[[int, int], None]

_NAME = "style-transfer-zoo"
_CHUNK = 1 << 18
_ATTEMPTS = 4  # of which each must bring something, or it is the last
_TIMEOUT = 30.0  # seconds without a byte


def home() -> Path:
    """Folder for what the zoo keeps on this machine: ``ZOO_HOME``, else the user's cache folder."""
    try:
        return Path(os.path.expanduser(os.environ.get("ZOO_HOME") or platformdirs.user_cache_dir(_NAME)))
    except RuntimeError:  # a user without a home folder: nothing is kept, and make_folder says so
        return Path("~", ".cache", _NAME)


def torch_home() -> Path:
    """Return the folder in which torch hub keeps weights, and all who use it find them: below ``TORCH_HOME``."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def make_folder(folder: Path, variable: str, error: type[ZooError]) -> None:
    """Make a folder that ``variable`` places; an ``error`` naming what placed it where no file can be made there."""
    origin = next((name for name in (variable, "XDG_CACHE_HOME") if os.environ.get(name)), "")
    try:
        if folder.parts[:1] == ("~",):
            raise OSError(0, "there is no home folder")
        folder.mkdir(parents=True, exist_ok=True)
        # The file system's own answer: permission bits say nothing of read-only mounts or of root.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as reason:
        raise error(
            f"The folder {folder}{f' (from {origin})' if origin else ''} cannot be written to ({reason.strerror}): "
            f"set {variable} to one that can."
        ) from reason


def offline() -> bool:
    """Return whether ``ZOO_OFFLINE`` forbids contacting another host."""
    return os.environ.get("ZOO_OFFLINE", "").lower() not in ("", "0", "false", "no")


def mirrored(url: str) -> str:
    """``url`` with scheme and host replaced by ``ZOO_MIRROR``, where that is set."""
    mirror = os.environ.get("ZOO_MIRROR", "")
    if not mirror:
        return url
    parts = urlsplit(url)
    return mirror.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")


def fetch(
    what: str,
    url: str,
    path: Path,
    *,
    variable: str,
    error: type[ZooError],
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Bring a file to ``path`` as :func:`download` does, in a folder that ``variable`` places; one process at a time.

    Where another process brought it meanwhile, or it was there, nothing is fetched. Raises DownloadRequiredError where
    ``ZOO_OFFLINE`` forbids it.
    """
    from filelock import FileLock

    if offline():
        raise DownloadRequiredError(
            f"{what} are not on this machine and ZOO_OFFLINE forbids fetching them: unset it, or copy the file to "
            f"{path}."
        )
    make_folder(path.parent, variable, error)
    with FileLock(f"{path}.lock"):
        if not path.is_file() or (sha256 is not None and not file_sha256(path).startswith(sha256)):
            download(what, url, path, size=size, sha256=sha256, error=error, progress=progress)


def download(
    what: str,
    url: str,
    path: Path,
    *,
    error: type[ZooError],
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Bring the file at ``url`` (see :func:`mirrored`) to ``path``, where it appears only once it is whole.

    What an earlier attempt brought lies beside it as ``.part`` and is gone on from (HTTP Range). The caller keeps other
    processes away. ``sha256`` (all of its digits, or the first) and ``size`` in bytes are checked where they are known.
    Of a file whose ``sha256`` is not, the server must say by its ETag that it still is the one begun, or it comes from
    its beginning again, and it must begin as a file of weights does.
    ``what`` begins the sentence of an ``error``, raised where the file cannot be fetched or is another one;
    ``progress`` is told (bytes so far, of how many).
    """
    url = mirrored(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    tag = part.with_name(part.name + ".etag") if sha256 is None else None
    _receive_all(what, url, part, tag, size, error, progress)
    if sha256 is None and not _begins_as_weights(part):
        part.unlink()
        raise error(f"What {url} sent is not {_inside(what)} (it is no file of weights): nothing was kept.")
    if sha256 is not None and not file_sha256(part).startswith(sha256):
        part.unlink()
        raise error(f"What {url} sent is not {_inside(what)} (sha256 differs): nothing was kept.")
    os.replace(part, path)
    if tag is not None:
        tag.unlink(missing_ok=True)


def _begins_as_weights(path: Path) -> bool:
    """Return whether a file begins as safetensors, a zip (torch's, numpy's) or a pickle (torch's older), not as a page
    that some portal sent in its place."""
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return True
    # The length of the JSON, then the JSON.
    return head[8:] == b"{" and 8 + int.from_bytes(head[:8], "little") <= path.stat().st_size


def _inside(what: str) -> str:
    """``what`` within a sentence."""
    return what[0].lower() + what[1:] if what.startswith("The ") else what


def _receive_all(
    what: str,
    url: str,
    part: Path,
    tag: Path | None,
    size: int | None,
    error: type[ZooError],
    progress: Progress | None,
) -> None:
    """Bring ``part`` to ``size`` bytes, or to as many as the server announces, going on from what is there.

    ``tag`` keeps the ETag of what ``part`` began as, without which ``part`` is not gone on from; None where a hash will
    tell.
    """
    whence = f"{url} (ZOO_MIRROR)" if os.environ.get("ZOO_MIRROR") else url
    for attempt in range(1, _ATTEMPTS + 1):
        if tag is not None and not tag.exists():
            part.unlink(missing_ok=True)
        before = part.stat().st_size if part.exists() else 0
        if size is not None and before > size:
            part.unlink()
            before = 0
        if before == size:
            return
        try:
            size = _receive(url, part, tag, before, size, progress)
            reason = f"it ended after {part.stat().st_size} of {size} bytes"
        except urllib.error.HTTPError as refusal:
            refusal.close()
            if refusal.code == 416:  # the whole of it is here, or of another file: from the beginning
                part.unlink()
                before = -1
            reason = f"{refusal.code} {refusal.reason}"
            if refusal.code not in (408, 416, 429, 500, 502, 503, 504):
                raise error(f"{what} cannot be fetched from {whence}: {reason}.") from refusal
        except (OSError, http.client.HTTPException, ValueError, OverflowError) as failure:  # the last two: no URL
            reason = str(getattr(failure, "reason", "") or failure) or type(failure).__name__
        after = part.stat().st_size if part.exists() else 0
        if after == size:
            return
        if size is not None and after > size:
            part.unlink()
            raise error(f"What {url} sent is not {_inside(what)} (it is longer): nothing was kept.")
        if attempt == _ATTEMPTS or after <= before:
            going_on = after > 0 and (tag is None or tag.exists())
            kept = f"; the {after / 1e6:.1f} MB that came are kept, the same command goes on from there" * going_on
            raise error(f"{what} cannot be fetched from {whence}: {reason}{kept}.")
        time.sleep(0.2 * attempt)


def _receive(url: str, part: Path, tag: Path | None, begin: int, size: int | None, progress: Progress | None) -> int:
    """Receive what is left; returns how many bytes the whole file has, as was known or as the server says."""
    begun_as = tag.read_text(encoding="ascii") if tag is not None and begin else ""
    headers = {"Range": f"bytes={begin}-", **({"If-Range": begun_as} if begun_as else {})} if begin else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT) as answer:
        # A server without ranges sends the whole file again.
        going_on = answer.status == 206
        etag = answer.headers.get("ETag", "")
        if going_on and begun_as not in ("", etag):  # one that knows nothing of If-Range
            raise urllib.error.HTTPError(url, 416, "it is another file by now", answer.headers, answer)
        done = begin if going_on else 0
        if size is None and (length := answer.headers.get("Content-Length", "")).isdigit():
            size = done + int(length)
        with part.open("ab" if going_on else "wb") as file:
            if tag is not None and not going_on:
                # A weak one (W/) is also that of files whose bytes differ.
                tag.unlink(missing_ok=True)
                if etag.startswith('"') and etag.isascii():
                    tag.write_text(etag, encoding="ascii")
            while chunk := answer.read1(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, size or done)
                if size is not None and done > size:
                    break
    return done if size is None else size


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, with ``ZOO_MIRROR`` on the mirror's host alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        host = urlsplit(newurl).hostname
        if os.environ.get("ZOO_MIRROR") and host != urlsplit(req.full_url).hostname:
            raise urllib.error.HTTPError(
                req.full_url, code, f"it redirects to {host}, and no host but the mirror is asked", headers, fp
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
