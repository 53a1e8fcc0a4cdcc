"""The documentation's figures are those in results/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zoo.report.forms import to_markdown
from zoo.report.present import present
from zoo.report.tables import read_table

ROOT = Path(__file__).resolve().parent.parent
RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/rows.jsonl"))


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_a_runs_table_is_what_its_rows_say(run: Path) -> None:
    table = to_markdown(present(read_table(run)))
    assert (run / "table.md").read_text(encoding="utf-8") == table, "write it again: zoo.report.tables.write_report"


def test_tables_in_the_documents_are_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "docs" / "update.py", "--check"], capture_output=True, text=True)
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
        assert found == pytest.approx(line.values["ssim"])


def test_the_readme_example_runs(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(
        compile(code.replace("num_steps=100", "num_steps=2").replace('size="256"', 'size="64"'), "README.md", "exec"),
        {},
    )
    assert (tmp_path / "out.png").stat().st_size > 1000
