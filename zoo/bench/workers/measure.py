"""One method at one size, measured for :mod:`zoo.bench.measure`.

The job names the method, its options, its cells and where the prepared inputs are. Events sent back:

    loaded    precision, and what loading cost
    start     a cell begins
    measured  a cell's numbers; its picture is on disk by then
    refused   the method says that it cannot (or may not) do this cell, or any of them
    failed    a cell (or loading) failed, with the reason
    unwritable  a cell's picture cannot be written, and no further cell is tried

What the numbers are:

    seconds.import        from the process's start until torch and the zoo are imported
    seconds.load          building the method, weights included
    seconds.first         the first call in this process, encoding excluded; one-time costs of the libraries included.
                          An optimisation method is stopped after its first step
    seconds.encode_style  median of the repeats after warm-up; none of a method of trained styles, which encodes nothing
    seconds.stylize       the same of one picture, with the style encoded already
    seconds.whole         the same of both together, as they follow each other in every repeat
                          ``.iqr`` from four repeats up, ``.p95`` from twenty
    seconds.step          optimisation methods: mean over the steps of all timed calls, first steps excluded
    parameters            numbers in the parameters of the networks held after the first call
    seconds.warmup, .files   what the harness itself took in the cell: warm-up calls; reading the inputs, writing the
                          picture and hashing its file (the hash stands beside seconds.stylize)
    memory.idle           resident after importing torch and the zoo and reading a picture, before the method is built
    memory.resident       peak during the cell minus idle: weights, style and working memory together
    memory.cuda_allocated, memory.cuda_reserved   peaks of torch's allocator during the cell
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.bench.workers.common import Channel, UnwritableError, measurement, work
from zoo.errors import ImageError

if TYPE_CHECKING:
    from zoo.stylizer import Progress, StyleCode, Stylized, Stylizer


def main() -> None:
    """Run the job that stands on standard input."""
    work(Channel(), _Session)


class _Session:
    """The cells of one job with one model."""

    def __init__(self, job: Mapping[str, Any], model: Stylizer, idle: int) -> None:
        self.model, self.idle, self.timing = model, idle, job["timing"]
        self.optimizes = model.traits.iterative
        self.called = False

    def measure(self, cell: dict[str, Any]) -> list[dict[str, Any]]:
        """The numbers of a cell; its picture is on disk then."""
        from zoo import images
        from zoo.bench import memory, timing
        from zoo.bench.measures import PRIMARY
        from zoo.bench.parameters import parameters
        from zoo.download import file_sha256

        begun = time.perf_counter()
        content = images.read(cell["content"]).pixels
        style = images.read(cell["style"]).pixels
        files = time.perf_counter() - begun
        shape = (content.shape[-2], content.shape[-1])
        device = self.model.device
        how = {"repeats": self.timing["repeats"], "budget": self.timing["budget"]}
        result: list[dict[str, Any]] = []

        def encode() -> StyleCode:
            return self.model.encode_style(style, shape)

        def stylize(code: StyleCode, watch: Progress | None) -> Stylized:
            return self.model.stylize(content, code, strength=cell["strength"], seed=cell["seed"], progress=watch)

        clocks: list[timing.StepClock] = []
        encoding: list[float] = []
        stylizing: list[float] = []

        def both() -> Stylized:
            seconds, code = timing.timed(encode, device)
            encoding.append(seconds)
            # Only an optimiser is watched step by step: a callback must not slow a single pass down.
            watch = timing.StepClock(device) if self.optimizes else None
            seconds, stylized = timing.timed(partial(stylize, code, watch), device)
            stylizing.append(seconds)
            clocks.extend([watch] if watch else [])
            return stylized

        with memory.peak(device) as peak:
            begun = time.perf_counter()
            self._warm_up(encode, stylize, result)
            warmup = time.perf_counter() - begun
            whole, stylized = timing.repeat(both, device, **how)
        steps = [step for clock in clocks for step in clock.steps]
        if steps:
            result.append(measurement("seconds.step", statistics.fmean(steps), "s"))
        if self.model.traits.styles == "any":
            result += _timed("seconds.encode_style", encoding)
        result += _timed("seconds.stylize", stylizing)
        result += _timed("seconds.whole", whole)
        result.append(measurement("memory.resident", (peak.resident - self.idle) / memory.MIB, "MiB"))
        for name in ("cuda_allocated", "cuda_reserved"):
            value = getattr(peak, name)
            if value is not None:
                result.append(measurement(f"memory.{name}", value / memory.MIB, "MiB"))
        result.append(measurement("parameters", parameters(self.model), ""))
        begun = time.perf_counter()
        try:
            written = images.write(cell["output"], stylized.image)
        except ImageError as error:
            raise UnwritableError(str(error)) from error
        next(number for number in result if number["metric"] == PRIMARY)["picture"] = file_sha256(written)
        files += time.perf_counter() - begun
        for name, seconds in (("warmup", warmup), ("files", files)):
            result.append(measurement(f"seconds.{name}", seconds, "s"))
        return result

    def _warm_up(
        self,
        encode: Callable[[], StyleCode],
        stylize: Callable[[StyleCode, Progress | None], Stylized],
        result: list[dict[str, Any]],
    ) -> None:
        """The calls before the clock counts; the very first one of the process is noted."""
        from zoo.bench import timing

        device = self.model.device
        for _ in range(self.timing["warmup"]):
            code = encode()
            watch = timing.StepClock(device, stop_after=1) if self.optimizes else None
            first, _unused = timing.timed(partial(stylize, code, watch), device)
            if not self.called:
                self.called = True
                result.append(measurement("seconds.first", first, "s"))


def _timed(metric: str, samples: list[float]) -> list[dict[str, Any]]:
    from zoo.bench.timing import iqr, p95

    rows = [measurement(metric, statistics.median(samples), "s", samples)]
    for name, value in (("iqr", iqr(samples)), ("p95", p95(samples))):
        if value is not None:
            rows.append(measurement(f"{metric}.{name}", value, "s"))
    return rows


if __name__ == "__main__":
    main()
