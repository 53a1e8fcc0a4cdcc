"""Operations and pictures a second of cells already measured, one method at one size.

A process of its own, because counting and large batches leave memory behind that a peak would show. The job lists the
cells with what was measured of them: ``seconds`` of one picture and ``bytes`` above idle. Events as
:mod:`zoo.bench.workers.measure` sends them. What the numbers are:

    gflops.encode_style, gflops.stylize   operations of one call (:mod:`zoo.bench.operations`)
    gflops.step           optimisation methods: mean over the counted steps but the first, as ``seconds.step`` is
    images_per_second     pictures a second at the best of the protocol's batch sizes and 1, style encoded;
                          ``.batch`` is that size
    seconds.extra         what all this took, the first cell's with starting the process and building the method
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.bench.workers.common import Channel, build, measurement, run_cells, started
from zoo.errors import out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.stylizer import Progress, StyleCode, Stylized, Stylizer

_GIGA = 1e9
# A batch may take this share of a cell's time limit, warm-up and one timed call together.
_TIME_SHARE = 0.25


def main() -> None:
    """Run the job that stands on standard input."""
    channel = Channel()
    job = channel.job
    import torch

    from zoo.bench import memory

    if job["threads"] is not None:
        torch.set_num_threads(job["threads"])
    idle = memory.resident()
    begun = time.perf_counter() - started(job)
    model = build(channel)
    if model is not None:
        channel.send("loaded", precision=model.precision, measured=[])

        def measure(cell: dict[str, Any]) -> list[dict[str, Any]]:
            nonlocal begun
            try:
                measured = _Cell(model, job, cell, idle).measure()
                return [*measured, measurement("seconds.extra", time.perf_counter() - begun, "s")]
            finally:
                begun = time.perf_counter()

        run_cells(channel, model.device, measure)
    channel.send("done")


class _Cell:
    """One cell, with the model that the others use too."""

    def __init__(self, model: Stylizer, job: Mapping[str, Any], cell: Mapping[str, Any], idle: int) -> None:
        from zoo import images

        self.model, self.timing, self.limits, self.cell = model, job["timing"], job["limits"], cell
        self.content = images.read(cell["content"]).pixels
        self.style = images.read(cell["style"]).pixels
        self.idle = idle

    def measure(self) -> list[dict[str, Any]]:
        """What the protocol's timing asks for."""
        code = self._encode()
        result = []
        if self.timing["count"]:
            result += self._count(code)
        if self.timing["batches"]:
            result += self._batches(code)
        return result

    def _encode(self) -> StyleCode:
        return self.model.encode_style(self.style, (self.content.shape[-2], self.content.shape[-1]))

    def _stylize(self, code: StyleCode, content: Tensor, watch: Progress | None = None) -> Stylized:
        return self.model.stylize(content, code, strength=self.cell["strength"], seed=self.cell["seed"], progress=watch)

    def _count(self, code: StyleCode) -> list[dict[str, Any]]:
        """Operations of encoding and of one call; of an optimiser that takes too long, of its first steps."""
        from zoo.bench import operations

        encoding = operations.count(lambda mark: self._encode())
        result = [measurement("gflops.encode_style", encoding.total / _GIGA, "GFLOP", reason=encoding.remark)]
        if not self.model.traits.iterative:
            counted = operations.count(lambda mark: self._stylize(code, self.content))
            return [*result, measurement("gflops.stylize", counted.total / _GIGA, "GFLOP", reason=counted.remark)]
        end = time.perf_counter() + self.timing["count"]
        total = 0

        def call(mark: Callable[[], None]) -> None:
            def watch(step: int, steps: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> bool:
                nonlocal total
                total = steps
                mark()
                return time.perf_counter() > end and step > 1

            self._stylize(code, self.content, watch)

        counted = operations.count(call)
        done = len(counted.marks)
        if done > 1:
            part = "" if done == total else f"counted over the first {done} of {total} steps"
            mean = (counted.marks[-1] - counted.marks[0]) / (done - 1)
            remark = "; ".join(filter(None, (part, counted.remark)))
            result.append(measurement("gflops.step", mean / _GIGA, "GFLOP", reason=remark))
        if done == total:
            result.append(measurement("gflops.stylize", counted.total / _GIGA, "GFLOP", reason=counted.remark))
        return result

    def _batches(self, code: StyleCode) -> list[dict[str, Any]]:
        """Pictures a second at the best batch size; a batch that would meet a limit is not tried."""
        from zoo.bench import timing

        device, single = self.model.device, self.cell["seconds"]
        best, size, reason = 1 / single, 1, ""
        wanted = sorted(set(self.timing["batches"])) if self.model.traits.batched else []
        for batch in wanted:
            # Weights do not grow with the batch, so this is more than it needs.
            if device.type == "cpu" and self.idle + batch * self.cell["bytes"] > self.limits["memory"]:
                reason = f"a batch of {batch} was not tried for want of memory"
                break
            if 2 * batch * single > _TIME_SHARE * self.limits["seconds"]:
                reason = f"a batch of {batch} was not tried for want of time"
                break
            call = partial(self._stylize, code, self.content.expand(batch, -1, -1, -1).contiguous())
            try:
                call()
                seconds, _ = timing.repeat(
                    call, device, repeats=self.timing["repeats"], budget=self.timing["budget"] / len(wanted)
                )
            except Exception as error:
                if not out_of_memory(error):
                    raise
                reason = f"a batch of {batch} ran out of memory"
                break
            if batch / statistics.median(seconds) > best:
                best, size = batch / statistics.median(seconds), batch
        return [
            measurement("images_per_second", best, "1/s", reason=reason),
            measurement("images_per_second.batch", size, ""),
        ]


if __name__ == "__main__":
    main()
