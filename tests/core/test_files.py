"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import files
from zoo.errors import ConfigError, ImageError


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def fail_after_writing(path: Path) -> None:
    path.write_bytes(b"half")
    raise RuntimeError


def test_a_file_is_replaced_in_one_move(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert files.write(path, "grün") == path
    assert path.read_bytes() == "grün".encode()
    assert files.sha256(path) == hashlib.sha256("grün".encode()).hexdigest()
    with files.replacing(path) as work:
        work.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "grün"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write(path, b"old")
    with pytest.raises(RuntimeError), files.replacing(path) as work:
        fail_after_writing(work)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def test_a_link_keeps_pointing_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    files.write(tmp_path / "real" / "a.txt", "old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "a.txt")
    files.write(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("name", ["missing/a.txt", "a-file/a.txt"])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(ImageError, match=r"a\.txt cannot be written \(.*\): choose another place\.$"):
        files.write(tmp_path / name, "text", ImageError)


def test_the_longest_name_has_room_for_its_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".txt")
    files.write(path, "text")
    assert names(tmp_path) == [path.name]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    with files.new_folder(target) as work:
        (work / "a").write_text("1")
        assert not target.exists()
    with pytest.raises(RuntimeError), files.new_folder(target) as work:
        fail_after_writing(work / "b")
    assert names(target) == ["a"]
    with files.new_folder(target) as work:
        (work / "b").write_text("2")
    assert names(target) == ["b"]
    assert names(target.parent) == ["folder"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_a_folder_keeps_pointing_where_it_did(tmp_path: Path, there: bool) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    if there:
        (tmp_path / "real").mkdir()
    with files.new_folder(tmp_path / "link") as work:
        (work / "a").write_text("1")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["a"]
    assert names(tmp_path) == ["link", "real"]


def test_a_folder_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("file")
    with files.new_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a").is_dir()
    assert names(tmp_path) == ["a"]


def test_a_folder_that_cannot_take_its_place_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("precious")
    moves = iter([os.replace, fail_to_move, os.replace])
    monkeypatch.setattr(files.os, "replace", lambda source, target: next(moves)(source, target))
    with pytest.raises(ConfigError, match="a cannot be written"), files.new_folder(tmp_path / "a"):
        pass
    assert names(tmp_path / "a") == ["old"]
    assert names(tmp_path) == ["a"]


def fail_to_move(source: Path, target: Path) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_folder_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"), files.new_folder(tmp_path / "a-file" / "folder"):
        pass


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = files.temporary(tmp_path / "a").name.replace(f"-{os.getpid()}-", f"-{int(ended.stdout)}-")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / left).write_text("half")
    (tmp_path / "b" / left.replace(".part", "0.part")).mkdir()
    own = files.temporary(tmp_path / "a").name
    (tmp_path / "b" / own).write_text("still being written")
    files.write(tmp_path / "b" / "c", "whole")
    assert names(tmp_path / "b") == sorted([own, "c"])


def test_place_gives_a_file_a_second_name(tmp_path: Path) -> None:
    files.write(tmp_path / "a", "1")
    files.write(tmp_path / "b", "2")
    for _ in range(2):  # the second time both are one file already
        files.place(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "1"
    assert names(tmp_path) == ["a", "b"]
