"""A folder that is watched, and the threads that read ahead and write behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import forked
import pytest
from command import run
from PIL import Image

from zoo.cli import watch
from zoo.cli.common import StopRequest
from zoo.cli.jobs import Job
from zoo.cli.session import Writer, read_ahead
from zoo.errors import ImageError

PATIENCE = 60.0


def draw(path: Path, color: str) -> None:
    work = path.with_suffix(".part")
    Image.new("RGB", (48, 40), color).save(work, "png")
    work.rename(path)


def wait_for(path: Path, process: forked.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert path.exists(), process.poll()


def test_pictures_are_made_as_contents_come_and_ctrl_c_is_a_good_end(tmp_path: Path) -> None:
    inbox, out = tmp_path / "in", tmp_path / "out"
    inbox.mkdir()
    draw(inbox / "first.png", "navy")
    (inbox / "broken.png").write_bytes(b"no picture")
    command = [sys.executable, "-m", "zoo", "stylize", "--watch", str(inbox), "-o", str(out), "-m", "johnson"]
    process = forked.Popen([*command, "--style", "mosaic", "--content-size", "0"], stderr=subprocess.PIPE)
    wait_for(out / "first__mosaic__johnson.png", process)
    draw(inbox / "second.png", "gold")
    wait_for(out / "second__mosaic__johnson.png", process)
    made = (out / "first__mosaic__johnson.png").stat().st_mtime_ns
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, said  # one was left out
    assert said.count(b"left out: ") == 1
    assert b"broken.png" in said
    assert b"Traceback" not in said

    (inbox / "broken.png").unlink()
    process = forked.Popen([*command, "--style", "mosaic", "--content-size", "0"], stderr=subprocess.PIPE)
    draw(inbox / "third.png", "teal")
    wait_for(out / "third__mosaic__johnson.png", process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert (out / "first__mosaic__johnson.png").stat().st_mtime_ns == made, "what is there already is not made again"


def test_a_file_counts_once_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing, stop, looks = tmp_path / "a.png", StopRequest(), []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) < 4:
            growing.write_bytes(b"x" * len(looks))
        if len(looks) > 20:
            stop.signal = signal.SIGINT

    monkeypatch.setattr(watch.time, "sleep", sleep)
    found = []
    for present, new in watch.arrivals(str(tmp_path), stop):
        found.append((len(looks), present, new))
        if len(found) == 1:
            (tmp_path / "b.png").write_bytes(b"y")
        if len(found) == 2:
            growing.write_bytes(b"another picture of the same name")
    a, b = str(growing), str(tmp_path / "b.png")
    assert [(present, new) for _, present, new in found] == [([a], {a}), ([a, b], {b}), ([a, b], {a})]
    assert found[0][0] == 4, "it grew until the third look"


def test_a_folder_that_goes_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is gone"):
        next(watch.arrivals(str(tmp_path / "gone"), StopRequest()))


def test_a_picture_older_than_its_content_is_made_again(tmp_path: Path) -> None:
    content, output = tmp_path / "a.png", tmp_path / "out.png"
    job = Job(str(content), ("s",), str(output), "a")
    content.write_bytes(b"a")
    assert watch.outdated([job]) == [job]
    output.write_bytes(b"b")
    newer = content.stat().st_mtime + 5
    for path, when in ((output, newer), (content, newer - 1)):
        os.utime(path, (when, when))
    assert watch.outdated([job]) == []


@pytest.mark.parametrize("output", ["{folder}", "{folder}/one.png"])
def test_results_do_not_go_among_the_contents_or_styles_of_the_next_call(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    before = os.listdir(tmp_path)
    target = output.format(folder=tmp_path)
    assert run("stylize", "--content-dir", str(tmp_path), "-o", target) == 2
    assert f"Results in {tmp_path} would be stylised again" in capsys.readouterr().err
    watched = ("--watch", str(tmp_path.parent)) if target == str(tmp_path) else ()
    for more in ((), watched):
        assert run("stylize", "--style-dir", str(tmp_path), *more, "-o", target) == 2
        assert f"Results in {tmp_path} would be styles of the next call" in capsys.readouterr().err
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--content", "builtin:coffee"], "leave --content out"),
        (["--sheet", "sheet.png"], "leave --sheet out"),
        (["--json"], "leave --json out"),
        (["-o", "one.png"], "give -o a folder"),
        (["-o", "-"], "give -o a folder"),
        (["-o", "{folder}"], "give -o another folder"),
        (["--watch", "nowhere"], "nowhere is none"),
    ],
)
def test_what_does_not_go_with_watching(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [argument.format(folder=tmp_path) for argument in arguments]
    assert run("stylize", "--watch", str(tmp_path), *given) == 2
    assert says in capsys.readouterr().err


def test_the_next_is_read_while_one_is_worked_on() -> None:
    begun = {name: threading.Event() for name in "abc"}

    def read(name: str) -> str:
        begun[name].set()
        if name == "c":
            raise ImageError("c is no picture")
        return name.upper()

    found = []
    for name, content in read_ahead("abc", read):
        follower = {"a": "b", "b": "c"}.get(name)
        assert follower is None or begun[follower].wait(PATIENCE), "not read until this one is done"
        try:
            found.append(content())
        except ImageError as error:
            found.append(str(error))
    assert found == ["A", "B", "c is no picture"]


def test_a_picture_is_written_while_the_next_is_made() -> None:
    release, order = threading.Event(), []

    def write() -> None:
        assert release.wait(PATIENCE)
        order.append("written")

    with Writer() as writer:
        writer.put(write, lambda: order.append("told"))
        order.append("next")
        release.set()
        writer.put(lambda: order.append("second"), lambda: order.append("second told"))
    assert order == ["next", "written", "told", "second", "second told"]


def test_what_could_not_be_written_is_raised_and_not_told() -> None:
    told = []

    def write() -> None:
        raise ImageError("the disk is full")

    with pytest.raises(ImageError, match="the disk is full"), Writer() as writer:
        writer.put(write, lambda: told.append("made"))
    assert told == []
