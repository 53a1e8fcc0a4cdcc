"""``--outputs``: pictures made elsewhere score as if the harness had made them; what is missing or wrong is said."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_runs
import pytest
import yaml
from PIL import Image

from zoo import images
from zoo.bench.from_folder import open_gallery
from zoo.bench.ledger import Event
from zoo.bench.measures import MEASURES
from zoo.bench.plan import Cell
from zoo.bench.rows import Row, read_rows
from zoo.bench.run import BenchResult, run
from zoo.cli import main
from zoo.download import file_sha256
from zoo.errors import ImageError, ProtocolError
from zoo.registry import load_registry
from zoo.report.tables import read_table

PROTOCOL: dict[str, Any] = {**bench_runs.GRID, "metrics": ["ssim", "gram_loss", "fd_vgg19"]}
PAIRS = [(content, style) for content in ("red", "green") for style in ("sea", "sand")]


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with bench_runs.installed(tmp_path_factory.mktemp("plugin")):
        yield


def write_protocol(folder: Path, **changes: Any) -> Path:
    return bench_runs.write_protocol(folder, PROTOCOL, **changes)


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_protocol(tmp_path_factory.mktemp("protocol"))


@pytest.fixture(scope="module")
def inside(protocol: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchResult:
    """A method measured by the harness."""
    return run(["tint"], protocol, tmp_path_factory.mktemp("results") / "inside", device="cpu", threads=1)


def copied(inside: BenchResult, folder: Path) -> Path:
    """The pictures of ``inside`` under names that somebody would give them by hand."""
    folder.mkdir()
    for content, style in PAIRS:
        made = inside.folder / "outputs" / f"tint.plain__{content}__{style}__32__seed0__strength1.png"
        shutil.copyfile(made, folder / f"{content}__{style}.png")
    return folder


@pytest.fixture
def mine(inside: BenchResult, tmp_path: Path) -> Path:
    return copied(inside, tmp_path / "mine")


@pytest.fixture(scope="module")
def scored(inside: BenchResult, protocol: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchResult:
    """Those pictures, scored as a folder."""
    folder = tmp_path_factory.mktemp("scored")
    return score(protocol, folder / "out", mine=copied(inside, folder / "mine"))


def quality(rows: list[Row], method: str) -> dict[tuple[Any, ...], float | None]:
    """Values of metrics by everything but the method."""
    return {row.key[1:]: row.value for row in rows if row.method == method and row.metric not in MEASURES}


def score(protocol: Path, out: Path, **outputs: Path) -> BenchResult:
    return run([], protocol, out, device="cpu", threads=1, outputs=outputs)


# --- equal to a run inside -------------------------------------------------------------------------------------------


def test_a_folder_by_hand_scores_as_the_method_inside(inside, scored):
    assert scored.ok
    assert len(quality(scored.rows, "mine")) == 2 * 4 + 1
    assert quality(scored.rows, "mine") == quality(inside.rows, "tint.plain")
    assert not [row for row in scored.rows if row.metric in MEASURES], "speed is absent"
    line = next(line for line in read_table(scored.folder).lines if line.method == "mine")
    assert not line.baseline


def test_rows_hold_the_hashes_of_the_files(scored, mine):
    hashes = {pair: hashlib.sha256((mine / f"{'__'.join(pair)}.png").read_bytes()).hexdigest() for pair in PAIRS}
    read = [row for row in read_rows(scored.folder / "rows.jsonl") if row.method == "mine"]
    for row in read:
        if row.content is not None:
            assert row.picture == hashes[row.content, str(row.style)]
    (whole,) = [row for row in read if row.metric == "fd_vgg19"]
    assert whole.picture == hashlib.sha256("".join(hashes[pair] for pair in PAIRS).encode()).hexdigest()
    drawn = [row for row in read_rows(scored.folder / "rows.jsonl") if row.method == "content-copy" and row.content]
    for row in drawn:
        cell = Cell(row.method, str(row.content), str(row.style), row.size, row.seed, row.strength)
        assert row.picture == file_sha256(scored.folder / "outputs" / cell.filename)
    (entry,) = json.loads((scored.folder / "run.json").read_text())["runs"]
    assert entry["outputs"] == {"mine": {"pictures": 4, "wanted": 4}}


def test_the_outputs_of_another_run_can_be_given_beside_a_method(inside, protocol, tmp_path):
    outputs = {"old": inside.folder / "outputs"}
    result = run(["moody.fine"], protocol, tmp_path / "out", device="cpu", threads=1, outputs=outputs)
    assert quality(result.rows, "old") == quality(inside.rows, "tint.plain")
    assert quality(result.rows, "old").keys() <= quality(result.rows, "moody.fine").keys()


def test_a_copy_left_by_a_killed_run_is_not_trusted(mine, protocol, tmp_path):
    # Copied, then killed before anything was scored, then the folder's picture was replaced: no row knows of the copy.
    out = tmp_path / "out"
    (out / "outputs" / "inputs").mkdir(parents=True)
    stale = out / "outputs" / "mine__red__sea__32__seed0__strength1.png"
    images.write(stale, images.read(mine / "green__sand.png").pixels)
    assert score(protocol, out, mine=mine).ok
    assert stale.read_bytes() == (mine / "red__sea.png").read_bytes()


# --- missing, wrong, changed -----------------------------------------------------------------------------------------


def test_missing_and_wrong_pictures_are_reported_until_they_are_mended(inside, mine, protocol, tmp_path):
    good = {path: path.read_bytes() for path in mine.iterdir()}
    (mine / "green__sand.png").unlink()
    Image.new("RGB", (48, 40)).save(mine / "red__sea.png")
    (mine / "red__sand.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    events: list[Event] = []
    out = tmp_path / "out"
    result = run([], protocol, out, device="cpu", threads=1, outputs={"mine": mine}, on_event=events.append)
    assert "mine green x sand at 32: skipped: the folder has no picture of it" in [event.problem for event in events]
    found = {(row.style, row.status, row.reason) for row in result.rows if row.metric == "ssim" and row.status != "ok"}
    assert ("sand", "skipped", "the folder has no picture of it") in found
    assert ("sea", "failed", "the picture is 48 x 40 pixels and its content 32 x 27: make it that size") in found
    assert any(style == "sand" and status == "failed" and "damaged" in reason for style, status, reason in found)
    assert len(found) == 3
    (whole,) = [row for row in result.rows if row.metric == "fd_vgg19" and row.method == "mine"]
    assert (whole.status, whole.reason) == ("skipped", "3 of the 4 pictures of the set are missing")
    assert len([row for row in result.rows if row.method == "mine" and row.status == "ok"]) == 2
    assert (result.ok, score(protocol, out, mine=mine).written) == (False, 0)
    assert len(json.loads((out / "run.json").read_text())["runs"]) == 1, (
        "a run that finds nothing to do leaves no entry"
    )
    for path, data in good.items():
        path.write_bytes(data)
    mended = score(protocol, out, mine=mine)
    assert (mended.ok, mended.count("skipped")) == (True, 0)
    assert quality(mended.rows, "mine") == quality(inside.rows, "tint.plain")


def test_other_pictures_under_a_label_that_has_values_are_refused(scored, mine, protocol, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(scored.folder, out)
    before = (out / "rows.jsonl").read_bytes()
    assert score(protocol, out, mine=mine).written == 0, "the same pictures elsewhere are the same"
    images.write(mine / "red__sea.png", 1 - images.read(mine / "red__sea.png").pixels)
    with pytest.raises(
        ProtocolError, match=r"other pictures than those that mine was scored on \(mine red x sea at 32"
    ):
        score(protocol, out, mine=mine)
    assert (out / "rows.jsonl").read_bytes() == before


# --- names -----------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "red__sea.png",
        "red__sea.JPG",
        "red__sea__32.webp",
        "red__sea__seed0.png",
        "red__sea__strength1.tiff",
        "red__sea__32__seed0__strength1.png",
        "my_method__red__sea__32__seed0__strength1.png",
        "a__b__red__sea__32__seed0__strength1.png",
    ],
)
def test_names_that_are_understood(name, protocol, tmp_path):
    gallery = open_gallery("mine", touch(tmp_path / "mine", name), bench_runs.resolved(protocol), load_registry())
    ((cell, path),) = gallery.files.items()
    assert (cell.content, cell.style, path.name) == ("red", "sea", name)


@pytest.mark.parametrize("name", ["red_sea.png", "sea__red.png", "m__red__sea.png", "red__sea__64.png", "red__sea.txt"])
def test_names_that_are_not(name, protocol, tmp_path):
    with pytest.raises(ProtocolError, match=r"holds no picture of protocol tiny.*the first one red__sea\.png"):
        open_gallery("mine", touch(tmp_path / "mine", name), bench_runs.resolved(protocol), load_registry())


def test_what_the_protocol_has_several_of_must_be_named(tmp_path):
    path = write_protocol(tmp_path, sizes=[32, 64], strengths=[0.5, 1.0])
    folder = touch(tmp_path / "mine", "red__sea.png", "red__sea__32.png")
    with pytest.raises(ProtocolError, match=r"the first one red__sea__32__strength0\.5\.png"):
        open_gallery("mine", folder, bench_runs.resolved(path), load_registry())
    touch(folder, "red__sea__64__strength0.5.png", "red__sea__32__seed0__strength1.png")
    gallery = open_gallery("mine", folder, bench_runs.resolved(path), load_registry())
    assert [(cell.size, cell.strength) for cell in gallery.files] == [(32, 1.0), (64, 0.5)]


def test_names_of_digits_are_not_taken_for_sizes(tmp_path):
    write_protocol(tmp_path)
    images_of = [{"image": f"{name}.png", "name": digits} for name, digits in (("red", "01"), ("green", "32"))]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**PROTOCOL, "contents": images_of, "styles": images_of}))
    names = ("01__32.png", "32__01__32.png", "32__32__32.png")
    gallery = open_gallery("mine", touch(tmp_path / "mine", *names), bench_runs.resolved(path), load_registry())
    found = {(cell.content, cell.style): path.name for cell, path in gallery.files.items()}
    assert found == {("01", "32"): names[0], ("32", "01"): names[1], ("32", "32"): names[2]}


@pytest.mark.parametrize("other", ["red__sea.webp", "red__sea__32.png", "x__red__sea__32__seed0__strength1.png"])
def test_two_pictures_of_one_pair_are_refused(other, protocol, tmp_path):
    folder = touch(tmp_path / "mine", "red__sea.png", other)
    with pytest.raises(ProtocolError, match="two pictures of red x sea at 32"):
        open_gallery("mine", folder, bench_runs.resolved(protocol), load_registry())


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("a__b", "cannot stand for a folder"),
        ("a\n", "cannot stand for a folder"),
        ("-a", "cannot stand for a folder"),
        ("adain", "is a method of the harness"),
        ("gatys.mine", "is a method of the harness"),
        ("content-copy", "is a method of the harness"),
    ],
)
def test_labels_that_mean_something_else_are_refused(label, message, protocol, tmp_path):
    with pytest.raises(ProtocolError, match=message):
        open_gallery(label, touch(tmp_path / "mine", "red__sea.png"), bench_runs.resolved(protocol), load_registry())


# --- the command -----------------------------------------------------------------------------------------------------


def command(*arguments: object) -> int:
    try:
        main(["bench", "--device", "cpu", "--threads", "1", *map(str, arguments)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_scores_a_folder_and_names_mistakes_in_one_line(scored, mine, protocol, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(scored.folder, out)
    common = ("--protocol", protocol, "--out", out)
    assert command(*common, "--outputs", f"mine={mine}") == 0
    shown = capsys.readouterr()
    assert "mine" in shown.out
    assert "tint" not in shown.out, "no method is measured unless asked for"
    assert "nothing was left to measure" in shown.err
    for wrong in ("mine", "=x", f"mine={tmp_path / 'nowhere'}"):
        assert command(*common, "--outputs", wrong) == 2
        said = capsys.readouterr().err
        assert said.startswith("zoo: ")
        assert said.count("\n") == 1
    assert command(*common, "--outputs", f"mine={mine}", "--outputs", f"mine={mine}") == 2
    assert command(*common, "--methods", "") == 2


# -- a place that cannot be written ------------------------------------------------------------------------------------


def test_a_picture_that_cannot_be_written_ends_the_run_and_is_measured_later(inside, protocol, tmp_path):
    """As on a full disk: nothing is wrong with the method, so no row says that it failed."""
    out = tmp_path / "out"
    blocked = out / "outputs" / "tint.plain__green__sea__32__seed0__strength1.png"
    blocked.mkdir(parents=True)
    with pytest.raises(ProtocolError, match=r"green__sea.*Earlier rows are intact; make room, then run it again\."):
        run(["tint"], protocol, out, device="cpu", threads=1)
    kept = read_rows(out / "rows.jsonl")
    assert {row.status for row in kept} == {"ok"}
    blocked.rmdir()
    again = run(["tint"], protocol, out, device="cpu", threads=1)
    assert quality(again.rows, "tint.plain") == quality(inside.rows, "tint.plain")


def test_a_given_picture_that_cannot_be_copied_is_not_called_unusable(inside, protocol, tmp_path, monkeypatch):
    pictures = copied(inside, tmp_path / "pictures")
    out, replace = tmp_path / "out", os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name.startswith("mine__"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(ImageError, match="No space left on device"):
            run([], protocol, out, device="cpu", threads=1, outputs={"mine": pictures})
    assert not (out / "rows.jsonl").exists() or not read_rows(out / "rows.jsonl")
    again = run([], protocol, out, device="cpu", threads=1, outputs={"mine": pictures})
    assert {row.status for row in again.rows} == {"ok"}


def test_a_method_with_other_weights_than_the_rows_is_refused(inside, protocol, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(inside.folder, out)
    rows = (out / "rows.jsonl").read_text()
    own = '"method": "tint.plain", "checkpoint": '
    assert f"{own}null" in rows
    other = rows.replace(f"{own}null", f'{own}"{"0" * 64}"')
    (out / "rows.jsonl").write_text(other)
    with pytest.raises(ProtocolError, match=r"tint\.plain with other weights.*--again"):
        run(["tint"], protocol, out, device="cpu", threads=1)
    assert (out / "rows.jsonl").read_text() == other
    result = run(["tint"], protocol, out, device="cpu", threads=1, again=True)
    assert quality(result.rows, "tint.plain") == quality(inside.rows, "tint.plain")
    assert {row.checkpoint for row in read_rows(out / "rows.jsonl")} == {None}
    (earlier,) = out.glob("earlier-*")
    aside = read_rows(earlier / "rows.jsonl")
    assert {(row.method, row.checkpoint) for row in aside} == {("tint.plain", "0" * 64)}
    assert len(aside) == len([row for row in read_rows(inside.folder / "rows.jsonl") if row.method == "tint.plain"])
    assert len(list((earlier / "outputs").glob("tint.plain__*.png"))) == len(PAIRS)
