"""Two processes in one place: pictures stay whole, caches are built once, and films of two runs do not mix."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from zoo import images
from zoo.cli.jobs import Film
from zoo.errors import ImageError
from zoo.training import ImageSet


def test_a_picture_written_by_many_is_one_of_theirs_at_any_time(tmp_path: Path) -> None:
    path = images.write(tmp_path / "out.png", torch.zeros(1, 3, 24, 24))
    ended = threading.Event()

    def write(level: int) -> None:
        for _ in range(15):
            images.write(path, torch.full((1, 3, 24, 24), level / 255))

    def watch() -> set[float]:
        seen: set[float] = set()
        while not ended.is_set():
            seen |= set((images.read(path).pixels * 255).unique().tolist())
        return seen

    with ThreadPoolExecutor(5) as pool:
        watcher = pool.submit(watch)
        list(pool.map(write, (50, 100, 150)))
        ended.set()
        assert watcher.result() <= {0, 50, 100, 150}
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


def test_frames_of_two_runs_do_not_mix(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    first, second = Film(tmp_path / "out_frames"), Film(tmp_path / "out_frames")
    frame = torch.rand(1, 3, 8, 8)
    first(1, frame)
    first(2, frame)
    with pytest.raises(ImageError, match=r"Another process saves its frames into .*out_frames"):
        second(1, frame)
    assert sorted(path.name for path in (tmp_path / "out_frames").iterdir()) == ["00001.png", "00002.png"]
    first.close()
    second.close()
    third = Film(tmp_path / "out_frames")
    third(1, frame)
    third.close()
    assert [path.name for path in (tmp_path / "out_frames").iterdir()] == ["00001.png"]


def test_a_set_that_two_open_at_once_is_decoded_once(tmp_path: Path) -> None:
    for index in range(3):
        images.write(tmp_path / f"{index}.png", torch.rand(1, 3, 16, 16))
    decoded: list[int] = []

    def build(done: int, of: int) -> None:
        decoded.append(done)

    def act(_: int) -> ImageSet:
        return ImageSet.open(tmp_path, store=16, cache_dir=tmp_path / "cache", progress=build)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(act, range(2))
    assert (len(one), one.digest) == (len(two), two.digest)
    assert sorted(decoded) == [1, 2, 3]
