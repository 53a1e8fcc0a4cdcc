"""The server of ``zoo serve`` as strangers and crowds meet it: what it opens, what it takes, and what it tells.

One server, in a process of its own, for all of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import site
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from bench_runs import installed
from browsers import absent
from PIL import Image
from serve_process import PATIENCE, Server
from test_serve_films import FRAMES, film

from zoo.apps.serve import words
from zoo.images import encode, read
from zoo.loading import load
from zoo.video.clips import Clip

SECRET = "what nobody may read"
JSON = {"Content-Type": "application/json"}
META = {"_type": "gradio.FileData"}
PAGES = 20


class Door:
    """A server's address, and every answer that came from there."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.answers: list[tuple[str, int, str]] = []
        # No proxy of the machine's, whatever its surroundings say.
        self.client = httpx.Client(base_url=server.address, timeout=PATIENCE, trust_env=False)
        self.client.event_hooks = {"response": [self._note]}
        drawn = re.search(r"window\.gradio_config = (\{.*?\});\s*</script>", self.client.get("/").text, re.DOTALL)
        assert drawn
        functions = [one for one in json.loads(drawn[1])["dependencies"] if one["backend_fn"]]
        self.functions = {one["api_name"]: one["id"] for one in functions}
        self.arities = {one["id"]: len(one["inputs"]) for one in functions}

    def _note(self, response: httpx.Response) -> None:
        if "event-stream" not in response.headers.get("content-type", ""):
            response.read()
            self.answers.append((str(response.url), response.status_code, response.content.decode("utf-8", "replace")))

    def check(self) -> None:
        """Whatever was asked, no answer named a place on this machine, held a secret, or was an unexpected failure."""
        places = {str(self.server.temporary), str(Path.cwd()), sys.prefix, *site.getsitepackages()}
        for url, status, text in self.answers:
            if "/assets/" not in url and "/static/" not in url:
                assert not any(place in text for place in places), url
            assert SECRET not in text, url
            assert status < 500 or status == 503, url


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    if importlib.util.find_spec("gradio") is None:
        absent("the package gradio is not installed (the extra serve)")
    plugins = tmp_path_factory.mktemp("plugins")
    with installed(plugins) as patch:
        here = os.pathsep.join(map(str, (plugins, Path(__file__).parents[1])))
        patch.setenv("PYTHONPATH", here, prepend=os.pathsep)
        options = ("--methods", "tint,stepper,johnson", "--max-size", "128", "--max-steps", "50")
        limits = ("--max-megabytes", "0.2", "--pages", str(PAGES))
        with Server(tmp_path_factory.mktemp("serve"), *options, *limits) as server:
            door = Door(server)
            with contextlib.closing(door.client):
                yield door
            server.check_end()
            door.check()


class Visitor:
    """A page as its scripts speak: a key, a connection that is held, calls, and uploads."""

    def __init__(self, door: Door, key: str) -> None:
        self.door, self.key = door, key
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Visitor:
        url = f"/gradio_api/heartbeat/{self.key}"
        held = self._stack.enter_context(self.door.client.stream("GET", url))
        # Kept, because the connection is closed with it.
        self._lines = held.iter_lines()
        assert next(self._lines) == "data: ALIVE"
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, function: int, *data: Any) -> httpx.Response:
        body = {"data": data, "event_data": None, "fn_index": function, "trigger_id": 1, "session_hash": self.key}
        return self.door.client.post("/gradio_api/run/predict", content=json.dumps(body), headers=JSON)

    def call(self, name: str, *data: Any) -> list[Any]:
        response = self.ask(self.door.functions[name], *data)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def upload(self, data: bytes, name: str = "photo.png") -> dict[str, Any]:
        response = self.door.client.post("/gradio_api/upload", files={"files": (name, data)})
        assert response.status_code == 200, response.text
        (token,) = response.json()
        return {"path": token, "url": f"{self.door.server.address}gradio_api/file={token}", "meta": META}

    def drop(self, role: str, data: bytes, name: str = "photo.png") -> tuple[str, str]:
        """The choice and the message after a file was dropped."""
        chosen, _, _, said = self.call({"content": "accept", "style": "accept_1"}[role], self.upload(data, name))
        return chosen.get("value", ""), said

    def order(self, content: str = "astronaut", style: str = "swirls", **changes: Any) -> str:
        """Put an order in the line; the message."""
        asked = {"methods": ["tint"], "trained": None, "size": 64, "strength": 1, "keep": "none", "steps": 0, "seed": 0}
        *_, message, _, _ = self.call("order", content, style, *{**asked, **changes}.values())
        return message

    def result(self) -> tuple[list[bytes], str]:
        """The pictures of the order, fetched, and the last message."""
        deadline = time.monotonic() + PATIENCE
        while True:
            pictures, _, said, clock = self.call("look")
            if clock == {"__type__": "update", "active": False}:
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        made = [one.get("image") or one["video"] for one in pictures if isinstance(pictures, list)]
        fetched = [self.door.client.get(one["url"]) for one in made]
        assert all(one.status_code == 200 for one in fetched)
        return [one.content for one in fetched], said


def picture(number: int) -> bytes:
    """A file of 40 x 32 pixels, of another colour for every number."""
    rng = np.random.default_rng(number)
    pixels = (rng.integers(60, 190, 3) + rng.integers(-50, 50, (32, 40, 3))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# -- strangers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(door: Door) -> Iterator[Path]:
    """A file that lies where Gradio would take it from: in its own folder for uploads."""
    (folder,) = door.server.temporary.iterdir()
    path = folder / "another" / "secret.png"
    path.parent.mkdir()
    path.write_text(SECRET)
    yield path
    path.unlink()
    path.parent.rmdir()
    # Nobody copied it.
    assert SECRET.encode() not in {one.read_bytes() for one in door.server.files()}


def hostile(secret: Path, address: str) -> list[Any]:
    """What names a file, in every shape that the page's widgets or Gradio's server know."""
    named: list[Any] = ["upload:secret.png", {"path": "a", "meta": None}, {"path": 1, "meta": META}]
    for place in (str(secret), address):
        file = {"path": place, "meta": META}
        named += [place, [place], {"path": place}, {"path": place, "url": place, "orig_name": "a.svg", "meta": META}]
        named += [[file], [[file]], {"value": file}, {"deep": [{"er": file}]}, {**file, "is_stream": True}]
    return [*named, "file:///etc/passwd", {"path": f"../another/{secret.name}", "meta": META}]


def test_a_path_an_address_or_a_file_in_any_input_of_any_function_reads_nothing(door: Door, secret: Path):
    with Visitor(door, "hostile") as visitor, socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0)
        values = hostile(secret, f"http://127.0.0.1:{elsewhere.getsockname()[1]}/a.png")
        # All that the page can do, and the order's nine widgets and the three places for files among it.
        assert sorted(door.arities.values()) == [0] * 5 + [1] * 5 + [2, 3, 9]
        widgets = ["astronaut", "swirls", ["tint"], None, 64, 1, "none", 0, 0]
        statuses = set()
        for function, arity in door.arities.items():
            plain = widgets if function == door.functions["order"] else [None] * arity
            assert visitor.ask(function, *plain).status_code == 200
            for position in range(arity):
                for value in values:
                    data = [*plain[:position], value, *plain[position + 1 :]]
                    statuses.add(visitor.ask(function, *data).status_code)
        assert statuses == {200, 400}
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
        # And the line is free: the page's next order is answered.
        visitor.result()
        assert "Working" in visitor.order()
        assert len(visitor.result()[0]) == 1


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"1", b"{}", b"[" * 30_000, b"\xff"),
        *(b'{"fn_index": %s, "session_hash": "x", "data": []}' % n for n in (b"99", b"-1", b'"x"', b"null", b"1e999")),
        *(
            b'{"fn_index": 0, "session_hash": %s, "data": [null]}' % key
            for key in (b"null", b'"../x"', b'"%s"' % (b"x" * 65))
        ),
        *(b'{"fn_index": 0, "session_hash": "x", "data": %s}' % data for data in (b"[]", b"null", b"[1, 2]", b"{}")),
        b'{"fn_index": 0, "session_hash": "x", "data": [%s]}' % (b"9" * 5000),
    ],
    ids=lambda body: repr(body[:50]),
)
def test_what_is_no_call_of_the_pages_is_refused(door: Door, body: bytes):
    response = door.client.post("/gradio_api/run/predict", content=body, headers=JSON)
    assert response.status_code == 400
    assert response.json() == {"error": "This is not a call of the page's."}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ["tint", "tint"]}, "picked twice"),
        ({"methods": []}, "No method is picked"),
        ({"methods": ["\ud800"]}, "Unknown method"),
        ({"size": 10**400}, "Size must be a number"),
        ({"size": 1e9}, "from 16 to 128"),
        ({"strength": -1}, "from 0 to 1"),
        ({"seed": 2**64}, "seed must be"),
        ({"steps": 51}, "from 1 to 50"),
        ({"keep": None}, "Colors are kept"),
        ({"style": "../../etc/passwd"}, "Unknown built-in image"),
        ({"content": "upload:never.png"}, "no longer kept"),
    ],
)
def test_orders_that_cannot_be_are_refused_with_a_sentence_and_take_no_place(
    door: Door, changes: dict[str, Any], said: str
):
    visitor = Visitor(door, "refused")
    assert said in visitor.order(**changes)
    assert "its order was dropped" in visitor.call("look")[2]


def test_gradios_own_routes_are_closed_but_for_what_the_page_uses(door: Door):
    found = importlib.util.find_spec("gradio")
    assert found
    assert found.origin
    source = (Path(found.origin).parent / "routes.py").read_text(encoding="utf-8")
    known = set(re.findall(r'@(app|router)\.(get|head|post)\(\s*f?"([^"]+)"', source))
    assert len(known) > 70
    opened = set()
    for owner, method, path in sorted(known):
        path = "/gradio_api" * (owner == "router") + path
        content = None if method in ("get", "head") else b"{}"
        # One of them does not end.
        with door.client.stream(method, re.sub(r"\{[^}]*\}", "x", path), content=content) as response:
            if response.status_code not in (404, 405):
                opened.add((method, path))
    # Gradio's own still; /run/{api_name} is open as /run/predict alone, and asked for as /run/x here.
    drawn = {("get", "/"), ("head", "/")} | {
        ("get", path) for path in ("/theme.css", "/favicon.ico", "/gradio_api/app_id")
    }
    answered = {("get", "/upload_progress"), ("get", "/heartbeat/{session_hash}"), ("post", "/upload")}
    assert opened == drawn | {(method, "/gradio_api" + path) for method, path in answered}
    # The same under other spellings.
    for url in ("/gradio_api/run/order", "//gradio_api/queue/join", "/gradio_api/upload/", "/GRADIO_API/upload"):
        assert door.client.post(url, content=b"{}").status_code in (404, 405)


@pytest.mark.parametrize(
    "url",
    [
        *("/gradio_api/file=/etc/passwd", "/gradio_api/file=http://127.0.0.1/", "/gradio_api/proxy=http://127.0.0.1/"),
        *(
            "/pictures/../another/secret.png",
            "/pictures/%2e%2e/another/secret.png",
            "/pictures/..%2fanother%2fsecret.png",
        ),
        *(
            "/pictures/",
            "/pictures//etc/passwd",
            "/assets/..%2f..%2fpackage.json",
            "/static/%2e%2e/%2e%2e/package.json",
        ),
        *(
            "/?deep_link=../another",
            "/config",
            "/gradio_api/info",
            "/gradio_api/startup-events",
            "/monitoring",
            "/login",
        ),
    ],
)
def test_no_file_is_handed_out_but_the_pages_own(door: Door, secret: Path, url: str):
    response = door.client.get(url)
    assert (response.status_code == 200) == url.startswith("/?")
    assert SECRET not in response.text


FOREIGN = [
    {"Origin": "https://example.org"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Host": "example.org"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_other_sites_can_neither_change_nor_read_anything(door: Door, headers: dict[str, str]):
    files = {"files": ("photo.png", picture(0))}
    answers = [
        door.client.post("/gradio_api/upload", files=files, headers=headers),
        door.client.post("/gradio_api/process_recording", files={"video": ("a.mp4", b"x")}, headers=headers),
        door.client.post("/gradio_api/run/predict", content=b"{}", headers={**headers, "Content-Type": "text/plain"}),
        door.client.get("/gradio_api/heartbeat/foreign", headers=headers),
        door.client.get("/pictures/x.png", headers=headers),
        door.client.request("OPTIONS", "/gradio_api/upload", headers=headers),
    ]
    refused = 421 if "Host" in headers else 403
    assert [one.status_code for one in answers] == [refused] * 6
    assert not any(name.startswith("access-control") for one in answers for name in one.headers)
    # A link may open the page, under its own name.
    opened = door.client.get("/", headers=headers).status_code
    assert opened == (200 if "Sec-Fetch-Site" in headers else refused)


def test_bodies_have_a_limit_and_a_length(door: Door):
    post = door.client.post
    assert post("/gradio_api/run/predict", content=bytes(100_000), headers=JSON).status_code == 413
    assert post("/gradio_api/upload", files={"files": ("a.png", bytes(300_000))}).status_code == 413
    assert post("/gradio_api/upload", files={"files": ("a.png", bytes(201_000))}).text.startswith("'a.png' has 0.2 MB")
    assert post("/gradio_api/upload", content=iter([b"x"])).status_code == 411
    assert post("/gradio_api/upload", content=b"x", headers=JSON).status_code == 415
    for form in ({"video": ("a", b"x")}, {"a": ("a", b"x"), "b": ("b", b"x")}):
        assert post("/gradio_api/upload", files=form).status_code == 400
    assert post("/gradio_api/upload", data={"files": "a"}, files={"b": ("b", b"x")}).status_code == 400
    with socket.create_connection(("127.0.0.1", int(door.server.address[:-1].rpartition(":")[2]))) as plain:
        plain.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %s\r\n\r\n" % (b"9" * 18)
        )
        assert b" 413 " in plain.recv(100)


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/run/predict"])
def test_who_leaves_in_the_middle_of_sending_is_no_fault_that_the_terminal_tells(door: Door, path: str):
    said = len(door.server.lines)
    form = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000\r\n\r\n"
    for sent in (b"", b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nhalf a file'):
        with socket.create_connection(("127.0.0.1", int(door.server.address[:-1].rpartition(":")[2]))) as plain:
            plain.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\n" % path.encode() + form + sent)
            time.sleep(0.2)
    assert door.client.get("/").status_code == 200
    time.sleep(0.2)
    assert door.server.lines[said:] == []


def test_an_upload_belongs_to_who_knows_its_token_and_only_once(door: Door):
    with Visitor(door, "one") as one, Visitor(door, "other") as other:
        file = one.upload(picture(1))
        accept = door.functions["accept"]
        # Among other values it is no file.
        assert one.ask(door.functions["choose"], file).status_code == 400
        assert one.ask(accept, [file]).status_code == 200
        name, _, preview, _ = one.call("accept", file)
        assert name["value"] == "upload:photo.png"
        assert "not uploaded here" in other.call("accept", file)[3]
        address = preview["url"]
        assert re.fullmatch(r"/pictures/[0-9a-f]{32}/content-[0-9a-f]{8}\.png", address)
        assert door.client.get(address).headers["content-type"] == "image/png"


# -- pages that come and go -------------------------------------------------------------------------------------------


def test_a_film_is_taken_and_fetched(door: Door, tmp_path: Path):
    data = film(tmp_path).source
    assert isinstance(data, bytes)
    with Visitor(door, "film") as visitor:
        chosen, said = visitor.drop("content", data, "holiday.mp4")
        assert "holiday.mp4: a film of 64 x 48 pixels." in said
        assert "Working" in visitor.order(chosen)
        (made,), said = visitor.result()
    assert "1 film made." in said
    path = tmp_path / "made.mp4"
    path.write_bytes(made)
    assert len(list(Clip(path).frames())) == FRAMES


def test_orders_without_a_page_stop_nobody_and_leave_nothing(door: Door):
    """Programs that order and never look, under as many names as they like."""
    for number in range(PAGES + 5):
        assert "lost its connection" in Visitor(door, f"program-{number}").order(methods=["stepper"])
    with Visitor(door, "person") as visitor:
        assert "Working" in visitor.order()
        assert len(visitor.result()[0]) == 1
    deadline = time.monotonic() + PATIENCE
    while door.server.files():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_pages_beyond_the_limit_are_told(door: Door):
    with contextlib.ExitStack() as pages:
        for number in range(PAGES):
            pages.enter_context(Visitor(door, f"page-{number}"))
        assert door.client.get("/gradio_api/heartbeat/late").status_code == 503
        content, style, said = Visitor(door, "late").call("begin")
        assert (content, style) == (None, None)
        assert f"No more than {PAGES} pages can be open at once" in said
        assert Visitor(door, "late").ask(door.functions["look"]).status_code == 400


# -- a crowd ----------------------------------------------------------------------------------------------------------


def crowd(door: Door, visitors: int, orders: int = 2) -> None:
    """As many pages at once, each with uploads and an order of its own, every fourth with ``orders``, and each with the
    pictures that it must get."""
    tint, together = load("tint", device="cpu"), threading.Barrier(visitors)

    def come(number: int) -> None:
        with Visitor(door, f"crowd-{number}") as visitor:
            together.wait(PATIENCE)
            previews = visitor.call("begin")[:2]
            assert all(door.client.get(one["url"]).status_code == 200 for one in previews)
            for order in range(1 if number % 4 else orders):
                files = [picture(1000 * number + 2 * order + k) for k in range(2)]
                chosen = [visitor.drop(role, data) for role, data in zip(("content", "style"), files, strict=True)]
                assert [said for _, said in chosen] == [words.note("photo.png: 40 x 32 pixels.")] * 2
                assert "Working" in visitor.order(*(value for value, _ in chosen), seed=order)
                (made,), said = visitor.result()
                assert "1 picture made." in said
                content, style = (read(data, size="long:64").pixels for data in files)
                expected = read(encode(tint(content, style, seed=order))).pixels
                assert torch.equal(read(made).pixels, expected)

    with ThreadPoolExecutor(visitors) as pool:
        list(pool.map(come, range(visitors)))


def test_a_crowd_with_uploads_is_answered_every_time_and_right(door: Door):
    before = len(door.answers)
    crowd(door, 17)
    assert {status for _, status, _ in door.answers[before:]} == {200}
