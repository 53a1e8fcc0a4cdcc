"""What a run counts and measures beside seconds: operations, parameters, batches, the machine, growth, its own cost."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import bench_runs
import numpy as np
import pytest
import torch
import yaml
from bench_fakes import Tint
from PIL import Image
from torch import nn

from zoo.bench import environment, growth, operations, runner
from zoo.bench.parameters import parameters
from zoo.bench.plan import of_run
from zoo.bench.rows import Row
from zoo.bench.run import BenchResult, run
from zoo.bench.supervise import Worker
from zoo.bench.workers import machine
from zoo.bench.workers.measure import _Session
from zoo.nn.fast import fused
from zoo.report import remarks
from zoo.report.tables import read_table

CPU = torch.device("cpu")
STEPPER = "stepper.plain[num_steps=4]"
SIZES = (32,)
PROTOCOL: dict[str, Any] = {
    "schema": 1,
    "name": "measures",
    "contents": ["red.png"],
    "styles": ["sea.png"],
    "sizes": list(SIZES),
    "resize": "exact",
    "timing": {"warmup": 1, "repeats": 21, "budget": 20.0, "count": 1.0, "batches": [4, 2]},
    "optimisation": {"options": {"num_steps": 4}, "timing": {"warmup": 1, "repeats": 1, "count": 1.0, "batches": [2]}},
    "baselines": [],
}


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with bench_runs.installed(tmp_path_factory.mktemp("plugin")):
        yield


@pytest.fixture(scope="module")
def overhead() -> Iterator[Any]:
    """The account of a run, which a benchmark of the harness writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module("overhead")


class Watched(Worker):
    """A worker that notes how long it lived, from being asked for until it said that it was done."""

    lives: ClassVar[list[float]] = []

    def __init__(self, *arguments: Any, **how: Any) -> None:
        self.begun = time.monotonic()
        super().__init__(*arguments, **how)

    def events(self) -> Iterator[dict[str, Any]]:
        try:
            yield from super().events()
        finally:
            self.lives.append(time.monotonic() - self.begun)


class Call(NamedTuple):
    """When a call of the sleeping method slept: seconds of the clock, and of its own thread at work."""

    begun: float
    worked: float
    ended: float
    worked_at_end: float

    @property
    def slept(self) -> float:
        return self.ended - self.begun


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchResult, list[Call]]:
    """One run of three fakes, and what the sleeping one says of each of its calls."""
    folder = tmp_path_factory.mktemp("measures")
    rng = np.random.default_rng(0)
    for name in ("red", "sea"):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "measures.yaml").write_text(yaml.safe_dump(PROTOCOL))
    log = folder / "slept"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_FAKES_LOG", str(log))
        patch.setattr(runner, "Worker", Watched)
        names = ["filter", "sleepy", "stepper"]
        result = run(names, folder / "measures.yaml", folder / "out", device="cpu", threads=1)
    return result, [Call(*map(float, line.split())) for line in log.read_text().splitlines()]


def found(result: BenchResult, method: str, metric: str, size: int = SIZES[0]) -> Row:
    (row,) = [row for row in result.rows if (row.method, row.metric, row.size) == (method, metric, size)]
    return row


def test_operations_and_parameters_are_those_of_the_network(measured):
    result, _ = measured
    for size in SIZES:
        row = found(result, "filter.plain", "gflops.stylize", size)
        assert row.value == pytest.approx(2 * 9 * 3 * 8 * size**2 / 1e9, abs=1e-7)
        assert row.reason == "not counted: linalg_eigh"
    assert found(result, "filter.plain", "parameters").value == 9 * 3 * 8 + 8
    assert found(result, "stepper.plain[num_steps=4]", "parameters").value == 0
    assert found(result, "filter.plain", "gflops.encode_style").value == 0


def test_both_together_is_each_repeat_of_encoding_and_stylising(measured):
    result, _ = measured
    encoding, stylizing, whole = (
        found(result, "sleepy.plain", f"seconds.{name}").samples for name in ("encode_style", "stylize", "whole")
    )
    assert len(encoding) == len(stylizing) == len(whole) == 21
    for a, b, both in zip(encoding, stylizing, whole, strict=True):
        assert both >= a + b - 1e-6
    for name in ("encode_style", "stylize", "whole"):
        samples = found(result, "sleepy.plain", f"seconds.{name}").samples
        low, high = np.quantile(samples, [0.25, 0.75])
        assert found(result, "sleepy.plain", f"seconds.{name}.iqr").value == pytest.approx(high - low, abs=1e-6)


def test_a_sleep_is_measured_within_two_milliseconds(measured):
    result, calls = measured
    row = found(result, "sleepy.plain", "seconds.stylize")
    assert row.value == pytest.approx(statistics.median(row.samples), abs=1e-6)
    beyond, ours = [], []
    # The first call is the warm-up. The last that was timed has no neighbour after it in its process.
    for before, call, after, sample in zip(calls[:20], calls[1:21], calls[2:22], row.samples[:20], strict=True):
        around = after.begun - before.ended
        assert call.slept - 1e-6 <= sample <= around
        # Awake and not at work: others had the processor, in the harness or between its calls.
        waited = (around - call.slept) - (after.worked - before.worked_at_end)
        beyond.append(sample - call.slept)
        ours.append(sample - call.slept - waited)
    assert min(beyond) < 0.002
    assert statistics.median(ours) < 0.002


def test_pictures_a_second_are_of_the_best_batch(measured):
    result, _ = measured
    single = found(result, "sleepy.plain", "seconds.stylize").value
    rate, batch = (found(result, "sleepy.plain", f"images_per_second{part}").value for part in ("", ".batch"))
    # It sleeps as long for four pictures as for one.
    assert batch == 4
    assert rate is not None
    assert single is not None
    assert 2 / single < rate < 4 / 0.05
    assert found(result, STEPPER, "images_per_second.batch").value == 1
    one = found(result, STEPPER, "seconds.stylize").value
    assert one is not None
    assert found(result, STEPPER, "images_per_second").value == pytest.approx(1 / one, rel=1e-4)


def test_shares_are_of_the_peak_measured_in_the_same_run(measured):
    result, _ = measured
    (peak,) = [row for row in result.rows if row.metric == "machine.conv_gflops"]
    assert (peak.method, peak.precision, peak.size, peak.content) == ("machine[precision=fp32]", "fp32", 0, None)
    assert peak.value == pytest.approx(2 * 9 * 128**2 * 256**2 / min(peak.samples) / 1e9, rel=1e-4)
    for size in SIZES:
        done, seconds = (
            found(result, "filter.plain", name, size).value for name in ("gflops.stylize", "seconds.stylize")
        )
        assert done is not None
        assert seconds is not None
        assert peak.value is not None
        share = found(result, "filter.plain", "share.conv_peak", size)
        assert share.value == pytest.approx(100 * done / seconds / peak.value, abs=1e-4)
    assert found(result, STEPPER, "share.conv_peak").value == 0


def test_what_belongs_to_the_run_is_a_remark_and_no_line(measured):
    result, _ = measured
    assert {line.method for line in read_table(result.folder).lines} == {
        *(f"{name}.plain" for name in ("filter", "sleepy")),
        STEPPER,
    }
    assert {line.size for line in read_table(result.folder).lines} == set(SIZES)
    (said,) = [one.text for one in read_table(result.folder).remarks if one.kind == "machine"]
    assert "fp32" in said
    columns = {column.metric: column for column in read_table(result.folder).columns}
    assert columns["images_per_second"].direction == "higher"
    said = [remark.text for remark in read_table(result.folder).remarks]
    assert "operations, of peak: not counted: linalg_eigh (filter.plain)." in said


def test_shares_that_a_kill_left_out_are_filled_in(measured, tmp_path):
    result, _ = measured
    rows = (result.folder / "rows.jsonl").read_text().splitlines(keepends=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text((result.folder / "run.json").read_text())
    kept = [line for line in rows if "share.conv_peak" not in line]
    assert len(kept) < len(rows)
    (out / "rows.jsonl").write_text("".join(kept))
    protocol = result.folder.parent / "measures.yaml"
    resumed = run(["filter", "sleepy", "stepper"], protocol, out, device="cpu", threads=1)
    assert {row.key: row.value for row in resumed.rows} == {row.key: row.value for row in result.rows}


def test_the_run_says_how_busy_the_machine_was(measured):
    result, _ = measured
    (entry,) = json.loads((result.folder / "run.json").read_text())["runs"]
    assert entry["seconds"] > 0
    assert entry["busy"] is bool(environment.busy(entry))
    said = [one.text for one in read_table(result.folder).remarks if one.kind == "busy"]
    assert bool(said) == entry["busy"]


def test_the_account_of_a_run_explains_what_its_workers_did(measured, overhead):
    result, _ = measured
    (entry,) = json.loads((result.folder / "run.json").read_text())["runs"]
    found = overhead.account(result.rows, entry)
    assert all(seconds > 0 for seconds in found.items.values()), found.items
    # The sleeping method, and the one that pauses for 10 ms in each of its 4 steps.
    assert found.items["measured"] >= 21 * 0.05 + 4 * 0.01
    explained, lived = sum(found.items.values()), sum(Watched.lives)
    # Three methods measured and counted, and the machine, one process after the other.
    assert len(Watched.lives) == 7
    assert explained <= lived <= found.wall + 0.01
    assert explained >= 0.95 * lived


# -- the pieces ------------------------------------------------------------------------------------------------------


def row(metric: str, size: int, value: float | None, **changes: Any) -> Row:
    base = Row("r", "p@1", "m.x", None, None, "fp32", "a", "s", size, 0, 1.0, metric, 1.0, "s", "ok", "", "now")
    return dataclasses.replace(base, value=value, **changes)


def test_a_method_of_trained_styles_has_no_time_of_encoding_one(tmp_path):
    """It looks its network up; what that takes is part of both calls together."""
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    files = {name: tmp_path / f"{name}.png" for name in ("content", "style", "output")}
    for name in ("content", "style"):
        Image.fromarray(picture).save(files[name])
    job = {"timing": {"warmup": 0, "repeats": 2, "budget": 9.0}}
    found = {}
    for styles in ("any", "trained"):
        model = type("Either", (Tint,), {"traits": dataclasses.replace(Tint.traits, styles=styles)})(device="cpu")
        numbers = _Session(job, model, 0).measure({**files, "strength": 1.0, "seed": 0})
        found[styles] = {number["metric"]: number["value"] for number in numbers}
    assert found["any"].keys() - found["trained"].keys() == {"seconds.encode_style"}
    assert found["trained"]["seconds.whole"] >= found["trained"]["seconds.stylize"]


def test_the_account_adds_up_what_does_not_overlap(overhead):
    rows = [
        row("seconds.import", 32, 2.0),
        row("seconds.load", 32, 1.0),
        row("seconds.first", 32, 9.0),  # a warm-up call
        row("seconds.warmup", 32, 1.0),
        row("seconds.encode_style", 32, 0.1, samples=(0.1, 0.2)),
        row("seconds.stylize", 32, 0.5, samples=(0.4, 0.6)),
        row("seconds.whole", 32, 0.6, samples=(0.5, 0.8)),  # the two above
        row("seconds.extra", 32, 0.2),
        row("seconds.files", 32, 0.5),
        row("seconds.load", 64, 100.0, run_id="another"),
    ]
    found = overhead.account(rows, {"run_id": "r", "seconds": 8.0})
    assert sum(found.items.values()) == pytest.approx(6.0)
    assert found.explained == pytest.approx(0.75)


def test_growth_finds_the_exponent_of_a_power_law():
    rows = [row("seconds.stylize", size, 3e-6 * size**3) for size in (64, 128, 256)]
    (fitted,) = growth.growth(rows)
    assert fitted.exponent == pytest.approx(1.5)
    assert fitted.error == pytest.approx(0, abs=1e-6)
    assert fitted.at(512) == pytest.approx(3e-6 * 512**3)
    assert fitted.sizes == (64, 128, 256)


def test_the_error_of_an_exponent_is_that_of_least_squares():
    stats = pytest.importorskip("scipy.stats")
    points = {64: 1.0, 128: 3.5, 256: 17.0, 512: 60.0}
    fitted = growth.fit("m.x", "seconds.stylize", points)
    expected = stats.linregress([2 * math.log(size) for size in points], [math.log(v) for v in points.values()])
    assert fitted.exponent == pytest.approx(expected.slope)
    assert fitted.error == pytest.approx(expected.stderr)
    assert str(fitted) == f"{expected.slope:.2f} ± {expected.stderr:.2f}"
    assert growth.fit("m.x", "seconds.stylize", {64: 1.0, 128: 4.0}).error is None


def test_growth_joins_pairs_and_leaves_out_what_is_not_ok_or_has_no_size():
    rows = [
        row("memory.resident", 64, 10.0),
        row("memory.resident", 64, 30.0, content="b"),
        row("memory.resident", 128, 80.0),
        row("memory.resident", 256, None, status="failed", reason="out of memory"),
        row("memory.resident", 0, 7.0),
        row("seconds.stylize", 64, 1.0),
    ]
    (fitted,) = growth.growth(rows)
    assert (fitted.metric, fitted.sizes, fitted.exponent) == ("memory.resident", (64, 128), pytest.approx(1.0))


def test_a_projection_follows_the_two_largest_sizes_below():
    rows = [row("memory.resident", 64, 99.0), row("memory.resident", 128, 100.0), row("memory.resident", 256, 200.0)]
    # Twice as much for four times the pixels.
    assert growth.projected(rows, "m.x", "memory.resident", 1024) == pytest.approx(800.0)
    assert growth.projected(rows[:1], "m.x", "memory.resident", 128) == pytest.approx(4 * 99.0)
    assert growth.projected(rows, "m.x", "memory.resident", 64) is None


@pytest.mark.skipif(fused.OPERATOR is None, reason="this torch has no oneDNN")
def test_a_convolution_with_its_relu_counts_as_the_convolution():
    features, conv = torch.randn(2, 3, 10, 12), torch.nn.Conv2d(3, 5, 3)

    def call(mark):
        with torch.no_grad():
            conv(features)
            mark()
            fused.conv_relu(features, conv.weight, conv.bias)

    found = operations.count(call)
    assert found.marks == (2 * 2 * 5 * 8 * 10 * 27,)
    assert found.total == 2 * found.marks[0]


def test_operations_are_counted_up_to_every_mark():
    layer = nn.Conv2d(2, 3, 1, bias=False)
    pixels = torch.ones(1, 2, 4, 4)

    def call(mark: Any) -> None:
        for _ in range(3):
            layer(pixels).norm()
            mark()

    each = 2 * 2 * 3 * 16
    found = operations.count(call)
    assert (found.total, found.marks, found.unseen) == (3 * each, (each, 2 * each, 3 * each), ())
    assert found.remark == ""


def test_parameters_are_counted_once_however_they_are_held():
    class Holder:
        def __init__(self) -> None:
            self.first = nn.Linear(3, 2)
            self.again = [self.first, {"deep": nn.Linear(2, 2, bias=False)}]
            self.itself = self
            self.dtype = torch.float32

    assert parameters(Holder()) == 8 + 4


def test_a_convolutions_speed_is_its_operations_over_its_best_time(monkeypatch):
    seen: list[int] = []

    def run_of(*arguments: Any) -> Any:
        return lambda: seen.append(1)

    monkeypatch.setattr(machine, "convolutions", run_of)
    monkeypatch.setattr(machine.timing, "repeat", lambda run, device, **how: ([0.5, 0.25], None))
    speed, samples = machine.convolution(torch.float32, CPU)
    assert speed == pytest.approx(2 * 9 * 128**2 * 256**2 / 0.25)
    assert samples == [0.5, 0.25]
    assert seen == [1, 1]


def entry(**changes: Any) -> dict[str, Any]:
    ended = {"ended": "2026-01-01T00:00:00Z", "timed": 3}
    return {"load_before": 0.1, "other_cores": 0.0, "environment": {"usable_cores": 2}, **ended, **changes}


def busy(entries: list[dict[str, Any]]) -> str:
    runs = [{**one, "environment": {"source": "", **one["environment"]}} for one in entries]
    return "".join(one.text for one in remarks.of_runs({"runs": runs}) if one.kind == "busy")


def test_a_machine_is_busy_by_its_load_before_or_by_its_neighbours():
    assert busy([entry(), entry(other_cores=None)]) == ""
    assert "load of 1.5 on 2 cores" in busy([entry(), entry(load_before=1.5)])
    assert "kept 0.9 of 2 cores busy" in busy([entry(load_before=None, other_cores=0.9)])
    broken = entry(ended=None, timed=None, other_cores=None)
    assert "Of 2 runs into this folder 1 did not come to an end" in busy([broken, entry()])
    assert busy([entry(ended=None, timed=0)]) == ""
    assert "others kept the GPU 40 % busy" in busy([entry(gpu_before=40)])
    assert busy([entry(gpu_before=3), entry(gpu_before=None)]) == ""
    spare = {"usable_cores": 1, "logical_cores": 2}
    assert environment.busy(entry(other_cores=1.1, environment=spare)) == ""
    assert "kept 1.5 of 2 cores" in environment.busy(entry(other_cores=1.5, environment=spare))


def test_the_largest_sizes_are_told_with_what_ended_the_search():
    rows = [
        row("size.largest", 0, 1536.0, content=None, style=None, unit="px", reason="1600: out of memory"),
        row("size.largest", 0, 4096.0, method="n.y", content=None, style=None, unit="px"),
    ]
    assert all(map(of_run, rows))
    expected = "Largest size that fits, in pixels: m.x 1536 (1600: out of memory); n.y 4096."
    assert remarks.largest(rows) == [remarks.Remark("largest", expected)]
