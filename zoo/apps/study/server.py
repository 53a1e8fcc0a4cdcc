"""``zoo study serve``: the study's page over HTTP, answers posted and kept, one file per judge.

Only the files that the study was written with are served, never the key, and what is posted is checked against the
study before anything is written. Meant for a machine's own users or a local network: there is no encryption and no
password, and whoever reaches the address can take part. What a page of another site asks for in a visitor's browser is
not answered: a request must name this machine (or a name given to :func:`make_server`), which such a page's own name
that was made to lead here does not (DNS rebinding), and a post must come from the study's own page.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import filelock

from zoo import files
from zoo.addresses import Names, address_of, listen
from zoo.apps import pace
from zoo.apps.study.answers import Answers, Key, parse_answers, read_answers
from zoo.errors import ConfigError, StudyError, reason

# A form of a hundred judgements with three questions is about 100 kB.
LARGEST_BODY = 1 << 20
MOST_JUDGES = 10_000
# A browser opens up to six, each for one picture.
MOST_CONNECTIONS = 100
# A form that was begun counts as taken for so long; then its judge is thought to have left.
_BEGUN_SECONDS = 3600.0
_MOST_BEGUN = 100
_PAGE = ("/", "/index.html")
_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Desk:
    """Hands out forms and takes answers in; every method may be called from several threads.

    ``refused`` says which files in the folder of answers do not fit the study; they are left alone. Until ``close`` no
    other desk takes answers into this folder.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` is what ``zoo study make`` wrote; StudyError where it is not, or another desk is at work there."""
        self.key = Key.read(folder / "key.json")
        self.folder = folder / "answers"
        index = folder / "send" / "index.html"
        try:
            page = index.read_text(encoding="utf-8")
        except OSError as error:
            raise StudyError(
                f"{index} cannot be read ({error.strerror}): is this a folder of 'zoo study make'?"
            ) from error
        self.page = page.replace('<body data-server="">', '<body data-server="yes">', 1).encode()
        pictures = folder / "send" / "pictures"
        self.pictures = {f"/pictures/{name}.webp": pictures / f"{name}.webp" for name in self.key.data["pictures"]}
        self._place = filelock.FileLock(folder / ".serve.lock", timeout=0)
        try:
            self.folder.mkdir(exist_ok=True)
            self._place.acquire()
            # What a server that was killed in the middle of writing left. Nobody else writes here now.
            for torn in self.folder.glob(".*.part"):
                torn.unlink(missing_ok=True)
        except filelock.Timeout:
            raise StudyError(f"Another server takes the answers of {folder}: end it first.") from None
        except OSError as error:
            raise StudyError(f"{self.folder} cannot be written to: {error.strerror}.") from error
        self.refused: list[str] = []
        self._answers: dict[str, Answers] = {}
        if any(self.folder.glob("*.json")):
            try:
                self._answers = {one.judge: one for one in read_answers([self.folder], self.key, self.refused)}
            except StudyError as error:  # none of them fits
                self.refused.append(str(error))
        # Few of each form, so that whoever asks for forms a million times takes neither memory nor time.
        self._begun: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_MOST_BEGUN))
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let another desk at the folder."""
        self._place.release()

    @property
    def judges(self) -> int:
        """Return how many have answered."""
        return len(self._answers)

    def form(self) -> int:
        """The form that was answered or begun least often, the first of several."""
        with self._lock:
            now = time.monotonic()
            taken: dict[int, int] = defaultdict(int)
            for one in self._answers.values():
                taken[one.form] += 1
            for form, times in self._begun.items():
                taken[form] += sum(now - begun < _BEGUN_SECONDS for begun in times)
            found = min(range(len(self.key.forms)), key=lambda form: (taken[form], form))
            self._begun[found].append(now)
            return found

    def take(self, text: bytes) -> Path:
        """Keep a judge's answers and return their file; StudyError where they do not fit.

        A judge may post again with more answers. He may change none that he has sent.
        """
        found = parse_answers(text, self.key, "What was sent")
        with self._lock:
            earlier = self._answers.get(found.judge)
            if earlier is not None and not found.continues(earlier):
                raise StudyError("Other answers of this judge are here already, and they are not changed.")
            if earlier is None and len(self._answers) >= MOST_JUDGES:
                raise StudyError(f"The study has the {MOST_JUDGES} judges that it takes.")
            path = self.folder / found.filename
            try:
                if earlier is None and path.exists():
                    # Answers that do not fit, or contradict others: whoever scores the study may still mend them.
                    os.replace(path, path.with_name(f"{path.name}.refused"))
                with files.replacing(path) as work:
                    work.write_bytes(_text(found, self.key))
            except (OSError, ConfigError) as error:
                # Without the path, which is not the business of whoever reaches the address.
                cause = error if isinstance(error, OSError) else error.__cause__
                why = reason(cause) if isinstance(cause, OSError) else "?"
                raise StudyError(f"The answers cannot be written ({why}): save them as a file.") from error
            if earlier is None and self._begun[found.form]:
                self._begun[found.form].popleft()
            self._answers[found.judge] = found
        return path


def _text(found: Answers, key: Key) -> bytes:
    """Return what was understood, written anew: nothing else that was sent reaches the disk."""
    answers = [{**vars(one), "order": list(one.order)} for one in found.answers]
    data = {"schema": 1, "study": key.study, **vars(found), "answers": answers}
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def make_server(folder: Path, host: str = "127.0.0.1", port: int = 0, names: Iterable[str] = ()) -> StudyServer:
    """A server of a study's folder, bound and not yet running; ConfigError where the address cannot be had, StudyError
    as :class:`Desk`.

    ``names`` are those under which judges reach it beside this machine's own and its addresses, a proxy's for example.
    """
    desk = Desk(folder)
    try:
        return StudyServer(listen(host, port), desk, Names(host, names))
    except ConfigError:
        desk.close()
        raise


class StudyServer(ThreadingHTTPServer):
    """``serve_forever`` until ``shutdown``; ``url`` is where the page is.

    Where more than MOST_CONNECTIONS are open, the one that was opened longest ago is cut, and so is any that is slower
    than :mod:`zoo.apps.pace` lets it be: neither keeps judges out or ever more threads in.
    """

    daemon_threads = True

    def __init__(self, listening: socket.socket, desk: Desk, names: Names) -> None:
        self.desk, self.names = desk, names
        # Until when each has time, and what of it ends then. An answer ends its connection, so that one opened long ago
        # is slow.
        self._open: dict[socket.socket, tuple[float, int]] = {}
        self._lock = threading.Lock()
        super().__init__(listening.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = (time.monotonic() + pace.SECONDS, socket.SHUT_RDWR)
            if len(self._open) > MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):  # it has just ended
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def give_time(self, request: Any, length: int, ending: int = socket.SHUT_RDWR) -> None:
        """Let a connection send or read ``length`` bytes from now on; ``ending`` is shut down where it takes longer."""
        with self._lock:
            if request in self._open:  # it may be cut already
                self._open[request] = (time.monotonic() + pace.seconds(length), ending)

    def service_actions(self) -> None:
        with self._lock:
            for request, (end, ending) in self._open.items():
                if time.monotonic() > end:
                    with contextlib.suppress(OSError):  # it has just ended
                        request.shutdown(ending)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        self.desk.close()

    @property
    def url(self) -> str:
        """The address for a browser on this machine."""
        return address_of(self.socket)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor who hangs up is no error of ours; nothing prints from here."""


class _Handler(BaseHTTPRequestHandler):
    server: StudyServer
    server_version, sys_version = "study", ""

    def _stranger(self) -> bool:
        """Return whether the request is another site's, and refuse it then."""
        page = self.command != "POST" and self.path.partition("?")[0] in _PAGE
        if refused := self.server.names.refusal(self.headers, opening=page):
            self._error(*refused)
        return refused is not None

    def do_GET(self) -> None:
        if self._stranger():
            return
        path = self.path.partition("?")[0]
        desk = self.server.desk
        if path in _PAGE:
            self._reply(200, desk.page, "text/html; charset=utf-8")
        elif path in desk.pictures:
            try:
                self._reply(200, desk.pictures[path].read_bytes(), "image/webp")
            except OSError:
                self._error(404, "This picture is gone from the study's folder.")
        else:
            self._error(404, "There is nothing here.")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        if self._stranger():
            return
        if self.path == "/form":
            self._json(200, {"form": self.server.desk.form()})
            return
        if self.path != "/answers":
            self._error(404, "There is nothing here.")
            return
        length = self.headers.get("Content-Length", "")
        # Another site's page cannot send this type without asking first, and such questions are not answered here.
        if self.headers.get_content_type() != "application/json":
            self._error(415, "Answers are sent as JSON.")
        elif not length.isdecimal():
            self._error(411, "The length of the answers is missing.")
        elif len(length) > 9 or int(length) > LARGEST_BODY:
            self._error(413, f"Answers take at most {LARGEST_BODY} bytes.")
        else:
            # Nothing more is read where that takes too long, and that can still be said.
            self.server.give_time(self.connection, int(length), socket.SHUT_RD)
            text = self.rfile.read(int(length))
            if len(text) < int(length):
                self._error(408, "This took too long to arrive.")
                return
            try:
                self.server.desk.take(text)
            except StudyError as error:
                self._error(400, str(error))
            else:
                self._json(200, {"kept": True})

    def _json(self, status: int, data: dict[str, Any]) -> None:
        self._reply(status, json.dumps(data).encode(), "application/json")

    def _error(self, status: int, sentence: str) -> None:
        # What was not read would be taken for the next request.
        self.close_connection = True
        self._json(status, {"error": sentence})

    def _reply(self, status: int, body: bytes, kind: str) -> None:
        self.server.give_time(self.connection, len(body))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing prints from here."""
