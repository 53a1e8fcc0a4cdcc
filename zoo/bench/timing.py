"""Seconds: the device is idle when the clock starts and has finished when it stops."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from zoo.device import synchronize

T = TypeVar("T")

# A 95th percentile of fewer runs would be their maximum under another name, and quartiles of fewer are hardly any.
P95_RUNS = 20
IQR_RUNS = 4


def timed(call: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Seconds of one call, and what it returned."""
    synchronize(device)
    start = time.perf_counter()
    result = call()
    synchronize(device)
    return time.perf_counter() - start, result


def repeat(call: Callable[[], T], device: torch.device, *, repeats: int, budget: float) -> tuple[list[float], T]:
    """Seconds of up to ``repeats`` calls, none begun after ``budget`` seconds but the first; and the last result."""
    begun = time.perf_counter()
    seconds, result = timed(call, device)
    samples = [seconds]
    while len(samples) < repeats and time.perf_counter() - begun < budget:
        seconds, result = timed(call, device)
        samples.append(seconds)
    return samples, result


def p95(samples: list[float]) -> float | None:
    """The 95th percentile, or None from fewer than twenty runs."""
    if len(samples) < P95_RUNS:
        return None
    return statistics.quantiles(samples, n=20, method="inclusive")[-1]


def iqr(samples: list[float]) -> float | None:
    """The third quartile minus the first, or None from fewer than four runs."""
    if len(samples) < IQR_RUNS:
        return None
    first, _, third = statistics.quantiles(samples, n=4, method="inclusive")
    return third - first


@dataclass
class StepClock:
    """A progress callback that notes when each step of an optimisation ended, or stops it after ``stop_after``."""

    device: torch.device
    stop_after: int | None = None
    times: list[float] = field(default_factory=list)

    def __call__(self, step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> bool:
        synchronize(self.device)
        self.times.append(time.perf_counter())
        return self.stop_after is not None and len(self.times) >= self.stop_after

    @property
    def steps(self) -> list[float]:
        """Seconds of each step but the first, which also holds what comes before the loop."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
