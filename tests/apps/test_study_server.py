"""``zoo study serve``: what it gives, what it takes, and what it refuses. Over HTTP, in this process."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import run as command
from study_runs import answer, first_shown, make

from zoo.apps.study.answers import Key, read_answers
from zoo.apps.study.server import LARGEST_BODY, Desk, StudyServer, make_server
from zoo.errors import StudyError

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path, judges=6)
    return tmp_path / "study"


@pytest.fixture
def key(folder: Path) -> Key:
    return Key.read(folder / "key.json")


@pytest.fixture
def server(folder: Path) -> Iterator[StudyServer]:
    with make_server(folder) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: StudyServer, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    connection.request(method, path, body, headers or {})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, content, reply.headers


def post(server: StudyServer, data: Any) -> tuple[int, dict[str, Any]]:
    status, content, _ = ask(server, "POST", "/answers", json.dumps(data).encode(), JSON)
    return status, json.loads(content)


def test_it_gives_the_page_and_its_pictures_and_nothing_else(server: StudyServer, folder: Path, key: Key):
    status, page, headers = ask(server, "GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'<body data-server="yes">' in page
    assert page.replace(b'data-server="yes"', b'data-server=""') == (folder / "send" / "index.html").read_bytes()
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    name = next(iter(key.data["pictures"]))
    status, picture, headers = ask(server, "GET", f"/pictures/{name}.webp")
    assert (status, headers["Content-Type"]) == (200, "image/webp")
    assert picture == (folder / "send" / "pictures" / f"{name}.webp").read_bytes()
    status, content, headers = ask(server, "HEAD", f"/pictures/{name}.webp")
    assert (status, content, headers["Content-Length"]) == (200, b"", str(len(picture)))
    for path in ("/key.json", "/../key.json", "/pictures/../../key.json", "/pictures/%2e%2e/key.json", "/answers"):
        assert ask(server, "GET", path)[0] == 404
    assert ask(server, "POST", "/elsewhere")[0] == 404
    assert ask(server, "DELETE", "/answers")[0] == 501


def test_answers_are_kept_one_file_per_judge(server: StudyServer, folder: Path, key: Key):
    first, second = answer(key, 0, first_shown), answer(key, 1, first_shown)
    part = {**first, "answers": first["answers"][:4], "ended": None}
    assert post(server, part) == (200, {"kept": True})
    assert post(server, {**first, "extra": "<script>"}) == (200, {"kept": True}), "more of the same judge"
    assert post(server, second) == (200, {"kept": True})
    assert post(server, second) == (200, {"kept": True}), "sent twice"
    assert sorted(path.name for path in (folder / "answers").iterdir()) == [
        f"answers-{first['judge']}.json",
        f"answers-{second['judge']}.json",
    ]
    found = read_answers([folder / "answers"], key)
    assert [len(one.answers) for one in found] == [len(first["answers"]), len(second["answers"])]
    assert "script" not in (folder / "answers" / f"answers-{first['judge']}.json").read_text()
    assert server.desk.judges == 2


def test_what_was_answered_is_not_changed(server: StudyServer, key: Key):
    data = answer(key, 0, first_shown)
    assert post(server, data)[0] == 200
    for less in ({**data, "answers": data["answers"][:4]}, answer(key, 1, first_shown, judge=1)):
        status, said = post(server, less)
        assert (status, said["error"]) == (
            400,
            "Other answers of this judge are here already, and they are not changed.",
        )


def test_what_does_not_fit_is_refused_with_a_sentence(server: StudyServer, folder: Path, key: Key):
    status, said = post(server, {**answer(key, 0, first_shown), "study": "0" * 12})
    assert (status, said["error"].startswith("What was sent does not fit the study")) == (400, True)
    assert ask(server, "POST", "/answers", b"{", JSON)[0] == 400
    assert ask(server, "POST", "/answers", b"\xff\xfe", JSON)[0] == 400
    assert ask(server, "POST", "/answers", b"{}", {"Content-Type": "text/plain"})[0] == 415
    assert ask(server, "POST", "/answers", None, {**JSON, "Content-Length": "-1"})[0] == 411
    for length in (str(LARGEST_BODY + 1), "9" * 5000):
        assert ask(server, "POST", "/answers", None, {**JSON, "Content-Length": length})[0] == 413
    assert list((folder / "answers").iterdir()) == []


def test_a_full_disk_keeps_what_is_there_and_tells_no_path(server: StudyServer, folder: Path, key: Key, monkeypatch):
    first = answer(key, 0, first_shown)
    assert post(server, {**first, "answers": first["answers"][:3], "ended": None})[0] == 200
    before = (folder / "answers" / f"answers-{first['judge']}.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        status, said = post(server, first)
    sentence = "The answers cannot be written (No space left on device): save them as a file."
    assert (status, said["error"]) == (400, sentence)
    (file,) = (folder / "answers").iterdir()
    assert file.read_bytes() == before


def test_a_name_cannot_break_the_file(server: StudyServer, folder: Path, key: Key):
    body = json.dumps({**answer(key, 0, first_shown), "name": "A\n\ud800\u202e😀"}).encode()
    assert ask(server, "POST", "/answers", body, JSON)[0] == 200
    (found,) = read_answers([folder / "answers"], key)
    assert found.name == "A   😀"


def test_forms_asked_for_without_end_take_no_memory_and_a_key_of_nested_lists_is_damaged(folder: Path, key: Key):
    desk = Desk(folder)
    assert {desk.form() for _ in range(150 * len(key.forms))} == set(range(len(key.forms)))
    assert max(len(times) for times in desk._begun.values()) == 100
    desk.close()
    key.path.write_text("[" * 100_000)
    with pytest.raises(StudyError, match="cannot be read as the key"):
        Key.read(key.path)


def test_forms_go_round_and_those_answered_least_come_first(folder: Path, key: Key):
    desk = Desk(folder)
    assert [desk.form() for _ in range(7)] == [0, 1, 2, 3, 4, 5, 0]
    for form in (0, 2, 4):
        desk.take(json.dumps(answer(key, form, first_shown)).encode())
    with pytest.raises(StudyError, match="Another server takes the answers"):
        Desk(folder)
    desk.close()
    # A new start knows what was answered, not what was begun.
    again = Desk(folder)
    assert again.judges == 3
    assert [again.form() for _ in range(5)] == [1, 3, 5, 0, 1]


def test_many_threads_may_post_at_once(server: StudyServer, folder: Path, key: Key):
    files = [answer(key, number % 6, first_shown, judge=number + 1) for number in range(12)]
    found: list[int] = []
    threads = [threading.Thread(target=lambda one=one: found.append(post(server, one)[0])) for one in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 12
    assert len(read_answers([folder / "answers"], key)) == 12


def test_a_folder_of_something_else_and_a_port_in_use_are_said(folder: Path, tmp_path: Path, capsys):
    assert command("study", "serve", str(tmp_path)) == 2
    assert "give the key.json that 'zoo study make' wrote" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert command("study", "serve", str(folder), "--port", port) == 2
        assert "choose another --port" in capsys.readouterr().err


def test_a_file_that_does_not_fit_is_named_and_left_alone(folder: Path, key: Key, capsys, monkeypatch):
    monkeypatch.setattr(StudyServer, "serve_forever", lambda self: None)
    data = answer(key, 0, first_shown)
    torn = folder / "answers" / f"answers-{data['judge']}.json"
    torn.parent.mkdir()
    torn.write_text("{")
    assert command("study", "serve", str(folder), "--port", "0") == 0
    assert f"{torn} is not JSON" in capsys.readouterr().err
    (folder / "answers" / "answers-y.json").write_text(json.dumps(answer(key, 1, first_shown, judge=9)))
    desk = Desk(folder)
    assert desk.judges == 1
    assert torn.read_text() == "{"
    desk.take(json.dumps(data).encode())
    assert torn.with_name(f"{torn.name}.refused").read_text() == "{"
    assert json.loads(torn.read_text())["judge"] == data["judge"]


def test_what_a_killed_server_left_in_the_middle_of_a_file_goes(folder: Path, key: Key):
    (folder / "answers").mkdir()
    for left in ("answers-0000000000000001.json.part", "answers-0000000000000002.json.4711.part"):
        (folder / "answers" / f".{left}").write_text("{")
    Desk(folder).take(json.dumps(answer(key, 0, first_shown)).encode())
    assert [path.name for path in (folder / "answers").iterdir()] == [f"answers-{1:016x}.json"]


HOSTS = {
    "127.0.0.1:8350": 200, "localhost": 200, "LOCALHOST.:1": 200, "[::1]:8350": 200, "192.168.1.7": 200,
    "study.example.org": 200, "evil.example": 421, "127.0.0.1.evil.example": 421, "[::1": 421, "": 421,
}  # fmt: skip


@pytest.mark.parametrize("host", list(HOSTS))
def test_a_request_must_name_this_machine(folder: Path, key: Key, host: str):
    """A page on a name of its own, which its owner made to lead here, reads and posts nothing."""
    with make_server(folder, names=["Study.example.org"]) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        body = json.dumps(answer(key, 0, first_shown)).encode()
        found = [
            ask(server, "GET", "/", None, {"Host": host})[0],
            ask(server, "POST", "/form", None, {"Host": host})[0],
        ]
        found.append(ask(server, "POST", "/answers", body, {**JSON, "Host": host})[0])
        server.shutdown()
        thread.join()
    assert found == [HOSTS[host]] * 3
    assert len(list((folder / "answers").iterdir())) == (HOSTS[host] == 200)


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://{}", 200), ("https://{}", 200), ("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:1", 403)],
)
def test_a_post_must_come_from_the_studys_own_page(server: StudyServer, key: Key, origin: str, status: int):
    own = "{}:{}".format(*server.server_address[:2])
    headers = {**JSON, "Origin": origin.format(own), "Host": own}
    body = json.dumps(answer(key, 0, first_shown)).encode()
    assert ask(server, "POST", "/answers", body, headers)[0] == status
    assert ask(server, "POST", "/form", None, headers)[0] == status


@contextlib.contextmanager
def running(folder: Path, **options: Any) -> Iterator[StudyServer]:
    with make_server(folder, **options) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


def test_connections_that_send_nothing_more_keep_nobody_out(folder: Path, key: Key, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zoo.apps.study.server.MOST_CONNECTIONS", 4)
    begun = b"POST /answers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
    before = threading.active_count()
    with running(folder) as server, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(server.server_address[:2], 60)) for _ in range(12)]
        for number, one in enumerate(slow):
            with contextlib.suppress(OSError):  # cut already
                one.sendall((b"", b"GET", begun, begun + b"\r\n{")[number % 4])
        body = json.dumps(answer(key, 0, first_shown)).encode()
        assert ask(server, "POST", "/answers", body, JSON)[0] == 200
        assert threading.active_count() <= before + 6
        for one in slow[:8]:
            with contextlib.suppress(ConnectionError):
                assert one.recv(10) == b"", "the first to come are cut"
    assert len(list((folder / "answers").iterdir())) == 1


def test_who_sends_or_reads_too_slowly_is_cut(folder: Path, key: Key, monkeypatch: pytest.MonkeyPatch):
    """A byte now and then does not help; 30 MB, more than the machine's own buffers take, have two seconds more."""
    monkeypatch.setattr("zoo.apps.pace.SECONDS", 1.0)
    monkeypatch.setattr("zoo.apps.pace.SLOWEST", 15e6)
    head = b"POST /answers HTTP/1.1\r\nHost: localhost\r\n"
    form = head + b"Content-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"
    page = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running(folder) as server, contextlib.ExitStack() as stack:
        server.desk.page = bytes(30_000_000)
        began = time.monotonic()
        slow = [stack.enter_context(socket.create_connection(server.server_address[:2], 60)) for _ in range(6)]
        for one, part in zip(slow, (b"", form, head + b"A: ", form, page, page), strict=True):
            one.sendall(part)
        assert len(ask(server, "GET", "/")[1]) == 30_000_000, "who reads it has all of it"
        while server._open:
            assert time.monotonic() - began < 30
            for one, byte in ((slow[2], b"a"), (slow[3], b" ")):
                with contextlib.suppress(OSError):
                    one.sendall(byte)
            with contextlib.suppress(OSError):
                slow[5].recv(1)
            time.sleep(0.05)
        assert time.monotonic() - began > 2.9
        told = http.client.HTTPResponse(slow[1])
        told.begin()
        assert (told.status, told.read()) == (408, b'{"error": "This took too long to arrive."}')
    assert not list((folder / "answers").iterdir())


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_it_listens_on_an_address_of_ipv6(folder: Path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with running(folder, host="::1") as server:
        assert server.url == f"http://[::1]:{server.server_address[1]}/"
        assert ask(server, "GET", "/")[0] == 200
        assert ask(server, "POST", "/form", None, {"Host": f"[::1]:{server.server_address[1]}"})[0] == 200


def test_it_says_where_it_is_and_ends_with_ctrl_c(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    def interrupted(self: StudyServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StudyServer, "serve_forever", interrupted)
    assert command("study", "serve", str(folder), "--port", "0") == 0
    said = capsys.readouterr()
    assert said.out.startswith("http://127.0.0.1:")
    assert "no password" not in said.err
    assert "0 judges in" in said.err
    assert command("study", "serve", str(folder), "--port", "0", "--host", "0.0.0.0") == 0
    assert "no password and no encryption" in capsys.readouterr().err
