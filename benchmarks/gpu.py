"""What ``benchmarks/gpu.sh`` runs: stages against the clock, each in a process of its own.

A fault ends one stage alone. Each has a share of the seconds that are left; at their end it is interrupted, as by
Ctrl-C, and what it has stays. Exit code 1 where a stage failed; one that ran out of time did not.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch  # noqa: F401  # once, before the stages are split off; none has touched the device by then

ROOT = Path(__file__).resolve().parent.parent
GRACE = 20.0  # seconds that an interrupted stage has to write what it has


def stages(asked: argparse.Namespace, out: Path) -> dict[str, tuple[float, list[str]]]:
    """Return by name the weight of each stage in the time, and its command: arguments of ``zoo`` or of pytest."""
    device, quiet = ["--device", asked.device], ["--quiet"]
    contents, size = str(out / "contents"), str(asked.size)
    training = ["--content-dir", contents, "--preview-every", "0", *asked.training]
    return {
        "doctor": (1, ["doctor"]),
        "checks": (8, ["check", asked.methods, *device, "--json", "--only", asked.checks]),
        "pictures": (8, ["pytest", str(ROOT / "tests/core/test_cuda.py")]),
        "gatys": (3, ["stylize", "-m", "gatys", *device, *quiet, "--json", "--num-steps", str(asked.gatys_steps),
                      "--content-size", size, "--style-size", size, "-o", str(out / "gatys.png")]),
        "contents": (1, ["data", "export", "quick", contents]),
        "training": (4, ["train", "johnson", *device, *quiet, *training, "--out", str(out / "training")]),
        "speed": (24, ["bench", "-p", asked.protocol, "-m", asked.bench_methods, *device, *quiet,
                       "--out", str(out / "speed")]),
    }  # fmt: skip


def run(command: list[str], log: Path, seconds: float) -> tuple[str, float]:
    """Run a stage; return how it ended (``ok``, ``failed CODE``, ``out of time``) and its seconds."""
    begun, late = time.monotonic(), False
    child = os.fork()
    if child == 0:
        os._exit(_stage(command, log))
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        spent = time.monotonic() - begun
        if spent > seconds and not late:
            late = True
            os.kill(child, signal.SIGINT)
        elif spent > seconds + GRACE:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
    code = os.waitstatus_to_exitcode(ended[1])
    said = "out of time" if late else "ok" if code == 0 else f"failed {code}"
    return said, time.monotonic() - begun


def _stage(command: list[str], log: Path) -> int:
    """Become the command, its output in ``log``; return its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("wb", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        try:
            if command[0] == "pytest":
                import pytest

                return int(pytest.main(["-q", "-n", "0", *command[1:]]))
            from zoo.cli import main

            main(command)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    return 0


def main(arguments: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Run all stages and write ``stages.tsv``."""
    parser = argparse.ArgumentParser(prog="gpu.sh")
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=540.0, help="for all stages together")
    parser.add_argument("--only", default="", help="comma-separated stages")
    parser.add_argument("--methods", default="*", help="of the contract checks: a name or a pattern")
    parser.add_argument("--checks", default="*", help="which of them")
    parser.add_argument("--bench-methods", default="all")
    parser.add_argument("--protocol", default="speed")
    parser.add_argument("--size", type=int, default=512, help="of Gatys' picture")
    parser.add_argument("--gatys-steps", type=int, default=300)
    parser.add_argument("--training", type=str.split, default=["--steps", "100"], help="options of the training")
    asked = parser.parse_args(arguments)
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    wanted = {k: v for k, v in stages(asked, out).items() if not asked.only or k in asked.only.split(",")}
    rows = [("stage", "ended", "seconds")]
    weight = sum(share for share, _ in wanted.values())
    for name, (share, command) in wanted.items():
        left = asked.seconds - (time.monotonic() - begun)
        ended, spent = run(command, out / f"{name}.log", max(1.0, (left - GRACE) * share / weight))
        weight -= share
        rows.append((name, ended, f"{spent:.1f}"))
        (out / "stages.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
        say(f"{name}: {ended}, {spent:.1f} s")
    return int(any(ended.startswith("failed") for _, ended, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
