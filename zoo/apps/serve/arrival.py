"""How long a request may take to arrive, and its answer to be read (:mod:`zoo.apps.pace`).

What has arrived may wait for its answer as long as that takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from zoo.apps import pace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]


class InTime:
    """Passes requests on to ``app``; one whose body is not here in time gets 408, and its connection ends.

    Requests must tell the length of what they send.
    """

    def __init__(self, app: ASGI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = pace.seconds(int(Headers(scope=scope).get("content-length") or 0))
        end = asyncio.get_running_loop().time() + allowed
        whole = late = False

        async def receiving() -> MutableMapping[str, Any]:
            nonlocal whole, late
            if late:
                return {"type": "http.disconnect"}
            try:
                async with asyncio.timeout_at(None if whole else end):
                    message = await receive()
            except TimeoutError:
                late = True
                # What comes of it afterwards would be taken for the next request.
                answer = PlainTextResponse("This took too long to arrive.", 408, {"Connection": "close"})
                await answer(scope, receive, send)
                return {"type": "http.disconnect"}
            whole = not message.get("more_body", False)
            return message

        async def sending(message: MutableMapping[str, Any]) -> None:
            if not late:
                await send(message)

        await self.app(scope, receiving, sending)


def protocol() -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, with two limits that it lacks: a connection is cut that asks for nothing within
    SECONDS from when it was opened or began to send, and one that reads slower than SLOWEST, SECONDS aside."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol

    class Limited(base):
        _watch: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._spare = pace.SECONDS
            # Writing pauses as soon as anything waits to be read, the last bytes of an answer too.
            transport.set_write_buffer_limits(0)
            self._limit()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._limit()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            if self._unread is not None:
                self._unread.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            waiting = self.transport.get_write_buffer_size()
            # Closing would wait until all is read.
            self._unread = self.loop.call_later(self._spare + waiting / pace.SLOWEST, self.transport.abort)

        def resume_writing(self) -> None:
            if self._unread is not None:
                # Who is faster than need be has SECONDS again; others have less for what comes next.
                self._spare = min(pace.SECONDS, self._unread.when() - self.loop.time())
                self._unread.cancel()
                self._unread = None
            super().resume_writing()

        def _limit(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:  # asked, and not yet answered
                self._unwatch()
            elif self._watch is None and not self.transport.is_closing():
                self._watch = self.loop.call_later(pace.SECONDS, self.transport.close)

        def _unwatch(self) -> None:
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None

    return Limited


__all__ = ["ASGI", "InTime", "Receive", "Scope", "Send", "protocol"]
