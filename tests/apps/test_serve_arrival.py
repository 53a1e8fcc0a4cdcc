"""What ``zoo serve`` does with what arrives slowly: a real server with limits of two seconds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("starlette", reason="the extra serve is not installed")

PATIENCE = 180
HOST = b" / HTTP/1.1\r\nHost: localhost\r\n"
FORM = b"POST" + HOST + b"Content-Length: 8\r\n\r\n"
QUESTION, LAST = b"GET" + HOST + b"\r\n", b"GET" + HOST + b"Connection: close\r\n\r\n"


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A server that reads bodies, and takes three seconds for the answer to one."""
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    from zoo.apps.serve import arrival

    monkeypatch.setattr(arrival, "SECONDS", 2.0)
    monkeypatch.setattr(arrival, "SLOWEST", 8 / 0.5)

    async def app(scope: arrival.Scope, receive: arrival.Receive, send: arrival.Send) -> None:
        body = await Request(scope, receive).body()
        await asyncio.sleep(3 if body else 0)
        await PlainTextResponse(body or "nothing")(scope, receive, send)

    config = uvicorn.Config(arrival.InTime(app), http=arrival.protocol(), lifespan="off", log_level="critical")
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
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
