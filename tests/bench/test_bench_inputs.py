"""``zoo data export``: what it writes is what the harness gives to methods, and results by its list are all found."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import bench_runs
import pytest
from command import run as command

from zoo.bench.from_folder import open_gallery
from zoo.bench.inputs import export_inputs
from zoo.bench.run import run
from zoo.registry import load_registry

PROTOCOL: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "contents": ["red.png", "green.png"],
    "styles": ["sea.png", "sand.png"],
    "pairs": [["red", "sea"], ["green", "sand"], ["red", "sand"]],
    "sizes": [32],
    "metrics": ["ssim"],
    "baselines": [],
}


def write_protocol(folder: Path, **changes: Any) -> Path:
    return bench_runs.write_protocol(folder, PROTOCOL, **changes)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results(exported: Path, folder: Path) -> Path:
    """The contents themselves, under the names that the list gives."""
    folder.mkdir()
    with open(exported / "pairs.csv", newline="") as file:
        for line in csv.DictReader(file):
            assert (exported / line["style"]).is_file()
            shutil.copyfile(exported / line["content"], folder / line["result"])
    return folder


def test_the_pictures_are_those_of_the_harness_and_results_by_the_list_are_scored(tmp_path, capsys):
    protocol = write_protocol(tmp_path, style_size=24)
    assert command("data", "export", str(protocol), str(tmp_path / "inputs")) == 0
    said = capsys.readouterr().out
    assert "3 pictures wanted" in said
    assert "The first is red__sea.png, of contents/red.png and styles/sea.png." in said
    mine = results(tmp_path / "inputs", tmp_path / "mine")
    assert sorted(path.name for path in mine.iterdir()) == ["green__sand.png", "red__sand.png", "red__sea.png"]
    scored = run([], protocol, tmp_path / "out", device="cpu", threads=1, outputs={"mine": mine})
    # The content itself, at the content's size: every pair is there, and like it.
    assert [row.value for row in scored.rows if row.metric == "ssim"] == pytest.approx([1.0] * 3)
    given = files(tmp_path / "out" / "outputs" / "inputs")
    named = {f"{role}s/{name}.png": given[f"{role}__{name}__32.png"] for role, name in pairs_of(given)}
    assert {name: data for name, data in files(tmp_path / "inputs").items() if name != "pairs.csv"} == named


def pairs_of(given: dict[str, bytes]) -> list[tuple[str, str]]:
    """Role and name of every prepared input."""
    return [(name.split("__")[0], name.split("__")[1]) for name in given]


def test_names_say_what_a_protocol_has_several_of(tmp_path):
    protocol = bench_runs.resolved(write_protocol(tmp_path, sizes=[40, 32], seeds=[0, 7], strengths=[1.0, 0.25]))
    lines = export_inputs(protocol, tmp_path / "inputs")
    assert len(lines) == 3 * 2 * 2 * 2
    assert lines[1] == {
        "content": "contents/red__32.png",
        "style": "styles/sea__32.png",
        "size": "32",
        "seed": "0",
        "strength": "0.25",
        "result": "red__sea__32__seed0__strength0.25.png",
    }
    gallery = open_gallery("mine", results(tmp_path / "inputs", tmp_path / "mine"), protocol, load_registry())
    assert len(gallery.usable) == len(gallery.cells) == len(lines)
    before = files(tmp_path / "inputs")
    assert len(before) == 2 * 2 * 2 + 1
    export_inputs(protocol, tmp_path / "inputs")
    assert files(tmp_path / "inputs") == before


def test_mistakes_are_one_line_and_exit_2(tmp_path, capsys, monkeypatch):
    protocol = write_protocol(tmp_path)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "full" / "pairs.csv").mkdir(parents=True)
    for name, folder, said in (
        ("quik", "inputs", "quick"),
        ("styleid", "inputs", "zoo data fetch styleid"),
        (str(protocol), "taken", "cannot be made"),
        (str(protocol), "full", "pairs.csv cannot be written"),
    ):
        assert command("data", "export", name, str(tmp_path / folder)) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "inputs").exists()
