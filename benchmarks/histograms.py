"""What Risser's histogram loss adds to Gram matrices: ``python benchmarks/histograms.py``.

Textures of twice their exemplar's side, where Gram matrices alone lose contrast (Risser et al. 2017, section 3.1), of
two seeds. Gatys takes the same sizes and steps. Told of both: the Gram loss; the distance from the exemplar of each
channel's distribution (Wasserstein-1, over the deviation of the exemplar's channel, mean over relu1_1 to relu4_1); the
same distance between the two seeds; and the deviation of the texture's luminance over the exemplar's. Writes
results/networks/histograms.md.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor

import zoo
from zoo.color import gray
from zoo.nn.gram import gram
from zoo.nn.ranks import quantiles

TABLE = Path(__file__).resolve().parent.parent / "results" / "networks" / "histograms.md"
STYLES = ("mosaic", "woodblock", "swirls")
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
POINTS = 1024  # of each distribution function


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--pictures", type=Path, help="also write the textures into this folder")
    arguments = parser.parse_args()
    side = arguments.side
    sizes = f"Textures of {side} x {side} pixels from {side // 2} x {side // 2}"
    rows = [
        f"{sizes}, {arguments.steps} evaluations over two sizes.",
        "",
        "| exemplar | method | Gram loss | distance from the exemplar | between two seeds | deviation of luminance |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name in STYLES:
        exemplar = zoo.read(f"builtin:{name}", size=f"exact:{side // 2}x{side // 2}").pixels
        for method in ("gatys", "risser"):
            model = zoo.load(method, device="cpu", precision="fp32", num_steps=arguments.steps, levels=2)
            own = model._features(exemplar, LAYERS)
            wanted = distributions(own)
            grams, seen, contrast = [], [], []
            for seed in (0, 1):
                image = model.synthesize(model.encode_style(exemplar), (side, side), seed=seed).image
                features = model._features(image, LAYERS)
                grams.append(sum(float((gram(features[at]) - gram(own[at])).pow(2).mean()) for at in LAYERS))
                seen.append(distributions(features))
                contrast.append(float(gray(image).std() / gray(exemplar).std()))
                if arguments.pictures:
                    zoo.write(arguments.pictures / f"{name}-{method}-{seed}.png", image)
            far = statistics.fmean(apart(found, wanted, wanted) for found in seen)
            between = apart(seen[0], seen[1], wanted)
            mean = statistics.fmean
            rows.append(f"| {name} | {method} | {mean(grams):.3g} | {far:.4f} | {between:.4f} | {mean(contrast):.3f} |")
            print(rows[-1], flush=True)
    if side == 256:
        TABLE.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
