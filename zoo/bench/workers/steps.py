"""One method that optimises the image, at several steps of one run; told and heard as :mod:`zoo.bench.workers.measure`.

A cell is a pair at a step; the cells of a pair are answered from one run, which ends at the last step that is wanted of
it. A picture is the one that the method evaluates at that step, as ``zoo stylize --save-every`` writes it. The numbers:

    seconds.stylize   from the encoded style to that step, after warm-up calls of one step each; making and writing
                      earlier pictures does not count
    loss.total        the method's own loss of that picture
    memory.*          peaks of the whole run, as zoo.bench.workers.measure
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from zoo.bench.workers.common import Channel, UnwritableError, measurement, warm_up, work
from zoo.errors import ImageError, UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.stylizer import Stylizer


def main() -> None:
    """Run the job that stands on standard input."""
    work(Channel(), _Session)


def _run_of(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(cell[name] for name in ("content", "style", "seed", "strength"))


class _Session:
    """The runs of one job; the numbers of the last by step."""

    def __init__(self, job: Mapping[str, Any], model: Stylizer, idle: int) -> None:
        self.job, self.model, self.idle = job, model, idle
        self.run: tuple[Any, ...] = ()
        self.found: dict[int, list[dict[str, Any]]] = {}

    def measure(self, cell: dict[str, Any]) -> list[dict[str, Any]]:
        """The numbers of a cell; its picture is on disk then. UnsupportedError where the run ends before its step."""
        if self.run != _run_of(cell):
            self.run, self.found = _run_of(cell), {}
            wanted = {one["step"]: one["output"] for one in self.job["cells"] if _run_of(one) == self.run}
            self._make(cell, wanted)
        if cell["step"] not in self.found:
            raise UnsupportedError(f"The run ended before step {cell['step']}.")
        return self.found[cell["step"]]

    def _make(self, cell: Mapping[str, Any], wanted: Mapping[int, str]) -> None:
        """One run, as far as it is wanted."""
        from zoo import images
        from zoo.bench import memory
        from zoo.bench.measures import PRIMARY
        from zoo.device import synchronize
        from zoo.download import file_sha256

        content, style = (images.read(cell[role]).pixels for role in ("content", "style"))
        begun = 0.0
        elsewhere = 0.0

        def watch(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> bool:
            nonlocal elsewhere
            synchronize(self.model.device)
            now = time.perf_counter()
            if step in wanted:
                try:
                    written = images.write(wanted[step], image())
                except ImageError as error:
                    raise UnwritableError(str(error)) from error
                self.found[step] = [
                    measurement("loss.total", losses["total"], ""),
                    measurement(PRIMARY, now - begun - elsewhere, "s") | {"picture": file_sha256(written)},
                ]
                elsewhere += time.perf_counter() - now
            return step >= max(wanted)

        with memory.peak(self.model.device) as peak:
            code = self.model.encode_style(style, (content.shape[-2], content.shape[-1]))
            warm_up(self.model, content, code, cell, self.job["timing"]["warmup"])
            begun = time.perf_counter()
            self.model.stylize(content, code, strength=cell["strength"], seed=cell["seed"], progress=watch)
        peaks = [measurement("memory.resident", (peak.resident - self.idle) / memory.MIB, "MiB")]
        if peak.cuda_allocated is not None:
            peaks.append(measurement("memory.cuda_allocated", peak.cuda_allocated / memory.MIB, "MiB"))
        for numbers in self.found.values():
            numbers[:0] = peaks


if __name__ == "__main__":
    main()
