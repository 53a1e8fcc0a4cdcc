"""A run ended at every single point where it can be, and gone on with: its rows are those of an unbroken run.

The workers are played in this process, so that hundreds of ends cost seconds; test_bench.py kills real ones.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import bench_runs
import numpy as np
import pytest
import yaml
from PIL import Image

from zoo import images
from zoo.bench.measures import PRIMARY
from zoo.bench.rows import Row, read_rows
from zoo.bench.run import run
from zoo.bench.runner import Setting
from zoo.bench.supervise import Terminated, terminable
from zoo.download import file_sha256
from zoo.errors import ImageError, ProtocolError

PROTOCOL: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "contents": ["red.png", "green.png"],
    "styles": ["sea.png"],
    "sizes": [16],
    "metrics": ["ssim", "gram_loss", "fd_vgg19"],
    "baselines": ["style-copy"],
}


class Killed(BaseException):
    """The end of the process, as far as one process can play it: nobody catches it, so nothing more is written."""


class Fate:
    """Counts the points at which a run can end, and ends it at one of them."""

    def __init__(self) -> None:
        self.points = 0
        self.end: int | None = None

    def strike(self) -> bool:
        """Whether the run ends here."""
        self.points += 1
        return self.points == self.end

    def pass_by(self) -> None:
        """A point between two instructions."""
        if self.strike():
            raise Killed


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with bench_runs.installed(tmp_path_factory.mktemp("plugin")):
        yield


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocol")
    for name, color in {"red": (200, 60, 60), "green": (60, 200, 60), "sea": (60, 60, 200)}.items():
        Image.new("RGB", (20, 16), color).save(folder / f"{name}.png")
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(PROTOCOL))
    return path


def play(module: str, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a worker does and says, with numbers that depend on the pictures alone."""
    if module == "measure":
        yield {"event": "loaded", "precision": "fp32", "measured": [number("seconds.load", 1.0)]}
        for i, cell in enumerate(job["cells"]):
            yield {"event": "start", "cell": i}
            content, style = (images.read(cell[role]).pixels for role in ("content", "style"))
            written = images.write(cell["output"], (content + style) / 2)
            seconds = {**number(PRIMARY, 1.0), "picture": file_sha256(written)}
            yield {"event": "measured", "cell": i, "measured": [seconds, number("memory.resident", 2.0)]}
        return
    for i, metric in enumerate(job["metrics"]):
        for item in metric["items"]:
            yield {"event": "start", "metric": i, "item": item}
            picture = job["pictures"][item]
            members = picture.get("members", [picture])
            means = [float(images.read(one["output"]).pixels.mean()) for one in members]
            yield {"event": "scored", "metric": i, "item": item, "value": i + float(np.mean(means))}


def number(metric: str, value: float) -> dict[str, Any]:
    return {"metric": metric, "value": value, "unit": "", "samples": []}


class Player:
    """In place of a worker process."""

    def __init__(self, fate: Fate, module: str, job: Mapping[str, Any]) -> None:
        self.fate, self.module, self.job = fate, module, job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def kill(self) -> None:
        pass

    def events(self) -> Iterator[dict[str, Any]]:
        for event in play(self.module, self.job):
            self.fate.pass_by()  # the worker has said it, and the parent not yet heard it
            yield event


@pytest.fixture
def fate(monkeypatch: pytest.MonkeyPatch) -> Fate:
    """Runs are played, and may end between two events, before and in the middle of every write."""
    fate = Fate()
    write, replace = os.write, os.replace

    def torn(file: int, data: Any) -> int:
        if not bytes(data[:10]).startswith(b'{"run_id"'):
            return write(file, data)
        fate.pass_by()
        if fate.strike():
            write(file, data[: len(data) // 2])
            raise Killed
        return write(file, data)

    def renamed(source: Any, target: Any) -> None:
        fate.pass_by()  # written under its temporary name, not yet in place
        replace(source, target)

    def worker(self: Setting, module: str, job: Mapping[str, Any]) -> Player:
        return Player(fate, module, job)

    monkeypatch.setattr(Setting, "worker", worker)
    monkeypatch.setattr("os.write", torn)
    monkeypatch.setattr("os.replace", renamed)
    # Asks git and the processor, which takes longer than a whole played run.
    monkeypatch.setattr("zoo.bench.environment.describe", lambda device: {"usable_cores": 1, "source": ""})
    return fate


def measured(protocol: Path, out: Path, *names: str) -> list[Row]:
    return run(names or ["tint", "stepper"], protocol, out, device="cpu", threads=1).rows


def facts(rows: list[Row]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Rows without what may differ: when, and in which run."""
    return {
        row.key: (row.value, row.status, row.reason, row.unit, row.precision, row.protocol, row.picture) for row in rows
    }


def test_a_run_may_end_anywhere(fate, protocol, tmp_path):
    whole = facts(measured(protocol, tmp_path / "whole", "tint"))
    assert len(whole) == (1 + 2 * 4 + 1) + (2 * 2 + 1)
    points = fate.points
    assert points > 40
    for end in range(1, points + 1):
        out = tmp_path / str(end)
        fate.points, fate.end = 0, end
        with pytest.raises(Killed):
            measured(protocol, out, "tint")
        kept = facts(read_rows(out / "rows.jsonl"))
        assert kept.items() <= whole.items(), end
        fate.points, fate.end = 0, None
        assert facts(measured(protocol, out, "tint")) == whole, end
        lines = (out / "rows.jsonl").read_text().splitlines()
        assert len(lines) == len(whole), "nothing was written twice"


def test_a_run_may_end_again_and_again(fate, protocol, tmp_path):
    whole = facts(measured(protocol, tmp_path / "whole"))
    out = tmp_path / "out"
    random = np.random.default_rng(0)
    ends = 0
    while True:
        fate.points, fate.end = 0, int(random.integers(4, 25))
        try:
            rows = measured(protocol, out)
        except Killed:
            ends += 1
            continue
        break
    assert ends >= 5
    assert facts(rows) == whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_writes_down_that_it_did(number, fate, protocol, tmp_path, monkeypatch):
    """Wherever it is: the run's entry has its end and the load of the machine, and the run goes on afterwards."""
    monkeypatch.setattr(Fate, "pass_by", lambda self: os.kill(os.getpid(), number) if self.strike() else None)
    whole = facts(measured(protocol, tmp_path / "whole", "tint"))
    told: list[int] = []
    # The first point is before anything is written at all, the last is in the writing of the entry's end itself.
    for end in (*range(2, fate.points, 9), fate.points):
        out = tmp_path / str(end)
        fate.points, fate.end = 0, end
        try:
            measured(protocol, out, "tint")
        except Killed:  # in the middle of a row, which no signal can be
            continue
        except Terminated as stop:
            told.append(stop.number)
        (entry,) = json.loads((out / "run.json").read_text())["runs"]
        assert None not in (entry["ended"], entry["load_after"], entry["seconds"])
        fate.end = None
        assert facts(measured(protocol, out, "tint")) == whole
    assert len(told) >= 3
    assert set(told) == {number}
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)] == [signal.SIG_DFL] * 2


def test_a_run_leaves_the_handlers_of_others_alone(monkeypatch):
    """Under nohup a closed terminal ends nothing, and a cluster's launcher has its own answer to SIGTERM."""
    heard: list[int] = []
    monkeypatch.setattr(signal, "getsignal", {signal.SIGHUP: signal.SIG_IGN, signal.SIGTERM: heard.append}.get)
    monkeypatch.setattr(signal, "signal", lambda number, handler: heard.append(number))
    with terminable():
        pass
    assert heard == []


def full(call: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    """``call`` on a disk that is full ``when`` it says so."""

    def tried(*arguments: Any, **named: Any) -> Any:
        if when(*arguments):
            raise OSError(errno.ENOSPC, "No space left on device")
        return call(*arguments, **named)

    return tried


def test_a_disk_that_fills_up_while_rows_are_written(fate, protocol, tmp_path, monkeypatch):
    whole = facts(measured(protocol, tmp_path / "whole"))
    out = tmp_path / "out"
    count = iter(range(1000))
    with monkeypatch.context() as patch:
        patch.setattr("os.write", full(os.write, lambda file, data: bytes(data[:4]) == b'{"ru' and next(count) >= 3))
        with pytest.raises(ProtocolError, match=r"No space left on device\): earlier rows are intact; make room"):
            measured(protocol, out)
    kept = facts(read_rows(out / "rows.jsonl"))
    assert 0 < len(kept) < len(whole)
    assert facts(measured(protocol, out)) == whole


def test_a_disk_that_fills_up_while_inputs_are_prepared(fate, protocol, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full(os.replace, lambda source, target: str(target).endswith(".png")))
        with pytest.raises(ImageError, match=r"cannot be written \(No space left on device\)"):
            measured(protocol, out)
    assert list((out / "outputs" / "inputs").iterdir()) == [], "no half of a picture is left"
    assert facts(measured(protocol, out)) == facts(measured(protocol, tmp_path / "whole"))
