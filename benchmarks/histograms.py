"""What Risser's histogram loss adds to Gram matrices: ``python benchmarks/histograms.py``.

Textures of twice their exemplar's side, where Gram matrices alone lose contrast (Risser et al. 2017, section 3.1), of
two seeds, by Gatys and by Risser, in the same sizes and steps. While the last size is fitted, three things are noted
every few evaluations: the Gram loss; the distance from the exemplar of each channel's distribution (Wasserstein-1, over
the deviation of the exemplar's channel, mean over relu1_1 to relu4_1); the same distance between the two seeds.

The two are compared at equal Gram loss: where the one that ends lower passes the loss at which the other ends. Writes
results/networks/histograms.md.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import zoo
from zoo.nn.gram import gram
from zoo.nn.ranks import quantiles

TABLE = Path(__file__).resolve().parent.parent / "results" / "networks" / "histograms.md"
STYLES = ("mosaic", "woodblock", "swirls")
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
POINTS = 1024  # of each distribution function
SEEDS = (0, 1)
EVERY = 5  # evaluations


class Seen(NamedTuple):
    """What is noted of a texture."""

    step: int
    gram_loss: float
    distributions: list[Tensor]


class Mean(NamedTuple):
    """What is told of two textures."""

    step: int
    gram_loss: float
    distance: float
    between: float


def distributions(features: dict[str, Tensor]) -> list[Tensor]:
    """Distribution functions (C, POINTS) of the channels of each layer."""
    level = torch.nn.functional.interpolate
    return [level(quantiles(features[at])[None], size=POINTS, mode="linear", align_corners=True)[0] for at in LAYERS]


def apart(found: list[Tensor], other: list[Tensor], exemplar: list[Tensor]) -> float:
    """Mean distance of two pictures' distributions in deviations of the exemplar's, over channels that vary there."""
    shares = []
    for a, b, reference in zip(found, other, exemplar, strict=True):
        deviation = reference.std(1)
        varied = deviation > 1e-3 * deviation.max()
        shares.append(float(((a - b).abs().mean(1)[varied] / deviation[varied]).mean()))
    return statistics.fmean(shares)


def course(model: Any, exemplar: Tensor, side: int, seed: int, pictures: Path | None, name: str) -> list[Seen]:
    """What is noted of a texture while its last size is fitted."""
    with torch.no_grad():
        own = {layer: gram(found) for layer, found in model._features(exemplar, LAYERS).items()}
    noted = []

    def note(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor]) -> None:
        if step % EVERY and step != total:
            return
        picture = image()
        if picture.shape[-1] != side or (noted and noted[-1].step == step):
            return
        with torch.no_grad():
            features = model._features(picture, LAYERS)
        loss = sum(float((gram(features[at]) - own[at]).pow(2).mean()) for at in LAYERS)
        noted.append(Seen(step, loss, distributions(features)))

    result = model.synthesize(model.encode_style(exemplar), (side, side), seed=seed, progress=note).image
    if pictures:
        zoo.write(pictures / f"{name}-{seed}.png", result)
    return noted


def means(courses: list[list[Seen]], wanted: list[Tensor]) -> list[Mean]:
    """The two seeds' courses as one."""
    found = []
    for pair in zip(*courses, strict=True):
        losses, far = [one.gram_loss for one in pair], [apart(one.distributions, wanted, wanted) for one in pair]
        between = apart(pair[0].distributions, pair[1].distributions, wanted)
        found.append(Mean(pair[0].step, statistics.fmean(losses), statistics.fmean(far), between))
    return found


def where(course: list[Mean], loss: float) -> Mean:
    """Where a course passes a Gram loss for the first time, between two notes of it."""
    for before, after in pairwise(course):
        if after.gram_loss <= loss:
            share = (math.log(before.gram_loss) - math.log(loss)) / math.log(before.gram_loss / after.gram_loss)
            values = [a + min(max(share, 0.0), 1.0) * (b - a) for a, b in zip(before, after, strict=True)]
            return Mean(round(values[0]), loss, *values[2:])
    return course[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--styles", nargs="+", default=STYLES)
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=NUMBER", help="of Risser's, for trials")
    parser.add_argument("--pictures", type=Path, help="also write the textures into this folder")
    arguments = parser.parse_args()
    side = arguments.side
    given = {name: float(value) for name, value in (option.split("=") for option in arguments.options)}
    given = {name: int(value) if value.is_integer() and name == "refresh" else value for name, value in given.items()}
    rows = [
        f"Textures of {side} x {side} pixels from {side // 2} x {side // 2}, {arguments.steps} evaluations over two "
        "sizes; mean of two seeds. The distances of both at the higher of the two last Gram losses.",
        "",
        "| exemplar | method | evaluations | Gram loss | distance from the exemplar | between two seeds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name in arguments.styles:
        exemplar = zoo.read(f"builtin:{name}", size=f"exact:{side // 2}x{side // 2}").pixels
        courses = {}
        for method, options in (("gatys", {}), ("risser", given)):
            model: Any = zoo.load(
                method, device="cpu", precision="fp32", num_steps=arguments.steps, levels=2, **options
            )
            with torch.no_grad():
                wanted = distributions(model._features(exemplar, LAYERS))
            label = f"{name}-{method}"
            seen = [course(model, exemplar, side, seed, arguments.pictures, label) for seed in SEEDS]
            courses[method] = means(seen, wanted)
            for one in courses[method]:
                print(method, *(f"{value:.4g}" for value in one), flush=True)
        loss = max(course[-1].gram_loss for course in courses.values())
        for method, found in courses.items():
            at = where(found, loss)
            rows.append(f"| {name} | {method} | {at.step} | {loss:.3g} | {at.distance:.4f} | {at.between:.4f} |")
            print(rows[-1], flush=True)
    if side == 192 and tuple(arguments.styles) == STYLES and not given:
        TABLE.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
