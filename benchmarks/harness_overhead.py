"""What the benchmark harness itself costs, and whether it measures what is there.

    python benchmarks/harness_overhead.py --out results/harness

A speed run of real methods: the share of its wall time that its rows explain, timed calls plus itemised import, load,
warm-up, counting and files. Bar: 95 %. The wall time is that of the whole run, tables and contact sheet included.
Two methods made up for the purpose, in a run of their own with one thread: one sleeps 50 ms, and its median must be
within 2 ms of that; one holds 300 MB for a moment, and its peak must be above the other's by that to 5 %.

Writes overhead.json and overhead.md; exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import overhead
import torch
import yaml
from torch import Tensor
from turns import conditions, write

from zoo.bench import environment
from zoo.bench.memory import MIB
from zoo.bench.rows import Row
from zoo.bench.run import BenchResult, run
from zoo.registry import load_registry
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer, Traits

BARS = {"explained": 0.95, "sleep_error_s": 0.002, "memory_error": 0.05}
SLEEP_SECONDS = 0.05
HELD_BYTES = 300_000_000
_PLUGIN = "harness-overhead-fakes"


class Sleeper(Stylizer):
    """Returns its content after 50 ms."""

    traits = Traits(strength="blend")
    ENTRY = {  # noqa: RUF012
        "title": "Sleeper",
        "authors": "Nobody",
        "year": 2000,
        "paper": "https://example.org",
        "bibtex": "@misc{sleeper}",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "plain",
        "presets": {"plain": {"summary": "Sleeps."}},
    }

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        return {}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        time.sleep(SLEEP_SECONDS)
        return Stylized(content)


class Holder(Stylizer):
    """Returns its content after holding 300 MB."""

    traits = Traits(strength="blend")
    ENTRY = {  # noqa: RUF012
        "title": "Holder",
        "authors": "Nobody",
        "year": 2000,
        "paper": "https://example.org",
        "bibtex": "@misc{holder}",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "plain",
        "presets": {"plain": {"summary": "Holds memory."}},
    }

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        return {}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        torch.ones(HELD_BYTES, dtype=torch.uint8)
        return Stylized(content)


def announce(folder: Path) -> None:
    """Make both a plugin of this process and of every worker that it starts."""
    info = folder / f"{_PLUGIN.replace('-', '_')}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {_PLUGIN}\nVersion: 1\n")
    module = Path(__file__).stem
    lines = ["[zoo.methods]", *(f"{cls.__name__.lower()} = {module}:{cls.__name__}" for cls in (Sleeper, Holder))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    sys.path[:0] = [str(folder), str(Path(__file__).resolve().parent)]
    importlib.invalidate_caches()
    load_registry.cache_clear()


def bench(
    methods: Sequence[str], sizes: Sequence[int], folder: Path, args: argparse.Namespace, threads: int
) -> tuple[BenchResult, float]:
    """One run of a protocol without metrics, and its seconds from beginning to end."""
    timing = {"warmup": 1, "repeats": 50, "budget": args.budget}
    protocol = {
        "schema": 1,
        "name": "overhead",
        "contents": ["builtin:astronaut"],
        "styles": ["builtin:swirls"],
        "sizes": list(sizes),
        "resize": "exact",
        "baselines": [],
        # Nothing is counted beside: what that takes is told as a whole and would explain itself.
        "timing": {**timing, "count": 0, "batches": []},
        "optimisation": {"options": {"num_steps": 5}, "timing": {**timing, "repeats": 3}},
    }
    path = folder / "overhead.yaml"
    path.write_text(yaml.safe_dump(protocol))
    begun = time.perf_counter()
    result = run(methods, path, folder / f"out-{methods[0]}", device=args.device, threads=threads)
    return result, time.perf_counter() - begun


def value(rows: Sequence[Row], method: str, metric: str) -> float:
    """The value of the only such row."""
    (found,) = [row.value for row in rows if row.method == f"{method}.plain" and row.metric == metric]
    assert found is not None
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Both runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        announce(folder)
        # First, while the machine is quiet: the load of the others would count as its own.
        real, wall = bench(args.methods.split(","), args.sizes, folder, args, args.threads)
        if not real.ok:
            raise SystemExit("A method failed, so its run explains nothing: see the lines above.")
        (entry,) = json.loads((real.folder / "run.json").read_text())["runs"]
        # One thread: a second one of OpenMP's, asleep as long as the method was, takes up to 10 ms more to come back.
        fakes, _ = bench(["sleeper", "holder"], args.sizes[:1], folder, args, 1)
        sleep = value(fakes.rows, "sleeper", "seconds.stylize")
        held = MIB * (value(fakes.rows, "holder", "memory.resident") - value(fakes.rows, "sleeper", "memory.resident"))
    account = overhead.account(real.rows, {**entry, "seconds": wall})
    return {
        "methods": args.methods,
        "sizes": args.sizes,
        "wall_s": wall,
        "items_s": dict(account.items),
        "explained": account.explained,
        "sleep_s": sleep,
        "sleep_error_s": abs(sleep - SLEEP_SECONDS),
        "held_bytes": held,
        "memory_error": abs(held / HELD_BYTES - 1),
        "busy": environment.busy(entry),
    }


def table(report: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{report['machine']}, {report['threads']} threads, torch {report['torch']}, {report['date']}; "
        f"{report['methods']} at {', '.join(map(str, report['sizes']))}",
        "",
        *([f"Busy machine: {report['busy']}.", ""] if report["busy"] else []),
        "| | measured | bar |",
        "|---|---:|---:|",
        f"| share of a speed run's wall time that its rows explain | {report['explained']:.1%} | at least 95 % |",
        f"| a sleep of 50 ms | {1000 * report['sleep_s']:.2f} ms | within 2 ms |",
        f"| a peak of 300 MB | {report['held_bytes'] / 1e6:.1f} MB | within 5 % |",
        "",
        "| seconds of the speed run | |",
        "|---|---:|",
        *(f"| {name} | {seconds:.1f} |" for name, seconds in report["items_s"].items()),
        f"| nothing explains | {report['wall_s'] - sum(report['items_s'].values()):.1f} |",
        f"| all | {report['wall_s']:.1f} |",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="adain,wct,gatys", help="of the speed run, comma-separated")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of timed calls per method and size")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder for overhead.json and overhead.md")
    args = parser.parse_args()
    # As the command line does: large maps then come in huge pages.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    report = {
        **conditions(args.threads),
        **measure(args),
    }
    text = table(report)
    print(text)
    if args.out:
        write(args.out, "overhead", report, text)
    missed = [f"explained {report['explained']:.3f}, bar {BARS['explained']:g}"] * (
        report["explained"] < BARS["explained"]
    )
    missed += [
        f"{k} {report[k]:.4g}, bar {BARS[k]:g}" for k in ("sleep_error_s", "memory_error") if report[k] > BARS[k]
    ]
    for line in missed:
        print(f"missed: {line}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
