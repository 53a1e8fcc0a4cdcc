"""The machine's own ceiling: a convolution and a matrix product, timed like the methods and in their precisions.

Its rows belong to the run and to no method: their method is ``machine[precision=...]``. A method's share of the
convolution's speed can be read side by side with that of another machine, where its seconds cannot.

The convolution is 3x3 on channels-last maps, as in the middle of VGG: 128 to 128 channels at 256 x 256 on a CPU; on a
GPU 256 to 256 channels at 128 x 128, batch 16, which is enough to fill it. The product is of square matrices, 2048 on
a CPU and 8192 on a GPU. The best time counts: what else the machine does can only slow it down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from zoo.bench import timing
from zoo.bench.workers.common import REFUSALS, Channel, measurement, started, why

_REPEATS = 15
# A format that the processor emulates may take seconds for one product.
_BUDGET_SECONDS = 5.0


def convolutions(
    size: int,
    layers: Sequence[tuple[int, int, int]],
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    batch: int = 1,
) -> Callable[[], None]:
    """Bare 3x3 convolutions of ``layers``, (side divided by, channels in, channels out), for an image of ``size``.

    Inputs are random, already padded and channels-last, so that a call is nothing but convolutions.
    """

    def channels_last(*shape: int) -> torch.Tensor:
        values = torch.randn(shape, dtype=dtype, device=device)
        return values.contiguous(memory_format=torch.channels_last)

    prepared = [
        (channels_last(batch, ins, size // scale + 2, size // scale + 2), channels_last(outs, ins, 3, 3))
        for scale, ins, outs in layers
    ]

    def run() -> None:
        for features, weight in prepared:
            F.conv2d(features, weight)

    return run


def convolution(dtype: torch.dtype, device: torch.device) -> tuple[float, list[float]]:
    """Operations per second of the convolution at its best, and the seconds of every call."""
    size, channels, batch = (128, 256, 16) if device.type == "cuda" else (256, 128, 1)
    run = convolutions(size, [(1, channels, channels)], dtype, device, batch)
    return _best(run, 2 * 9 * channels**2 * size**2 * batch, device)


def product(dtype: torch.dtype, device: torch.device) -> tuple[float, list[float]]:
    """The same for a product of two square matrices."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn((side, side), dtype=dtype, device=device) for _ in range(2))
    return _best(lambda: torch.mm(left, right), 2 * side**3, device)


def _best(run: Callable[[], object], operations: int, device: torch.device) -> tuple[float, list[float]]:
    with torch.no_grad():
        first, _ = timing.timed(run, device)
        if first < _BUDGET_SECONDS:
            timing.timed(run, device)
        samples, _ = timing.repeat(run, device, repeats=_REPEATS, budget=_BUDGET_SECONDS)
    return operations / min(samples), samples


def main() -> None:
    """Run the job that stands on standard input: the ceiling in its ``precision`` on its ``device``."""
    channel = Channel()
    job = channel.job
    from zoo.device import dtype_of

    if job["threads"] is not None:
        torch.set_num_threads(job["threads"])
    measured = []
    device, dtype = torch.device(job["device"]), dtype_of(job["precision"])
    channel.send("start", cell=0)
    try:
        for name, measure in (("conv", convolution), ("matmul", product)):
            speed, samples = measure(dtype, device)
            measured.append(measurement(f"machine.{name}_gflops", speed / 1e9, "GFLOP/s", samples))
        measured.append(measurement("seconds.extra", started(job), "s"))
    except REFUSALS as error:
        channel.send("refused", cell=0, **why(error))
    except Exception as error:
        channel.send("failed", cell=0, **why(error))
    else:
        channel.send("measured", cell=0, measured=measured)
    channel.send("done")


if __name__ == "__main__":
    main()
