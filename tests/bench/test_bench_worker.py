"""Pieces around a worker: its process under supervision, the clock, memory, the environment, both stages."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from zoo import images
from zoo import memory as limits
from zoo.bench import environment, largest_size, memory, score, supervise, timing
from zoo.bench.folder import Folder
from zoo.bench.largest_size import LargestSize
from zoo.bench.ledger import Event, Ledger
from zoo.bench.measure import Measure
from zoo.bench.measures import PRIMARY
from zoo.bench.plan import Cell, MethodPlan, Plan, SetCell
from zoo.bench.protocol import Limits, Protocol, ProtocolImage, ResolvedProtocol, Timing
from zoo.bench.rows import RowStore
from zoo.bench.runner import Pass, Setting
from zoo.bench.score import Score
from zoo.bench.supervise import Worker, WorkerError
from zoo.bench.throughput import Machine, Throughput
from zoo.bench.workers.common import why
from zoo.errors import ImageError, InputError, NumericalError, ProtocolError, UnsupportedError
from zoo.registry import MetricEntry, Registry

CPU = torch.device("cpu")


# -- supervision -----------------------------------------------------------------------------------------------------


def errand(name: str, *, seconds: float = 60.0, mebibytes: int = 4096) -> Worker:
    return Worker("bench_errand", {"errand": name}, threads=1, seconds=seconds, memory=mebibytes * 2**20)


def gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_events_arrive_in_order_and_prints_do_not():
    with errand("talk") as worker:
        events = list(worker.events())
    assert [event["event"] for event in events] == ["hello", "number", "number", "number"]
    assert [event["value"] for event in events[1:]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("raise", r"exit code 1: RuntimeError: the reason"), ("exit", r"exit code 7"), ("half", r"exit code 7")],
)
def test_a_worker_that_ends_early_gives_its_reason(name, reason):
    with errand(name) as worker, pytest.raises(WorkerError, match=reason) as caught:
        list(worker.events())
    assert not caught.value.limit
    assert not caught.value.outside


def test_a_worker_that_only_closes_its_output_was_killed_by_nobody_else(monkeypatch):
    monkeypatch.setattr(supervise, "_EXIT_SECONDS", 0.5)
    with errand("stay") as worker, pytest.raises(WorkerError, match=r"did not end within 0\.5 s: the reason") as caught:
        list(worker.events())
    assert not caught.value.outside


def test_a_worker_killed_from_outside_says_so():
    # Its child lives on and holds the worker's output open.
    with errand("hang") as worker:
        events = worker.events()
        child = [next(events), next(events)][1]["pid"]
        os.kill(worker.pid, 9)
        with pytest.raises(WorkerError, match="killed from outside"):
            next(events)
    wait_until(lambda: gone(child))


@pytest.mark.parametrize(
    ("counts", "reason", "limit"),
    [
        ((3, 4), r"^out of memory: the kernel ended the process", True),
        ((3, 3), r"^the process was killed from outside$", False),
        ((None, None), r"^the process was killed from outside; the machine may have run out of memory$", True),
    ],
)
def test_what_the_kernel_counts_tells_a_want_of_memory_from_a_person(counts, reason, limit, monkeypatch):
    told = iter(counts)
    monkeypatch.setattr(supervise, "kernel_kills", lambda: next(told))
    with errand("hang") as worker:
        events = worker.events()
        next(events)
        os.kill(worker.pid, 9)
        with pytest.raises(WorkerError, match=reason) as caught:
            list(events)
    assert (caught.value.limit, caught.value.outside) == (limit, True)


def test_a_worker_that_was_asked_to_end_was_ended_from_outside():
    """As a cluster or a service manager ends all processes of a job."""
    with errand("hang") as worker:
        events = worker.events()
        next(events)
        os.kill(worker.pid, signal.SIGTERM)
        with pytest.raises(WorkerError, match=r"ended from outside \(SIGTERM\)") as caught:
            list(events)
    assert (caught.value.limit, caught.value.outside) == (False, True)


def test_the_kernels_count_is_read_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "_VMSTAT", tmp_path / "vmstat")
    assert supervise.kernel_kills() is None
    (tmp_path / "vmstat").write_text("pgfault 9\noom_kill_disabled 1\noom_kill 12\n")
    assert supervise.kernel_kills() == 12
    (tmp_path / "vmstat").write_text("pgfault 9\n")
    assert supervise.kernel_kills() is None


def test_the_time_limit_ends_the_worker_and_its_children():
    pids: list[int] = []
    with errand("hang", seconds=1.5) as worker, pytest.raises(WorkerError, match=r"limit of 1\.5 s") as caught:
        pids.extend(event["pid"] for event in worker.events())
    assert caught.value.limit
    assert len(pids) == 2
    wait_until(lambda: all(map(gone, pids)))


def test_the_memory_limit_ends_the_worker():
    with errand("grow", mebibytes=150) as worker, pytest.raises(WorkerError, match="out of memory") as caught:
        list(worker.events())
    assert caught.value.limit


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_worker_and_its_children_end_when_its_parent_is_killed():
    script = (
        "from zoo.bench.supervise import Worker\n"
        "worker = Worker('bench_errand', {'errand': 'hang'}, threads=1, seconds=600, memory=2**40)\n"
        "for event in worker.events(): print(event['pid'], flush=True)\n"
    )
    path = os.pathsep.join(part or os.getcwd() for part in sys.path)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    with parent:
        assert parent.stdout is not None
        worker, child = int(parent.stdout.readline()), int(parent.stdout.readline())
        assert not gone(worker)
        parent.kill()
    wait_until(lambda: gone(worker) and gone(child))


# -- the clock -------------------------------------------------------------------------------------------------------


def test_repeats_end_at_their_number_or_with_the_budget_but_never_before_the_first():
    calls: list[int] = []

    def call() -> int:
        calls.append(1)
        time.sleep(0.002)
        return len(calls)

    samples, last = timing.repeat(call, CPU, repeats=3, budget=60)
    assert (len(samples), last) == (3, 3)
    assert min(samples) >= 0.002
    samples, _ = timing.repeat(call, CPU, repeats=1000, budget=0.02)
    assert 1 <= len(samples) <= 11
    assert len(timing.repeat(call, CPU, repeats=5, budget=0)[0]) == 1


def test_p95_needs_twenty_runs():
    assert timing.p95([1.0] * 19) is None
    assert timing.p95([float(i) for i in range(21)]) == pytest.approx(19.0)


def test_the_interquartile_range_needs_four_runs():
    assert timing.iqr([1.0, 2.0, 3.0]) is None
    assert timing.iqr([4.0, 1.0, 3.0, 2.0, 5.0]) == pytest.approx(2.0)


def test_a_clock_that_ticks_by_itself_is_read_right(monkeypatch):
    now = [0.0]

    def call(seconds: float) -> str:
        now[0] += seconds
        return "done"

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    assert timing.timed(lambda: call(0.05), CPU) == (pytest.approx(0.05), "done")
    samples, _ = timing.repeat(lambda: call(0.05), CPU, repeats=50, budget=0.52)
    assert samples == [pytest.approx(0.05)] * 11


def test_the_step_clock_leaves_the_first_step_out_and_can_stop():
    clock = timing.StepClock(CPU)
    for _ in range(4):
        assert clock(1, 4, {}, torch.empty) is False
    assert len(clock.steps) == 3
    assert timing.StepClock(CPU, stop_after=1)(1, 4, {}, torch.empty) is True


# -- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marked", [True, False])
def test_a_peak_that_is_gone_again_is_seen(marked):
    torch.ones(2**20)
    before = memory.resident()
    with memory.peak(CPU, use_high_water_mark=marked) as peak:
        held = torch.ones(120 * 2**18)
        time.sleep(0.05)
        del held
    assert 110 <= (peak.resident - before) / memory.MIB <= 200
    assert peak.cuda_allocated is None


def test_a_peak_before_the_block_is_not_counted():
    held = torch.ones(300 * 2**18)
    del held
    with memory.peak(CPU) as peak:
        pass
    assert peak.resident - memory.resident() < 100 * memory.MIB


def test_machine_memory_is_at_most_the_machines():
    assert 0 < limits.machine_memory() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        # A step of a Slurm job, whose limit stands at the job, and a service of systemd, which has its own.
        ("0::/slurm/job_7/step_0\n", {"slurm/job_7/step_0/memory.max": "max", "slurm/job_7/memory.max": "300"}, 300),
        ("0::/system.slice/a.service\n", {"system.slice/a.service/memory.max": "400", "memory.max": "max"}, 400),
        ("0::/a/b\n", {"a/b/memory.max": "6", "a/memory.max": "5", "a/b/c/memory.max": "1", "d/memory.max": "1"}, 5),
        # In a container: the group is the root of what is mounted, whatever its host calls it.
        ("0::/\n", {"memory.max": "700"}, 700),
        ("0::/../../there\n", {"memory.max": "700"}, 700),
        ("5:cpu:/docker/x\n4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": "800"}, 800),
        # Version 1, alone and beside an empty version 2.
        ("9:hugetlb,memory:/slurm/uid_1\n", {"memory/slurm/memory.limit_in_bytes": "900"}, 900),
        ("4:memory:/x\n0::/x\n", {"memory/x/memory.limit_in_bytes": "90", "unified/x/memory.max": "80"}, 80),
        ("3:cpu:/x\n", {"memory/x/memory.limit_in_bytes": "1", "x/memory.max": "1"}, None),
        ("0::/x\n", {"memory.max": str(2**60)}, None),
        (None, {"memory.max": "1"}, None),
    ],
)
def test_the_lowest_limit_of_the_control_groups_above_holds(groups, files, limit, tmp_path, monkeypatch):
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    if groups is not None:
        (tmp_path / "cgroup").write_text(groups)
    monkeypatch.setattr(limits, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "_MOUNT", tmp_path / "fs")
    assert limits.machine_memory() == (psutil.virtual_memory().total if limit is None else limit)


# -- environment and reasons -----------------------------------------------------------------------------------------


def test_the_environment_is_plain_data():
    found = environment.describe(CPU)
    assert json.loads(json.dumps(found)) == found
    assert found["libraries"]["torch"]
    assert found["usable_cores"] >= 1
    assert len(found["source"]) == 12
    assert found["machine"].endswith(" cores")
    assert found["amp"] == {"enabled": False, "dtype": "bfloat16", "float32_matmul_precision": "highest"}


def test_neighbours_are_what_the_machine_works_beside_this_process(monkeypatch):
    clock, busy, own = iter([10.0, 14.0]), iter([100.0, 109.0]), iter([5.0, 8.0])
    monkeypatch.setattr(environment.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(environment, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(environment, "_own_seconds", lambda: next(own))
    neighbors = environment.Neighbors()
    assert neighbors.cores() == 1.5  # 9 seconds of all, 3 of them ours, in 4 seconds


def test_the_machines_processor_time_covers_our_own():
    begun, ours = environment._busy_seconds(), environment._own_seconds()
    assert begun is not None
    while environment._own_seconds() - ours < 0.2:
        sum(range(10_000))
    end = environment._busy_seconds()
    assert end is not None
    assert end - begun >= 0.1


def test_reasons_are_one_line_beside_a_word_to_decide_by():
    assert why(ValueError("a\n  b")) == {"reason": "ValueError: a b", "cause": "crash"}
    assert why(KeyError())["reason"] == "KeyError: KeyError"
    assert why(MemoryError("no room")) == {"reason": "out of memory: no room", "cause": "memory"}
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert why(caught.value)["cause"] == "memory"
    assert len(why(ValueError("x" * 9999))["reason"]) <= 500
    assert why(UnsupportedError("Not this.")) == {"reason": "Not this.", "cause": "lacking"}
    found = [why(error("no"))["cause"] for error in (NumericalError, ZeroDivisionError, InputError, ImageError)]
    assert found == ["numerical", "numerical", "input", "input"]


# -- stages, with scripted workers -----------------------------------------------------------------------------------


class Script:
    """A worker that says what it was told to, then ends well or dies."""

    def __init__(self, events: list[dict[str, Any]], death: WorkerError | None = None) -> None:
        self.lines, self.death = events, death

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None: ...

    def events(self) -> Iterator[dict[str, Any]]:
        yield from self.lines
        if self.death is not None:
            raise self.death


class Scripted(Setting):
    """A setting whose workers follow scripts; ``jobs`` keeps what each was asked."""

    def play(self, *scripts: Script) -> Scripted:
        object.__setattr__(self, "scripts", list(scripts))
        object.__setattr__(self, "jobs", [])
        return self

    def worker(self, module: str, job: Mapping[str, Any]) -> Any:
        self.jobs.append(job)  # type: ignore[attr-defined]
        return self.scripts.pop(0)  # type: ignore[attr-defined]


@pytest.fixture
def setting(tmp_path: Path) -> Scripted:
    return Scripted(Folder(tmp_path), "cpu", "auto", 1, Limits())


def plan_of(ledger: Ledger, *methods: MethodPlan, retry: bool = False) -> Plan:
    for method in methods:
        ledger.plans[method.label] = method
    return Plan(ledger.protocol, ledger.registry, methods, retry=retry)


def measure(setting: Setting, ledger: Ledger, method: MethodPlan, cells: Sequence[Cell]) -> None:
    Measure(setting, ledger, plan_of(ledger, dataclasses.replace(method, cells=tuple(cells)))).run()


def search(setting: Setting, ledger: Ledger) -> None:
    LargestSize(setting, ledger, plan_of(ledger, PLAN)).run()


CELLS = tuple(Cell("m.x", name, "s", size, 0, 1.0) for size in (32, 64) for name in "abc")
PLAN = MethodPlan("m.x", "m.x", {}, Timing(), None, None, CELLS)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    spec = Protocol.model_validate(
        {"schema": 1, "name": "p", "contents": ["a"], "styles": ["s"], "sizes": [32], "metrics": ["ssim", "other"]}
    )
    entry = {"title": "", "measures": "content", "direction": "higher", "range": "[0, 1]", "unit": "", "reference": ""}
    metric = MetricEntry.model_validate({**entry, "class": "zoo.metrics.ssim:SSIM", "version": 1})
    registry = Registry({}, {}, {"ssim": metric, "other": metric})
    events: list[Event] = []
    with RowStore(tmp_path / "rows.jsonl") as store:
        book = Ledger(store, ResolvedProtocol(spec, (), (), (), (1, 1)), [PLAN], registry, "r", events.append)
        book.seen = events  # type: ignore[attr-defined]
        yield book
    assert events[-1].done == events[-1].total


def loaded() -> dict[str, Any]:
    return {"event": "loaded", "precision": "fp32", "measured": []}


def measured(cell: int) -> list[dict[str, Any]]:
    numbers = [{"metric": name, "value": 1.0, "unit": "s", "samples": []} for name in (PRIMARY, "memory.resident")]
    return [{"event": "start", "cell": cell}, {"event": "measured", "cell": cell, "measured": numbers}]


def outcomes(ledger: Ledger) -> list[str]:
    found = []
    for cell in CELLS:
        row = ledger.measured(cell)
        found.append("missing" if row is None else row.reason or row.status)
    return found


def test_a_crash_costs_one_cell_and_the_rest_is_measured_by_another_worker(setting, ledger):
    crash = Script([loaded(), *measured(0), {"event": "start", "cell": 1}], WorkerError("crashed"))
    setting.play(crash, Script([loaded(), *measured(0)]), Script([loaded(), *measured(0), *measured(1), *measured(2)]))
    measure(setting, ledger, PLAN, CELLS)
    assert outcomes(ledger) == ["ok", "crashed", "ok", "ok", "ok", "ok"]
    assert [len(job["cells"]) for job in setting.jobs] == [3, 1, 3]
    assert ledger.store.rows[0].metric == "memory.resident", "the row that says that a cell is done comes last"


def test_a_crash_between_cells_costs_none(setting, ledger):
    setting.play(
        Script([loaded(), *measured(0)], WorkerError("crashed")), Script([loaded(), *measured(0), *measured(1)])
    )
    measure(setting, ledger, PLAN, CELLS[:3])
    assert outcomes(ledger)[:3] == ["ok", "ok", "ok"]


def killed() -> WorkerError:
    return WorkerError("killed", outside=True)


@pytest.mark.parametrize(
    ("scripts", "found", "asked"),
    [
        # Once, while it measured the second cell: measured again, and nothing is lost.
        ([[loaded(), *measured(0), {"event": "start", "cell": 1}], None], ["ok", "ok", "ok"], [3, 2]),
        # Twice at the same cell: that one fails.
        (
            [[loaded(), *measured(0), {"event": "start", "cell": 1}], [loaded(), {"event": "start", "cell": 0}], None],
            ["ok", "killed", "ok"],
            [3, 2, 1],
        ),
        # Once while loading, then twice.
        ([[], None], ["ok", "ok", "ok"], [3, 3]),
        ([[], []], ["while loading: killed"] * 3, [3, 3]),
    ],
)
def test_what_was_killed_from_outside_is_measured_once_more(scripts, found, asked, setting, ledger):
    rest = [loaded(), *(event for cell in range(asked[-1]) for event in measured(cell))]
    setting.play(*(Script(rest) if one is None else Script(one, killed()) for one in scripts))
    measure(setting, ledger, PLAN, CELLS[:3])
    assert outcomes(ledger)[:3] == found
    assert [len(job["cells"]) for job in setting.jobs] == asked
    assert len({row.key for row in ledger.store.rows}) == len((ledger.store.path).read_text().splitlines())


def test_after_a_limit_neither_this_size_nor_a_larger_one_is_tried(setting, ledger):
    slow = WorkerError("took longer than the limit of 9 s", "time")
    setting.play(Script([loaded(), *measured(0), {"event": "start", "cell": 1}], slow))
    measure(setting, ledger, PLAN, CELLS)
    found = outcomes(ledger)
    assert found[:2] == ["ok", "took longer than the limit of 9 s"]
    reason = "not tried, because b x s at 32 took longer than the limit of 9 s"
    # From one smaller size, in proportion to the pixels: 1 MiB and 1 s at 32.
    need = "; projected need at 64, from its growth over smaller sizes: 4 MiB above idle, 4 s a picture"
    assert found[2:] == [reason, *[reason + need] * 3]


def test_out_of_memory_says_the_projected_need(setting, ledger):
    death = {"event": "failed", "cell": 1, "reason": "no room", "cause": "memory"}
    both = Script([loaded(), *measured(0), *measured(1), *measured(2)])
    setting.play(both, Script([loaded(), *measured(0), {"event": "start", "cell": 1}, death, *measured(2)]))
    measure(setting, ledger, PLAN, CELLS)
    need = "; projected need at 64, from its growth over smaller sizes: 4 MiB above idle, 4 s a picture"
    assert outcomes(ledger) == ["ok"] * 4 + [f"{death['reason']}{need}", "ok"]


# -- the largest size, with scripted workers -------------------------------------------------------------------------


def searched(low: int, high: int | None, limit: int) -> tuple[int, int | None, list[int]]:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    return (*largest_size.search(low, high, fits), tried)


def test_the_search_doubles_then_halves_and_stops_a_sixteenth_apart():
    assert searched(256, None, 1300) == (1280, 1344, [512, 1024, 2048, 1536, 1280, 1408, 1344])
    for limit in range(256, 2048, 37):
        low, high, tried = searched(256, 2048, limit)
        assert high is not None
        assert low <= limit < high
        assert high - low <= max(8, low / 16)
        assert len(tried) <= 8
        assert not any(size % 8 for size in tried)


def test_the_search_ends_at_the_largest_picture_that_can_be_read():
    low, high, tried = searched(4096, None, 10**6)
    assert high is None
    assert low == tried[-1]
    assert low**2 <= images.MAX_PIXELS < (low + 8) ** 2


def test_the_largest_size_is_a_row_of_the_run_with_what_ended_the_search(setting, ledger):
    ledger.protocol = dataclasses.replace(
        ledger.protocol,
        contents=(ProtocolImage("a", "builtin:astronaut", ""),),
        styles=(ProtocolImage("s", "builtin:swirls", ""),),
        pairs=(("a", "s"),),
    )
    slow = WorkerError("took longer than the limit of 9 s", "time")
    death = {"event": "failed", "cell": 0, "reason": "9 MiB needed; and so on", "cause": "memory"}
    setting.play(
        Script([loaded(), *measured(0), *measured(1), *measured(2)]),
        Script([loaded(), {"event": "start", "cell": 0}], slow),  # 64, in the protocol
        Script([loaded(), *measured(0)]),  # 48
        Script([loaded(), death]),  # 56
    )
    measure(setting, ledger, PLAN, CELLS)
    search(setting, ledger)
    (row,) = [row for row in ledger.store.rows if row.metric == "size.largest"]
    assert (row.method, row.size, row.content, row.value, row.unit) == ("m.x", 0, None, 48, "px")
    assert row.reason == "56: 9 MiB needed"
    assert setting.jobs[-1]["timing"]["warmup"] == 0
    assert not (setting.folder.outputs / "largest").exists()
    assert not LargestSize(setting, ledger, plan_of(ledger, PLAN)).pending()


def test_a_search_that_meets_another_failure_says_so(setting, ledger, monkeypatch):
    monkeypatch.setattr(largest_size, "_prepare", lambda folder, protocol, size: {})
    setting.play(
        *(Script([loaded(), *measured(0), *measured(1), *measured(2)]) for _ in range(2)),
        Script([loaded(), {"event": "failed", "cell": 0, "reason": "ValueError: too wide for me", "cause": "crash"}]),
    )
    measure(setting, ledger, PLAN, CELLS)
    search(setting, ledger)
    (row,) = [row for row in ledger.store.rows if row.metric == "size.largest"]
    assert (row.status, row.reason) == ("failed", "at 128: ValueError: too wide for me")


def test_a_search_without_room_on_the_disk_leaves_no_row(setting, ledger, monkeypatch):
    monkeypatch.setattr(largest_size, "_prepare", lambda folder, protocol, size: {})
    setting.play(
        *(Script([loaded(), *measured(0), *measured(1), *measured(2)]) for _ in range(2)),
        Script([loaded(), {"event": "unwritable", "cell": 0, "reason": "output.png cannot be written: no space."}]),
    )
    measure(setting, ledger, PLAN, CELLS)
    with pytest.raises(ProtocolError, match=r"no space\. Earlier rows are intact"):
        search(setting, ledger)
    assert not [row for row in ledger.store.rows if row.metric == "size.largest"]


def test_a_search_whose_pictures_cannot_be_prepared_tells_a_full_disk_from_its_own_failure(
    setting, ledger, monkeypatch
):
    def refuse(*_: object) -> None:
        raise ImageError("too large for an image")

    ledger.protocol = dataclasses.replace(
        ledger.protocol,
        contents=(ProtocolImage("a", "builtin:astronaut", ""),),
        styles=(ProtocolImage("s", "builtin:swirls", ""),),
        pairs=(("a", "s"),),
    )
    setting.play(*(Script([loaded(), *measured(0), *measured(1), *measured(2)]) for _ in range(2)))
    measure(setting, ledger, PLAN, CELLS)
    with monkeypatch.context() as patch:
        patch.setattr(largest_size.images, "write", refuse)
        with pytest.raises(ProtocolError, match="make room"):
            search(setting, ledger)
    (setting.folder.outputs / "largest").write_text("no folder can be made here")
    with pytest.raises(ProtocolError, match="make room"):
        search(setting, ledger)
    (setting.folder.outputs / "largest").unlink()
    assert not [row for row in ledger.store.rows if row.metric == "size.largest"]
    monkeypatch.setattr(largest_size, "prepared", refuse)
    search(setting, ledger)
    (row,) = [row for row in ledger.store.rows if row.metric == "size.largest"]
    assert row.status == "failed"
    assert "too large for an image" in row.reason


def test_a_worker_that_dies_while_loading_fails_all_its_cells(setting, ledger):
    setting.play(Script([], WorkerError("ended with exit code 1")), Script([], WorkerError("ended with exit code 1")))
    measure(setting, ledger, PLAN, CELLS)
    assert set(outcomes(ledger)) == {"while loading: ended with exit code 1"}


def test_a_crash_while_scoring_costs_one_picture(setting, ledger):
    pending = [(metric, cell) for metric in (0, 1) for cell in CELLS[:2]]
    first = [
        {"event": "start", "metric": 0, "item": 0},
        {"event": "scored", "metric": 0, "item": 0, "value": 0.5},
        {"event": "start", "metric": 0, "item": 1},
    ]
    again = [{"event": "start", "metric": 0, "item": 0}]  # numbered anew
    last = [
        {"event": "refused", "metric": 1, "item": None, "reason": "weights are missing", "cause": "lacking"},
    ]
    setting.play(Script(first, WorkerError("crashed")), Script(again, WorkerError("crashed")), Script(last))
    Score(setting, ledger, plan_of(ledger)).score(pending)
    found = {(row.metric, row.content): (row.status, row.reason) for row in ledger.store.rows}
    assert found == {
        ("ssim", "a"): ("ok", ""),
        ("ssim", "b"): ("failed", "crashed"),
        ("other", "a"): ("skipped", "weights are missing"),
        ("other", "b"): ("skipped", "weights are missing"),
    }


@pytest.mark.parametrize("bad", [0, 1])
def test_a_metric_that_cannot_be_loaded_fails_alone(setting, ledger, bad):
    pending = [(metric, cell) for metric in (0, 1) for cell in CELLS[:2]]
    good = 1 - bad
    load = [{"event": "load", "metric": metric} for metric in (0, 1)]
    ready = [load[good], *({"event": "scored", "metric": good, "item": i, "value": 0.5} for i in range(2))]
    end = WorkerError("ended")
    if bad == 0:
        setting.play(Script([load[0]], end), Script([load[0]], end), Script(ready))
    else:
        setting.play(Script([*ready, load[1]], end), Script([load[1]], end))
    Score(setting, ledger, plan_of(ledger)).score(pending)
    found = {(row.metric, row.status) for row in ledger.store.rows}
    names = [use.label for use in ledger.protocol.spec.metrics]
    assert found == {(names[good], "ok"), (names[bad], "failed")}
    assert len(ledger.store.rows) == 4


def test_scoring_ends_where_every_process_dies_at_once(setting, ledger):
    pending = [(metric, cell) for metric in (0, 1) for cell in CELLS[:2]]
    done = [
        {"event": "load", "metric": 0},
        *({"event": "scored", "metric": 0, "item": i, "value": 1} for i in range(2)),
    ]
    setting.play(Script(done, killed()), Script([], killed()), Script([], killed()))
    Score(setting, ledger, plan_of(ledger)).score(pending)
    assert [row.status for row in ledger.store.rows] == ["ok", "ok", "failed", "failed"]


@pytest.mark.parametrize("said", [0, 1, 2, 3])
@pytest.mark.parametrize("how", ["a person", "the kernel", "a crash"])
def test_a_scorer_that_ends_once_costs_nothing(said, how, setting, ledger):
    """Wherever it ends: before it has loaded anything, while it loads, at its first picture, between two."""
    pending = [(metric, cell) for metric in (0, 1) for cell in CELLS[:2]]

    def whole(metrics: tuple[int, ...], items: int = 2) -> list[dict[str, Any]]:
        kinds = ("start", "scored")
        return [
            one
            for metric in metrics
            for one in [
                {"event": "load", "metric": metric},
                *({"event": k, "metric": metric, "item": i, "value": 0.5} for i in range(items) for k in kinds),
            ]
        ]

    death = {"a person": killed(), "a crash": WorkerError("crashed")}.get(
        how, WorkerError("oom", "memory", outside=True)
    )
    first = Script(whole((0, 1))[:said], death)
    # The second process is given what is left, in which the pictures are numbered anew.
    left = whole((0, 1)) if said < 3 else [*whole((0,), 1), *whole((1,))]
    setting.play(first, Script(left))
    Score(setting, ledger, plan_of(ledger)).score(pending)
    assert [row.status for row in ledger.store.rows] == ["ok"] * 4


def test_a_scorer_that_met_a_limit_of_its_own_is_not_tried_again(setting, ledger):
    start = [{"event": "load", "metric": 0}, {"event": "start", "metric": 0, "item": 0}]
    rest = [{"event": "load", "metric": 0}, {"event": "scored", "metric": 0, "item": 0, "value": 1}]
    setting.play(Script(start, WorkerError("too slow", "time")), Script(rest))
    Score(setting, ledger, plan_of(ledger)).score([(0, cell) for cell in CELLS[:2]])
    assert [row.reason for row in ledger.store.rows] == ["too slow", ""]


# -- several scoring processes ---------------------------------------------------------------------------------------


def test_parts_hold_whole_pictures_and_as_many_pixels():
    pending = [(metric, cell) for metric in (0, 1) for cell in CELLS]
    whole = SetCell.of(CELLS[:3])
    parts = score.share_out([*pending, (2, whole)], 4)
    # Three pictures of 32 pixels a side are less than one of 64.
    assert [len(part) for part in parts] == [3 * 2 + 1, 2, 2, 2]
    assert sorted(map(str, (one for part in parts for one in part))) == sorted(map(str, [*pending, (2, whole)]))
    homes = [{cell for _, cell in part} for part in parts]
    assert sum(map(len, homes)) == len(CELLS) + 1, "no picture is in two parts"
    assert score.share_out(pending, 1) == [pending]
    assert len(score.share_out(pending[:1], 8)) == 1
    assert score.share_out([], 3) == []


class Crowd(Setting):
    """A setting whose workers give every item the same value, and wait for each other before they begin."""

    def worker(self, module: str, job: Mapping[str, Any]) -> Any:
        crowd: list[Crowd] = CROWD
        crowd.append(self)
        if len(crowd) > 2:
            raise AssertionError("a part had two workers")
        wait_until(lambda: len(crowd) == 2)
        starts = [
            {"event": kind, "metric": number, "item": item, "value": 0.5}
            for number, use in enumerate(job["metrics"])
            for item in use["items"]
            for kind in ("start", "scored")
        ]
        return Script(starts)


CROWD: list[Crowd] = []


def test_two_jobs_score_at_once_and_share_threads_and_memory(tmp_path, ledger):
    CROWD.clear()
    pending = [(metric, cell) for metric in (0, 1) for cell in CELLS]
    crowd = Crowd(Folder(tmp_path), "cpu", "auto", 2, Limits(memory=0.8))
    Score(crowd, ledger, plan_of(ledger), 2).score(pending)
    found = {row.key: row.value for row in ledger.store.rows}
    assert found == {cell.key(metric): 0.5 for cell in CELLS for metric in ("ssim", "other")}
    assert [(crowd.threads, crowd.limits.memory) for crowd in CROWD] == [(1, 0.4)] * 2


def test_jobs_end_together_when_one_entry_cannot_be_written(tmp_path, ledger, monkeypatch):
    pids: list[int] = []

    class Errands(Setting):
        def worker(self, module: str, job: Mapping[str, Any]) -> Any:
            worker = errand("hang")
            pids.append(worker.pid)
            return worker

    hello = {"event": "start", "metric": 0, "item": 0}
    monkeypatch.setattr(Worker, "events", lambda self: iter([hello, time.sleep(0.2) or hello]))
    monkeypatch.setattr(ledger, "tell", lambda label: (_ for _ in ()).throw(ProtocolError("the disk is full")))
    errands = Errands(Folder(tmp_path), "cpu", "auto", 2, Limits())
    with pytest.raises(ProtocolError, match="disk is full"):
        Score(errands, ledger, plan_of(ledger), 2).score([(0, cell) for cell in CELLS])
    assert pids
    wait_until(lambda: all(map(gone, pids)))
    ledger.begin("score", 0)
    monkeypatch.undo()
    ledger.tell("")


# -- operations and rates, with scripted workers ---------------------------------------------------------------------

COUNTING = dataclasses.replace(PLAN, timing=Timing(count=1.0, batches=[2]), cells=CELLS[:3])
NUMBERS = {"gflops.encode_style": 1.0, "gflops.stylize": 3.0, "images_per_second": 2.0}


def counted(cell: int) -> list[dict[str, Any]]:
    numbers = [{"metric": name, "value": value, "unit": "", "samples": []} for name, value in NUMBERS.items()]
    return [{"event": "start", "cell": cell}, {"event": "measured", "cell": cell, "measured": numbers}]


def passes(setting: Setting, ledger: Ledger, method: MethodPlan, retry: bool) -> list[Pass]:
    plan = plan_of(ledger, method, retry=retry)
    return [Throughput(setting, ledger, plan), Machine(setting, ledger, plan)]


def lacks(setting: Setting, ledger: Ledger, method: MethodPlan, retry: bool = False) -> bool:
    return any(one.pending() for one in passes(setting, ledger, method, retry))


def count(setting: Setting, ledger: Ledger, retry: bool = False) -> None:
    for one in passes(setting, ledger, COUNTING, retry):
        one.run()


def peak() -> Script:
    numbers = [{"metric": f"machine.{n}_gflops", "value": 10.0, "unit": "", "samples": []} for n in ("conv", "matmul")]
    return Script([{"event": "measured", "cell": 0, "measured": numbers}])


def statuses(ledger: Ledger, metric: str) -> list[str]:
    rows = [ledger.store.get(cell.key(metric)) for cell in COUNTING.cells]
    return ["missing" if row is None else row.reason or row.status for row in rows]


def test_a_crash_while_counting_costs_that_and_not_the_cell(setting, ledger):
    crash = Script([loaded(), *counted(0), {"event": "start", "cell": 1}], WorkerError("crashed"))
    setting.play(Script([loaded(), *measured(0), *measured(1), *measured(2)]), crash, Script([loaded(), *counted(0)]))
    setting.scripts.append(peak())
    measure(setting, ledger, COUNTING, COUNTING.cells)
    assert lacks(setting, ledger, COUNTING)
    count(setting, ledger)
    assert outcomes(ledger)[:3] == ["ok", "ok", "ok"]
    assert statuses(ledger, "gflops.encode_style") == statuses(ledger, "images_per_second") == ["ok", "crashed", "ok"]
    # Three GFLOP in one second, of ten.
    shares = [ledger.store.get(cell.key("share.conv_peak")) for cell in COUNTING.cells]
    assert [row and row.value for row in shares] == [30.0, None, 30.0]
    assert [job["cells"][0]["seconds"] for job in setting.jobs[1:3]] == [1.0, 1.0]
    assert setting.jobs[1]["cells"][0]["bytes"] == memory.MIB
    assert setting.jobs[3] == {"precision": "fp32"}
    assert not lacks(setting, ledger, COUNTING)


def test_what_was_killed_from_outside_is_counted_once_more(setting, ledger):
    crash = Script([loaded(), *counted(0), {"event": "start", "cell": 1}], killed())
    setting.play(Script([loaded(), *measured(0), *measured(1), *measured(2)]), crash)
    setting.scripts += [Script([loaded(), *counted(0), *counted(1)]), peak()]
    measure(setting, ledger, COUNTING, COUNTING.cells)
    count(setting, ledger)
    assert statuses(ledger, "gflops.encode_style") == ["ok", "ok", "ok"]


def test_a_method_that_cannot_be_counted_and_a_machine_that_cannot_be_measured_say_so(setting, ledger):
    every = [loaded(), *measured(0), *measured(1), *measured(2)]
    setting.play(Script(every), Script([], WorkerError("ended with exit code 1")))
    measure(setting, ledger, COUNTING, COUNTING.cells)
    count(setting, ledger)
    assert statuses(ledger, "gflops.encode_style") == ["while loading: ended with exit code 1"] * 3
    assert not lacks(setting, ledger, COUNTING)

    assert lacks(setting, ledger, COUNTING, retry=True)
    assert not lacks(setting, ledger, dataclasses.replace(COUNTING, timing=Timing()), retry=True)


def test_no_share_without_the_machines_speed(setting, ledger):
    every = [loaded(), *measured(0), *measured(1), *measured(2)]
    setting.play(
        Script(every),
        Script([loaded(), *counted(0), *counted(1), *counted(2)]),
        Script([{"event": "start", "cell": 0}], WorkerError("ill")),
    )
    measure(setting, ledger, COUNTING, COUNTING.cells)
    count(setting, ledger)
    assert statuses(ledger, "share.conv_peak") == ["missing"] * 3
    (row,) = [row for row in ledger.store.rows if row.method == "machine[precision=fp32]"]
    assert (row.metric, row.status, row.reason) == ("machine.conv_gflops", "failed", "ill")
    assert not lacks(setting, ledger, COUNTING)
    assert lacks(setting, ledger, COUNTING, retry=True)
    setting.scripts.append(peak())
    count(setting, ledger, retry=True)
    assert statuses(ledger, "share.conv_peak") == ["ok"] * 3
