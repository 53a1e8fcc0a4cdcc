"""Metrics of sets in whole runs: one row per method, skipped where a picture or a network is missing, resumed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_runs
import pytest
import yaml

from zoo import images
from zoo.bench.from_cluster import Task
from zoo.bench.plan import Cell, SetCell, set_cells
from zoo.bench.rows import Row, latest, read_rows
from zoo.bench.run import BenchResult, run
from zoo.metrics import load_set_metric
from zoo.metrics.base import SmallSetWarning
from zoo.report.tables import read_table

PROTOCOL: dict[str, Any] = {
    "schema": 1,
    "name": "sets",
    "contents": ["red.png", "green.png"],
    "styles": ["sea.png", "sand.png"],
    "sizes": [32],
    "strengths": [1.0, 0.5],
    "timing": {"warmup": 0, "repeats": 1, "budget": 0},
    "metrics": ["ssim", "fd_vgg19", "fid"],
    "baselines": ["style-copy"],
    "limits": {"seconds": 120},
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The fakes as an installed plugin, and a cache without networks, here and in every process started from here."""
    folder = tmp_path_factory.mktemp("plugin")
    with bench_runs.installed(folder) as patch:
        patch.setenv("TORCH_HOME", str(folder))
        yield


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocol")
    bench_runs.draw(folder)
    path = folder / "sets.yaml"
    path.write_text(yaml.safe_dump(PROTOCOL))
    return path


@pytest.fixture(scope="module")
def whole(environment: None, protocol: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchResult:
    out = tmp_path_factory.mktemp("results") / "whole"
    return run(["tint", "moody.raise"], protocol, out, device="cpu", threads=1)


def sets_of(rows: list[Row], metric: str) -> dict[tuple[str, float], Row]:
    return {(row.method, row.strength): row for row in rows if row.metric == metric}


def test_a_set_has_one_row_per_method_and_strength(whole: BenchResult) -> None:
    rows = sets_of(whole.rows, "fd_vgg19")
    assert set(rows) == {("tint.plain", 1.0), ("tint.plain", 0.5), *(("moody.raise", s) for s in (1.0, 0.5))} | {
        ("style-copy", 1.0)
    }
    for key, row in rows.items():
        assert (row.content, row.style, row.size) == (None, None, 32)
        assert row.status == ("skipped" if key[0] == "moody.raise" else "ok")
    assert rows["style-copy", 1.0].value == pytest.approx(0, abs=1e-2)
    assert "rank-deficient" in rows["tint.plain", 1.0].reason
    assert sum(row.metric == "fd_vgg19" for row in whole.rows) == 5


def test_a_set_that_lacks_pictures_is_skipped(whole: BenchResult) -> None:
    row = sets_of(whole.rows, "fd_vgg19")["moody.raise", 1.0]
    assert row.reason == "2 of the 4 pictures of the set are missing"


def test_a_set_metric_whose_network_is_missing_says_what_fetches_it(whole: BenchResult) -> None:
    row = sets_of(whole.rows, "fid")["tint.plain", 1.0]
    assert (row.status, row.value) == ("skipped", None)
    assert "'zoo weights fetch inception.fid'" in row.reason


def test_the_value_is_that_of_the_saved_pictures(whole: BenchResult) -> None:
    outputs = whole.folder / "outputs"
    metric = load_set_metric("fd_vgg19")
    metric.begin()
    for content in ("green", "red"):
        for style in ("sea", "sand"):
            paths = (
                outputs / f"tint.plain__{content}__{style}__32__seed0__strength1.png",
                outputs / "inputs" / f"content__{content}__32.png",
                outputs / "inputs" / f"style__{style}__32.png",
            )
            metric.add(*(images.read(path).pixels for path in paths))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSetWarning)
        value = metric.value()
    assert sets_of(whole.rows, "fd_vgg19")["tint.plain", 1.0].value == pytest.approx(value, rel=1e-5)


def test_the_table_shows_sets_by_strength_and_says_what_must_be_said(whole: BenchResult) -> None:
    rows = sets_of(whole.rows, "fd_vgg19")
    shown = {(line.method, line.strength): line.values["fd_vgg19"] for line in read_table(whole.folder).lines}
    for strength in (1.0, 0.5):
        assert shown["tint.plain", strength] == rows["tint.plain", strength].value
        assert shown["style-copy", strength] == rows["style-copy", 1.0].value
        assert shown["moody.raise", strength] is None
    assert shown["tint.plain", 1.0] != shown["tint.plain", 0.5]
    table = read_table(whole.folder)
    text = "\n".join([*table.notes, *map(str, table.remarks)])
    assert "fd vgg19: 4 pictures: a Fréchet distance of fewer than 2,048" in text
    assert "fd_vgg19 skipped on all pictures: 2 of the 4 pictures of the set are missing." in text
    assert "fid skipped on all pictures: The weights of inception.fid" in text


def test_a_finished_run_has_nothing_to_do_and_a_lost_value_comes_back(whole: BenchResult, protocol: Path) -> None:
    again = run(["tint", "moody.raise"], protocol, whole.folder, device="cpu", threads=1)
    assert again.written == 0
    path = whole.folder / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not ('"metric": "fd_vgg19"' in line and '"tint.plain"' in line)]
    assert len(lines) - len(kept) == 2
    path.write_text("".join(kept))
    mended = run(["tint", "moody.raise"], protocol, whole.folder, device="cpu", threads=1)
    assert mended.written == 2
    for key, row in sets_of(whole.rows, "fd_vgg19").items():
        assert sets_of(mended.rows, "fd_vgg19")[key].value == row.value


@pytest.mark.parametrize("pictures", [True, False])
def test_a_set_is_looked_at_again_once_its_pictures_are_made(
    environment: None, protocol: Path, tmp_path: Path, pictures: bool
) -> None:
    """As a run leaves it that retried its failures and was killed before it scored; without pictures, in a clone."""
    out = tmp_path / "out"
    whole = run(["tint"], protocol, out, device="cpu", threads=1)
    value = {row.key: row.value for row in whole.rows if row.metric == "fd_vgg19"}
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        if row["metric"] == "fd_vgg19" and row["method"] == "tint.plain":
            row |= {"value": None, "status": "skipped", "cause": "input", "reason": "1 of the 4 pictures"}
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if not pictures:
        for picture in (out / "outputs").glob("tint*.png"):
            picture.unlink()
    mended = run(["tint"], protocol, out, device="cpu", threads=1)
    assert {row.key: row.value for row in mended.rows if row.metric == "fd_vgg19"} == value
    assert run(["tint"], protocol, out, device="cpu", threads=1).written == 0


def test_sets_are_of_one_method_size_seed_and_strength() -> None:
    def cell(method: str, content: str, size: int = 32, seed: int = 0, strength: float = 1.0) -> Cell:
        return Cell(method, content, "s", size, seed, strength)

    apart = [
        cell("m", "a"),
        cell("n", "a"),
        cell("m", "a", size=64),
        cell("m", "a", seed=1),
        cell("m", "a", strength=0),
    ]
    assert set_cells([*apart, cell("m", "b")]) == [(apart[0], cell("m", "b")), *((one,) for one in apart[1:])]
    group = SetCell.of((apart[0], cell("m", "b")))
    assert group.key("fid") == ("m", None, None, 32, 0, 1.0, "fid")
    assert str(group) == "m, all 2 pictures at 32"


def test_a_run_in_parts_retries_sets_too(environment: None, protocol: Path, tmp_path: Path) -> None:
    small = protocol.parent / "parts.yaml"
    small.write_text(yaml.safe_dump({**PROTOCOL, "metrics": ["fd_vgg19"], "styles": ["sea.png"], "strengths": [1.0]}))

    def work(shard: int | None, **options: Any) -> None:
        Task(("tint",), str(small), tmp_path, 2, shard, {"device": "cpu", "threads": 1, **options})()

    for shard in (0, 1, None):
        work(shard)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        if row["metric"] == "fd_vgg19" and row["method"] == "tint.plain":
            row.update(value=None, status="failed", reason="no memory", cause="memory", samples=[])
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    work(None)
    assert latest_set(tmp_path).status == "failed"
    work(None, retry_failed=True)
    assert latest_set(tmp_path).status == "ok"


def latest_set(folder: Path) -> Row:
    (found,) = (
        row for row in latest(read_rows(folder / "rows.jsonl")) if row.key[-1] == "fd_vgg19" and "tint" in row.method
    )
    return found
