"""Contestants in processes of their own that act in turns, so that whatever else the machine does falls on all alike.

The benchmarks beside this file use it: a worker calls :func:`serve`, the parent builds a :class:`Contestant` for each
and lets them act by :func:`take_turns`. Talk goes over the workers' standard input and output, a line of JSON each.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# -- a worker ---------------------------------------------------------------------------------------------------------


def say(**message: Any) -> None:
    """One line to the parent."""
    print(json.dumps(message), flush=True)


def asked_to_go() -> bool:
    """Wait for the parent; False when it has seen enough."""
    return sys.stdin.readline().strip() == "go"


@contextlib.contextmanager
def measured() -> Iterator[None]:
    """Around all that a worker does after its imports: tells the bytes it had before, and at its peak."""
    import torch

    from zoo.bench import memory

    idle = memory.resident()
    with memory.peak(torch.device("cpu")) as peak:
        yield
    say(idle=idle, peak=peak.resident)


def serve(prepare: Callable[[], Callable[[], Any]]) -> None:
    """Prepare, then act once for every request, telling the seconds of each; at the end the memory."""
    with measured():
        act = prepare()
        say(ready=True)
        while asked_to_go():
            began = time.perf_counter()
            act()
            say(seconds=time.perf_counter() - began)


# -- the parent -------------------------------------------------------------------------------------------------------


@dataclass
class Contestant:
    """A child process; ``seconds`` of its turns after the warm-up, and after :meth:`end` its bytes above idle."""

    name: str
    command: Sequence[str]
    threads: int
    seconds: list[float] = field(default_factory=list)
    memory: int = 0

    def __post_init__(self) -> None:
        threads = str(self.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        # As the command line sets it: large maps then come in huge pages.
        environment.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        self.process = subprocess.Popen(
            [sys.executable, *self.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.close()
            raise SystemExit(f"{self.name}: the process ended with status {status}.")
        return json.loads(line)

    def _tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def turn(self) -> float:
        """Seconds of one act."""
        self._tell("go")
        return float(self._hear()["seconds"])

    def end(self) -> None:
        """Stop the process and hear what memory it took."""
        self._tell("end")
        said = self._hear()
        self.memory = said["peak"] - said["idle"]
        self.process.wait()
        self.close()

    def close(self) -> None:
        """End the process, however far it is, and its pipes."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def take_turns(contestants: Sequence[Contestant], rounds: int, warmup: int = 2) -> None:
    """Every contestant acts once in each round; those of the warm-up are not counted."""
    try:
        for number in range(rounds + warmup):
            for contestant in contestants:
                seconds = contestant.turn()
                if number >= warmup:
                    contestant.seconds.append(seconds)
        for contestant in contestants:
            contestant.end()
    finally:
        for contestant in contestants:
            contestant.close()


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median": statistics.median(seconds), "low": min(seconds), "high": max(seconds)}


def ratios(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Median and extremes of one's time over the other's, round by round."""
    return summary([a / b for a, b in zip(one, other, strict=True)])


def conditions(threads: int) -> dict[str, Any]:
    """Machine, versions, date and load, as every report has them."""
    import torch

    from zoo.bench.environment import load_average
    from zoo.device import processor

    return {
        "machine": processor(),
        "threads": threads,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "load_average": load_average(),
    }


def write(folder: Any, name: str, report: Mapping[str, Any], text: str) -> None:
    """``name.json`` and ``name.md`` in ``folder``."""
    from zoo import files

    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / f"{name}.json", json.dumps(report, indent=1))
    files.write(folder / f"{name}.md", text)
