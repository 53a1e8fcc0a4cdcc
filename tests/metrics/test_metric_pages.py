"""docs/metrics.md is what registry and docstrings say, and its scripts compute the recorded values."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from test_metrics_goldens import GOLDENS, SETS, pairs, tolerance

from zoo.bench.measures import MEASURES
from zoo.registry import load_registry

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def pages() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "metric_pages.py"))


def test_the_page_is_up_to_date(pages: dict[str, Any]) -> None:
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == pages["page"](), "run python docs/metric_pages.py"


def test_every_metric_has_a_section_that_says_what_it_needs(pages: dict[str, Any]) -> None:
    text = pages["page"]()
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    metrics = load_registry().metrics
    assert list(sections) == ["Speed and memory", *metrics]
    measures = sections.pop("Speed and memory")
    assert all(f"`{name}`" in measures for name in MEASURES)
    for name, entry in metrics.items():
        for said in (entry.title, entry.range, entry.reference, f"{entry.direction} is better", *entry.needs):
            assert said in sections[name], (name, said)
        # A metric that needs no download is recorded, and its value can be computed again by the reader.
        assert ("```python" in sections[name]) == (not entry.needs), name
    assert ":class:" not in text
    assert "``" not in text.replace("```", "")


@pytest.mark.parametrize("name", [*GOLDENS, *SETS])
def test_the_script_computes_the_recorded_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "goldens"))
    script = DOCS / "goldens" / f"{name}.py"
    body = [line for line in script.read_text().splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(body) <= 10
    said = io.StringIO()
    count = pairs(name)
    monkeypatch.setattr("pictures.PAIRS", importlib.import_module("pictures").PAIRS[:count])
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_path(str(script))
    finally:
        sys.modules.pop("pictures", None)
    wanted = {**GOLDENS, **SETS}[name][:count]
    assert [float(line) for line in said.getvalue().split()] == pytest.approx(wanted, rel=tolerance(name))
