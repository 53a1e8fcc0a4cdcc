"""Gatys against its references: the first author's logged losses, and bfloat16 against float32.

    python benchmarks/gatys_reference.py curve --content tubingen.jpg --style starry_night.jpg --steps 500
    python benchmarks/gatys_reference.py precision --content tubingen.jpg --style starry_night.jpg --size long:256

``curve`` runs ``gatys.pytorch`` and prints its total loss beside the one that the notebook of
leongatys/PytorchNeuralStyleTransfer logged for The Starry Night and the Neckarfront in Tübingen, both with a short
side of 512 pixels, resampled bilinearly as there. Nearest to his is the Google Art Project's reproduction (1280 x
1014): the loss depends on which photograph of the painting it is, by a factor of two. ``precision`` runs the method
once per number format and evaluates every result in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import images
from zoo.methods.gatys import Gatys, GatysConfig, GramTarget

LOGGED = {50: 1_388_532, 100: 707_861, 200: 469_375, 500: 368_494}


def build(precision: str, num_steps: int, clamp: bool, history: int) -> Gatys:
    config = GatysConfig(num_steps=num_steps, clamp=clamp, history=history)
    return Gatys(config, device="cpu", precision=precision)


def bilinear(image: Tensor, policy: str) -> Tensor:
    """As Pillow's bilinear filter, which the notebook used through torchvision."""
    size = images.SizePolicy.parse(policy).output_size(image.shape[-2], image.shape[-1])
    return F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def curve(content: Tensor, style: Tensor, steps: int, precision: str) -> dict[str, Any]:
    """The losses of one run of ``gatys.pytorch`` at the steps that the notebook logged."""
    model = build(precision, steps, clamp=False, history=100)
    start = time.perf_counter()
    print(f"{'step':>5}{'here':>14}{'logged':>14}{'ratio':>8}{'seconds':>9}", flush=True)
    lowest: dict[int, float] = {}

    def watch(step: int, total: int, losses: Mapping[str, float], image: Callable[[], Tensor], /) -> None:
        if step in LOGGED or step % 100 == 0:
            lowest[step] = losses["total"]
            logged = LOGGED.get(step)
            beside = f"{logged:14,}{losses['total'] / logged:8.3f}" if logged else " " * 22
            print(f"{step:5}{losses['total']:14,.0f}{beside}{time.perf_counter() - start:9.0f}", flush=True)

    result = model.stylize(content, model.encode_style(style), progress=watch)
    return {"precision": precision, "losses": lowest, "logged": LOGGED, "image": result.image}


def precision(content: Tensor, style: Tensor, steps: int) -> dict[str, Any]:
    """Total and style loss of the results of both formats, as shares of the start; all evaluated in float32."""
    judge = build("fp32", 1, clamp=True, history=25)
    with torch.no_grad():
        loss = judge._loss(content, {k: GramTarget.of([g], [1.0]) for k, g in judge._grams(style)[0].items()})
        start = {name: float(value) for name, value in loss(content).items()}
    rows = {}
    for name in ("fp32", "bf16"):
        model = build(name, steps, clamp=True, history=25)
        begin = time.perf_counter()
        image = model.stylize(content, model.encode_style(style)).image
        with torch.no_grad():
            end = {key: float(value) for key, value in loss(image).items()}
        rows[name] = {**end, "style_share": end["style"] / start["style"], "seconds": time.perf_counter() - begin}
        print(
            f"{name}: total {end['total']:,.0f}, style {100 * rows[name]['style_share']:.2f} % of its start", flush=True
        )
    ratio = rows["bf16"]["total"] / rows["fp32"]["total"]
    print(f"bf16 / fp32: {ratio:.4f}")
    return {"start": start, "rows": rows, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["curve", "precision"])
    parser.add_argument("--content", default="builtin:astronaut", help="file or builtin:NAME")
    parser.add_argument("--style", default="builtin:swirls", help="file or builtin:NAME")
    parser.add_argument("--size", default="", help="size policy; short:512 for curve, long:256 for precision")
    parser.add_argument("--steps", type=int, default=0, help="500 for curve, 150 for precision")
    parser.add_argument("--precision", default="fp32", help="of curve")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    size = options.size or ("short:512" if options.what == "curve" else "long:256")
    sources = [images.read(f).pixels for f in (options.content, options.style)]
    content, style = (bilinear(p, size) if options.what == "curve" else images.resize(p, size) for p in sources)
    if options.what == "curve":
        result = curve(content, style, options.steps or 500, options.precision)
        image = result.pop("image")
        if options.out:
            images.write(options.out.with_suffix(".png"), image)
    else:
        result = precision(content, style, options.steps or 150)
    if options.out:
        temporary = options.out.with_name(options.out.name + ".part")
        record = {
            "what": options.what,
            "content": Path(options.content).name,
            "style": Path(options.style).name,
            "size": size,
            **result,
        }
        temporary.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(temporary, options.out)


if __name__ == "__main__":
    main()
