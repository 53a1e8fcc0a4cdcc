"""One method at one size, in a process of its own: ``python -m zoo.bench.worker``, driven by :mod:`zoo.bench.run`.

The job names the method, its options, its cells and where the prepared inputs are. Events sent back:

    loaded    precision, and what loading cost
    start     a cell begins
    measured  a cell's numbers; its picture is on disk by then
    refused   the method says that it cannot (or may not) do this cell, or any of them
    failed    a cell (or loading) failed, with the reason

What the numbers are:

    seconds.import        importing torch and the zoo
    seconds.load          building the method, weights included
    seconds.first         the first call in this process, encoding excluded; one-time costs of the libraries included.
                          An optimisation method is stopped after its first step
    seconds.encode_style  median of the repeats after warm-up
    seconds.stylize       the same, with the style encoded already; ``.p95`` from twenty repeats up
    seconds.step          optimisation methods: mean over the steps of all timed calls, first steps excluded
    memory.idle           resident after importing torch and the zoo and reading a picture, before the method is built
    memory.resident       peak during the cell minus idle: weights, style and working memory together
    memory.cuda_allocated, memory.cuda_reserved   peaks of torch's allocator during the cell
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from zoo.bench.channel import Channel
from zoo.errors import DownloadRequiredError, UnsupportedError

if TYPE_CHECKING:
    from zoo.stylizer import StyleCode, Stylized, Stylizer

REFUSALS = (UnsupportedError, DownloadRequiredError)


def main() -> None:
    """Run the job that stands on standard input."""
    channel = Channel()
    job = channel.job
    begun = time.perf_counter()
    import torch

    from zoo import images
    from zoo.bench import memory
    from zoo.registry import load

    if job["threads"] is not None:
        torch.set_num_threads(job["threads"])
    import_seconds = time.perf_counter() - begun
    # Decoding a picture loads libraries of the harness's own, which are no part of the method's memory.
    images.read(job["cells"][0]["content"])
    idle = memory.resident()
    begun = time.perf_counter()
    try:
        model = load(job["name"], device=job["device"], precision=job["precision"], **job["options"])
    except REFUSALS as error:
        channel.send("refused", cell=None, reason=str(error))
    except Exception as error:
        channel.send("failed", cell=None, reason=explain(error))
    else:
        load_seconds = time.perf_counter() - begun
        channel.send(
            "loaded",
            precision=model.precision,
            measured=[
                measurement("seconds.import", import_seconds, "s"),
                measurement("seconds.load", load_seconds, "s"),
                measurement("memory.idle", idle / memory.MIB, "MiB"),
            ],
        )
        _Session(channel, model, idle).run()
    channel.send("done")


def measurement(metric: str, value: float, unit: str, samples: list[float] | None = None) -> dict[str, Any]:
    """One number as an event carries it; times are kept to a tenth of a microsecond."""
    return {
        "metric": metric,
        "value": round(value, 7),
        "unit": unit,
        "samples": [round(s, 7) for s in samples or ()],
    }


def explain(error: BaseException) -> str:
    """An exception as the reason of a row: one line; out of memory is said in those words."""
    import torch

    text = " ".join(str(error).split()) or type(error).__name__
    allocator = any(words in text for words in ("not enough memory", "can't allocate memory"))  # torch's, on the CPU
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or allocator:
        return f"out of memory: {text}"[:500]
    return f"{type(error).__name__}: {text}"[:500]


class _Session:
    """The cells of one job with one model."""

    def __init__(self, channel: Channel, model: Stylizer, idle: int) -> None:
        self.channel, self.model, self.idle = channel, model, idle
        self.job = channel.job
        self.timing = self.job["timing"]
        self.optimises = model.traits.kind == "optimisation"
        self.called = False

    def run(self) -> None:
        import torch

        for number, cell in enumerate(self.job["cells"]):
            self.channel.send("start", cell=number)
            try:
                measured = self._measure(cell)
            except REFUSALS as error:
                self.channel.send("refused", cell=number, reason=str(error))
            except Exception as error:
                self.channel.send("failed", cell=number, reason=explain(error))
                if self.model.device.type == "cuda":
                    torch.cuda.empty_cache()
            else:
                self.channel.send("measured", cell=number, measured=measured)

    def _measure(self, cell: dict[str, Any]) -> list[dict[str, Any]]:
        from zoo import images
        from zoo.bench import memory, timing

        content = images.read(cell["content"]).pixels
        style = images.read(cell["style"]).pixels
        shape = (content.shape[-2], content.shape[-1])
        device = self.model.device
        how = {"repeats": self.timing["repeats"], "budget": self.timing["budget"]}
        result: list[dict[str, Any]] = []

        def encode() -> StyleCode:
            return self.model.encode_style(style, shape)

        with memory.peak(device) as peak:
            for _ in range(self.timing["warmup"]):
                encode()
            seconds, code = timing.repeat(encode, device, **how)
            result += _timed("seconds.encode_style", seconds)

            clocks: list[timing.StepClock] = []

            def stylize(stop_after: int | None = None) -> Stylized:
                clocks.append(timing.StepClock(device, stop_after))
                # Only an optimiser is watched step by step: a callback must not slow a single pass down.
                watch = clocks[-1] if self.optimises else None
                return self.model.stylize(content, code, strength=cell["strength"], seed=cell["seed"], progress=watch)

            def warm() -> Stylized:
                return stylize(stop_after=1)

            for _ in range(self.timing["warmup"]):
                first, _unused = timing.timed(warm, device)
                if not self.called:
                    self.called = True
                    result.append(measurement("seconds.first", first, "s"))
            clocks.clear()
            seconds, stylized = timing.repeat(stylize, device, **how)
        steps = [step for clock in clocks for step in clock.steps]
        if steps:
            result.append(measurement("seconds.step", statistics.fmean(steps), "s"))
        result += _timed("seconds.stylize", seconds)
        result.append(measurement("memory.resident", (peak.resident - self.idle) / memory.MIB, "MiB"))
        for name in ("cuda_allocated", "cuda_reserved"):
            value = getattr(peak, name)
            if value is not None:
                result.append(measurement(f"memory.{name}", value / memory.MIB, "MiB"))
        images.write(cell["output"], stylized.image)
        return result


def _timed(metric: str, samples: list[float]) -> list[dict[str, Any]]:
    from zoo.bench.timing import p95

    rows = [measurement(metric, statistics.median(samples), "s", samples)]
    tail = p95(samples)
    return rows if tail is None else [*rows, measurement(f"{metric}.p95", tail, "s")]


if __name__ == "__main__":
    main()
