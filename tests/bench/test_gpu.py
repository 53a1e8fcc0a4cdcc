"""benchmarks/gpu.sh, run dry: every stage on the CPU, as small as it goes."""

from __future__ import annotations

import csv
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from zoo.bench.rows import read_rows

ROOT = Path(__file__).parents[2]
PROTOCOL = """
schema: 1
name: tiny
contents: [builtin:astronaut]
styles: [builtin:swirls]
sizes: [48]
resize: exact
metrics: []
baselines: []
timing: {warmup: 0, repeats: 1, budget: 0}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "tiny.yaml").write_text(PROTOCOL)
    command = ["bash", str(ROOT / "benchmarks/gpu.sh"), str(folder / "out"), "--device", "cpu", "--size", "48"]
    command += ["--methods", "johnson", "--checks", "sizes", "--bench-methods", "johnson"]
    command += ["--protocol", str(folder / "tiny.yaml"), "--gatys-steps", "2"]
    command += ["--training", "--steps 1 --crop 32 --batch-size 1 --store 48 --held-out-count 1"]
    variables = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False), folder / "out"


def test_every_stage_ends_well_and_leaves_what_it_measured(
    done: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    run, out = done
    logs = {path.stem: path.read_text() for path in sorted(out.glob("*.log"))}
    assert run.returncode == 0, (run.stdout, run.stderr, logs)
    with (out / "stages.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["stage"]: row["ended"] for row in rows} == dict.fromkeys(logs, "ok")
    assert len(rows) == 7
    assert [check["status"] for check in json.loads(logs["checks"])["johnson"]] == ["passed"]
    assert "passed" in logs["pictures"]
    assert json.loads(logs["gatys"])[0]["steps"] == 2
    with Image.open(out / "gatys.png") as picture:
        assert picture.size[0] == 48
    assert (out / "training" / "model.safetensors").is_file()
    assert any(row.metric == "seconds.stylize" and row.value for row in read_rows(out / "speed" / "rows.jsonl"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


def test_a_stage_that_fails_is_told_and_the_others_go_on(gpu: ModuleType, tmp_path: Path) -> None:
    said: list[str] = []
    assert gpu.main([str(tmp_path), "--only", "checks,doctor", "--methods", "no-such-method"], said.append) == 1
    assert [line.partition(",")[0] for line in said] == ["doctor: ok", "checks: failed 2"]


def test_a_stage_that_takes_too_long_is_interrupted_and_keeps_what_it_has(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage(command: list[str], log: Path) -> int:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            log.write_text("kept")
        return 130

    monkeypatch.setattr(gpu, "_stage", stage)
    ended, seconds = gpu.run(["anything"], tmp_path / "log", 0.3)
    assert (ended, (tmp_path / "log").read_text()) == ("out of time", "kept")
    assert seconds < 30
