"""Address, port and lifetime of the page: one process, a private folder, and nothing left behind.

The socket is bound before anything is loaded, so that a port in use is told at once. The page may fetch from its own
address alone (Content-Security-Policy), and on a loopback address it answers only to local names, so that no other
site open in the same browser can talk to it under a name of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError

if TYPE_CHECKING:
    from zoo.serve.limits import Limits

DEFAULT_PORT = 7860
# Gradio's scripts are partly inline and compile templates in the browser.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'; "
    "base-uri 'self'"
)
# Of pages that stay open: their streams do not end by themselves.
_GRACE_SECONDS = 2


def require() -> None:
    """ConfigError unless what the extra ``serve`` brings is installed."""
    # Not imported yet: that makes folders, which belong into the private one.
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("The page needs the package gradio: run \"pip install 'style-transfer-zoo[serve]'\".")


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine alone; a name other than localhost is taken as public."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. ConfigError where the port is in use or the host is not ours."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"A port is a number from 0 to 65535, not {port}.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Port {port} of {host} cannot be used ({reason}): choose another --port (0: any free one) or --host."
        ) from error


def address_of(listening: socket.socket) -> str:
    """The page's address as a browser on this machine opens it."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1" if listening.family == socket.AF_INET else "::1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user reads, for uploads and results, deleted at the end; Gradio is told of it, and to
    report to nobody."""
    folder = Path(tempfile.mkdtemp(prefix="zoo-serve-"))
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if before is None:
            os.environ.pop("GRADIO_TEMP_DIR", None)
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    limits: Limits | None = None,
    methods: tuple[str, ...] = ("all",),
    device: str = "auto",
    precision: str = "auto",
    open_browser: bool = True,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the page until the process is interrupted (Ctrl-C, SIGTERM); ``ready`` is told its address.

    Raises ConfigError (extra missing, port in use, unknown device), UnknownNameError for ``methods``.
    """
    require()
    listening = listen(host, port)
    with contextlib.closing(listening), _ending_on_sigterm(), private_folder() as folder:
        import uvicorn

        from zoo.serve.limits import Limits
        from zoo.serve.visits import Visits
        from zoo.serve.work import Workshop

        limits = limits or Limits()
        workshop = Workshop(limits, methods, device, precision)
        visits = Visits(folder, limits)
        address = address_of(listening)

        def begun() -> None:
            ready(address)
            if open_browser:
                webbrowser.open(address)

        config = uvicorn.Config(
            application(workshop, visits, local=is_local(host)),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        try:
            _server(config, begun, visits.stop_all).run(sockets=[listening])
        except KeyboardInterrupt:
            pass
        finally:
            visits.close()


def application(workshop: Any, visits: Any, *, local: bool) -> Any:
    """The page as an ASGI application."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from zoo.serve import page

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_OwnAddressOnly)
    if local:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "::1", "[::1]"])
    return gr.mount_gradio_app(
        app,
        page.build(workshop, visits),
        path="/",
        theme=page.theme(),
        css=page.CSS,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=workshop.limits.bytes,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )


class _OwnAddressOnly:
    """Sends the policy that keeps the browser from fetching anything from elsewhere."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        await self.app(scope, receive, with_policy)


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
def _ending_on_sigterm() -> Iterator[None]:
    """Inside the block SIGTERM ends the process in the ordinary way, so that what must be cleaned up is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
