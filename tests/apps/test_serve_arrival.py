"""What ``zoo serve`` does with what arrives or is read slowly: real servers with limits of two seconds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from zoo.apps import pace

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("starlette", reason="the extra serve is not installed")

PATIENCE = 180
HOST = b" / HTTP/1.1\r\nHost: localhost\r\n"
FORM = b"POST" + HOST + b"Content-Length: 8\r\n\r\n"
QUESTION, LAST = b"GET" + HOST + b"\r\n", b"GET" + HOST + b"Connection: close\r\n\r\n"


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A server that reads bodies, and takes three seconds for the answer to one."""
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    from zoo.apps.serve import arrival

    monkeypatch.setattr(pace, "SECONDS", 2.0)
    monkeypatch.setattr(pace, "SLOWEST", 8 / 0.5)

    async def app(scope: arrival.Scope, receive: arrival.Receive, send: arrival.Send) -> None:
        body = await Request(scope, receive).body()
        await asyncio.sleep(3 if body else 0)
        await PlainTextResponse(body or "nothing")(scope, receive, send)

    with running(arrival.InTime(app)) as server:
        yield server.servers[0].sockets[0].getsockname()


@contextlib.contextmanager
def running(app: Any) -> Iterator[Any]:
    """Uvicorn's server of ``app`` with our protocol; it has begun."""
    import uvicorn

    from zoo.apps.serve import arrival

    config = uvicorn.Config(app, http=arrival.protocol(), lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket.create_server(("127.0.0.1", 0))]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield server
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def answers(address: tuple[str, int], *cases: list[bytes]) -> list[tuple[bytes, int, float]]:
    """What comes back of each case's parts, sent 0.3 s apart until the connection ends, how many of them were sent, and
    after how many seconds it ended."""
    with ThreadPoolExecutor(len(cases)) as pool:
        return list(pool.map(lambda parts: _answer(address, parts), cases))


def _answer(address: tuple[str, int], parts: list[bytes]) -> tuple[bytes, int, float]:
    began, got, sent = time.monotonic(), b"", 0
    with socket.create_connection(address, PATIENCE) as connection, contextlib.suppress(ConnectionError):
        for sent, part in enumerate(parts, 1):
            connection.sendall(part)
            connection.settimeout(0.3 if sent < len(parts) else PATIENCE)
            with contextlib.suppress(TimeoutError):
                while more := connection.recv(4096):
                    got += more
                break
    return got, sent, time.monotonic() - began


def test_a_body_that_does_not_arrive_in_time_is_refused_and_its_connection_ends(address: tuple[str, int]):
    # A byte now and then does not help.
    for got, _, seconds in answers(address, [FORM], [FORM, *[b"x", b""] * 7]):
        assert got.startswith(b"HTTP/1.1 408 ")
        assert got.endswith(b"This took too long to arrive.")
        assert seconds > 2.4


def test_what_arrived_in_time_may_wait_for_its_answer(address: tuple[str, int]):
    ((got, _, seconds),) = answers(address, [LAST.replace(b"GET", b"POST")[:-2] + FORM[-21:] + b"x" * 8])
    assert got.endswith(b"\r\n\r\nxxxxxxxx")
    assert seconds > 3


def test_a_connection_that_asks_for_nothing_is_cut(address: tuple[str, int]):
    dribbled = [FORM[:-2] + b"A: ", *[b"a"] * 60]
    silent, begun, slow, second, kept = answers(
        address,
        [b""],
        [FORM[:9]],
        dribbled,
        [QUESTION, *dribbled],
        [QUESTION, LAST[:9], LAST[9:]],
    )
    assert (silent[0], begun[0], slow[0]) == (b"", b"", b"")
    assert min(silent[2], begun[2], slow[2]) > 1.9
    assert slow[1] < 61
    assert second[0].count(b"nothing") == 1
    assert second[1] < 61
    assert kept[0].count(b"nothing") == 2


@pytest.mark.parametrize("pieces", [1, 300])
def test_a_connection_that_does_not_read_its_answer_in_time_is_cut(monkeypatch: pytest.MonkeyPatch, pieces: int):
    """30 MB, more than the machine's own buffers take, have three seconds; once they are sent none remains open."""
    from zoo.apps.serve import arrival

    monkeypatch.setattr(pace, "SECONDS", 2.0)
    monkeypatch.setattr(pace, "SLOWEST", 30e6)

    async def app(scope: arrival.Scope, receive: arrival.Receive, send: arrival.Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"30000000")]})
        for left in reversed(range(pieces)):
            piece = {"type": "http.response.body", "body": bytes(30_000_000 // pieces), "more_body": left > 0}
            await send(piece)

    with running(app) as server, contextlib.ExitStack() as stack:
        address = server.servers[0].sockets[0].getsockname()
        never, slow, quick = (stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(3))
        began = time.monotonic()
        # One that would be kept for further questions, two that end with their answer.
        for one, question in ((never, QUESTION), (slow, LAST), (quick, LAST)):
            one.sendall(question)
        assert len(quick.makefile("rb").read()) > 30_000_000
        while server.server_state.connections or server.server_state.tasks:
            assert time.monotonic() - began < 30
            with contextlib.suppress(OSError):
                slow.recv(1)
            time.sleep(0.05)
        assert time.monotonic() - began > 1.9
