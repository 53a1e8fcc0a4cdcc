"""Whole runs with tiny methods of a plugin: numbers, failures, kills and resumption, as a user meets them."""

from __future__ import annotations

import json
import operator
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench_runs
import forked
import numpy as np
import pytest
import yaml
from PIL import Image

from zoo import images
from zoo.bench.ledger import Event
from zoo.bench.memory import MIB
from zoo.bench.plan import Cell
from zoo.bench.rows import Row, read_rows
from zoo.bench.run import BenchResult, run
from zoo.bench.supervise import Terminated
from zoo.download import file_sha256
from zoo.errors import ConfigError, ProtocolError, UnknownNameError
from zoo.memory import machine_memory
from zoo.metrics import load_metric
from zoo.report.files import write_report

PROTOCOL: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "contents": ["red.png", "green.png"],
    "styles": ["sea.png", "sand.png"],
    "sizes": [32],
    "timing": {"warmup": 1, "repeats": 21, "budget": 2.0},
    "optimisation": {"options": {"num_steps": 4}, "timing": {"warmup": 1, "repeats": 1}},
    # Long enough that a signal sent after the first picture arrives before the last, on a busy machine too.
    "methods": {"stepper": {"options": {"pause": 0.2}}},
    "metrics": ["ssim", "gram_loss"],
    "limits": {"seconds": 120},
}
STEPPER = "stepper.plain[num_steps=4,pause=0.2]"
MOODY = ("load", "raise", "refuse", "crash")


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with bench_runs.installed(tmp_path_factory.mktemp("plugin")):
        yield


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocol")
    bench_runs.draw(folder)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(PROTOCOL))
    return path


@pytest.fixture(scope="module")
def whole(protocol: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchResult, list[Event]]:
    """One unbroken run of everything."""
    events: list[Event] = []
    names = ["tint", "sleepy", "hungry", "stepper", *(f"moody.{tag}" for tag in MOODY)]
    out = tmp_path_factory.mktemp("results") / "whole"
    return run(names, protocol, out, device="cpu", threads=1, on_event=events.append), events


def values(rows: list[Row], method: str, metric: str) -> list[float]:
    return [row.value for row in rows if (row.method, row.metric) == (method, metric) and row.value is not None]


def test_every_cell_of_a_good_method_has_its_numbers(whole):
    result, _ = whole
    for method in ("tint.plain", "sleepy.plain", "hungry.plain", STEPPER):
        for metric in ("seconds.encode_style", "seconds.stylize", "memory.resident", "ssim", "gram_loss"):
            assert len(values(result.rows, method, metric)) == 4, (method, metric)
        for metric in ("seconds.import", "seconds.load", "seconds.first", "memory.idle"):
            assert len(values(result.rows, method, metric)) == 1, (method, metric)
    assert len(values(result.rows, STEPPER, "seconds.step")) == 4
    assert not values(result.rows, "tint.plain", "seconds.step")


def test_rows_say_what_they_are_of(whole, protocol):
    result, _ = whole
    run_file = json.loads((result.folder / "run.json").read_text())
    (entry,) = run_file["runs"]
    assert {row.protocol for row in result.rows} == {run_file["protocol"]["id"]}
    assert {row.run_id for row in result.rows} == {entry["run_id"]}
    assert {row.precision for row in result.rows if row.method == "tint.plain"} == {"fp32"}
    units = {row.metric: row.unit for row in result.rows}
    assert (units["seconds.stylize"], units["memory.resident"], units["ssim"]) == ("s", "MiB", "")
    assert entry["ended"] >= entry["started"]
    assert entry["environment"]["libraries"]["torch"]
    assert run_file["conditions"]["threads"] == 1
    assert run_file["protocol"]["resolved"]["contents"][0]["sha256"] == images.read(protocol.parent / "red.png").sha256


def test_a_method_that_sleeps_measures_its_sleep(whole):
    result, _ = whole
    for seconds in values(result.rows, "sleepy.plain", "seconds.stylize"):
        assert 0.05 <= seconds < 5.0
    assert all(0.2 <= s < 5.0 for s in values(result.rows, STEPPER, "seconds.step"))
    # Four steps in the timed call; the warm-up call was stopped after one.
    (first,) = values(result.rows, STEPPER, "seconds.first")
    assert 0.2 <= first < min(values(result.rows, STEPPER, "seconds.stylize"))


def test_medians_are_of_the_samples_and_p95_comes_from_twenty_runs_up(whole):
    result, _ = whole
    for row in result.rows:
        if row.metric == "seconds.stylize" and row.status == "ok":
            assert row.value == pytest.approx(float(np.median(row.samples)), abs=1e-6)
            twin = [r for r in result.rows if r.key == (*row.key[:-1], "seconds.stylize.p95")]
            assert len(twin) == (len(row.samples) >= 20)
    assert len(values(result.rows, "tint.plain", "seconds.stylize.p95")) == 4


def test_a_method_that_takes_memory_measures_it_above_idle(whole):
    result, _ = whole
    (idle,) = values(result.rows, "hungry.plain", "memory.idle")
    assert idle > 100
    hungry, tint = (values(result.rows, f"{m}.plain", "memory.resident") for m in ("hungry", "tint"))
    assert [peak - base for peak, base in zip(hungry, tint, strict=True)] == [pytest.approx(200, rel=0.05)] * 4
    assert all(0 < base < 60 for base in tint)


def test_failures_are_rows_with_a_reason_and_the_others_go_on(whole):
    result, _ = whole
    assert not result.ok
    found: dict[str, set[tuple[str, str | None, str]]] = {}
    for row in result.rows:
        if row.method.startswith("moody") and row.metric == "seconds.stylize":
            found.setdefault(row.method, set()).add((row.status, row.content, row.reason))
    upside_down = "RuntimeError: the weights are upside down"
    assert found["moody.load"] == {("failed", content, upside_down) for content in ("red", "green")}
    assert found["moody.raise"] == {("failed", "red", "ValueError: cannot stand red"), ("ok", "green", "")}
    assert found["moody.refuse"] == {
        ("skipped", content, "This method only does portraits.") for content in ("red", "green")
    }
    crash = "the process crashed (SIGSEGV): about to crash"
    assert found["moody.crash"] == {("failed", "red", crash), ("ok", "green", "")}
    assert len(values(result.rows, "moody.crash", "ssim")) == 2


def test_quality_does_not_depend_on_the_process_that_measured_it(whole):
    result, _ = whole
    outputs = result.folder / "outputs"
    for name in ("ssim", "gram_loss"):
        metric = load_metric(name)
        for row in result.rows:
            if row.metric == name and row.method in ("tint.plain", "style-copy"):
                output = outputs / f"{row.method}__{row.content}__{row.style}__32__seed0__strength1.png"
                content = outputs / "inputs" / f"content__{row.content}__32.png"
                style = outputs / "inputs" / f"style__{row.style}__32.png"
                pixels = [images.read(path).pixels for path in (output, content, style)]
                assert metric(*pixels) == pytest.approx(row.value, rel=1e-5)


def test_the_baselines_are_the_ends_of_the_scale(whole):
    result, _ = whole
    assert values(result.rows, "content-copy", "ssim") == [pytest.approx(1.0)] * 4
    assert values(result.rows, "style-copy", "gram_loss") == [0.0] * 4
    assert all(value < 0.9 for value in values(result.rows, "style-copy", "ssim"))
    ssims = [values(result.rows, name, "ssim") for name in ("color-transfer", "style-copy")]
    assert all(map(operator.gt, *ssims)), "the content's structure is kept"
    losses = [values(result.rows, name, "gram_loss") for name in ("content-copy", "color-transfer")]
    assert all(map(operator.gt, *losses)), "and the style's colours are nearer"
    assert not values(result.rows, "content-copy", "seconds.stylize")


def test_rows_hold_the_hash_of_every_picture_that_was_written(whole):
    result, _ = whole
    for row in result.rows:
        drawn = row.method in ("content-copy", "style-copy", "color-transfer")
        expected = None
        if row.status == "ok" and (drawn or row.metric == "seconds.stylize"):
            cell = Cell(row.method, str(row.content), str(row.style), row.size, row.seed, row.strength)
            expected = file_sha256(result.folder / "outputs" / cell.filename)
        assert row.picture == expected, row
    assert len({row.picture for row in result.rows if row.method == "tint.plain" and row.picture}) == 4


def test_tables_and_pictures_are_there(whole):
    result, _ = whole
    write_report(result.folder)
    for name in ("table.csv", "table.md", "table.tex"):
        text = (result.folder / name).read_text()
        assert STEPPER.replace("_", "\\_") in text or STEPPER in text
        assert result.rows[0].protocol in text
    with Image.open(result.folder / "sheet.jpg") as sheet:
        assert sheet.width > 6 * 192
    assert "moody.crash" in (result.folder / "table.md").read_text()


def test_progress_counts_every_piece_of_work_once(whole):
    _, events = whole
    for stage, total in (("measure", 8 * 4), ("score", 2 * (4 * 4 + 2 + 2 + 3 * 4))):
        counts = [event.done for event in events if event.stage == stage]
        assert counts == sorted(counts)
        assert (counts[-1], events[-1].total if stage == "score" else 32) == (total, total)
    assert sum("cannot stand red" in event.problem for event in events) == 2


def test_a_finished_folder_is_left_alone_and_says_so(whole, protocol, capsys):
    result, _ = whole
    before = {name: (result.folder / name).read_bytes() for name in ("rows.jsonl", "run.json")}
    assert command("--methods", "tint,moody.raise", "--protocol", str(protocol), "--out", str(result.folder)) == 1
    shown = capsys.readouterr()
    assert "moody.raise (" in shown.out
    assert result.rows[0].protocol in shown.out
    assert "nothing was left to measure" in shown.err
    assert command("--methods", "tint", "-p", str(protocol), "--out", str(result.folder), "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert before == {name: (result.folder / name).read_bytes() for name in before}


def command(*arguments: str) -> int:
    """Exit code of ``zoo bench`` in this process."""
    from zoo.cli import main

    try:
        main(["bench", "--device", "cpu", "--threads", "1", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_other_conditions_and_protocols_are_refused_before_anything_is_measured(whole, protocol, tmp_path):
    result, _ = whole
    with pytest.raises(ProtocolError, match=r"threads 1.*threads 2"):
        run(["tint"], protocol, result.folder, device="cpu", threads=2)
    for name in ("red", "green", "sea", "sand"):
        (tmp_path / f"{name}.png").write_bytes((protocol.parent / f"{name}.png").read_bytes())
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump({**PROTOCOL, "seeds": [1]}))
    with pytest.raises(ProtocolError, match="rows of different protocols never mix"):
        run(["tint"], changed, result.folder, device="cpu", threads=1)
    with pytest.raises(UnknownNameError, match="tint"):
        run(["tnt"], protocol, result.folder)
    with pytest.raises(ConfigError):
        run(["tint"], protocol, tmp_path / "out", precision="fp33")
    with pytest.raises(ConfigError):
        run(["tint"], protocol, tmp_path / "out", threads=0)
    with pytest.raises(ConfigError, match="no method"):
        run([], protocol, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def start(
    protocol: Path, out: Path, *names: str, popen: Callable[..., subprocess.Popen[bytes]] = forked.Popen
) -> subprocess.Popen[bytes]:
    """``zoo bench`` in a process of its own; with ``subprocess.Popen`` it and its workers begin as a user's do."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part or os.getcwd() for part in sys.path)}
    command = [sys.executable, "-m", "zoo", "bench", "--device", "cpu", "--threads", "1"]
    arguments = ["--methods", ",".join(names), "--protocol", str(protocol), "--out", str(out)]
    return popen([*command, *arguments], env=environment)


def wait_for_row(path: Path, method: str, process: subprocess.Popen[bytes]) -> None:
    """Until the first cell of a method is done."""
    end = time.monotonic() + 120
    while not any(row.method == method and row.metric == "seconds.stylize" for row in read_rows(path)):
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < end
        time.sleep(0.05)


def without_timings(rows: list[Row], *methods: str) -> dict[tuple[Any, ...], Any]:
    timed = ("seconds.", "memory.")
    return {
        row.key: (row.status, row.reason, row.picture, None if row.metric.startswith(timed) else row.value)
        for row in rows
        if row.method in methods
    }


def test_a_killed_run_goes_on_and_equals_an_unbroken_one(whole, protocol, tmp_path):
    out = tmp_path / "killed"
    with start(protocol, out, "stepper", "tint", popen=subprocess.Popen) as process:
        wait_for_row(out / "rows.jsonl", STEPPER, process)
        with pytest.raises(ProtocolError, match="Another run is writing"):
            run(["tint"], protocol, out, device="cpu", threads=1)
        process.kill()
    kept = read_rows(out / "rows.jsonl")
    done = len(values(kept, STEPPER, "seconds.stylize"))
    assert 1 <= done < 4
    # Cut into the last line, as a kill in the middle of a write would.
    torn = (out / "rows.jsonl").read_bytes()[:-20]
    (out / "rows.jsonl").write_bytes(torn)

    events: list[Event] = []
    resumed = run(["stepper", "tint"], protocol, out, device="cpu", threads=1, on_event=events.append)
    assert resumed.ok
    assert read_rows(out / "rows.jsonl")[: len(kept) - 1] == kept[:-1]
    assert next(event.total for event in events if event.stage == "measure") == 8 - done + 1
    labels = (STEPPER, "tint.plain", "content-copy", "style-copy", "color-transfer")
    unbroken, _ = whole
    assert without_timings(resumed.rows, *labels).keys() <= without_timings(unbroken.rows, *labels).keys()
    mine, other = without_timings(resumed.rows, *labels), without_timings(unbroken.rows, *labels)
    extra = {key for key in other.keys() - mine.keys() if not str(key[-1]).endswith((".p95", ".iqr"))}
    assert not extra, "only a 95th percentile or a spread may be absent, where a slow machine made fewer repeats"
    assert {key: mine[key] for key in mine} == {key: other[key] for key in mine}
    runs = json.loads((out / "run.json").read_text())["runs"]
    assert [entry["ended"] is None for entry in runs] == [True, False]


def test_a_run_killed_while_scoring_goes_on_and_equals_an_unbroken_one(whole, protocol, tmp_path):
    unbroken, _ = whole
    out = tmp_path / "killed"
    shutil.copytree(unbroken.folder, out)
    lines = (out / "rows.jsonl").read_text().splitlines(keepends=True)
    unscored = [line for line in lines if json.loads(line)["metric"] not in ("ssim", "gram_loss")]
    (out / "rows.jsonl").write_text("".join(unscored))
    with start(protocol, out, "stepper", "tint") as process:
        end = time.monotonic() + 300
        while (out / "rows.jsonl").read_bytes().count(b"\n") < len(unscored) + 2:
            assert process.poll() is None, "the run ended too early"
            assert time.monotonic() < end
            time.sleep(0.01)
        process.kill()
    labels = (STEPPER, "tint.plain", "content-copy", "style-copy", "color-transfer")
    kept = read_rows(out / "rows.jsonl")
    assert len(kept) < len(unscored) + 2 * 4 * len(labels), "it was killed before the last score"
    resumed = run(["stepper", "tint"], protocol, out, device="cpu", threads=1)
    assert resumed.written == len(unscored) + 2 * 4 * len(labels) - len(kept)
    assert without_timings(resumed.rows, *labels) == without_timings(unbroken.rows, *labels)


def test_a_signal_ends_with_its_number_and_keeps_what_was_measured(protocol, tmp_path):
    out = tmp_path / "stopped"
    with start(protocol, out, "stepper") as process:
        wait_for_row(out / "rows.jsonl", STEPPER, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert values(read_rows(out / "rows.jsonl"), STEPPER, "seconds.stylize")
    assert json.loads((out / "run.json").read_text())["runs"][0]["ended"] is not None


@pytest.mark.parametrize(
    ("stop", "code"), [(KeyboardInterrupt(), 130), (Terminated(signal.SIGTERM), 143), (Terminated(signal.SIGHUP), 129)]
)
def test_the_command_says_that_it_was_stopped(stop, code, monkeypatch, capsys):
    def stopped(*_: Any, **__: Any) -> None:
        raise stop

    monkeypatch.setattr("zoo.bench.run.run", stopped)
    assert command() == code
    assert "What was measured is kept: the same command goes on from there." in capsys.readouterr().err


def test_failed_cells_stay_unless_asked_for_and_a_lost_picture_is_made_again(protocol, tmp_path, monkeypatch):
    small = tmp_path / "small.yaml"
    for name in ("red", "sea"):
        (tmp_path / f"{name}.png").write_bytes((protocol.parent / f"{name}.png").read_bytes())
    settings = {"contents": ["red.png"], "styles": ["sea.png"], "metrics": ["ssim"], "methods": {}}
    small.write_text(yaml.safe_dump({**PROTOCOL, **settings}))
    out = tmp_path / "out"
    monkeypatch.setenv("BENCH_FAKES_MOOD", "bad")
    first = run(["moody.weather"], small, out, device="cpu", threads=1)
    assert first.count("failed") == 1
    monkeypatch.delenv("BENCH_FAKES_MOOD")
    again = run(["moody.weather"], small, out, device="cpu", threads=1)
    assert (again.written, again.count("failed")) == (0, 1)
    retried = run(["moody.weather"], small, out, device="cpu", threads=1, retry_failed=True)
    assert retried.ok
    assert len(values(retried.rows, "moody.weather", "ssim")) == 1

    # Its score and picture lost, the cell is measured again; its timings were kept and stay.
    lines = (out / "rows.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not ('"metric": "ssim"' in line and "moody" in line)]
    (out / "rows.jsonl").write_text("".join(kept))
    (out / "outputs" / "moody.weather__red__sea__32__seed0__strength1.png").unlink()
    mended = run(["moody.weather"], small, out, device="cpu", threads=1)
    assert values(mended.rows, "moody.weather", "ssim") == values(retried.rows, "moody.weather", "ssim")
    assert values(mended.rows, "moody.weather", "seconds.stylize") == values(
        retried.rows, "moody.weather", "seconds.stylize"
    )

    started_over = run(["moody.weather"], small, out, device="cpu", threads=1, fresh=True)
    assert started_over.ok
    assert len(list(out.glob("earlier-*/rows.jsonl"))) == 1


def test_a_method_that_takes_all_memory_is_ended_at_the_limit(protocol, tmp_path):
    limited = protocol.parent / "limited.yaml"
    share = 1300 * MIB / machine_memory()
    assert share < 1, "this machine is too small for the test"
    settings = {"metrics": [], "baselines": [], "limits": {"seconds": 120, "memory": share}}
    limited.write_text(yaml.safe_dump({**PROTOCOL, **settings}))
    result = run(["moody.glutton"], limited, tmp_path / "out", device="cpu", threads=1)
    reasons = [row.reason for row in result.rows if row.metric == "seconds.stylize"]
    assert len(reasons) == 4
    assert reasons[0].startswith("out of memory: ")
    assert all(reason.startswith("not tried, because red x sea at 32 out of memory") for reason in reasons[1:])
