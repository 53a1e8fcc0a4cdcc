"""What one evaluation of Li and Wand's MRF costs: against the bare network, in memory, and in half precision.

    python benchmarks/cnnmrf_cost.py --size 512 --out results/cnnmrf_cost.json

Cost: an evaluation (loss and gradient by the pixels, stride 2, no rotations) over a bare pass of VGG-19 to relu4_2 and
back, same image, precision and threads, in one process. The two take turns, so that whatever else the machine does
falls on both alike; compared are the rounds, by the wall clock and by the processor time of the process. Bar: 2.0.

Memory: peak resident set of a process that does nothing but stylise at that size with one rotation and one scale each
way (nine copies of the style), a few steps on each of three levels. Bar: 3 GB.

Picks: how often matching in bfloat16 picks the same patch as in float32, and by how much the MRF loss then differs,
for the content itself and for an image that has been optimised.

Exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COST_BAR = 2.0
MEMORY_BAR = 3e9


def peak_resident() -> int:
    """Most bytes this process ever had in memory (ru_maxrss is in KiB, on macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def square(source: str, size: int) -> Any:
    """An image cut to ``size`` x ``size``."""
    from zoo.images import read, resize

    return resize(read(source).pixels, f"{size}x{size}")


def alternating(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds of every contestant in every round, after one round of warm-up."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, act in contestants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            act()
            if turn:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return taken


def cost(args: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Seconds of both and the ratio within each round."""
    import torch

    from zoo.device import synchronize
    from zoo.methods.cnnmrf import CNNMRF, CNNMRFConfig

    model = CNNMRF(CNNMRFConfig(levels=1), device=args.device, precision=precision)
    content = square(args.content, args.size).to(model.device)
    with torch.no_grad():
        style = model.encode_style(square(args.style, args.size)).data["levels"][0]
        evaluate = model._loss(content, style, 1.0, args.size)
    image = content.clone().requires_grad_()

    def mrf() -> None:
        torch.autograd.grad(evaluate(image)["total"], image)
        synchronize(model.device)

    def bare() -> None:
        with model.autocast():
            features = model._encoder(image)["relu4_2"]
        torch.autograd.grad(features, image, torch.ones_like(features))
        synchronize(model.device)

    taken = alternating({"bare": bare, "mrf": mrf}, args.rounds)
    result: dict[str, Any] = {}
    for clock, column in (("wall", 0), ("cpu", 1)):
        bare_s, mrf_s = ([round[column] for round in taken[name]] for name in ("bare", "mrf"))
        ratios = sorted(m / b for m, b in zip(mrf_s, bare_s, strict=True))
        result[clock] = {
            "bare_s": statistics.median(bare_s),
            "mrf_s": statistics.median(mrf_s),
            "ratio": statistics.median(ratios),
            "ratio_low": ratios[0],
            "ratio_high": ratios[-1],
        }
    return result


def picks(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Agreement of bfloat16 matching with float32, layer by layer, on the same float32 features."""
    import torch

    from zoo.methods.cnnmrf import CNNMRF, CNNMRFConfig
    from zoo.nn.patches import PatchBank, match, patch_energy

    rows = []
    for stride in (2, 1):
        config = CNNMRFConfig(levels=1, rotations=1, scales=1, num_steps=args.steps)
        model = CNNMRF(config, device=args.device, precision="fp32")
        content, size = square(args.content, args.picks_size), args.picks_size
        code = model.encode_style(square(args.style, size))
        images = {"content": content.to(model.device), "optimised": model.stylize(content, code).image.to(model.device)}
        for label, image in images.items():
            with torch.no_grad():
                features = model._mrf_encoder(image)
            for tap, item in features.items():
                style = PatchBank.over(*code.data["levels"][0][tap], 3, stride)
                query = PatchBank.of([item], 3, stride)
                exact, rough = (match(query, style, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
                energies = [
                    patch_energy(item, style, stride=stride, overlap="mean", dtype=dtype).item()
                    for dtype in (torch.float32, torch.bfloat16)
                ]
                rows.append(
                    {
                        "image": label,
                        "layer": tap,
                        "stride": stride,
                        "same_picks": (exact.index == rough.index).float().mean().item(),
                        "score_fp32": exact.score.mean().item(),
                        "loss_difference": energies[1] / energies[0] - 1,
                    }
                )
    return rows


def memory(args: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Peak of a process of its own."""
    command = [sys.executable, __file__, "--memory-worker", precision, "--size", str(args.size)]
    command += ["--content", args.content, "--style", args.style, "--device", args.device]
    if args.threads:
        command += ["--threads", str(args.threads)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)


def memory_worker(args: argparse.Namespace) -> None:
    """Stylise once and print the peak; nothing else happens in this process."""
    from zoo.methods.cnnmrf import CNNMRF, CNNMRFConfig

    idle = peak_resident()
    config = CNNMRFConfig(rotations=1, scales=1, num_steps=6)
    model = CNNMRF(config, device=args.device, precision=args.memory_worker)
    code = model.encode_style(square(args.style, args.size))
    result = model.stylize(square(args.content, args.size), code)
    peak = peak_resident()
    print(json.dumps({"peak_bytes": peak, "imports_bytes": idle, "style_bytes": code.nbytes, "steps": result.steps}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of both images, in pixels")
    parser.add_argument("--picks-size", type=int, default=256, help="side of the images of which picks are compared")
    parser.add_argument("--content", default="builtin:astronaut")
    parser.add_argument("--style", default="builtin:swirls")
    parser.add_argument("--rounds", type=int, default=9, help="timed turns of each contestant")
    parser.add_argument(
        "--steps", type=int, default=20, help="steps of the optimised image of which picks are compared"
    )
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--memory-worker", metavar="PRECISION", help=argparse.SUPPRESS)
    args = parser.parse_args()

    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory_worker:
        memory_worker(args)
        return 0

    report: dict[str, Any] = {
        "size": args.size,
        "threads": torch.get_num_threads(),
        "device": args.device,
        "machine": platform.platform(),
        "torch": torch.__version__,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "cost": {p: cost(args, p) for p in args.precisions},
        "memory": {p: memory(args, p) for p in args.precisions},
        "picks": picks(args),
    }
    missed = False
    for precision, clocks in report["cost"].items():
        for clock, row in clocks.items():
            print(
                f"{precision} {clock:4}: MRF {row['mrf_s']:.3f} s, bare VGG {row['bare_s']:.3f} s, "
                f"ratio {row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}), bar {COST_BAR}"
            )
        missed |= clocks["wall"]["ratio"] > COST_BAR
    for precision, row in report["memory"].items():
        print(f"{precision} nine copies: peak {row['peak_bytes'] / 1e9:.2f} GB, bar {MEMORY_BAR / 1e9:.0f} GB")
        missed |= row["peak_bytes"] >= MEMORY_BAR
    for row in report["picks"]:
        print(
            f"picks in bf16, {row['image']}, {row['layer']}, stride {row['stride']}: {row['same_picks']:.1%} the same, "
            f"loss {row['loss_difference']:+.2e}"
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=args.out.parent, delete=False, encoding="utf-8") as file:
            json.dump(report, file, indent=1)
        os.replace(file.name, args.out)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
