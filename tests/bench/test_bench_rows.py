"""Rows on disk: appended, complete, cut off, in order; and the folder that holds them."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import math
import operator
import os
from pathlib import Path
from typing import Any

import pytest
from grid_runs import run_file

from zoo.bench.folder import Folder, check_same, write_rows, write_text
from zoo.bench.plan import Cell
from zoo.bench.rows import Row, RowStore, latest, read_rows
from zoo.errors import ProtocolError

ROW = Row(
    run_id="r1",
    protocol="p@1",
    method="tint.plain",
    checkpoint=None,
    encoder="vgg19",
    precision="fp32",
    content="photo",
    style="paint",
    size=64,
    seed=0,
    strength=1.0,
    metric="ssim",
    value=0.5,
    unit="",
    status="ok",
    reason="",
    utc="2026-01-02T03:04:05Z",
    samples=(0.1, 0.2),
)


def row(**changes: object) -> Row:
    return dataclasses.replace(ROW, **changes)  # type: ignore[arg-type]


def test_a_row_survives_its_line(tmp_path):
    lost = row(metric="lpips", value=None, status="skipped", reason="a\nb\u2028c", cause="lacking")
    assert json.loads(row(reason="caf\udce9").to_json())["reason"] == "caf?"
    rows = [row(content="naïve"), lost, dataclasses.replace(lost, metric="ssim2", cause=None)]
    with RowStore(tmp_path / "rows.jsonl") as store:
        assert store.append(rows) == rows
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert isinstance(json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["value"], float)


@pytest.mark.parametrize(
    ("value", "status"), [(None, "ok"), (math.nan, "ok"), (math.inf, "ok"), (1.0, "failed"), (1.0, "maybe")]
)
def test_a_row_has_a_finite_value_or_a_status_that_says_why_not(value, status):
    with pytest.raises(ProtocolError):
        row(value=value, status=status)
    for cause in ({"cause": "memory"}, {"cause": "bad luck", "value": None, "status": "failed"}):
        with pytest.raises(ProtocolError, match="cause"):
            row(**cause)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_last_line_cut_off_anywhere_is_lost_alone(kept, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [row(seed=seed) for seed in range(kept + 1)]
    with RowStore(path) as store:
        store.append(rows)
    whole = path.read_bytes()
    start = len(b"".join(whole.splitlines(keepends=True)[:kept]))
    for end in [*range(start, len(whole), 37), len(whole) - 2, len(whole) - 1]:
        path.write_bytes(whole[:end])
        assert read_rows(path) == rows[:kept]
        with RowStore(path) as store:
            assert store.rows == rows[:kept]
            assert path.read_bytes() == whole[:start]
            store.append(rows)
        assert path.read_bytes() == whole


def test_a_last_line_of_zeros_is_cut_off_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW.to_json().encode() + b"\n" + b"\0" * 100)
    with RowStore(path) as store:
        assert store.rows == [ROW]


def test_damage_before_the_last_line_is_an_error_and_changes_nothing(tmp_path):
    path = tmp_path / "rows.jsonl"
    data = b"{broken\n" + ROW.to_json().encode() + b"\n"
    path.write_bytes(data)
    with pytest.raises(ProtocolError, match="line 1"):
        RowStore(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    "damage",
    [
        {"value": math.nan}, {"samples": [math.nan]}, {"samples": "0.1"}, {"size": "64"}, {"seed": 0.5},
        {"method": None}, {"content": 3}, {"utc": "yesterday"}, {"strength": None}, {"extra": 1}, {"value": True},
        {"metric": [[]] * 9}, *({name: ...} for name in ("unit", "utc")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1])
def test_a_line_that_is_no_row_is_told_wherever_it_stands(damage, place, tmp_path):
    path = tmp_path / "rows.jsonl"
    spoiled = {name: value for name, value in {**json.loads(ROW.to_json()), **damage}.items() if value is not ...}
    lines = [row(seed=1).to_json()]
    lines.insert(place, json.dumps(spoiled))
    path.write_text("\n".join(lines) + "\n")
    before = path.read_bytes()
    for read in (read_rows, RowStore):
        with pytest.raises(ProtocolError, match=f"damaged at line {place + 1}"):
            read(path)
    assert path.read_bytes() == before
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(ProtocolError, match="damaged at line 1"):
        read_rows(path)


def test_rows_of_two_protocols_never_share_a_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW.to_json() + "\n" + row(protocol="p@2", seed=1).to_json() + "\n")
    with pytest.raises(ProtocolError, match="mixes"):
        read_rows(path)


def test_an_ok_row_is_written_once_and_a_failed_one_is_replaced(tmp_path):
    failed = row(value=None, status="failed", reason="no luck")
    with RowStore(tmp_path / "rows.jsonl") as store:
        assert store.append([failed]) == [failed]
        assert store.append([ROW]) == [ROW]
        assert store.append([row(value=0.9)]) == []
        assert store.rows == [ROW]
    assert len(read_rows(tmp_path / "rows.jsonl")) == 2
    assert latest(read_rows(tmp_path / "rows.jsonl")) == [ROW]


def test_a_full_disk_leaves_the_earlier_rows_intact(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    store = RowStore(path)
    store.append([ROW])
    before = path.read_bytes()
    real = os.write
    calls = []

    def full(file: int, data: bytes) -> int:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, bytes(data)[:20])

    monkeypatch.setattr("os.write", full)
    with pytest.raises(ProtocolError, match="No space left"):
        store.append([row(seed=1)])
    monkeypatch.undo()
    assert path.read_bytes() == before
    store.append([row(seed=2)])
    assert [r.seed for r in read_rows(path)] == [0, 2]
    store.close()


def test_text_files_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "run.json"
    write_text(target, "old")
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(ProtocolError, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_earlier_results_are_set_aside_and_not_deleted(tmp_path):
    folder = Folder(tmp_path / "out")
    with folder.locked():
        folder.set_aside("nothing-yet")
        assert not (folder.path / "earlier-nothing-yet").exists()
        folder.rows.write_text("rows")
        (folder.outputs / "a.png").write_text("picture")
        (folder.path / "tables").mkdir()
        (folder.path / "tables" / "table.md").write_text("report")
        folder.set_aside("20260102")
        aside = folder.path / "earlier-20260102"
        assert (aside / "rows.jsonl").read_text() == "rows"
        assert (aside / "outputs" / "a.png").read_text() == "picture"
        assert (aside / "tables" / "table.md").read_text() == "report"
        assert not folder.rows.exists()
        assert (folder.outputs / "inputs").is_dir()


def test_what_lies_beside_a_picture_is_set_aside_with_it(tmp_path):
    """A film, its strip and its errors; of another strength nothing, though its name begins alike."""
    folder = Folder(tmp_path)
    with folder.locked():
        folder.run.write_text("{}")
        rows = [row(metric="seconds.stylize", strength=strength) for strength in (0.0, 0.5)]
        write_rows(folder.rows, rows)
        for one in rows:
            for kind in ("png", "mp4", "jpg", "json"):
                folder.output(Cell.of(one)).with_suffix(f".{kind}").write_text("film")
        folder.retire("20260102", lambda one: one.strength == 0, with_picture=lambda one: True)
    aside = Folder(tmp_path / "earlier-20260102")
    assert [len(where.made(Cell.of(one))) for where in (folder, aside) for one in rows] == [0, 4, 4, 0]
    assert read_rows(folder.rows) == rows[1:]


def test_a_damaged_or_missing_run_file_is_named(tmp_path):
    folder = Folder(tmp_path)
    assert folder.read_run() is None
    folder.rows.write_text(ROW.to_json() + "\n")
    with pytest.raises(ProtocolError, match=r"run\.json"):
        folder.read_run()
    for text in ('{"protocol"', "[" * 100_000, "[1]"):
        folder.run.write_text(text)
        with pytest.raises(ProtocolError, match="damaged"):
            folder.read_run()


@pytest.mark.parametrize(
    "place",
    ["protocol", "protocol.id", "protocol.resolved.pairs", "conditions", "conditions.machine", "runs",
     "runs.0.environment", "runs.0.environment.source"],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, "text", [], {}, 5, ...])
def test_a_run_file_that_lacks_what_reports_need_is_damaged(place, value, tmp_path):
    data: Any = run_file()
    *names, last = [int(name) if name.isdigit() else name for name in place.split(".")]
    inner = functools.reduce(operator.getitem, names, data)
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    folder = Folder(tmp_path)
    folder.run.write_text(json.dumps(data))
    if (place, value) in [("protocol.id", "text"), ("conditions.machine", "text"), ("runs", []),
                          ("protocol.resolved.pairs", []), ("runs.0.environment.source", "text")]:  # fmt: skip
        assert folder.read_run() == data
    else:
        with pytest.raises(ProtocolError, match="damaged"):
            folder.read_run()


def test_conditions_that_differ_are_named():
    found = {"version": "0.1.0", "threads": 2}
    check_same(found, {"version": "0.1.0", "threads": 2}, Path("results"))
    with pytest.raises(ProtocolError, match=r"version 0\.1\.0.*version 0\.2\.0"):
        check_same(found, {"version": "0.2.0"}, Path("results"))


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProtocolError, match="--out"), Folder(tmp_path / "file" / "out").locked():
        pass
