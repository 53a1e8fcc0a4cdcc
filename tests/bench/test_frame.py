"""zoo.results: rows as a DataFrame, with their types and units."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from grid_runs import run_file

import zoo
from zoo.bench.folder import write_rows
from zoo.bench.rows import Row
from zoo.errors import ProtocolError

SECONDS = Row(
    "r", "p@1", "m.x", "ab12", None, "bf16", "a", "s", 64, 2**63, 0.5, "seconds.stylize", 0.25, "s", "ok", "",
    "2026-11-21T11:34:56Z", (0.2, 0.25, 0.5), "cd34",
)  # fmt: skip
FAILED = Row(
    "r", "p@1", "m.x", None, None, None, None, None, 0, 1, 1.0, "kid", None, "", "failed", "no", "2026-11-22T00:00:00Z"
)


def folder(path: Path, *rows: Row) -> Path:
    (path / "run.json").write_text(json.dumps(run_file()))
    write_rows(path / "rows.jsonl", rows)
    return path


def test_columns_have_types_and_metrics_units(tmp_path: Path) -> None:
    frame = zoo.results(str(folder(tmp_path, SECONDS, FAILED)))
    assert list(frame.method) == ["m.x", "m.x"]
    assert (frame.value[0], frame["size"][0], frame.seed[0], frame.strength[0]) == (0.25, 64, 2**63, 0.5)
    assert math.isnan(frame.value[1])
    assert frame.content.isna().tolist() == frame.checkpoint.isna().tolist() == [False, True]
    assert frame.samples[0] == (0.2, 0.25, 0.5)
    assert frame.utc[0] == pd.Timestamp("2026-11-21 11:34:56", tz="UTC")
    assert {name: str(frame[name].dtype) for name in ("method", "size", "strength", "value", "status")} == {
        "method": "string", "size": "int64", "strength": "float64", "value": "float64", "status": "string",
    }  # fmt: skip
    assert frame.attrs["units"] == {"seconds.stylize": "s", "kid": ""}
    assert (frame.attrs["protocol"], frame.attrs["conditions"]) == (
        run_file()["protocol"]["id"],
        run_file()["conditions"],
    )


def test_a_run_without_rows_has_the_same_columns(tmp_path: Path) -> None:
    for name in ("full", "empty"):
        (tmp_path / name).mkdir()
    full = zoo.results(folder(tmp_path / "full", SECONDS))
    empty = zoo.results(folder(tmp_path / "empty"))
    assert len(empty) == 0
    assert empty.dtypes.drop("seed").equals(full.dtypes.drop("seed"))


def test_only_rows_that_count_are_there(tmp_path: Path) -> None:
    again = dataclasses.replace(SECONDS, value=0.75)
    frame = zoo.results(folder(tmp_path, SECONDS, again))
    assert frame.value.tolist() == [0.75]


def test_a_folder_without_results_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"holds no results: run 'zoo bench --out .*' first"):
        zoo.results(tmp_path / "none")
