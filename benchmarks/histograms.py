"""What Risser's histogram loss adds to Gram matrices: ``python benchmarks/histograms.py``.

Textures of twice their exemplar's side, where Gram matrices alone lose contrast (Risser et al. 2017, section 3.1), of
two seeds, by Gatys and by Risser, in the same sizes and steps. While the last size is fitted, three things are noted
every few evaluations: the Gram loss; the distance from the exemplar of each channel's distribution (Wasserstein-1, over
the deviation of the exemplar's channel, mean over relu1_1 to relu4_1); the same distance between the two seeds.

The two are compared at equal Gram loss: where the one that ends lower passes the loss at which the other ends. Writes
results/networks/histograms.md and docs/images/results/histograms.webp, the textures at the end.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import zoo
from zoo.images import contact_sheet
from zoo.nn.gram import gram
from zoo.nn.ranks import quantiles

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "results" / "networks" / "histograms.md"
SHEET = ROOT / "docs" / "images" / "results" / "histograms.webp"
STYLES = ("mosaic", "woodblock", "swirls")
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
POINTS = 1024  # of each distribution function
METHODS = ("gatys", "risser")
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


def course(model: Any, exemplar: Tensor, side: int, seed: int) -> tuple[list[Seen], Tensor]:
    """What is noted of a texture while its last size is fitted, and the texture."""
    with torch.no_grad():
        own = {layer: gram(found) for layer, found in model._features(exemplar, LAYERS).items()}
    noted: list[Seen] = []

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

    return noted, model.synthesize(model.encode_style(exemplar), (side, side), seed=seed, progress=note).image


def means(courses: Sequence[list[Seen]], wanted: list[Tensor]) -> list[Mean]:
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


def sheet(pictures: list[list[Tensor]], cell: int) -> Tensor:
    """A row per exemplar: itself, and what each method made of it from each seed."""
    labels = ["exemplar", *(f"{method}, seed {seed}" for method in METHODS for seed in SEEDS)]
    return contact_sheet(pictures, row_labels=STYLES, column_labels=labels, cell=cell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    side = arguments.side
    lines = [
        f"Textures of {side} x {side} pixels from {side // 2} x {side // 2}, {arguments.steps} evaluations over two "
        "sizes; mean of two seeds. The distances of both at the higher of the two last Gram losses.",
        "",
        "| exemplar | method | evaluations | Gram loss | distance from the exemplar | between two seeds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    pictures = []
    for name in STYLES:
        exemplar = zoo.read(f"builtin:{name}", size=f"exact:{side // 2}x{side // 2}").pixels
        pictures.append([exemplar])
        courses = {}
        for method in METHODS:
            model: Any = zoo.load(method, device="cpu", precision="fp32", num_steps=arguments.steps, levels=2)
            with torch.no_grad():
                wanted = distributions(model._features(exemplar, LAYERS))
            seen, textures = zip(*(course(model, exemplar, side, seed) for seed in SEEDS), strict=True)
            pictures[-1] += textures
            courses[method] = means(seen, wanted)
        loss = max(course[-1].gram_loss for course in courses.values())
        for method, found in courses.items():
            at = where(found, loss)
            lines.append(f"| {name} | {method} | {at.step} | {loss:.3g} | {at.distance:.4f} | {at.between:.4f} |")
            print(lines[-1], flush=True)
    TABLE.write_text("\n".join(lines) + "\n")
    zoo.write(SHEET, sheet(pictures, side), quality=85)


if __name__ == "__main__":
    main()
