"""Training runs ended at any point, or asked to end, and gone on with: losses and evaluations of an unbroken run.

The end is played in this process; tests/training/test_training.py kills real ones.
"""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import Tiny, losses, run, write_pictures

from zoo import files
from zoo.errors import ConfigError
from zoo.training import ImageSet
from zoo.training.records import Log, held

HELD_OUT = {"content": [torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))]}
OPTIONS: dict[str, Any] = {"steps": 9, "evaluate_every": 3, "log_every": 2, "checkpoint_minutes": 0.0, "ema": 0.9}


class Killed(BaseException):
    """The end of the process, as far as one process can play it."""


class Noisy(Tiny):
    """Its figures depend on noise, as those of texture networks do."""

    def evaluate(self, held_out):
        noisy = held_out["content"][0] + 0.1 * torch.randn_like(held_out["content"][0])
        return {"error": float((self.network(noisy) - noisy).abs().mean())}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImageSet]:
    root = write_pictures(tmp_path_factory.mktemp("images"))
    return {name: ImageSet.open(root / name, store=40, cache_dir=root / "cache") for name in ("content", "style")}


@pytest.fixture(autouse=True)
def _nothing_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer than all of a tiny run."""
    monkeypatch.setattr("zoo.training.export.export", lambda *_: None)
    monkeypatch.setattr("zoo.training.records._board", lambda *_: None)
    monkeypatch.setattr("zoo.training.trainer.write_preview", lambda *_: None)


class Fate:
    """Counts the points at which a run can end, and ends it at one of them."""

    def __init__(self) -> None:
        self.points = 0
        self.end: int | None = None

    def pass_by(self) -> None:
        self.points += 1
        if self.points == self.end:
            raise Killed


@pytest.fixture
def fate(monkeypatch: pytest.MonkeyPatch) -> Fate:
    """Runs may end before every update, around every evaluation, and before and after every checkpoint."""
    fate = Fate()
    write, figures, loss, evaluate = files.write, Log.figures, Tiny.loss, Noisy.evaluate

    def written(path: Path, data: Any) -> None:
        if Path(path).name == "checkpoint.pt":
            fate.pass_by()
        write(path, data)
        if Path(path).name == "checkpoint.pt":
            fate.pass_by()

    def passing(call: Any, after: bool = False) -> Any:
        def passed(*arguments: Any) -> Any:
            fate.pass_by()
            found = call(*arguments)
            if after:
                fate.pass_by()
            return found

        return passed

    monkeypatch.setattr("zoo.training.trainer.files.write", written)
    monkeypatch.setattr(Log, "figures", passing(figures, after=True))
    monkeypatch.setattr(Tiny, "loss", passing(loss))
    monkeypatch.setattr(Noisy, "evaluate", passing(evaluate))
    return fate


def trained(data: dict[str, ImageSet], folder: Path, **options: Any) -> Any:
    return run(data, folder, Noisy(), held_out=HELD_OUT, **{**OPTIONS, **options})


def evaluations(folder: Path) -> list[list[str]]:
    with (folder / "evaluation.csv").open(newline="") as file:
        return list(csv.reader(file))


def lose_what_was_not_flushed(folder: Path) -> None:
    """What a real kill loses: rows after the checkpoint, the last of them in its middle."""
    path = folder / "checkpoint.pt"
    state = torch.load(path, weights_only=True) if path.exists() else {"step": 0, "evaluated": -1}
    for name, last in (("losses", state["step"]), ("evaluation", state["evaluated"])):
        if (folder / f"{name}.csv").exists():
            lines = (folder / f"{name}.csv").read_text().splitlines(keepends=True)
            kept = [line for line in lines if not line[:1].isdigit() or int(line.split(",")[0]) <= last]
            torn = [line[: len(line) // 2] for line in lines[len(kept) : len(kept) + 1]]
            (folder / f"{name}.csv").write_text("".join(kept + torn))


def test_a_run_that_ends_anywhere_has_every_row_once(fate: Fate, data: dict[str, ImageSet], tmp_path: Path):
    trained(data, tmp_path / "whole")
    whole = (losses(tmp_path / "whole"), evaluations(tmp_path / "whole"))
    assert [row[0] for row in whole[1]] == ["step", "3", "6", "9"]
    points = fate.points
    assert points > 20
    for end in range(1, points + 1, 3):  # every point takes a minute, and they were all tried
        out = tmp_path / str(end)
        fate.points, fate.end = 0, end
        with pytest.raises(Killed):
            trained(data, out)
        if end % 2:
            lose_what_was_not_flushed(out)
        fate.end = None
        trained(data, out, resume=True)
        assert (losses(out), evaluations(out)) == whole, end


def test_a_finished_run_that_is_resumed_has_every_row_once(data: dict[str, ImageSet], tmp_path: Path):
    trained(data, tmp_path)
    whole = evaluations(tmp_path)
    for _ in range(2):
        found = trained(data, tmp_path, resume=True)
        assert evaluations(tmp_path) == whole
        assert found.state.figures["error"] == pytest.approx(float(whole[-1][1]))
    trained(data, tmp_path, resume=True, steps=14)
    assert [row[0] for row in evaluations(tmp_path)] == ["step", "3", "6", "9", "12", "14"]


@pytest.mark.parametrize("stop", [6, 7])
def test_a_run_that_is_asked_to_end_has_every_row_once(data: dict[str, ImageSet], tmp_path: Path, stop: int):
    trained(data, tmp_path, log_every=1, progress=lambda state: state.step == stop)
    trained(data, tmp_path, resume=True)
    assert [row[0] for row in evaluations(tmp_path)] == ["step", *sorted({"3", "6", "9", str(stop)})]


def test_rows_that_a_crash_of_the_machine_left_do_not_stop_a_resume(data: dict[str, ImageSet], tmp_path: Path):
    trained(data, tmp_path, steps=6)
    with (tmp_path / "losses.csv").open("ab") as file:
        file.write(b"\0" * 40 + b"\n\xff\n7,1,1,1,1\n")
    trained(data, tmp_path, resume=True)
    assert [row[0] for row in losses(tmp_path)] == ["step", *map(str, range(1, 10))]


def test_two_runs_do_not_share_a_folder(data: dict[str, ImageSet], tmp_path: Path):
    """As a scheduler starts them that knows nothing of torchrun."""
    out = tmp_path / "new" / "run"
    with held(out), pytest.raises(ConfigError, match="Another process trains into"):
        trained(data, out)
    assert list(tmp_path.iterdir()) == [], "a folder into which nothing was written goes"
    trained(data, out, steps=2)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_run_without_file_locks_trains(data: dict[str, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Some file systems of clusters have none."""

    def none(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", none)
    assert trained(data, tmp_path / "run", steps=2).state.step == 2


def test_preparation_can_be_broken_off(data: dict[str, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zoo.training.trainer._PATIENCE", 0.0)

    class Slow(Noisy):
        def prepare(self, batches):
            for _ in range(3):
                next(batches)
            raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "run", Slow(), progress=lambda state: state.step == 0)
    assert not (tmp_path / "run").exists()


def test_while_processes_wait_for_each_other_a_signal_ends_them_at_once():
    """Python runs no handler of its own there."""
    from zoo.training.processes import _endable

    numbers = (signal.SIGINT, signal.SIGTERM)
    heard: list[int] = []
    before = [signal.signal(number, lambda number, frame: heard.append(number)) for number in numbers]
    try:
        with _endable():
            assert [signal.getsignal(number) for number in numbers] == [signal.SIG_DFL] * 2
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert heard == [signal.SIGTERM]
