"""How long a run has trained, pauses of its process left out."""

from __future__ import annotations

import time

from zoo.training.data import Loader


class Clock:
    """Seconds of training. A step ten times as long as the mean before it was a pause of the process, not work."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.waited = 0.0
        self._steps = 0
        self._sum = 0.0

    def start(self) -> None:
        self._last = time.perf_counter()

    def restore(self, seconds: float, waited: float) -> None:
        """The count of a run that goes on: finding its place again is no training."""
        self.seconds, self.waited = seconds, waited
        self._last = time.perf_counter()

    def listen(self, loader: Loader) -> None:
        """Before the first update: all since the start was preparation, which counts in full."""
        self._loader, self._heard = loader, loader.waited
        now = time.perf_counter()
        self.seconds, self._last = self.seconds + now - self._last, now

    def tick(self) -> None:
        now = time.perf_counter()
        taken, waited = now - self._last, self._loader.waited - self._heard
        if self._steps >= 5 and taken > 10 * self._sum / self._steps:
            waited *= self._sum / self._steps / taken
            taken = self._sum / self._steps
        self._last, self._heard = now, self._loader.waited
        self.seconds, self.waited = self.seconds + taken, self.waited + waited
        self._steps, self._sum = self._steps + 1, self._sum + taken

    def skip(self) -> None:
        """Count what passed since the tick (checkpoints, previews) as time, but as no step."""
        now = time.perf_counter()
        self.seconds += min(now - self._last, 10 * self._sum / max(1, self._steps) + 60)
        self._last, self._heard = now, self._loader.waited

    @property
    def loading(self) -> float:
        return self.waited / self.seconds if self.seconds else 0.0
