"""Who only stylizes needs no extra, and whoever needs one is told which."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command import run

import zoo
from zoo.errors import UnsupportedError
from zoo.extras import EXTRAS

ROOT = Path(__file__).parents[2]
MODULES = [module for modules in EXTRAS.values() for module in modules]
BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({MODULES!r})); from zoo.cli import main; main(sys.argv[1:])"


def test_stylizing_needs_no_extra(tmp_path: Path) -> None:
    small = ["-m", "adain", "--content-size", "64", "--style-size", "64", "-o", str(tmp_path / "out.png")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED, "stylize", *small], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.png").is_file()


def test_every_extra_is_one_of_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) < set(project["optional-dependencies"])
    (everything, *_) = project["optional-dependencies"]["test"]
    assert set(EXTRAS) <= set(everything.partition("[")[2].rstrip("]").split(","))


@pytest.mark.parametrize(
    ("module", "extra", "words"),
    [
        ("lightning_fabric", "train", ["train", "johnson", "--content-dir", ".", "--out", "run"]),
        ("gradio", "serve", ["serve", "--no-open"]),
        ("timm", "timm", ["weights", "fetch", "timm:resnet18"]),
        ("onnx", "onnx", ["export", "johnson"]),
        ("matplotlib", "bench", ["report", str(ROOT / "results" / "quick"), "--out", "tables", "--figures"]),
        ("jinja2", "bench", ["study", "make", str(ROOT / "results" / "quick"), "--out", "study"]),
    ],
)
def test_a_missing_extra_is_one_sentence(module, extra, words, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert f"pip install 'style-transfer-zoo[{extra}]'" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_frame_without_pandas_says_what_brings_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "zoo.report.frame", raising=False)
    with pytest.raises(UnsupportedError, match=r"style-transfer-zoo\[bench\]"):
        zoo.results  # noqa: B018
