"""``python -m zoo.training MODULE:TASK --set content=FOLDER ... --out RUN``: train any task, on sets of any name.

The developer's entry behind ``zoo train``: every set is named, output is plain lines. Options of the task and of the
run are given alike as ``--name value``. SIGINT and SIGTERM end it at a checkpoint.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

import torch

from zoo.errors import ConfigError, ZooError
from zoo.training.launch import Material, launch, portable, task_class
from zoo.training.progress import TrainState


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m zoo.training", description=__doc__, allow_abbrev=False)
    parser.add_argument("task", help="a method, or MODULE:CLASS of a TrainingTask whose constructor takes its config")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=PATH", help="training images of a set")
    parser.add_argument("--held-out", action="append", default=[], metavar="NAME=PATH", help="images to evaluate on")
    parser.add_argument("--held-out-size", default="long:512")
    parser.add_argument("--held-out-count", type=int, default=0, help="use only the first N of each (0: all)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--init-from", type=Path)
    parser.add_argument("--notes", default="", help="said on the card, such as the licence of the images")
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--threads", type=int)
    known, rest = parser.parse_known_args(arguments)
    if known.threads:
        torch.set_num_threads(known.threads)

    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: stop.append(n))

    def progress(state: TrainState) -> bool:
        losses = " ".join(f"{k} {v:.5f}" for k, v in {**state.losses, **state.figures}.items())
        rate = state.step / state.seconds if state.seconds else 0
        place = f"{state.step}/{state.steps} {state.seconds / 60:.1f} min {rate:.2f}/s"
        print(f"{place} loading {state.loading:.1%} {losses}", flush=True)
        return bool(stop)

    result = launch(
        known.task,
        task_class(known.task),
        _pairs(rest),
        Material(_sets(known.set), _sets(known.held_out), known.held_out_size, known.held_out_count, known.cache_dir),
        known.out,
        resume=known.resume,
        init_from=known.init_from,
        command=shlex.join(["python", "-m", "zoo.training", *map(portable, arguments)]),
        notes=known.notes,
        say=lambda text: print(text, flush=True),
        progress=progress,
    )
    print(f"ended by {result.ended} at step {result.state.step}: {result.state.figures}", flush=True)
    return 0


def _sets(values: list[str]) -> dict[str, list[str]]:
    sets: dict[str, list[str]] = {}
    for value in values:
        name, _, path = value.partition("=")
        if not path:
            raise ConfigError("A set is given as NAME=PATH, such as content=photographs.")
        sets.setdefault(name, []).append(path)
    return sets


def _pairs(rest: list[str]) -> dict[str, str]:
    if len(rest) % 2 or any(not flag.startswith("--") for flag in rest[::2]):
        raise ConfigError(f"Options are given as --name value, got {shlex.join(rest)}.")
    return {flag[2:].replace("-", "_"): value for flag, value in zip(rest[::2], rest[1::2], strict=True)}


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before there was anything to keep
        sys.exit(130)
