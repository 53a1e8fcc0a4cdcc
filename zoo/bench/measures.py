"""What the harness itself measures, beside the metrics of registry.yaml: names, units and how tables show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """A number that the harness reports.

    ``scope`` says what it belongs to: one ``cell``, the whole ``process`` that measured a method at a size, or the
    ``run`` (then its row has no picture, size 0, and is no line of a table). ``column`` is
    its heading in tables, empty where only table.csv shows it; ``combine`` is how a column joins its pairs;
    ``direction`` is which end is better; ``ranked`` is whether tables mark the best.
    """

    name: str
    title: str
    unit: str
    column: str = ""
    combine: Literal["mean", "max"] = "mean"
    scope: Literal["cell", "process", "run"] = "cell"
    direction: Literal["lower", "higher"] = "lower"
    ranked: bool = True

    @property
    def process(self) -> bool:
        """Whether it belongs to a process, and its row therefore to no pair."""
        return self.scope == "process"


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("seconds.import", "starting the process, importing torch and the zoo", "s", scope="process"),
        Measure("seconds.load", "building the method, weights included", "s", scope="process"),
        # Of methods that optimise a step and of others a picture: not to be compared.
        Measure(
            "seconds.first",
            "first call after the style was encoded; of a method that optimises, its first step",
            "s",
            "first call",
            scope="process",
            ranked=False,
        ),
        Measure("seconds.encode_style", "encoding the style, median; none of trained styles", "s", "encode style"),
        Measure("seconds.encode_style.iqr", "encoding the style, interquartile range", "s"),
        Measure("seconds.encode_style.p95", "encoding the style, 95th percentile", "s"),
        Measure("seconds.step", "one step of the optimisation", "s", "step"),
        Measure("seconds.stylize", "one picture, style encoded, median", "s", "stylize"),
        Measure("seconds.stylize.iqr", "one picture, style encoded, interquartile range", "s"),
        Measure("seconds.stylize.p95", "one picture, style encoded, 95th percentile", "s", "p95"),
        Measure("seconds.whole", "one picture, encoding its style included, median", "s", "with encoding"),
        Measure("seconds.whole.iqr", "one picture, encoding its style included, interquartile range", "s"),
        Measure("seconds.whole.p95", "one picture, encoding its style included, 95th percentile", "s"),
        Measure("images_per_second", "pictures a second at the best batch size", "1/s", "images", direction="higher"),
        Measure("images_per_second.batch", "the best batch size", ""),
        Measure("gflops.encode_style", "operations of encoding the style", "GFLOP"),
        Measure("gflops.stylize", "operations of one picture, style encoded", "GFLOP", "operations"),
        Measure("gflops.step", "operations of one step of the optimisation", "GFLOP", "operations of a step"),
        Measure("share.conv_peak", "speed as a share of a bare convolution's", "%", "of peak", direction="higher"),
        Measure("parameters", "numbers in the networks held", "", scope="process"),
        Measure("memory.idle", "resident before the method is built", "MiB", scope="process"),
        Measure("memory.resident", "peak resident above idle", "MiB", "peak memory", "max"),
        Measure("memory.cuda_allocated", "peak allocated by torch on the GPU", "MiB", "GPU allocated", "max"),
        Measure("memory.cuda_reserved", "peak reserved by torch on the GPU", "MiB", "GPU reserved", "max"),
        # Of a film (zoo.bench.workers.films), in the order in which tables show them.
        Measure("film.short", "error of a frame against the one before, along the motion", "/255", "short-term"),
        Measure("film.long", "error of a frame against one some frames before", "/255", "long-term"),
        Measure("film.gram_loss", "style loss (gram_loss), mean over the frames", "", "style loss"),
        Measure("film.gram_change", "change of the style loss between neighbors, share of its mean", "%", "its change"),
        Measure("film.perceptual", "ST-LPIPS between neighboring frames", "", "ST-LPIPS"),
        Measure("film.trusted", "pixels carried on from the frame before", "%"),
        Measure("film.rate", "frames a second, from file to file", "1/s", "frames", direction="higher"),
        # At a step of a protocol of steps (zoo.bench.workers.steps).
        Measure("loss.total", "the method's own loss at the step", "", "own loss", ranked=False),
        Measure("seconds.warmup", "warm-up calls", "s"),
        Measure("seconds.extra", "counting operations, batches, the machine's peak", "s"),
        Measure("seconds.files", "reading the inputs and writing the picture", "s"),
        Measure("machine.conv_gflops", "a 3x3 convolution on this machine", "GFLOP/s", scope="run", direction="higher"),
        Measure(
            "machine.matmul_gflops", "a matrix product on this machine", "GFLOP/s", scope="run", direction="higher"
        ),
        Measure("size.largest", "largest side that fits", "px", scope="run", direction="higher"),
    )
}

# A cell is done when it has this row, which is the last one written of it.
PRIMARY = "seconds.stylize"
