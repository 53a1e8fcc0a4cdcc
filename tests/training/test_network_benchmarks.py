"""The benchmarks of per-style networks: turns between processes, and the objective against its own definition."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_runs import HELD_OUT, run

from zoo import images
from zoo.methods.cin import CINTask, CINTaskConfig
from zoo.methods.johnson import JohnsonTask, JohnsonTaskConfig
from zoo.training import ImageSet
from zoo.training.join import join_checkpoints

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# A contestant that needs no torch: it acts in 10 ms of its own counting and tells of 3 MB.
FAKE = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
number = 0
while sys.stdin.readline().strip() == "go":
    number += 1
    if number > int(sys.argv[2]):
        sys.exit(3)
    print(json.dumps({"seconds": float(sys.argv[1]) * number}), flush=True)
print(json.dumps({"idle": 1000000, "peak": 4000000}), flush=True)
"""


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that imports a benchmark by its name, as if it were run from its folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return __import__(name)

    yield load
    for name in ("turns", "objective"):
        sys.modules.pop(name, None)


def test_contestants_act_in_turns(benchmarks: Any, tmp_path: Path) -> None:
    turns = benchmarks("turns")
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    slow, fast = (turns.Contestant(name, [str(script), name, "9"], 1) for name in ("2.0", "0.5"))
    turns.take_turns([slow, fast], rounds=3, warmup=1)
    assert slow.seconds == [4.0, 6.0, 8.0]
    assert turns.summary(fast.seconds) == {"median": 1.5, "low": 1.0, "high": 2.0}
    assert turns.ratios(slow.seconds, fast.seconds) == {"median": 4.0, "low": 4.0, "high": 4.0}
    assert slow.memory == 3_000_000
    mortal = turns.Contestant("mortal", [str(script), "1.0", "2"], 1)
    with pytest.raises(SystemExit, match="mortal: the process ended with status 3"):
        turns.take_turns([mortal], rounds=3)


def test_the_objective_is_that_of_the_training(
    benchmarks: Any,
    photographs: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    objective = benchmarks("objective")
    monkeypatch.setattr(objective, "STEPS", 3)
    common = {"style_layers": ("relu1_2", "relu2_2"), "content_layer": "relu2_2", "style_size": 48, "width": 4}
    torch.manual_seed(0)
    tasks = {
        "johnson": JohnsonTask(JohnsonTaskConfig(style="builtin:swirls", style_weight=3.0, **common)),
        "cin": CINTask(CINTaskConfig(styles=("builtin:swirls", "builtin:hatching"), coefficients=(1.0, 2.0), **common)),
    }
    files = {name: run(task, photographs, tmp_path / name, steps=3) for name, task in tasks.items()}
    files["johnson"], _ = join_checkpoints(tmp_path / "johnson.safetensors", {"swirls": files["johnson"]})
    (tmp_path / "content").mkdir()
    images.write(tmp_path / "content" / "one.png", HELD_OUT["content"][0])
    arguments = ["--content", str(tmp_path / "content"), "--size", "0", "--steps", "4", "--out", str(tmp_path / "out")]
    arguments += [f"--network={name}={path}" for name, path in files.items()]
    status = objective.main(arguments)
    report = json.loads((tmp_path / "out" / "objective.json").read_text())
    rows = {(row["method"], row["style"]): row for row in report["rows"]}
    assert set(rows) == {("johnson", "swirls"), ("cin", "swirls"), ("cin", "hatching")}

    # What the training measured on the same photograph, but for weights and pixels rounded in the files.
    held_out = {"content": [images.read(tmp_path / "content" / "one.png").pixels]}
    figures = tasks["johnson"].evaluate(held_out)
    row = rows["johnson", "swirls"]
    for name in ("total", "content", "style", "tv"):
        assert row["network"][name] == pytest.approx(figures[name], rel=0.02)
    assert row["unchanged"]["total"] == pytest.approx(figures["unchanged"], rel=1e-4)
    figures = tasks["cin"].evaluate(held_out)
    single = rows["cin", "hatching"]["unchanged"]
    # The photograph's content term is zero, and the coefficient of this style is 2.
    assert single["total"] == pytest.approx(2 * figures["hatching.unchanged"], rel=1e-4)
    for row in rows.values():
        assert row["optimised"]["total"] < row["unchanged"]["total"]
        assert row["optimised"]["total"] == pytest.approx(
            sum(row["optimised"][name] for name in row["network"] if name != "total"), rel=1e-5
        )
        assert 3 <= row["steps"] <= 4

    assert status == int(any(style["ratio"] > 1 or style["unchanged_ratio"] < 3 for style in report["styles"]))
    assert "| cin | hatching |" in (tmp_path / "out" / "objective.md").read_text()
    capsys.readouterr()
    # Everything is there already: nothing is measured again.
    monkeypatch.setattr(objective, "measure", None)
    assert objective.main(arguments) == status
    assert json.loads((tmp_path / "out" / "objective.json").read_text())["rows"] == report["rows"]
