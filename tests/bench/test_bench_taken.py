"""Metrics added to pictures that are there, or computed anew, without stylising again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bench_runs
import pytest
from command import run as command

from zoo import images
from zoo.bench import runner
from zoo.bench.folder import Folder
from zoo.bench.measures import MEASURES
from zoo.bench.plan import Cell
from zoo.bench.rows import Row, read_rows
from zoo.bench.run import BenchResult, run
from zoo.bench.supervise import Worker
from zoo.download import file_sha256
from zoo.errors import ConfigError, ProtocolError, UnknownNameError

PROTOCOL: dict[str, Any] = {**bench_runs.GRID, "metrics": ["ssim", "fd_vgg19"]}
MORE = ["ssim", "color_histogram", "fd_vgg19"]


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with bench_runs.installed(tmp_path_factory.mktemp("plugin")):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("protocols")


@pytest.fixture(scope="module")
def before(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchResult:
    """A run with few metrics."""
    path = bench_runs.write_protocol(folder, PROTOCOL)
    return run(["tint"], path, tmp_path_factory.mktemp("results") / "before", device="cpu", threads=1)


def more(folder: Path, **changes: Any) -> Path:
    """The protocol with one more metric."""
    path = bench_runs.write_protocol(folder, PROTOCOL, metrics=MORE, **changes)
    return path.rename(folder / "more.yaml")


def measured(rows: list[Row]) -> dict[Any, tuple[Any, ...]]:
    return {row.key: (row.value, row.run_id, row.picture) for row in rows if row.metric in MEASURES}


def test_a_metric_is_added_without_stylising_again(before, folder, tmp_path, monkeypatch):
    start = runner.Setting.worker

    def scorer(setting: runner.Setting, module: str, job: Mapping[str, Any]) -> Worker:
        assert module == "score", "stylised again"
        return start(setting, module, job)

    path = more(folder)
    whole = run(["tint"], path, tmp_path / "whole", device="cpu", threads=1)
    monkeypatch.setattr(runner.Setting, "worker", scorer)
    result = run(["tint"], path, tmp_path / "after", device="cpu", threads=1, take_from=before.folder)
    assert measured(result.rows) == measured(before.rows)
    values = {row.key: row.value for row in result.rows if row.metric not in MEASURES}
    assert values == {row.key: row.value for row in whole.rows if row.metric not in MEASURES}
    # What both protocols have was not computed again.
    own = {row.run_id for row in result.rows if row.metric == "ssim"}
    assert own == {row.run_id for row in before.rows}
    assert {row.run_id for row in result.rows if row.metric == "color_histogram"} != own
    assert len({row.protocol for row in result.rows}) == 1
    assert result.rows[0].protocol != before.rows[0].protocol
    runs = json.loads((result.folder / "run.json").read_text())["runs"]
    assert [entry.get("taken_from") for entry in runs] == [before.rows[0].protocol, None]
    again = run(["tint"], path, tmp_path / "after", device="cpu", threads=1, take_from=before.folder)
    assert again.written == 0


def test_other_pictures_are_refused(before, folder, tmp_path):
    out, source = tmp_path / "out", tmp_path / "source"
    larger = more(folder, sizes=[40])
    with pytest.raises(ProtocolError, match=r"differs from tiny@\w+ in sizes"):
        run(["tint"], larger, out, device="cpu", threads=1, take_from=before.folder)
    path = more(folder)
    with pytest.raises(ProtocolError, match="measured with threads 1, and this is threads 2"):
        run(["tint"], path, out, device="cpu", threads=2, take_from=before.folder)
    with pytest.raises(ProtocolError, match="holds no results to take over"):
        run(["tint"], path, out, device="cpu", threads=1, take_from=tmp_path / "nowhere")
    shutil.copytree(before.folder, source)
    next((source / "outputs").glob("tint.plain__*.png")).write_bytes(b"another")
    with pytest.raises(ProtocolError, match="no longer has 1 of its 4 pictures"):
        run(["tint"], path, out, device="cpu", threads=1, take_from=source)
    text = (before.folder / "rows.jsonl").read_text()
    (source / "rows.jsonl").write_text(text.replace('"checkpoint": null', f'"checkpoint": "{"0" * 64}"'))
    with pytest.raises(ProtocolError, match=r"tint\.plain with other weights"):
        run(["tint"], path, out, device="cpu", threads=1, take_from=source)
    with pytest.raises(ConfigError, match="leave out --from, --fresh or --again"):
        run(["tint"], path, out, device="cpu", threads=1, take_from=source, again=True)
    assert not (out / "rows.jsonl").exists() or not read_rows(out / "rows.jsonl")


def test_a_metric_is_computed_anew(before, folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(before.folder, out)
    path = bench_runs.write_protocol(folder, PROTOCOL)
    with pytest.raises(UnknownNameError, match="lpips"):
        run(["tint"], path, out, device="cpu", threads=1, rescore=["lpips"])
    wrong = (out / "rows.jsonl").read_text().replace('"metric": "ssim", "value": 0.', '"metric": "ssim", "value": 0.9')
    (out / "rows.jsonl").write_text(wrong)
    result = run(["tint"], path, out, device="cpu", threads=1, rescore=["ssim"])
    assert {row.key: row.value for row in result.rows} == {row.key: row.value for row in before.rows}
    assert result.written == 8  # four pictures and four copies
    (earlier,) = out.glob("earlier-*")
    assert {row.metric for row in read_rows(earlier / "rows.jsonl")} == {"ssim"}
    assert not list((earlier / "outputs").iterdir())


def test_what_is_taken_over_can_be_computed_anew(before, folder, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(before.folder, source)
    wrong = (
        (source / "rows.jsonl").read_text().replace('"metric": "ssim", "value": 0.', '"metric": "ssim", "value": 0.9')
    )
    (source / "rows.jsonl").write_text(wrong)
    out = tmp_path / "out"
    result = run(["tint"], more(folder), out, device="cpu", threads=1, take_from=source, rescore=["ssim"])
    right = {row.key: row.value for row in before.rows if row.metric == "ssim"}
    assert {row.key: row.value for row in result.rows if row.metric == "ssim"} == right


def test_pictures_that_are_there_stay_with_their_rows(before, folder, tmp_path):
    """Another run's picture may differ in its last bit: it must not stand under rows of this one."""
    path, out, source = more(folder), tmp_path / "out", tmp_path / "source"
    own = run(["tint"], path, out, device="cpu", threads=1)
    shutil.copytree(before.folder, source)
    text = (source / "rows.jsonl").read_text()
    for picture in (source / "outputs").glob("tint.plain__*.png"):
        old = file_sha256(picture)
        images.write(picture, 1 - images.read(picture).pixels)
        text = text.replace(old, file_sha256(picture))
    (source / "rows.jsonl").write_text(text)
    result = run(["tint"], path, out, device="cpu", threads=1, take_from=source, rescore=["ssim"])
    assert {row.key: row.value for row in result.rows} == {row.key: row.value for row in own.rows}
    for row in result.rows:
        if row.metric == "seconds.stylize":
            cell = Cell(row.method, str(row.content), str(row.style), row.size, row.seed, row.strength)
            assert file_sha256(out / "outputs" / cell.filename) == row.picture


def test_a_folder_takes_nothing_from_itself(before, folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(before.folder, out)
    path = bench_runs.write_protocol(folder, PROTOCOL)
    with pytest.raises(ProtocolError, match="from the folder they go into"):
        run(["tint"], path, out, device="cpu", threads=1, take_from=out / ".." / "out")
    assert len(list((out / "outputs").glob("tint.plain__*.png"))) == 4


def test_what_another_method_failed_is_no_failure_of_this_one(before, folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(before.folder, out)
    lost = {"content": None, "style": None, "size": 0, "value": None, "status": "failed", "reason": "boom"}
    row = dataclasses.replace(before.rows[0], method="other.x", metric="size.largest", samples=(), picture=None, **lost)
    with (out / "rows.jsonl").open("a") as file:
        file.write(row.to_json() + "\n")
    result = run(["tint"], bench_runs.write_protocol(folder, PROTOCOL), out, device="cpu", threads=1)
    assert result.ok
    assert {row.key for row in result.rows} == {row.key for row in before.rows}


def test_measuring_and_scoring_anew_go_together(before, folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(before.folder, out)
    path = bench_runs.write_protocol(folder, PROTOCOL)
    result = run(["tint"], path, out, device="cpu", threads=1, again=True, rescore=["ssim"])
    assert {row.run_id for row in result.rows if row.method == "tint.plain"}.isdisjoint(
        row.run_id for row in before.rows
    )
    assert len(list(out.glob("earlier-*"))) == 1


def test_starting_afresh_can_be_killed_and_repeated(before, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(before.folder, out)
    move = shutil.move

    def killed(source: Path, target: Path) -> None:
        if Path(source).name == "rows.jsonl":
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(shutil, "move", killed)
    with pytest.raises(KeyboardInterrupt):
        Folder(out).set_aside("1")
    monkeypatch.undo()
    assert not list((out / "outputs").rglob("*.png")), "nothing that another protocol prepared may stay"
    assert (out / "run.json").exists()
    Folder(out).set_aside("2")
    assert {path.name for path in out.iterdir()} == {"outputs", "earlier-1", "earlier-2"}
    assert read_rows(out / "earlier-2" / "rows.jsonl") == read_rows(before.folder / "rows.jsonl")


def test_the_command_takes_over_and_refuses(before, folder, tmp_path, capsys):
    path = more(folder)
    common = ["bench", "-m", "tint", "-p", str(path), "--device", "cpu", "--threads", "1", "-q"]
    assert command(*common, "-o", str(tmp_path / "out"), "--from", str(before.folder)) == 0
    assert command(*common, "-o", str(tmp_path / "out"), "--rescore", "color_histogram") == 0
    assert command(*common, "-o", str(tmp_path / "new"), "--from", str(tmp_path / "nowhere")) == 2
    assert "holds no results to take over" in capsys.readouterr().err
    assert command(*common, "-o", str(tmp_path / "new"), "--rescore", "ssim", "--shards", "2") == 2
    assert "--rescore and --from are for a run on one machine" in capsys.readouterr().err
