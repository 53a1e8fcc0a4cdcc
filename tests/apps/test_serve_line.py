"""What ``zoo serve`` keeps between requests: the line and its worker, visits, uploads, and the values that come in."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_runs import installed
from test_serve import PAINTING, PHOTO, SIZE

from zoo.apps.serve import values, words
from zoo.apps.serve.limits import Limits
from zoo.apps.serve.line import Line
from zoo.apps.serve.server import private_folder
from zoo.apps.serve.visits import Visit, Visits
from zoo.apps.serve.work import Order, Result, Workshop
from zoo.errors import ImageError, InputError, ZooError
from zoo.images import encode, read

ORDER = Order(PHOTO, PAINTING, ("tint",), size=SIZE)
_PATIENCE = 60


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    limits = Limits(side=128, waiting=2, visitors=2, bytes=5_000_000, held=6_000_000)
    with installed(tmp_path_factory.mktemp("plugins")):
        yield Workshop(limits, ("tint", "moody"), "cpu")


@pytest.fixture
def line(workshop: Workshop) -> Iterator[Line]:
    line = Line(workshop)
    yield line
    line.close()


@pytest.fixture
def visits(tmp_path: Path, line: Line) -> Visits:
    return Visits(tmp_path, line.workshop.limits, line)


class Held:
    """Stands in for the work and goes on when it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch, workshop: Workshop) -> None:
        self.going, self.begun = threading.Event(), threading.Event()
        patch.setattr(workshop, "run", self.run)

    def run(self, order: Order, folder: Path, progress: Any, stopped: Any) -> Iterator[Result]:
        self.begun.set()
        assert self.going.wait(_PATIENCE)
        yield Result("tint", said="Stopped.") if stopped() else Result("tint", torch.rand(1, 3, 8, 8))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, workshop: Workshop) -> Held:
    return Held(monkeypatch, workshop)


def opened(visits: Visits, keys: str) -> None:
    for key in keys:
        visits.came(key)


def ended(visit: Visit) -> None:
    deadline = time.monotonic() + _PATIENCE
    while visit.job is not None and not visit.job.done:
        assert time.monotonic() < deadline
        time.sleep(0.002)


# -- the line ---------------------------------------------------------------------------------------------------------


def test_an_order_is_carried_out_and_its_pictures_kept_on_disk(visits: Visits):
    visit = visits.came("a")
    assert visits.order("a", ORDER) == 0
    ended(visit)
    assert visit.job is not None
    assert visit.job.fault == ""
    ((address, caption),) = visit.job.pictures
    assert caption == words.caption(visit.job.results[0])
    # Nothing of the picture stays in memory.
    assert visit.job.results[0].image is None
    assert address.startswith(f"/pictures/{visit.folder.name}/results-")
    assert read(visits.pictures / address.removeprefix("/pictures/")).size == (38, SIZE)


def test_what_is_written_after_its_page_left_goes_too(
    visits: Visits, monkeypatch: pytest.MonkeyPatch, workshop: Workshop
):
    begun, going = threading.Event(), threading.Event()

    def run(order: Order, folder: Path, progress: Any, stopped: Any) -> Iterator[Result]:
        begun.set()
        assert going.wait(_PATIENCE)
        folder.mkdir(parents=True)
        (folder / "0.mp4").write_bytes(b"half a film")
        yield Result("tint", said="It broke.")

    monkeypatch.setattr(workshop, "run", run)
    visit = visits.came("a")
    visits.order("a", ORDER)
    assert begun.wait(_PATIENCE)
    visits.drop("a")
    going.set()
    ended(visit)
    assert list(visits.pictures.iterdir()) == []


def test_the_line_has_an_end_and_one_place_for_each(visits: Visits, held: Held):
    opened(visits, "ab")
    assert visits.order("a", ORDER) == 0
    with pytest.raises(InputError, match="still in work"):
        visits.order("a", ORDER)
    assert visits.order("b", ORDER) == 1
    held.going.set()
    for key in "ab":
        ended(visits.get(key))
    assert visits.order("a", ORDER) == 0


def test_a_full_line_keeps_the_last_results(tmp_path: Path, line: Line, held: Held):
    visits = Visits(tmp_path, Limits(visitors=9), line)
    held.going.set()
    opened(visits, "abc")
    visits.order("a", ORDER)
    ended(visits.get("a"))
    held.going.clear()
    for key in "bc":
        visits.order(key, ORDER)
    with pytest.raises(InputError, match="No more than 2 orders can be in work"):
        visits.order("a", ORDER)
    assert len(list(visits.get("a").folder.glob("results-*/*.png"))) == 1
    held.going.set()


def test_a_page_that_left_gives_its_place_up_and_leaves_nothing(visits: Visits, held: Held):
    first, second = visits.came("a"), visits.came("b")
    opened(visits, "ab")
    visits.order("a", ORDER)
    visits.order("b", ORDER)
    assert held.begun.wait(_PATIENCE)
    # Waiting: its place is free at once. In work: it is told to stop, and what it still writes goes too.
    visits.drop("b")
    assert second.job is not None
    assert second.job.done
    third = visits.came("c")
    assert visits.order("c", ORDER) == 1
    visits.drop("a")
    held.going.set()
    ended(first)
    assert first.job is not None
    assert first.job.stop.is_set()
    ended(third)
    assert [folder.name for folder in visits.pictures.iterdir()] == [third.folder.name]


def test_a_picture_written_after_its_page_left_is_deleted(visits: Visits):
    visit = visits.get("a")
    visits.drop("a")
    visit.folder.mkdir()
    visit.keep_result(visit.folder / "results-1", Result("tint", torch.rand(1, 3, 8, 8)), "photo")
    assert list(visits.pictures.iterdir()) == []


@pytest.mark.parametrize("failing", [InputError("Not so."), RuntimeError("boom")])
def test_whatever_fails_the_place_is_given_up(
    visits: Visits, monkeypatch: pytest.MonkeyPatch, workshop: Workshop, failing: Exception
):
    def run(*_: Any) -> Iterator[Result]:
        raise failing
        yield

    monkeypatch.setattr(workshop, "run", run)
    opened(visits, "a")
    for _ in range(3):
        visits.order("a", ORDER)
        ended(visits.get("a"))
    job = visits.get("a").job
    assert job is not None
    assert job.fault == ("Not so." if isinstance(failing, InputError) else words.UNEXPECTED)


def test_a_waiting_order_is_stopped_at_once(visits: Visits, held: Held, line: Line):
    opened(visits, "ab")
    visits.order("a", ORDER)
    visits.order("b", ORDER)
    assert held.begun.wait(_PATIENCE)
    job = visits.get("b").job
    assert job is not None
    assert line.before(job) == 1
    line.stop(job)
    assert (job.done, job.fault, line.before(job)) == (True, "Stopped before it began.", 0)
    held.going.set()


def test_the_line_holds_under_many_hands(tmp_path: Path, line: Line, held: Held):
    visits = Visits(tmp_path, Limits(), line)
    opened(visits, "01234567")
    admitted: list[str] = []

    def come(key: str) -> None:
        try:
            visits.order(key, ORDER)
        except InputError:
            return
        admitted.append(key)

    threads = [threading.Thread(target=come, args=(str(number % 8),)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == len(set(admitted)) == 2
    held.going.set()


def test_closing_ends_what_is_in_work_and_what_waits(workshop: Workshop, tmp_path: Path, held: Held):
    line = Line(workshop)
    visits = Visits(tmp_path, Limits(), line)
    opened(visits, "ab")
    for key in "ab":
        visits.order(key, ORDER)
    jobs = [visits.get(key).job for key in "ab"]
    visits.close()
    held.going.set()
    line.close()
    assert all(job is not None and job.done for job in jobs)
    assert list(visits.pictures.iterdir()) == []


# -- visits -----------------------------------------------------------------------------------------------------------


def test_results_last_until_the_next_order_and_the_visit(visits: Visits):
    visit = visits.came("a")
    assert stat.S_IMODE(visit.folder.stat().st_mode) == 0o700
    image = torch.rand(1, 3, 8, 8)
    address = visit.keep_result(visit.folder / "results-1", Result("adain", image, style="a/b é.jpg"), "my photo.png")
    assert address == f"/pictures/{visit.folder.name}/results-1/my_photo__b_%C3%A9__adain.png"
    first = visit.folder / "results-1" / "my_photo__b_é__adain.png"
    assert torch.equal(read(first).pixels, read(encode(image)).pixels)
    visits.order("a", ORDER)
    assert not first.exists()
    ended(visit)
    visits.drop("a")
    assert list(visits.pictures.iterdir()) == []


def test_a_disk_that_takes_nothing_is_told_without_its_place(visits: Visits, monkeypatch: pytest.MonkeyPatch):
    visit = visits.get("a")

    def full(path: Path, image: torch.Tensor) -> None:
        raise ImageError(f"'{path}' cannot be written (No space left on device): choose another place.")

    with monkeypatch.context() as patch:
        patch.setattr("zoo.images.write", full)
        with pytest.raises(ImageError, match=r"^'content-\w+.png' cannot be written \(No space"):
            visit.keep_preview("content", read(PAINTING.source))
    visit.folder.rmdir()
    visit.folder.touch()
    with pytest.raises(ImageError, match=r"^The picture cannot be kept \(File exists\)"):
        visit.keep_preview("content", read(PAINTING.source))


def test_a_preview_replaces_the_last_one_under_a_new_name(visits: Visits, workshop: Workshop):
    visit = visits.get("a")
    first, second = (visit.keep_preview("content", workshop.preview(p, 16)) for p in (PHOTO, PAINTING))
    visit.keep_preview("style", workshop.preview(PAINTING, 16))
    assert first != second
    assert sorted(f"/pictures/{visit.folder.name}/{path.name}" for path in visit.folder.iterdir())[0] == second
    assert len(list(visit.folder.iterdir())) == 2


def test_only_pages_that_are_not_there_make_room_and_only_those_that_are_order(visits: Visits):
    first, second = visits.came("a"), visits.get("b")
    with pytest.raises(InputError, match="lost its connection"):
        visits.order("b", ORDER)
    third = visits.came("c")
    assert first.folder.exists()
    assert not second.folder.exists()
    with pytest.raises(InputError, match="No more than 2 pages can be open"):
        visits.get("d")
    visits.went(first)
    visits.get("d")
    assert not first.folder.exists()
    assert third.folder.exists()


def test_pages_without_a_connection_are_swept_after_a_while(tmp_path: Path, line: Line):
    visits = Visits(tmp_path, Limits(), line, grace=0.0)
    there = visits.came("there")
    left = visits.came("left")
    visits.went(left)
    visits.get("never")
    visits.sweep()
    assert len(visits) == 1
    assert [folder.name for folder in visits.pictures.iterdir()] == [there.folder.name]
    visits.grace = 60.0
    visits.went(there)
    visits.sweep()
    assert len(visits) == 1


# -- uploads ----------------------------------------------------------------------------------------------------------


def test_an_upload_is_taken_once_by_who_knows_its_token(visits: Visits):
    token = visits.receive("C:\\me\\photo\n.png", PHOTO.source)  # pyright: ignore[reportArgumentType]
    assert len(token) > 20
    picture = visits.take(token)
    assert (picture.name, picture.source) == ("photo\\n.png", PHOTO.source)
    for gone in (token, "", "../photo.png", "/etc/passwd"):
        with pytest.raises(ImageError, match="not uploaded here"):
            visits.take(gone)
    assert list(visits.pictures.iterdir()) == []


def test_an_upload_that_nobody_comes_for_is_forgotten(visits: Visits, monkeypatch: pytest.MonkeyPatch):
    token = visits.receive("photo.png", b"photo")
    visits.sweep()
    monkeypatch.setattr("zoo.apps.serve.visits._UPLOAD_SECONDS", -1.0)
    visits.sweep()
    with pytest.raises(ImageError, match="not uploaded here, or too long ago"):
        visits.take(token)


def test_a_file_and_all_together_have_a_limit(visits: Visits):
    with pytest.raises(ImageError, match=r"'photo.png' has 6.0 MB, above the limit of 5 MB"):
        visits.receive("photo.png", bytes(6_000_000))
    visits.get("a").uploads["content"] = visits.take(visits.receive("one", bytes(4_000_000)))
    visits.receive("two", bytes(2_000_000))
    with pytest.raises(ImageError, match="All pages together hold 6 MB"):
        visits.receive("three", bytes(1))
    visits.drop("a")
    visits.receive("three", bytes(4_000_000))


# -- values -----------------------------------------------------------------------------------------------------------

ANYTHING: list[Any] = [
    *(None, True, 0, -1, 2**64, 10**400, -(10**400), 0.5, 1e300, 5e-324, float("nan"), float("inf"), -float("inf")),
    *("", "x" * 300, "x" * 301, "\ud800", [], ["a", None], ["a", 1], [["a"]], [{}]),
    *({}, {"path": "a"}, {"path": 1}, {"path": None, "meta": {"_type": "gradio.FileData"}}),
]


@pytest.mark.parametrize("value", ANYTHING, ids=range(len(ANYTHING)))
def test_values_are_what_they_should_be_or_refused_with_a_sentence(value: Any):
    def answer(check: Any, *arguments: Any) -> Any:
        try:
            return check(value, *arguments)
        except ZooError as error:
            return str(error)

    for check, kind in ((values.number, float), (values.whole, int), (values.texts, list)):
        answered = answer(check, "It")
        assert isinstance(answered, kind) or answered.startswith("It must be a ")
    assert answer(values.text, "It") in (value or "", "It must be a text of at most 300 characters.")
    token = answer(values.token_of)
    assert (token == "a") == (isinstance(value, dict) and value.get("path") == "a")
    assert token == "a" or token.startswith("The file was not uploaded here")


def test_whole_numbers_stay_exact_and_nothing_is_a_number_of_its_own():
    assert values.whole(2**63 - 1, "Seed") == 2**63 - 1
    assert (values.whole(None, "Seed"), values.text(None, "Style"), values.texts(None, "Methods")) == (0, "", [])
    for value in (True, 0.5, float("nan"), float("inf"), 10**400, "1"):
        with pytest.raises(InputError):
            values.whole(value, "Seed")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Weights '/home/me/zoo models/a.pt' are missing.", "Weights 'a.pt' are missing."),
        ("/home/me/a.pt is no file: see https://example.org/a/b.", "a.pt is no file: see https://example.org/a/b."),
        (r"'C:\Users\me\a.pt' cannot be read", "'a.pt' cannot be read"),
        ("took 3 s/image, 1/2 of it", "took 3 s/image, 1/2 of it"),
    ],
)
def test_folders_of_this_machine_are_not_shown(said: str, shown: str):
    assert words.without_folders(said) == shown
    assert words.without_folders(words.fault("/home/me/x")) == words.fault("x")


def test_progress_is_a_method_and_its_steps():
    assert "Working ..." in words.working("", 0, 0)
    assert "<i>" not in words.working("<i>", 0, 0)
    assert "gatys: 12/500 " in words.working("gatys", 12, 500)


# -- what killed servers leave ----------------------------------------------------------------------------------------


def test_folders_of_killed_servers_are_removed_and_those_of_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("fcntl")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("zoo-serve-killed", "zoo-serve-new", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "zoo-serve-link").symlink_to(tmp_path / "other")
    with private_folder() as running:
        for path in tmp_path.iterdir():
            if path.name != "zoo-serve-new":
                os.utime(path, (0, 0))
        with private_folder() as second:
            expected = {"zoo-serve-new", "zoo-serve-link", "other", running.name, second.name}
            assert {path.name for path in tmp_path.iterdir()} == expected
