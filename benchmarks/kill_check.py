"""Kill a benchmark run at random moments, go on with it each time, and compare with an unbroken run.

    python benchmarks/kill_check.py --out results/kills.json --kills 10

The run is a protocol of two pairs at 128 pixels with real methods (``--methods``) and metrics. Each round starts ``zoo
bench`` anew on an empty folder, kills it with SIGKILL after a random part of the unbroken run's time, starts it again
and compares every row but timings and memory. Exit code 1 if one differs. A killed run's workers end by themselves. A
round whose run had ended before the kill counts for nothing.
Beside the JSON file stands a table of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from zoo.bench.measures import MEASURES
from zoo.bench.rows import read_rows

PROTOCOL = {
    "schema": 1,
    "name": "kills",
    "contents": ["builtin:coffee"],
    "styles": ["builtin:swirls", "builtin:mosaic"],
    "sizes": [128],
    "timing": {"warmup": 0, "repeats": 1, "budget": 0},
    "optimisation": {"options": {"num_steps": 5}},
    "metrics": ["ssim", "content_loss", "gram_loss", "cfsd", "fd_vgg19"],
}


def facts(folder: Path) -> dict[tuple[object, ...], tuple[object, ...]]:
    """Rows without what differs from run to run."""
    rows = read_rows(folder / "rows.jsonl")
    timed = {row.key for row in rows if row.metric in MEASURES}
    return {row.key: (row.status, row.reason, None if row.key in timed else row.value) for row in rows}


def start(protocol: Path, out: Path, methods: str) -> subprocess.Popen[bytes]:
    """``zoo bench`` in a process of its own."""
    arguments = ["bench", "--methods", methods, "--protocol", str(protocol), "--out", str(out), "--quiet"]
    command = [sys.executable, "-m", "zoo", *arguments, "--device", "cpu", "--precision", "fp32"]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def table(data: dict[str, Any]) -> str:
    """The rounds as Markdown."""
    lines = [
        f"{data['methods']}; an unbroken run takes {data['unbroken_seconds']:.1f} s and leaves {data['rows']} rows",
        "",
        "| killed after (s) | rows kept | after going on |",
        "|---:|---:|---|",
    ]
    for one in data["rounds"]:
        told = "equal" if one["equal"] else "differs"
        ended = ", had ended before" if one["finished"] else ""
        lines.append(f"| {one['killed_after']:.1f}{ended} | {one['rows_kept']} | {told} |")
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Atomically."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    os.replace(temporary, path)


def main() -> int:
    """Run the check and write what happened in every round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write.")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--methods", default="adain,gatys")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    moments = random.Random(given.seed)
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        protocol = folder / "kills.yaml"
        protocol.write_text(yaml.safe_dump(PROTOCOL))
        begun = time.monotonic()
        if start(protocol, folder / "whole", given.methods).wait() != 0:
            sys.exit("the unbroken run failed")
        seconds = time.monotonic() - begun
        whole = facts(folder / "whole")
        while sum(not one["finished"] for one in rounds) < given.kills:
            out = folder / str(len(rounds))
            process = start(protocol, out, given.methods)
            after = moments.uniform(0.05, 1) * seconds
            time.sleep(after)
            finished = process.poll() is not None
            process.kill()
            process.wait()
            kept = len(facts(out))
            code = start(protocol, out, given.methods).wait()
            equal = code == 0 and facts(out) == whole
            rounds.append({"killed_after": round(after, 2), "finished": finished, "rows_kept": kept, "equal": equal})
            print(rounds[-1], flush=True)
    data = {"methods": given.methods, "unbroken_seconds": round(seconds, 2), "rows": len(whole), "rounds": rounds}
    write(given.out, json.dumps(data, indent=2) + "\n")
    write(given.out.with_suffix(".md"), table(data))
    return 0 if all(one["equal"] for one in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
