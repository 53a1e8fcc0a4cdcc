"""The table of how costs grow with the picture and where they end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from grid_runs import PROTOCOL, run_file

from zoo.bench.rows import Row
from zoo.report.files import write_tables
from zoo.report.growth import growth_sheet

LIMIT = "out of memory: 19 GiB resident; projected need at 512, from its growth over smaller sizes: 1600 MiB above idle"

NOW = "2026-01-02T03:04:05Z"


def row(metric: str, size: int, value: float | None, **changes: Any) -> Row:
    base = Row("r", PROTOCOL, "wct.zoo", None, None, "fp32", "a", "s", size, 0, 1.0, metric, 1.0, "s", "ok", "", NOW)
    return dataclasses.replace(base, value=value, **changes)


ROWS = [
    *(row("seconds.stylize", size, 1e-5 * size**2) for size in (64, 128, 256)),
    *(row("memory.resident", size, float(size)) for size in (64, 128, 256)),
    row("seconds.stylize", 512, None, status="failed", reason=LIMIT),
    row("seconds.stylize", 1024, None, status="failed", reason="not tried"),
    row("size.largest", 0, 448.0, content=None, style=None, unit="px", reason="472: out of memory"),
    row("seconds.stylize", 64, 1.0, method="adain.zoo"),
]


def test_growth_names_the_exponents_and_the_first_size_that_was_not_done():
    made = growth_sheet(ROWS, "Growth.")
    assert made is not None
    (form,), records = made.forms, json.loads(made.json)["rows"]
    assert [heading.text for heading in form.headings] == [
        "method",
        "growth of stylize",
        "growth of peak memory",
        "sizes",
        "first size not done",
        "largest that fits (px)",
    ]
    ((line,),) = [group.rows for group in form.groups]
    assert [entry.text for entry in line] == ["wct.zoo", "1.00", "0.50", "64 to 256", "512", "448"]
    assert line[1].spread == "± 0.00"
    assert form.foot == [f"{LIMIT}.", "472: out of memory."]
    assert line[0].notes == (1, 2)
    assert [(record["metric"], record["exponent"]) for record in records] == [
        ("seconds.stylize", pytest.approx(1.0)),
        ("memory.resident", pytest.approx(0.5)),
    ]


def test_a_run_of_one_size_has_no_growth():
    assert growth_sheet(ROWS[-1:], "Growth.") is None


def test_a_report_of_several_sizes_holds_it(tmp_path: Path):
    data = run_file()
    data["protocol"]["resolved"] |= {"baselines": [], "pairs": [["a", "s"]]}
    (tmp_path / "run.json").write_text(json.dumps(data))
    (tmp_path / "rows.jsonl").write_text("".join(one.to_json() + "\n" for one in ROWS))
    written = write_tables(tmp_path, formats=("md", "json"))
    assert {"growth.md", "growth.json"} <= set(written.files)
    assert "| wct.zoo (1) (2) | 1.00 ± 0.00 | 0.50 ± 0.00 |" in (written.folder / "growth.md").read_text()
    assert "growth" not in written.omitted
