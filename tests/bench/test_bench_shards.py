"""Runs in several parts: which cells a shard has, how shards merge, a whole run through submitit's local executor."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench_fakes
import forked
import numpy as np
import pytest
import yaml
from grid_runs import CONTENTS, METHODS, STYLES, rows, run_file
from PIL import Image

from zoo import images
from zoo.bench import from_cluster
from zoo.bench.folder import Folder
from zoo.bench.plan import Cell, Shard
from zoo.bench.rows import Row, read_rows
from zoo.cli.bench import _cluster_options
from zoo.errors import ConfigError, ProtocolError
from zoo.metrics import load_metric
from zoo.registry import load_registry

PAIRS = tuple((content, style) for content in CONTENTS for style in STYLES)
PROTOCOL: dict[str, Any] = {
    "schema": 1,
    "name": "parts",
    "contents": ["red.png", "green.png"],
    "styles": ["sea.png"],
    "sizes": [32],
    "timing": {"warmup": 0, "repeats": 1},
    "metrics": ["ssim"],
    "baselines": ["content-copy"],
}


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_shards_share_the_pairs_out_whole_and_evenly(count):
    cells = [Cell("m.x", *pair, size, seed, 1.0) for pair in PAIRS for size in (32, 64) for seed in (0, 1)]
    parts = [Shard(i, count).cells(PAIRS, cells) for i in range(count)]
    assert sorted(map(str, (cell for part in parts for cell in part))) == sorted(map(str, cells))
    pairs = [{(cell.content, cell.style) for cell in part} for part in parts]
    assert sum(map(len, pairs)) == len(PAIRS)
    assert max(map(len, pairs)) - min(map(len, pairs)) <= 1


def test_a_shard_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="no shard 2 of 2"):
        Shard(2, 2)


def part(folder: Path, kept: list[Row], **changes: Any) -> Folder:
    """A results folder as a shard leaves it, with one picture."""
    made = Folder(folder)
    (made.outputs / "inputs").mkdir(parents=True)
    data = run_file()
    data["runs"][0]["run_id"] = folder.name
    made.run.write_text(json.dumps({**data, **changes}))
    made.rows.write_text("".join(row.to_json() + "\n" for row in kept))
    for kind in ("png", "mp4", "json"):
        (made.outputs / f"{folder.name}.{kind}").write_bytes(folder.name.encode())
    return made


def halves(tmp_path: Path) -> tuple[Folder, Folder]:
    everything = rows()
    return (
        part(tmp_path / "first", [row for row in everything if row.content in CONTENTS[:2]]),
        part(tmp_path / "second", [row for row in everything if row.content in CONTENTS[2:]]),
    )


def test_merged_shards_hold_every_row_picture_and_run(tmp_path):
    target = Folder(tmp_path / "whole")
    parts = halves(tmp_path)
    from_cluster.merge(target, parts)
    assert {row.key: row for row in read_rows(target.rows)} == {row.key: row for row in rows()}
    wanted = [f"{name}.{kind}" for name in ("first", "second") for kind in ("json", "mp4", "png")]
    assert sorted(path.name for path in target.outputs.glob("*.*") if path.suffix) == wanted
    found = target.read_run()
    assert found is not None
    assert [entry["run_id"] for entry in found["runs"]] == ["first", "second"]
    before = target.rows.read_bytes()
    from_cluster.merge(target, parts)
    assert target.rows.read_bytes() == before
    assert target.read_run() == found


def test_a_failed_cell_is_merged_once_and_its_success_replaces_it(tmp_path):
    failed = [row for row in rows() if row.content == CONTENTS[0] and row.method == METHODS[0]][:1]
    made = part(tmp_path / "first", [])
    bad = Row(**{**failed[0].__dict__, "value": None, "status": "failed", "reason": "boom", "samples": ()})
    made.rows.write_text(bad.to_json() + "\n")
    target = Folder(tmp_path / "whole")
    for _ in range(2):
        from_cluster.merge(target, [made])
    assert read_rows(target.rows) == [bad]
    again = dataclasses.replace(bad, reason="boom again")
    made.rows.write_text(bad.to_json() + "\n" + again.to_json() + "\n")
    for _ in range(2):
        from_cluster.merge(target, [made])
    assert read_rows(target.rows) == [bad, again]
    made.rows.write_text(bad.to_json() + "\n" + failed[0].to_json() + "\n")
    from_cluster.merge(target, [made])
    assert read_rows(target.rows)[-1] == failed[0]


def test_shards_of_another_protocol_or_machine_and_missing_ones_are_refused(tmp_path):
    first, _ = halves(tmp_path)
    other = part(tmp_path / "other", [], conditions={**run_file()["conditions"], "machine": "Crate"})
    target = Folder(tmp_path / "whole")
    with pytest.raises(ProtocolError, match=r"other has another conditions than .*whole"):
        from_cluster.merge(target, [first, other])
    with pytest.raises(ProtocolError, match=r"nowhere holds no results"):
        from_cluster.merge(target, [first, Folder(tmp_path / "nowhere")])
    assert not target.rows.exists()


def test_a_failed_task_gives_its_reason_and_its_log():
    error = RuntimeError("Job failed\n-----\nTraceback ...\nzoo.errors.ProtocolError: the disk is full\n-----\n")
    job = SimpleNamespace(exception=lambda: error, paths=SimpleNamespace(stderr=Path("1_0_log.err")))
    with pytest.raises(ProtocolError, match=r"the disk is full\), its log is 1_0_log\.err"):
        from_cluster._wait(job, "local")
    from_cluster._wait(SimpleNamespace(exception=lambda: None), "local")


@pytest.mark.parametrize("error", [RuntimeError("sbatch: invalid partition\n specified"), PermissionError("no place")])
def test_a_cluster_that_takes_no_tasks_is_one_sentence(error):
    def refuse(*_: object) -> None:
        raise error

    with pytest.raises(
        ConfigError, match=r"The cluster did not take the tasks \((sbatch: invalid partition specified|no place)"
    ):
        from_cluster._submitted(refuse, [])


# -- a whole run -----------------------------------------------------------------------------------------------------


@pytest.fixture
def protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A protocol of two pairs, and the fakes as a plugin for every process, those of the cluster too."""
    bench_fakes.install(tmp_path / "plugin")
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(part or os.getcwd() for part in sys.path))
    importlib.invalidate_caches()
    load_registry.cache_clear()
    rng = np.random.default_rng(0)
    for name in ("red", "green", "sea"):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    path = tmp_path / "parts.yaml"
    path.write_text(yaml.safe_dump(PROTOCOL))
    yield path
    load_registry.cache_clear()


def command(*arguments: str) -> int:
    from zoo.cli import main

    try:
        main(["bench", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_what_cannot_be_sharded_is_said_before_anything_is_submitted(protocol, tmp_path, capsys):
    common = ["--methods", "tint", "--protocol", str(protocol), "--out", str(tmp_path / "out"), "--shards"]
    for arguments, said in (
        (["3"], "A run of 2 pairs can have 1 to 2 shards, not 3"),
        (["2", "--cluster", "cloud"], "Unknown cluster 'cloud'"),
        (["2", "--outputs", f"mine={tmp_path}"], "leave out --shards"),
        (["2", "--cluster", "local", "--cluster-option", "nonsense"], "takes KEY=VALUE"),
        (["2", "--cluster", "local", "--cluster-option", "k=[x"], "--cluster-option k: '[x' is not JSON"),
        (["2"], "name the device, --device cuda or --device cpu"),
        (["2", "--cluster", "slurm", "--device", "auto"], "name the device, --device cuda or --device cpu"),
    ):
        assert command(*common, *arguments) == 2
        assert said in capsys.readouterr().err
    for alone in (["--cluster-option", "timeout_min=9"], ["--cluster", "local"]):
        assert command(*common[:-1], *alone) == 2
        assert "add --shards" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cluster_options_are_numbers_truth_values_json_or_text():
    given = [
        "slurm_time=2:00:00",
        "timeout_min=90",
        "slurm_nice=-5",
        "slurm_exclusive=false",
        "slurm_use_srun=true",
        "slurm_comment=a=b, yes",
        "slurm_account=007",
        "slurm_mem=1e3",
        'slurm_setup=["module load cuda"]',
        'slurm_additional_parameters={"mem-bind": "local"}',
        "slurm_qos=",
    ]
    assert _cluster_options(given) == {
        "slurm_time": "2:00:00",
        "timeout_min": 90,
        "slurm_nice": -5,
        "slurm_exclusive": False,
        "slurm_use_srun": True,
        "slurm_comment": "a=b, yes",
        "slurm_account": "007",
        "slurm_mem": "1e3",
        "slurm_setup": ["module load cuda"],
        "slurm_additional_parameters": {"mem-bind": "local"},
        "slurm_qos": "",
    }


def test_shards_through_submitit_make_the_rows_of_one_run(protocol, tmp_path, capsys, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr("submitit.local.local.subprocess", forked)
    out = tmp_path / "out"
    common = ["--methods", "tint", "--protocol", str(protocol), "--out", str(out), "--device", "cpu", "--threads", "1"]
    assert command(*common, "--shards", "2", "--cluster", "local") == 0
    assert "tint.plain" in capsys.readouterr().out
    found = read_rows(out / "rows.jsonl")
    scores = {(row.method, row.content): row.value for row in found if row.metric == "ssim"}
    assert scores.keys() == {(m, c) for m in ("tint.plain", "content-copy") for c in ("red", "green")}
    metric = load_metric("ssim")
    for name in ("red", "green"):
        picture = out / "outputs" / f"tint.plain__{name}__sea__32__seed0__strength1.png"
        content = out / "outputs" / "inputs" / f"content__{name}__32.png"
        style = out / "outputs" / "inputs" / "style__sea__32.png"
        pixels = [images.read(path).pixels for path in (picture, content, style)]
        assert scores["tint.plain", name] == pytest.approx(metric(*pixels), rel=1e-5)
    timed = [row for row in found if row.metric == "seconds.stylize"]
    assert sorted(str(row.content) for row in timed) == ["green", "red"]
    assert len({row.run_id for row in timed}) == 2
    assert len({row.protocol for row in found}) == 1
    assert len(json.loads((out / "run.json").read_text())["runs"]) == 2
