"""The benchmark of the style swap: what its parts write, and that a part measured alone leaves the rest."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def style_swap_cost(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield __import__("style_swap_cost")
    sys.modules.pop("style_swap_cost")


def test_the_agreement_is_measured_alone(style_swap_cost: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "style_swap.json"
    shutil.copy(ROOT / "results" / "feedforward" / "style_swap.json", report)
    before = json.loads(report.read_text())
    assert style_swap_cost.main(["--agreement-only", "--agreement-size", "64", "--out", str(report)]) == 0
    after = json.loads(report.read_text())
    kept = set(before) - {"agreement", "agreement_size"}
    assert {"cost", "memory", "threads"} <= kept
    assert all(after[name] == before[name] for name in kept)
    assert after["agreement_size"] == 64
    for precision, same in (("bf16", 0.8), ("fp16", 0.95)):
        found = after["agreement"][precision]
        assert same < found["same_matches"] <= 1
        assert 0 < found["feature_difference"] < 0.2
    lines = report.with_suffix(".md").read_text().splitlines()
    assert "| against fp32, at 64 x 64 | same matches | difference of features | PSNR of images (dB) |" in lines
    # Random weights make no pictures worth comparing.
    assert any(line.startswith("| fp16 |") and line.endswith("| – |") for line in lines)


def test_the_agreement_alone_needs_a_report(
    style_swap_cost: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        style_swap_cost.main(["--agreement-only", "--out", str(tmp_path / "none.json")])
    assert "JSON file of an earlier run" in capsys.readouterr().err
