"""How well the bundled decoders do what their methods need, on photographs and paintings they never saw.

    python benchmarks/decoder_quality.py --content PHOTOGRAPHS --style PAINTINGS --out results/feedforward

Reconstruction: PSNR of each WCT level's decoder (the features of reluK_1 back to the image, nothing else given), of
AdaIN's decoder, and of style-swap's inverse network with the relative error of the features it gives back.
Stylisation: for pairs of the folders (every photograph with the paintings in turn), the mean/std style loss over
relu1_1 to relu4_1 of normalised VGG-19 (Huang and Belongie, equation 13) as a share of the content copy's, median over
pairs; and AdaIN's content loss against its target.

Photographs by the long side, --size pixels. Writes quality.json and quality.md; exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

WCT_BARS = {1: 28.0, 2: 30.0, 3: 27.0, 4: 23.5, 5: 19.5}
STYLE_BARS = {"adain": 0.5, "wct": 1 / 3}
SWAP_BAR = 0.15


def style_loss(encoder: Any, image: Any, style: Any) -> float:
    """Equation 13 of AdaIN, summed over channels."""
    from zoo.methods.adain import mean_std

    ours, theirs = encoder(image), encoder(style)
    return sum(
        float((a - b).square().sum())
        for tap in ours
        for a, b in zip(mean_std(ours[tap]), mean_std(theirs[tap]), strict=True)
    )


def reconstruction(photographs: list[Any], precision: str) -> dict[str, Any]:
    """Mean PSNR over the photographs, and the single values."""
    import torch

    import zoo
    from zoo.training.reconstruction import psnr

    found: dict[str, Any] = {}
    wct = zoo.load("wct", device="cpu", precision=precision, levels=tuple(WCT_BARS))
    adain, swap = (zoo.load(name, device="cpu", precision=precision) for name in ("adain", "style-swap"))
    codes = {model: model.encode_style(photographs[0]) for model in (adain, swap)}

    def rebuild(model: Any, code: Any, image: Any) -> Any:
        return model.stylize(image, code, strength=0.0).image

    runs: dict[str, Any] = {}
    for level in wct.config.levels:  # type: ignore[attr-defined]
        single = wct.with_config(levels=(level,))
        code = single.encode_style(photographs[0])
        runs[f"wct level {level}"] = lambda image, m=single, c=code: rebuild(m, c, image)
    runs["adain"] = lambda image: rebuild(adain, codes[adain], image)
    runs["style-swap"] = lambda image: rebuild(swap, codes[swap], image)
    for name, run in runs.items():
        values = [psnr(run(image), image) for image in photographs]
        found[name] = {"psnr_db": statistics.mean(values), "values": values}
    errors = []
    with torch.no_grad():
        for image in photographs:
            height, width = (side - side % 4 for side in image.shape[-2:])
            image = image[..., :height, :width]
            wanted = swap._features(image).float()  # type: ignore[attr-defined]
            again = swap._features(runs["style-swap"](image)).float()  # type: ignore[attr-defined]
            errors.append(float(((again - wanted).square().sum() / wanted.square().sum()).sqrt()))
    found["style-swap"]["relative_feature_error"] = statistics.mean(errors)
    found["style-swap"]["relative_feature_errors"] = errors
    return found


def stylization(photographs: list[Any], paintings: list[Any], precision: str, pairs: int) -> dict[str, Any]:
    """Style loss of each method's results over the content copy's, per pair."""
    import torch
    from torch.nn import functional as F

    import zoo
    from zoo.encoders import load_encoder
    from zoo.methods.adain import STYLE_TAPS, TAP, adain, mean_std

    encoder = load_encoder("vgg19.normalised", taps=STYLE_TAPS, padding="reflect")
    models = {name: zoo.load(name, device="cpu", precision=precision) for name in ("adain", "wct", "style-swap")}
    # The paper's method; the one that ships runs the levels whose decoders are trained far enough.
    models["wct, levels 5 to 1"] = zoo.load("wct", device="cpu", precision=precision, levels=tuple(WCT_BARS)[::-1])
    shares: dict[str, list[float]] = {name: [] for name in models}
    losses: dict[str, list[float]] = {"content": [], "style": []}
    with torch.no_grad():
        for index in range(pairs):
            content, style = photographs[index % len(photographs)], paintings[index % len(paintings)]
            of_copy = style_loss(encoder, content, style)
            for name, model in models.items():
                image = model(content, style)
                shares[name].append(style_loss(encoder, image, style) / of_copy)
                if name == "adain":
                    target = adain(encoder(content)[TAP], *mean_std(encoder(style)[TAP]))
                    padded = image[..., : target.shape[-2] * 8, : target.shape[-1] * 8]
                    got = encoder(padded)[TAP]
                    losses["content"].append(float(F.mse_loss(got, target)))
                    losses["style"].append(shares[name][-1] * of_copy)
    return {
        "pairs": pairs,
        "style_loss_over_copy": {
            name: {"median": statistics.median(values), "values": values} for name, values in shares.items()
        },
        "adain_losses": {name: statistics.mean(values) for name, values in losses.items()},
    }


def table(report: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{report['photographs']} photographs and {report['paintings']} paintings that no training saw, long side "
        f"{report['size']} pixels, {report['precision']}, {report['date']}",
        "",
        "| decoder | PSNR of the reconstruction (dB) | bar |",
        "|---|---:|---:|",
    ]
    for name, row in report["reconstruction"].items():
        bar = f"{WCT_BARS[int(name[-1])]:.1f}" if name.startswith("wct") else ""
        lines.append(f"| {name} | {row['psnr_db']:.2f} | {bar} |")
    error = report["reconstruction"]["style-swap"]["relative_feature_error"]
    lines += ["", f"Style-swap's inverse network gives its features back within {error:.1%} (bar {SWAP_BAR:.0%})."]
    lines += ["", "| method | style loss over the content copy's, median of pairs | bar |", "|---|---:|---:|"]
    for name, row in report["stylisation"]["style_loss_over_copy"].items():
        bar = f"{STYLE_BARS[name]:.2f}" if name in STYLE_BARS else ""
        lines.append(f"| {name} | {row['median']:.3f} | {bar} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--content", required=True, help="folder of photographs")
    parser.add_argument("--style", required=True, help="folder of paintings")
    parser.add_argument("--size", type=int, default=512, help="long side in pixels")
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path, help="folder for quality.json and quality.md")
    args = parser.parse_args()

    from zoo import images

    photographs, paintings = (
        [images.read(path, size=f"long:{args.size}").pixels for path in images.list_images([folder])]
        for folder in (args.content, args.style)
    )
    report = {
        "size": args.size,
        "precision": args.precision,
        "photographs": len(photographs),
        "paintings": len(paintings),
        "date": time.strftime("%Y-%m-%d"),
        "reconstruction": reconstruction(photographs, args.precision),
        "stylisation": stylization(photographs, paintings, args.precision, args.pairs),
    }
    text = table(report)
    print(text)
    if args.out:
        from zoo import files

        args.out.mkdir(parents=True, exist_ok=True)
        files.write(args.out / "quality.json", json.dumps(report, indent=1))
        files.write(args.out / "quality.md", text)
    missed = [
        f"wct level {level}: {report['reconstruction'][f'wct level {level}']['psnr_db']:.2f} dB, bar {bar}"
        for level, bar in WCT_BARS.items()
        if report["reconstruction"][f"wct level {level}"]["psnr_db"] < bar
    ]
    for name, bar in STYLE_BARS.items():
        if (value := report["stylisation"]["style_loss_over_copy"][name]["median"]) > bar:
            missed.append(f"{name}: style loss {value:.3f} of the copy's, bar {bar:.2f}")
    error = report["reconstruction"]["style-swap"]["relative_feature_error"]
    if error > SWAP_BAR:
        missed.append(f"style-swap: features back within {error:.1%}, bar {SWAP_BAR:.0%}")
    for line in missed:
        print(f"missed: {line}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
