"""``zoo check`` on the command line: what it prints, and exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import forked
import pytest

ROOT = Path(__file__).resolve().parents[2]
GOOD = Path(__file__).parents[1] / "plugins" / "good"

ROGUE = """
from zoo_tint.tint import Tint


class Rogue(Tint):
    ENTRY = {entry!r}

    def _encode_style(self, style, content_size):
        style.image.zero_()
        return super()._encode_style(style, content_size)
"""


@pytest.fixture
def rogue(tmp_path: Path) -> Path:
    """A plugin that spoils the style picture."""
    entry = {
        "title": "Rogue",
        "authors": "A. Tester",
        "year": 2003,
        "paper": "https://example.org/rogue",
        "bibtex": "@misc{rogue2003}",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "only",
        "presets": {"only": {"summary": "The only one"}},
    }
    (tmp_path / "zoo_rogue.py").write_text(ROGUE.format(entry=entry), encoding="utf-8")
    metadata = tmp_path / "zoo_rogue-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-rogue\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[zoo.methods]\nrogue = zoo_rogue:Rogue\n", encoding="utf-8")
    return tmp_path


def _check(*arguments: str, plugins: tuple[Path, ...] = (GOOD,)) -> forked.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT, *plugins)))
    return forked.run(
        [sys.executable, "-W", "error", "-m", "zoo", "check", *arguments],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_good_method_exits_with_0() -> None:
    run = _check("tint", "--only", "mix-*", "--only", "sizes")
    assert (run.returncode, run.stderr) == (0, "")
    assert "tint: 4 passed, 0 failed, 1 skipped" in run.stdout
    assert "only for methods with the trait 'no mixes'" in run.stdout
    assert "mix-order" in run.stdout
    assert "stop" not in run.stdout


def test_a_failing_check_exits_with_1_and_names_the_reason(rogue: Path) -> None:
    run = _check("tint", "rogue", "--only", "intact", plugins=(GOOD, rogue))
    assert run.returncode == 1
    assert "tint: 1 passed" in run.stdout
    assert "rogue: 0 passed, 1 failed" in run.stdout
    assert "the style image was modified in place" in run.stdout


def test_json_holds_every_result(rogue: Path) -> None:
    run = _check("[tr]*", "drift", "--only", "intact", "--only", "stop", "--json", plugins=(GOOD, rogue))
    assert run.returncode == 1
    report = json.loads(run.stdout)
    assert {"texture-nets", "tint", "drift", "rogue"} <= set(report)
    outcomes = {name: {r["name"]: r["status"] for r in results} for name, results in report.items()}
    assert outcomes["tint"] == {"intact": "passed", "stop": "skipped"}
    assert outcomes["drift"] == {"intact": "passed", "stop": "passed"}
    assert outcomes["rogue"] == {"intact": "failed", "stop": "skipped"}
    assert all(r["seconds"] >= 0 and isinstance(r["reason"], str) for r in report["rogue"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tin"], "Unknown method 'tin': did you mean tint"),
        (["tint", "--only", "sises"], "Unknown check 'sises': did you mean sizes"),
        (["tint", "--device", "tpu-9000"], "Unknown device 'tpu-9000'"),
    ],
)
def test_a_mistake_is_one_line_and_exits_with_2(arguments: list[str], message: str) -> None:
    run = _check(*arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
