"""The documentation's figures are those in results/."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest

from zoo.bench.folder import Folder
from zoo.bench.rows import read_rows
from zoo.registry import load_registry
from zoo.report.forms import to_markdown
from zoo.report.narrow import forms
from zoo.report.tables import read_run, read_table

ROOT = Path(__file__).resolve().parents[2]
RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/rows.jsonl"))


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_a_runs_table_is_what_its_rows_say(run: Path) -> None:
    folder = Folder(run)
    table = to_markdown(*forms(read_rows(folder.rows), read_run(folder), load_registry()))
    assert (run / "table.md").read_text(encoding="utf-8") == table, "write it again: zoo.report.files.write_report"


def test_tables_in_the_documents_are_up_to_date():
    done = forked.run([sys.executable, ROOT / "docs" / "update.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_example_of_the_guide_to_reports_gives_what_the_table_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(compile(code, "reports.md", "exec"), names)
    printed, good = capsys.readouterr().out, names["good"]
    for line in read_table(ROOT / "results" / "quick").lines:
        assert line.method in printed
        found = good[(good.method == line.method) & (good.metric == "ssim")].value.mean()
        wanted = line.values["ssim"]  # None of a method that takes none of the pictures
        assert found == pytest.approx(np.nan if wanted is None else wanted, nan_ok=True)


def test_the_readme_example_runs(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    for large, small in (("num_steps=100", "num_steps=2"), ('size="256"', 'size="64"'), ("size=256", "size=64")):
        assert large in code
        code = code.replace(large, small)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_the_sheet_of_a_family_is_made_anew_and_what_takes_hours_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specification = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    assert specification is not None
    assert specification.loader is not None
    figures = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(figures)
    monkeypatch.setattr(figures, "BESIDE_STEPS", 1)
    monkeypatch.setattr(figures, "FAMILIES", {"some": ("johnson",)})
    for name, value in {"PAIRS": (("astronaut", "swirls"),), "SIZE": "32", "IMAGES": tmp_path}.items():
        monkeypatch.setattr(figures, name, value)
    monkeypatch.setattr(figures, "KEPT", tmp_path / "kept")
    figures.beside()
    assert capsys.readouterr().out.split("\n")[:2] == ["gatys: astronaut in swirls", "johnson: astronaut in swirls"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["gatys-1-astronaut-swirls-32.png"]
    first = (tmp_path / "beside-some.webp").read_bytes()
    (tmp_path / "beside-some.webp").unlink()
    figures.beside()
    assert capsys.readouterr().out == "johnson: astronaut in swirls\n"
    assert (tmp_path / "beside-some.webp").read_bytes() == first


def test_the_readme_is_read_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100
