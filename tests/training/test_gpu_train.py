"""benchmarks/gpu_train: a schedule that keeps its time, and a pack that trains without anything but itself."""

from __future__ import annotations

import heapq
import os
import subprocess
import sys
import tarfile
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import load_file
from tint_net import PLUGIN, write_photos

from zoo.errors import ConfigError
from zoo.training.recipe import Recipe, find_recipe, load_recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECIPE = """
schema: 1
name: two
runs:
  - {name: first, method: "zoo_tint_net:TintTask", share: 1}
  - {name: second, method: "zoo_tint_net:TintTask", share: 2, task: {start: {run: first}}}
join:
  - {name: joined, parts: {one: second}}
"""


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import gpu_train
    finally:
        sys.path.remove(str(BENCHMARKS))
    return gpu_train


def simulated(gpu: ModuleType, recipe: Recipe, lanes: int, end: float, overrun: float = 0.0) -> dict[str, tuple]:
    """Begin and end of every run where each takes what it is given, and its start ``overrun`` seconds more."""
    clock, now, heap, times = gpu.Clock(recipe, lanes, end), 0.0, [], {}
    while True:
        while (chosen := clock.next(now)) is not None:
            run, seconds = chosen
            assert gpu.needs(run) <= clock.done
            times[run.name] = now, now + seconds + gpu.START + overrun
            heapq.heappush(heap, (times[run.name][1], run.name))
            assert len(heap) <= lanes
        if not heap:
            return times
        now, name = heapq.heappop(heap)
        clock.end_of(name)


@pytest.mark.parametrize("lanes", [1, 2, 4, 7])
def test_all_runs_of_the_zoo_fit_their_time_and_use_it(gpu: ModuleType, lanes: int) -> None:
    recipe, end = load_recipe(find_recipe("zoo")), 515.0
    times = simulated(gpu, recipe, lanes, end)
    by_value = [run.name for run in gpu.ordered(recipe)]
    assert times.keys() == set(by_value[: len(times)])  # what has no time is what is valued least
    assert len(times) == len(by_value) or lanes == 1
    assert max(until for _, until in times.values()) <= end + 1e-6
    share = {run.name: run.share for run in recipe.runs}
    longest = max(gpu.Clock(recipe, lanes, end).chain(run)[0] for run in recipe.runs)
    # Either the lanes are busy to the end, or the longest chain is.
    busy = sum(until - begun for begun, until in times.values())
    assert busy >= 0.9 * min(lanes * end, end * sum(share.values()) / longest)


def test_runs_that_start_slowly_cost_others_their_time_and_not_the_deadline(gpu: ModuleType) -> None:
    times = simulated(gpu, load_recipe(find_recipe("zoo")), 4, 515.0, overrun=3.0)
    assert max(until for _, until in times.values()) <= 515 + 3


def test_the_order_is_that_of_value_and_of_what_valued_runs_begin_from(gpu: ModuleType) -> None:
    recipe = Recipe.model_validate(
        {
            "schema": 1,
            "name": "r",
            "runs": [
                {"name": "other", "method": "m", "share": 1},
                {"name": "common", "method": "m", "share": 1},
                {"name": "cin", "method": "m", "share": 1},
                {"name": "johnson-a", "method": "m", "share": 1, "init_from": {"run": "common"}},
            ],
        }
    )
    assert [run.name for run in gpu.ordered(recipe)] == ["common", "johnson-a", "cin", "other"]


def test_a_run_that_fails_takes_only_what_begins_from_it_along(gpu: ModuleType) -> None:
    recipe = Recipe.model_validate(
        {
            "schema": 1,
            "name": "r",
            "runs": [
                {"name": "a", "method": "m", "share": 1},
                {"name": "b", "method": "m", "share": 1, "init_from": {"run": "a"}},
                {"name": "c", "method": "m", "share": 1, "init_from": {"run": "b"}},
                {"name": "d", "method": "m", "share": 1},
            ],
        }
    )
    clock, said = gpu.Clock(recipe, 2, 100.0), []

    def train(name: str, seconds: float) -> str:
        if name == "a":
            raise ConfigError("no such option")
        return name

    with ThreadPoolExecutor(2) as pool:
        gpu.drive(clock, pool, train, said.append)
    assert clock.done == {"d"}
    assert [line for line in said if "not trained" in line] == [
        "a is not trained: ConfigError: no such option",
        "b is not trained: a is not there",
        "c is not trained: b is not there",
    ]


def test_weights_come_in_parts_by_value_and_what_has_no_room_is_named(gpu: ModuleType, tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    out.mkdir()
    recipe = Recipe.model_validate(
        {"schema": 1, "name": "r", "runs": [{"name": n, "method": "m", "share": 1} for n in ("x", "cin", "adain")]}
    )
    for run in recipe.runs:
        (runs / run.name).mkdir(parents=True)
        (runs / run.name / "model.safetensors").write_bytes(run.name.encode() * 400_000)
    said = gpu.collect(recipe, runs, out, part=1 << 20, parts=4)
    assert said.endswith("no room for cin/model.safetensors")  # and x, of less value, has
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"weights.tar.{n:02d}" for n in range(len(names))]
    assert len(names) <= 4
    assert all(path.stat().st_size <= 1 << 20 for path in out.iterdir())
    whole = tmp_path / "whole.tar"
    whole.write_bytes(b"".join((out / name).read_bytes() for name in names))
    with tarfile.open(whole) as archive:
        assert archive.getnames()[0] == "adain/model.safetensors"


def test_a_pack_trains_on_a_cpu_with_nothing_but_itself(gpu: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photos = write_photos(tmp_path / "photos")
    recipe, target, out = tmp_path / "two.yaml", tmp_path / "pack.tar.gz", tmp_path / "out"
    recipe.write_text(RECIPE)
    sets = {name: [str(photos / name)] for name in ("content", "style")}
    said = gpu.pack(target, recipe, sets, side=32, max_mb=20, encoder=False)
    assert "6 of 6 content images" in said
    assert target.stat().st_size < 20e6
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/zoo_tint_net.py").write_text(PLUGIN)
    (tmp_path / "elsewhere").mkdir()
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(tmp_path / "tasks"),
        "OMP_NUM_THREADS": "1",
    }
    command = f"tar xOf {target} benchmarks/gpu_train.sh | bash -s {target} {out} --lanes 1 --steps 3 --store 32"
    done = subprocess.run(
        ["bash", "-c", command],
        env=environment,
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["log.txt", "weights.tar.00"]
    log = (out / "log.txt").read_text()
    assert [line.split()[2] for line in log.splitlines() if "3 updates in" in line] == ["first:", "second:"]
    with tarfile.open(out / "weights.tar.00") as archive:
        archive.extractall(tmp_path / "back", filter="data")
    back = tmp_path / "back"
    assert set(load_file(back / "joined.safetensors")) == {f"one.{i}.{k}" for i in "01" for k in ("weight", "bias")}
    assert (back / "first/model.safetensors").is_file()
    assert not (back / "second/model.safetensors").exists(), "it is in the joined file"
    assert "Trained from commit" in (back / "second/card.md").read_text()
    assert (back / "second/losses.csv").read_text().count("\n") == 4


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), BrokenExecutor("a process was killed")])
def test_what_is_trained_comes_back_when_the_rest_is_broken_off(
    gpu: ModuleType, fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "commit.txt").write_text("0" * 40)
    (tmp_path / "runs/first").mkdir(parents=True)
    (tmp_path / "runs/first/model.safetensors").write_bytes(b"weights")

    def broken(*_: object) -> None:
        raise fault

    monkeypatch.setattr(gpu, "drive", broken)
    monkeypatch.setattr(gpu.signal, "signal", lambda *_: None)
    monkeypatch.setattr(gpu.os, "_exit", sys.exit)
    with pytest.raises(SystemExit, match="1"):
        gpu.main(["train", "--out", str(tmp_path), "--lanes", "1"])
    with tarfile.open(tmp_path / "weights.tar.00") as archive:
        assert archive.getnames() == ["first/model.safetensors"]


def test_a_recipe_that_begins_from_a_file_of_elsewhere_is_no_pack(gpu: ModuleType, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "schema: 1\nname: r\nruns:\n  - {name: a, method: cin, share: 1, init_from: /elsewhere.safetensors}"
    )
    with pytest.raises(ConfigError, match=r"/elsewhere\.safetensors"):
        gpu.pack(tmp_path / "pack.tar.gz", recipe, {"content": []})
    assert gpu.main(["pack", str(tmp_path / "p.tar.gz"), "--recipe", str(recipe)]) == 2
