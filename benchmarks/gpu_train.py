"""What ``benchmarks/gpu_train.sh`` packs at home and runs on a machine with a GPU: a recipe against the clock.

``python benchmarks/gpu_train.py pack PACK.tar.gz --content-dir DIR --style-dir DIR`` puts images, VGG-19, the recipe,
the zoo's code and the wheels of what the machine lacks into one file of at most 60 MB. ``train`` is the script's part.

The networks are small, so one run leaves most of a GPU idle: ``--lanes`` processes train side by side, each the next
run whose inputs are there, in order of value. Every run gets its share of the time that is left for all lanes, yet so
little that those which begin from it still have theirs; it ends by the clock, and its schedule with it.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo.bench.environment import usable_cores
from zoo.config import describe
from zoo.errors import ConfigError, ZooError
from zoo.training.launch import Material
from zoo.training.pack import pack as pack_images
from zoo.training.recipe import Recipe, Run, find_recipe, load_recipe, run_recipe
from zoo.training.task import TrainConfig
from zoo.training.trainer import TrainResult, TrainState

ROOT = Path(__file__).resolve().parent.parent
# What a visitor uses first comes first: any style, then the styles that ship, then what is there for its size.
VALUE = "wct-[1-4] wct-4-large adain johnson-* cin style-swap wct-* texture-nets-* textures-* *"
LATE = 25.0  # seconds kept for writing and packing the weights
START = 6.0  # of every run for its images, its loss network and its files, beside the training
PART, PARTS = 15 << 20, 7


# -- at home ----------------------------------------------------------------------------------------------------------


def pack(
    target: Path,
    recipe: Path,
    sets: Mapping[str, Sequence[str]],
    *,
    wheels: Sequence[Path] = (),
    max_mb: float = 60.0,
    side: int = 288,
    encoder: bool = True,
) -> str:
    """Write the pack ``target`` and say what it holds; ConfigError where it does not fit ``max_mb``."""
    started = {run.init_from for run in load_recipe(recipe).runs if isinstance(run.init_from, str)}
    absent = sorted(name for name in started if os.path.isabs(name) or not (ROOT / name).is_file())
    if absent:
        raise ConfigError(f"A pack holds files of the project: {absent[0]}, where the recipe begins, is none.")
    code = [ROOT / "registry.yaml", ROOT / "benchmarks/gpu_train.sh", Path(__file__).resolve()]
    code += sorted(path for path in (ROOT / "zoo").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    # The registry wants every checkpoint to be there; but for those that runs begin from, an empty file will do.
    idle = {path for path in code if path.parent.name == "checkpoints" and path.suffix == ".safetensors"}
    idle = {path for path in idle if str(path.relative_to(ROOT)) not in started}
    fixed = sum(path.stat().st_size for path in [*code, *wheels] if path not in idle)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        report = pack_images(images, sets, max_mb=max_mb - fixed / 1e6, side=side, with_encoder=encoder)
        temporary = target.with_name(f".{target.name}")
        # Pictures and weights are as small as they get; the gain is in the archive's own blocks and in the code.
        with tarfile.open(temporary, "w:gz", compresslevel=1) as archive:
            for path in code:
                name = str(path.relative_to(ROOT))
                if path in idle:
                    archive.addfile(tarfile.TarInfo(name))
                else:
                    archive.add(path, name)
            archive.add(recipe, "recipe.yaml")
            archive.add(images, "images")
            for wheel in wheels:
                archive.add(wheel, f"wheels/{wheel.name}")
            commit = _commit().encode()
            about = tarfile.TarInfo("commit.txt")
            about.size = len(commit)
            archive.addfile(about, io.BytesIO(commit))
        os.replace(temporary, target)
    size = target.stat().st_size / 1e6
    kept = ", ".join(f"{count} of {of} {name} images" for name, (count, of) in report.kept.items())
    return f"{target}: {size:.1f} MB, {kept} at {report.side} pixels, {len(wheels)} wheels"


def _commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


# -- against the clock ------------------------------------------------------------------------------------------------

Train = Callable[[str, float], str]


def needs(run: Run) -> set[str]:
    """The runs that must be done before this one."""
    return set(run.inputs)


def ordered(recipe: Recipe, value: str = VALUE) -> list[Run]:
    """The runs in order of value: by the first of the patterns that fits a name, or that of a run which begins from
    this one; then as the recipe lists them."""
    patterns = value.split()

    def rank(run: Run) -> int:
        own = next((i for i, pattern in enumerate(patterns) if fnmatch.fnmatch(run.name, pattern)), len(patterns))
        return min([own, *(rank(other) for other in recipe.runs if run.name in needs(other))])

    return sorted(recipe.runs, key=rank)


@dataclass
class Clock:
    """Which run comes next and how long it may take; ``now`` in seconds, of which ``end`` is the last."""

    recipe: Recipe
    lanes: int
    end: float
    value: str = VALUE
    waiting: list[Run] = field(init=False)
    running: dict[str, float] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    lost: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.waiting = ordered(self.recipe, self.value)

    def chain(self, run: Run) -> tuple[float, int]:
        """Shares and number of the runs of the longest chain that begins here."""
        after = [self.chain(other) for other in self.recipe.runs if run.name in needs(other)]
        share, count = max(after, default=(0.0, 0))
        return share + run.share, count + 1

    def next(self, now: float) -> tuple[Run, float] | None:
        """The next run and its seconds, now counted as running; None while none can begin."""
        ready = [run for run in self.waiting if needs(run) <= self.done]
        if not ready or len(self.running) >= self.lanes:
            return None
        run, left = ready[0], self.end - now
        share, count = self.chain(run)
        along = (left - START * count) * run.share / share
        free = self.lanes * left - sum(until - now for until in self.running.values())
        beside = (free - START * len(self.waiting)) * run.share / sum(other.share for other in self.waiting)
        seconds = min(along, max(beside, 0.0))
        if seconds < 1:
            # The least valued that nothing else begins from gives way; at last this one.
            needed = {name for other in self.waiting for name in needs(other)}
            last = next((other for other in reversed(self.waiting[1:]) if other.name not in needed), run)
            self.end_of(last.name, "no time is left")
            return self.next(now)
        self.waiting.remove(run)
        self.running[run.name] = now + START + seconds
        return run, seconds

    def end_of(self, name: str, fault: str = "") -> None:
        """``name`` has ended, or never begins."""
        self.running.pop(name, None)
        self.waiting = [run for run in self.waiting if run.name != name]
        if not fault:
            self.done.add(name)
            return
        self.lost[name] = fault
        for run in [run for run in self.waiting if name in needs(run)]:
            self.end_of(run.name, f"{name} is not there")


def drive(clock: Clock, pool: Executor, train: Train, say: Callable[[str], None]) -> None:
    """Train all runs of ``clock`` in ``pool``; ``train(name, seconds)`` gives a line on what became of it."""
    began = time.monotonic()
    futures: dict[Future[str], str] = {}
    while True:
        while (chosen := clock.next(time.monotonic() - began)) is not None:
            run, seconds = chosen
            futures[pool.submit(train, run.name, seconds)] = run.name
        if not futures:
            break
        for future in wait(futures, return_when=FIRST_COMPLETED).done:
            name = futures.pop(future)
            error = future.exception()
            clock.end_of(name, "" if error is None else f"{type(error).__name__}: {error}")
            if error is None:
                say(f"{time.monotonic() - began:4.0f} s  {future.result()}")
    for name, fault in clock.lost.items():
        say(f"{name} is not trained: {fault}")


class _Lines:
    """The display of a run in one of several lanes: silent but for how it ended, which it does ``until`` a time."""

    def __init__(self, until: float) -> None:
        self.until, self.text = until, ""

    def begin(self, label: str) -> None: ...
    def say(self, text: str) -> None: ...
    def building(self, name: str, done: int, total: int) -> None: ...

    def __call__(self, state: TrainState, /) -> bool:
        return time.time() > self.until

    def ended(self, result: TrainResult) -> None:
        state = result.state
        losses = " ".join(f"{name} {value:.4g}" for name, value in state.losses.items())
        self.text = f"{state.step} updates in {state.seconds:.0f} s, {losses}"


@dataclass(frozen=True)
class Lane:
    """Trains one run after the other, in a process of its own where there are several."""

    recipe: Path
    out: Path
    material: Material
    overrides: Mapping[str, Any]
    threads: int
    until: float
    notes: str

    def __call__(self, name: str, seconds: float) -> str:
        torch.set_num_threads(self.threads)
        display = _Lines(self.until)
        _, lost = run_recipe(
            load_recipe(self.recipe),
            self.material,
            self.out,
            only=[name],
            overrides={**self.overrides, "time_limit": seconds / 60},
            command="benchmarks/gpu_train.sh",
            notes=self.notes,
            display=display,
        )
        return lost[0] if lost else f"{name}: {display.text}"


def collect(recipe: Recipe, runs: Path, out: Path, value: str = VALUE, part: int = PART, parts: int = PARTS) -> str:
    """Put what was trained into ``weights.tar.00`` ... of ``part`` bytes: weights by value, joined where all parts are
    there, then cards and records. Say what had no room."""
    joined = {join.name: join for join in recipe.join if (runs / f"{join.name}.safetensors").is_file()}
    inside = {run: name for name, join in joined.items() for run in join.parts.values()}
    records, weights = [runs / f"{name}.md" for name in joined], dict[Path, None]()
    for run in ordered(recipe, value):
        folder = runs / run.name
        records += [path for path in folder.glob("*") if path.suffix in (".json", ".csv", ".md")]
        held = runs / f"{inside[run.name]}.safetensors" if run.name in inside else folder / "model.safetensors"
        if held.is_file():
            weights[held] = None
    room, left_out = part * parts - (1 << 20), []
    archive = runs / "weights.tar"
    with tarfile.open(archive, "w") as tar:
        for path in [*weights, *sorted(records, key=lambda path: (path.suffix == ".csv", path))]:
            if tar.offset + path.stat().st_size > room:
                left_out.append(str(path.relative_to(runs)))
            else:
                tar.add(path, str(path.relative_to(runs)))
    for number, data in enumerate(_split(archive, part)):
        (out / f"weights.tar.{number:02d}").write_bytes(data)
    without = f"; no room for {', '.join(left_out)}" if left_out else ""
    return f"{archive.stat().st_size / 1e6:.1f} MB in {out}/weights.tar.*{without}"


def _split(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(size):
            yield data


def train(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Train in the folder where a pack was unpacked, and collect."""
    from zoo.cli.common import parse_flags

    began = time.monotonic() - arguments.spent
    folder = Path.cwd()
    recipe_file, runs = folder / "recipe.yaml", folder / "runs"
    recipe = load_recipe(recipe_file)
    sets = {name: [str(folder / "images" / name)] for name in ("content", "style")}
    # The clock ends a run, by which schedules go; a preview or a checkpoint on the way would cost updates.
    overrides = {"steps": 10**9, "preview_every": 0, "checkpoint_minutes": 60.0}
    overrides |= parse_flags(rest, describe(TrainConfig), "Options of gpu_train.py train and of runs.")
    notes = f"Trained from commit {(folder / 'commit.txt').read_text()[:12]}."
    lanes = arguments.lanes
    clock = Clock(recipe, lanes, arguments.seconds - LATE - (time.monotonic() - began), arguments.value)
    material = Material(sets, cache_dir=folder / "cache")
    threads, until = max(1, usable_cores() // lanes), time.time() + clock.end
    lane = Lane(recipe_file, runs, material, overrides, threads, until, notes)
    print(f"{len(recipe.runs)} runs in {clock.end:.0f} s on {lanes} lanes", flush=True)
    # A process keeps its libraries and its GPU context from run to run.
    spawn = multiprocessing.get_context("spawn")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(1) if lanes == 1 else ProcessPoolExecutor(lanes, spawn) as pool:
        try:
            drive(clock, pool, lane, lambda text: print(text, flush=True))
        except (KeyboardInterrupt, BrokenExecutor) as error:
            # What is trained is not lost with what is not; the pool would wait for its runs.
            print(f"Broken off: {str(error) or 'asked to stop'}", flush=True)
            print(collect(recipe, runs, arguments.out, arguments.value), flush=True)
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(1)
    print(collect(recipe, runs, arguments.out, arguments.value), flush=True)
    print(f"{time.monotonic() - began:.0f} s in all", flush=True)
    return 0 if len(clock.done) == len(recipe.runs) else 1


def main(arguments: Sequence[str]) -> int:
    """The command line; exit code 1 where a run is missing, 2 for what was asked wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("target", type=Path)
    packing.add_argument("--recipe", default="zoo")
    packing.add_argument("--content-dir", action="append", default=[])
    packing.add_argument("--style-dir", action="append", default=[])
    packing.add_argument("--wheel", action="append", type=Path, default=[], help="of a package the machine lacks")
    packing.add_argument("--max-mb", type=float, default=60.0)
    packing.add_argument("--side", type=int, default=288, help="shorter side of the images, where that fits")
    training = commands.add_parser("train", allow_abbrev=False)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--lanes", type=int, default=4)
    training.add_argument("--seconds", type=float, default=540.0, help="for everything, unpacking counted")
    training.add_argument("--spent", type=float, default=0.0, help="of those, before this command began")
    training.add_argument("--value", default=VALUE, help="patterns of runs, the most wanted first")
    found, rest = parser.parse_known_args(arguments)
    try:
        if found.command == "train":
            return train(found, rest)
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        sets = {"content": found.content_dir, "style": found.style_dir}
        options = {"wheels": found.wheel, "max_mb": found.max_mb, "side": found.side}
        print(pack(found.target, find_recipe(found.recipe), sets, **options))
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
