"""What AdaIN and WCT cost beside the convolutions they cannot do without, in half precision, and in memory.

    python benchmarks/feedforward_cost.py --out results/feedforward

AdaIN: encoding content and style and decoding, over three stacks of bare convolutions (no padding, ReLU, pooling,
upsampling or statistics; inputs padded beforehand), in turns within each round. Bar: 1.15. The stacks are those of the
networks as they are defined; of upsampled maps AdaIN does with 4/9 of the products (zoo.nn.fast).
WCT: share of its time that the transforms (moments, eigendecompositions, products) take, style encoded. Bar: 15 %.
Precision: float32's time over bfloat16's (bar: 2.0), and how far the pictures of bfloat16 and float16 are from
float32's at 384 x 384; float16 is for GPUs, a CPU emulates it, so it is not timed.
Memory: peak resident set of a process that stylises once at that size. Bar for WCT at 1024: 2.5 GB.

The machine's ceiling, a 3x3 convolution of 128 channels at 256 x 256, is measured in the same process. Writes
cost.json and cost.md; exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Set before torch's first allocation, as the command line does: large maps then come in huge pages.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

BARS = {"adain_over_bare": 1.15, "wct_transform_share": 0.15, "bf16_speedup": 2.0, "wct_1024_bytes": 2.5e9}
METHODS = ("adain", "wct")
OPTIONS: dict[str, dict[str, Any]] = {"adain": {}, "wct": {"levels": (5, 4, 3, 2, 1)}}
PRECISIONS = ("fp32", "bf16")
# Convolutions of VGG-19 to relu4_1 as (height divided by, channels in, channels out), and of the mirrored decoder.
ENCODER = [(1, 3, 64), (1, 64, 64), (2, 64, 128), (2, 128, 128), (4, 128, 256), *[(4, 256, 256)] * 3, (8, 256, 512)]
DECODER = [(scale, wide, narrow) for scale, narrow, wide in reversed(ENCODER)]


def peak_resident() -> int:
    """Most bytes this process ever had in memory. ru_maxrss (KiB, on macOS bytes) would count the parent's on Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median_s": statistics.median(seconds), "low_s": min(seconds), "high_s": max(seconds)}


def alternating(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contestant on the CPU in every round, in turns, after two rounds of warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, act in contestants.items():
            began = time.perf_counter()
            act()
            if turn >= 2:
                taken[name].append(time.perf_counter() - began)
    return taken


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything but memory, in this process."""
    import torch

    import zoo
    from zoo import device as devices
    from zoo import images
    from zoo.bench.workers.machine import convolution, convolutions

    content, style = (images.read(s, size=f"exact:{args.size}x{args.size}").pixels for s in (args.content, args.style))
    report: dict[str, Any] = {"ceiling_gflops": {}, "time": {}, "precision": {}}
    models = {(m, p): zoo.load(m, device="cpu", precision=p, **OPTIONS[m]) for m in METHODS for p in PRECISIONS}
    codes = {key: model.encode_style(style) for key, model in models.items()}
    with torch.no_grad():
        for precision in PRECISIONS:
            dtype = devices.dtype_of(precision)
            report["ceiling_gflops"][precision] = convolution(dtype, torch.device("cpu"))[0] / 1e9
            adain, wct = models["adain", precision], models["wct", precision]
            spent: list[float] = []
            transform = wct._transform_  # type: ignore[attr-defined]

            def timed(*a: Any, transform: Any = transform, spent: list[float] = spent) -> Any:
                began = time.perf_counter()
                result = transform(*a)
                spent.append(time.perf_counter() - began)
                return result

            wct._transform_ = timed  # type: ignore[attr-defined]
            encoder, decoder = (convolutions(args.size, layers, dtype) for layers in (ENCODER, DECODER))
            taken = alternating(
                {
                    "bare": lambda e=encoder, d=decoder: (e(), e(), d()),
                    "adain": lambda m=adain: m.stylize(content, m.encode_style(style)),
                    "wct": lambda m=wct, p=precision: m.stylize(content, codes["wct", p]),
                },
                args.rounds,
            )
            del wct._transform_  # type: ignore[attr-defined]
            levels = len(wct.config.levels)  # type: ignore[attr-defined]
            transforms = [sum(spent[i : i + levels]) for i in range(0, len(spent), levels)][-args.rounds :]
            ratios = [a / b for a, b in zip(taken["adain"], taken["bare"], strict=True)]
            shares = [t / w for t, w in zip(transforms, taken["wct"], strict=True)]
            report["time"][precision] = {
                **{name: summary(seconds) for name, seconds in taken.items()},
                "adain_over_bare": statistics.median(ratios),
                "adain_over_bare_range": [min(ratios), max(ratios)],
                "wct_transform_share": statistics.median(shares),
                "wct_transform_share_range": [min(shares), max(shares)],
            }
        for method in METHODS:
            taken = alternating(
                {p: lambda m=method, p=p: models[m, p].stylize(content, codes[m, p]) for p in PRECISIONS},
                args.rounds,
            )
            speedup = statistics.median(a / b for a, b in zip(taken["fp32"], taken["bf16"], strict=True))
            report["precision"][f"{method} bf16"] = {"speedup": speedup, **deviation(args, method, "bf16")}
            report["precision"][f"{method} fp16"] = deviation(args, method, "fp16")
    return report


def deviation(args: argparse.Namespace, method: str, precision: str) -> dict[str, float]:
    """How far the picture is from float32's, at 384 x 384."""
    import zoo
    from zoo import images

    content, style = (images.read(s, size="exact:384x384").pixels for s in (args.content, args.style))
    exact, rough = (
        zoo.load(method, device="cpu", precision=p, **OPTIONS[method])(content, style) for p in ("fp32", precision)
    )
    difference = (rough - exact).abs()
    return {
        "psnr_db": -10 * math.log10(max(float(difference.square().mean()), 1e-12)),
        "mean_levels": 255 * float(difference.mean()),
        "largest_levels": 255 * float(difference.max()),
    }


def memory(method: str, size: int, precision: str) -> dict[str, int]:
    """Peak of a process of its own."""
    worker = f"--worker={method},{size},{precision}"
    answer = subprocess.run([sys.executable, __file__, worker], check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)


def memory_worker(method: str, size: int, precision: str) -> None:
    """Stylise once and print the peak; nothing else happens in this process."""
    import zoo
    from zoo import images

    idle = peak_resident()
    pictures = [images.read(f"builtin:{n}", size=f"exact:{size}x{size}").pixels for n in ("astronaut", "swirls")]
    model = zoo.load(method, device="cpu", precision=precision, **OPTIONS[method])
    model(*pictures)
    print(json.dumps({"peak_bytes": peak_resident(), "imports_bytes": idle}))


def table(report: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{report['size']} x {report['size']} pixels, {report['machine']}, {report['threads']} threads, "
        f"torch {report['torch']}, median of {report['rounds']} rounds, {report['date']}",
        "",
        "| precision | ceiling (GFLOP/s) | three bare stacks (s) | AdaIN with style (s) | ratio (range) | "
        "WCT, five levels (s) | its transforms (range) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for precision, row in report["time"].items():
        low, high = row["adain_over_bare_range"]
        least, most = row["wct_transform_share_range"]
        lines.append(
            f"| {precision} | {report['ceiling_gflops'][precision]:.0f} | {row['bare']['median_s']:.3f} | "
            f"{row['adain']['median_s']:.3f} | {row['adain_over_bare']:.2f} ({low:.2f} to {high:.2f}) | "
            f"{row['wct']['median_s']:.3f} | {row['wct_transform_share']:.1%} ({least:.1%} to {most:.1%}) |"
        )
    lines += [
        "",
        "| method, precision | times as fast as fp32 | PSNR against fp32 (dB) | mean, largest difference (of 255) |",
    ]
    lines += ["|---|---:|---:|---:|"]
    for name, row in report["precision"].items():
        speedup = f"{row['speedup']:.2f}" if "speedup" in row else "–"
        lines.append(
            f"| {name} | {speedup} | {row['psnr_db']:.1f} | {row['mean_levels']:.2f}, {row['largest_levels']:.0f} |"
        )
    lines += ["", "| peak memory of the process (GB) | 512 | 1024 |", "|---|---:|---:|"]
    for key in dict.fromkeys(k.rsplit(" ", 1)[0] for k in report["memory"]):
        cells = [f"{report['memory'][f'{key} {size}']['peak_bytes'] / 1e9:.2f}" for size in (512, 1024)]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--content", default="builtin:astronaut")
    parser.add_argument("--style", default="builtin:swirls")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="folder for cost.json and cost.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        method, size, precision = args.worker.split(",")
        memory_worker(method, int(size), precision)
        return 0

    import torch

    from zoo.device import processor

    report = {
        "size": args.size,
        "rounds": args.rounds,
        "threads": torch.get_num_threads(),
        "machine": processor(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "load_average": os.getloadavg()[0],
        **measure(args),
        "memory": {
            f"{method} {precision} {size}": memory(method, size, precision)
            for method in METHODS
            for precision in PRECISIONS
            for size in (512, 1024)
        },
    }
    text = table(report)
    print(text)
    if args.out:
        from zoo import files

        args.out.mkdir(parents=True, exist_ok=True)
        files.write(args.out / "cost.json", json.dumps(report, indent=1))
        files.write(args.out / "cost.md", text)
    measured = {
        "adain_over_bare": max(row["adain_over_bare"] for row in report["time"].values()),
        "wct_transform_share": max(row["wct_transform_share"] for row in report["time"].values()),
        "wct_1024_bytes": max(
            v["peak_bytes"] for k, v in report["memory"].items() if k.startswith("wct") and "1024" in k
        ),
    }
    missed = [f"{name} {value:.4g}, bar {BARS[name]:g}" for name, value in measured.items() if value > BARS[name]]
    for name, row in report["precision"].items():
        if name.endswith("bf16") and row["speedup"] < BARS["bf16_speedup"]:
            missed.append(f"{name} {row['speedup']:.2f} times as fast, bar {BARS['bf16_speedup']:g}")
    for line in missed:
        print(f"missed: {line}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
