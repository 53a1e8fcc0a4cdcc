"""Address, port and lifetime of the page: one process, a private folder, and nothing left behind.

The socket is bound before anything is loaded, so that a port in use is told at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.addresses import Names, address_of, listen
from zoo.extras import need

if TYPE_CHECKING:
    from zoo.apps.serve.limits import Limits

DEFAULT_PORT = 7860
_PREFIX = "zoo-serve-"
_BEGINNING_SECONDS = 60.0
# Of pages that stay open: their streams do not end by themselves.
_GRACE_SECONDS = 2


def require() -> None:
    """Raise ConfigError unless what the extra ``serve`` brings is installed."""
    # Not imported yet: that makes folders, which belong into the private one.
    need("serve", "gradio")


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user reads, for results, deleted at the end; Gradio is told of it, and to report to
    nobody. Deletes those of earlier servers that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_left(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    held = _hold(folder)
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)
        if before is None:
            os.environ.pop("GRADIO_TEMP_DIR", None)
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


def _hold(folder: Path) -> int | None:
    """Lock a folder until this process has ended, in whatever way; None where another holds it or none exist."""
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_left(folder: Path) -> None:
    with contextlib.suppress(OSError):
        state = folder.lstat()
        # A server that begins just now holds its folder a moment after it was made.
        if not stat.S_ISDIR(state.st_mode) or time.time() - state.st_mtime < _BEGINNING_SECONDS:
            return
        held = _hold(folder)
        if held is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    limits: Limits | None = None,
    methods: tuple[str, ...] = ("all",),
    device: str = "auto",
    precision: str = "auto",
    names: Iterable[str] = (),
    open_browser: bool = True,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the page until the process is interrupted (Ctrl-C, SIGTERM, SIGHUP); ``ready`` is told its address.

    ``names``: further names under which others reach it (:class:`zoo.addresses.Names`).

    Raises ConfigError (extra missing, port in use, unknown device), UnknownNameError for ``methods``.
    """
    require()
    listening = listen(host, port)
    with contextlib.closing(listening), _ending_on_signals(), private_folder() as folder, contextlib.ExitStack() as end:
        import uvicorn

        from zoo.apps.serve.application import application
        from zoo.apps.serve.arrival import protocol
        from zoo.apps.serve.limits import Limits
        from zoo.apps.serve.line import Line
        from zoo.apps.serve.visits import Visits
        from zoo.apps.serve.work import Workshop

        limits = limits or Limits()
        line = Line(Workshop(limits, methods, device, precision))
        end.callback(line.close)
        visits = Visits(folder, limits, line)
        address = address_of(listening)

        def begun() -> None:
            ready(address)
            if open_browser:
                webbrowser.open(address)

        config = uvicorn.Config(
            application(line.workshop, visits, Names(host, names)),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            http=protocol(),
            # A browser opens up to six for a page.
            limit_concurrency=6 * limits.visitors + 16,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        with contextlib.suppress(KeyboardInterrupt):
            _server(config, begun, visits.close).run(sockets=[listening])


def _server(config: Any, begun: Callable[[], None], ending: Callable[[], None]) -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            begun()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            ending()
            # Streams of pages that are still open are cut, each with a traceback otherwise.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    return Server(config)


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Inside the block SIGTERM and SIGHUP end the process in the ordinary way, so that what must be cleaned up is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    def hang_up(number: int, frame: object) -> None:
        # The server, while it runs, handles this one itself.
        signal.raise_signal(signal.SIGTERM)

    handlers = {"SIGTERM": end, "SIGHUP": hang_up}
    known = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    previous = {number: signal.signal(number, handler) for number, handler in known.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
