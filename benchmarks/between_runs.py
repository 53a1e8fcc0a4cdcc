"""How much a measured time differs from run to run, beside the interval that one run gives it.

    python benchmarks/between_runs.py --out results/harness

The same cell (astronaut by swirls, exact size) of the feed-forward methods is measured in several runs of the harness,
one after the other, each with a process of its own per method. An interval of timings (± in tables) is of the repeats
inside one process; what processes differ by, with their memory laid out otherwise and the machine in another state, it
cannot know. Writes between_runs.json and between_runs.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from turns import conditions, write

from zoo.bench import environment
from zoo.bench.run import run
from zoo.report.statistics import timing_interval

METHODS = "johnson,texture-nets,cin,adain,wct,style-swap"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Medians and half widths of every run, by method and size, and why a run counts as one on a busy machine."""
    protocol = {
        "schema": 1,
        "name": "between-runs",
        "contents": ["builtin:astronaut"],
        "styles": ["builtin:swirls"],
        "sizes": args.sizes,
        "resize": "exact",
        "baselines": [],
        "timing": {"warmup": 1, "repeats": 50, "budget": args.budget},
    }
    found: dict[str, dict[str, list[Any]]] = {}
    busy = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "between.yaml"
        path.write_text(yaml.safe_dump(protocol))
        for number in range(args.runs):
            if number:
                time.sleep(args.pause)
            result = run(args.methods.split(","), path, Path(name) / str(number), threads=args.threads)
            if not result.ok:
                raise SystemExit(next(row.reason for row in result.rows if row.status == "failed"))
            (entry,) = json.loads((result.folder / "run.json").read_text())["runs"]
            busy.append(environment.busy(entry))
            for row in result.rows:
                if row.metric == "seconds.stylize" and row.value is not None:
                    interval = timing_interval([row.samples])
                    own = found.setdefault(f"{row.method} at {row.size}", {"medians": [], "halves": []})
                    own["medians"].append(row.value)
                    own["halves"].append((interval.high - interval.low) / 2 if interval else None)
            print(f"run {number + 1} of {args.runs}", file=sys.stderr)
    return {"cells": found, "busy": busy}


def table(report: dict[str, Any]) -> str:
    """The figures as Markdown."""
    busy = [why for why in report["busy"] if why]
    lines = [
        f"{report['machine']}, {report['threads']} threads, torch {report['torch']}, {report['date']}; "
        f"{len(report['busy'])} runs, {report['pause']:g} s apart",
        "",
        *([f"Busy machine in {len(busy)} of the runs: {busy[0]}."] if busy else []),
        *([""] if busy else []),
        "| cell | median of the runs (s) | ± of one run, largest | slowest run by fastest |",
        "|---|---:|---:|---:|",
    ]
    for cell, own in report["cells"].items():
        middle = statistics.median(own["medians"])
        halves = [half / median for half, median in zip(own["halves"], own["medians"], strict=True) if half is not None]
        # Under five repeats in any of the runs there is no interval to stand beside.
        half = f"{100 * max(halves):.0f} %" if len(halves) == len(own["medians"]) else "–"
        lines.append(f"| {cell} | {middle:.3g} | {half} | {max(own['medians']) / min(own['medians']):.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=METHODS, help="comma-separated")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pause", type=float, default=30.0, help="seconds between runs, in which the load falls")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of timed calls per cell")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder for between_runs.json and between_runs.md")
    args = parser.parse_args()
    # As the command line does: large maps then come in huge pages.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    report = {
        **conditions(args.threads),
        "pause": args.pause,
        **measure(args),
    }
    text = table(report)
    print(text)
    if args.out:
        write(args.out, "between_runs", report, text)


if __name__ == "__main__":
    main()
