"""The page as an ASGI application: few routes, and each for what the page does.

Gradio's own server copies every file that an input names, tells where, and has dozens of routes that this page does not
need. So it only draws: its page, scripts and styles are passed on, and everything that reads or changes something is
answered here. What has no route in :func:`routes` is not found, and :class:`Gate` stands before them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import re
import time
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import anyio
import gradio as gr
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from zoo.addresses import Names
from zoo.apps.serve import widgets, words
from zoo.apps.serve.arrival import ASGI, InTime, Receive, Scope, Send
from zoo.apps.serve.limits import Limits
from zoo.apps.serve.visits import Visits
from zoo.apps.serve.work import Workshop
from zoo.errors import ZooError

UPLOAD = "/gradio_api/upload"
# What of Gradio's the page fetches.
DRAWN = ("/", "/theme.css", "/favicon.ico", "/assets/{path:path}", "/static/{path:path}", "/gradio_api/app_id")
# Values of all widgets, with texts of 300 characters each, are below 10 kB.
_LARGEST_CALL = 64_000
# The frame of a form around a file.
_FRAME = 16_000
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
# They send nothing that is read.
_ASKING = ("GET", "HEAD")
_SWEEP_SECONDS = 2.0
_PING_SECONDS = 15.0
# Pictures decoded, and methods loaded, at the same time beside the work.
_THREADS = 2
# Gradio's scripts are partly inline and compile templates in the browser.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'; "
    "base-uri 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]

_log = logging.getLogger("zoo.apps.serve")


def application(workshop: Workshop, visits: Visits, names: Names) -> ASGI:
    """The page, answering to ``names``; swept of what was left behind while it runs."""
    blocks = widgets.build(workshop, visits)
    drawn = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        theme=widgets.theme(),
        css=widgets.CSS,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=workshop.limits.bytes,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    # Gradio checks where files come from only once it thinks that it was launched.
    blocks.has_launched = True

    @contextlib.asynccontextmanager
    async def sweeping(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(_sweep(visits))
        yield
        task.cancel()

    app = Starlette(
        routes=routes(blocks, visits, drawn), lifespan=sweeping, exception_handlers={ClientDisconnect: _gone}
    )
    app.router.redirect_slashes = False
    return Gate(app, names, workshop.limits)


def routes(blocks: gr.Blocks, visits: Visits, drawn: ASGI) -> list[Route | Mount]:
    """All that is answered; ``drawn`` is Gradio's server."""
    return [
        *(Route(path, Drawn(drawn), methods=["GET"]) for path in DRAWN),
        Route("/gradio_api/run/predict", Calls(blocks).answer, methods=["POST"]),
        Route(UPLOAD, Uploads(visits).answer, methods=["POST"]),
        Route("/gradio_api/upload_progress", _uploaded, methods=["GET"]),
        Route("/gradio_api/heartbeat/{key}", Heartbeat(visits), methods=["GET"]),
        Mount("/pictures", StaticFiles(directory=visits.pictures)),
    ]


class Gate:
    """Lets in what is asked under the page's own names, from its own pages, and no larger or slower than it may be."""

    def __init__(self, app: ASGI, names: Names, limits: Limits) -> None:
        self.app, self.sent = app, InTime(app)
        self.names, self.limits = names, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            refused = self._refusal(scope)
            let_in = self.app if scope["method"] in _ASKING else self.sent
            await (refused or let_in)(scope, receive, _with_headers(send))
        # A websocket that is not accepted is closed.

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        asks = scope["method"] in _ASKING
        if stranger := self.names.refusal(headers, opening=asks and scope["path"] == "/"):
            status, said = stranger
            return PlainTextResponse(said, status)
        if asks:
            return None
        most = self.limits.bytes + _FRAME if scope["path"] == UPLOAD else _LARGEST_CALL
        length = headers.get("content-length") or ""
        if not length.isdecimal() or "transfer-encoding" in headers:
            return PlainTextResponse("The length of what is sent is missing.", 411)
        # As a text first: an integer of thousands of digits is an error.
        if len(length) > 12 or int(length) > most:
            return PlainTextResponse(f"This takes at most {most / 1e6:g} MB.", 413)
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return sending


class Drawn:
    """Passes on what Gradio draws, without a request's query, which its routes would read."""

    def __init__(self, app: ASGI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "query_string": b""}, receive, send)


class Calls:
    """Calls the page's functions with what the browser sends, and answers as Gradio's server does."""

    def __init__(self, blocks: gr.Blocks) -> None:
        self.functions = blocks.fns
        self.limiter = anyio.CapacityLimiter(_THREADS)

    async def answer(self, request: Request) -> Response:
        try:
            asked = json.loads(await request.body())
            function = self.functions[int(asked["fn_index"])]
            key, values = asked["session_hash"], asked["data"]
            if not _KEY.fullmatch(key) or len(values) != len(function.inputs):
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            return _answer({"error": "This is not a call of the page's."}, 400)
        if not all(_plain(value) or isinstance(w, gr.File) for w, value in zip(function.inputs, values, strict=True)):
            return _answer({"error": "A file is taken where files are dropped, and nowhere else."}, 400)
        began = time.perf_counter()
        call, who = function.fn, gr.Request(session_hash=key)
        assert call is not None
        try:
            if inspect.iscoroutinefunction(call):
                made = await call(*values, who)
            else:
                made = await anyio.to_thread.run_sync(lambda: call(*values, who), limiter=self.limiter)
        except ZooError as error:
            return _answer({"error": words.without_folders(str(error))}, 400)
        except Exception:
            _log.exception("the page's function %s failed", function.name)
            return _answer({"error": words.UNEXPECTED}, 500)
        seconds = time.perf_counter() - began
        said = {"is_generating": False, "duration": seconds, "average_duration": seconds, "render_config": None}
        data = list(made) if len(function.outputs) > 1 else [made]
        return _answer({"data": data, **said, "changed_state_ids": []})


def _plain(value: object) -> bool:
    """Return whether a value is a number, a text, nothing, or a list of such: nothing that could hold a file."""
    return all(not isinstance(one, dict | list) for one in (value if isinstance(value, list) else [value]))


def _answer(content: object, status: int = 200) -> Response:
    # ASCII: half a character of what was sent must not break the answer that quotes it.
    return Response(json.dumps(content), status, media_type="application/json")


class Uploads:
    """Takes files in, one a request, and answers with the token by which the page asks for each."""

    def __init__(self, visits: Visits) -> None:
        self.visits = visits
        # So many are in memory before it is known whether there is room for them; the others wait on disk.
        self.limiter = anyio.CapacityLimiter(_THREADS)

    async def answer(self, request: Request) -> Response:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return PlainTextResponse("A file is sent as a form.", 415)
        async with request.form(max_files=1, max_fields=0) as form:
            sent = form.get("files")
            if sent is None or isinstance(sent, str):
                raise HTTPException(400, "There is no file in this form.")
            try:
                async with self.limiter:
                    token = self.visits.receive(sent.filename or "", await sent.read())
            except ZooError as error:
                return PlainTextResponse(str(error), 413)
        return _answer([token])


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody is there to be answered: who left in the middle of sending is no failure of the server's."""
    return PlainTextResponse("", 400)


async def _uploaded(request: Request) -> Response:
    """The page asks for an upload's progress; the answer comes at its end."""
    return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")


class Heartbeat:
    """The connection that a page holds open as long as it is there."""

    def __init__(self, visits: Visits) -> None:
        self.visits = visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = scope["path_params"]["key"]
        if not _KEY.fullmatch(key):
            await PlainTextResponse("Not Found", 404)(scope, receive, send)
            return
        try:
            visit = self.visits.came(key)
        except ZooError as error:
            await PlainTextResponse(str(error), 503)(scope, receive, send)
            return
        try:
            headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while True:
                await send({"type": "http.response.body", "body": b"data: ALIVE\n\n", "more_body": True})
                # Nothing but the end can come.
                with contextlib.suppress(TimeoutError):
                    while (await asyncio.wait_for(receive(), _PING_SECONDS))["type"] != "http.disconnect":
                        pass
                    return
        finally:
            self.visits.went(visit)


async def _sweep(visits: Visits) -> None:
    while True:
        await asyncio.sleep(min(_SWEEP_SECONDS, visits.grace))
        await asyncio.to_thread(visits.sweep)
