"""What the style swap costs: its matching against the machine's matrix products, the rest of it, memory, precision.

    python benchmarks/style_swap_cost.py --checkpoint zoo/checkpoints/style_swap.safetensors \\
        --out results/feedforward/style_swap.json

Ceiling: a 2048 x 2048 x 2048 product in the same number format, in the same process, taking turns with the rest. By
processor time of the process, and by the wall clock: on a machine that does other things only the first is a figure of
the program.

Matching: products of pixels and sums over the window do a ninth of the multiplications of the plain formulation, a
product of all unfolded patches. Its rate is given for both: ``share_done`` counts the multiplications that are needed
for the pixels, P Q C, and ``share_plain`` those of the plain formulation, P Q 9 C, as a product library would need.

Rest: rebuilding the map from the matches, and the bank of the content's patches, over the matching. Bar: 0.2.

Method: ``stylize`` with a style encoded before, with an untrained inverse network unless --checkpoint names one, in
each format. Bar: bf16 at least twice as fast as fp32.

Agreement: how many patches are matched alike in another format, the relative difference of the swapped features, and
the difference of the images in dB (only with --checkpoint), against float32, at --agreement-size. In float16 too, which
is for GPUs: a CPU emulates it, so it is compared and not timed. --agreement-only measures this alone and keeps the
other figures of --out.

Memory: peak resident set of a process that encodes a style and stylises one image. Bars: 1.5 GB at 512, 4 GB at 1024.
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

SIDE = 2048
MEMORY_BARS = {512: 1.5e9, 1024: 4e9}


def peak_resident() -> int:
    """Most bytes this process ever had in memory. ru_maxrss (KiB, on macOS bytes) would count the parent's on Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def square(source: str, size: int) -> Any:
    """An image scaled and cut to ``size`` x ``size``."""
    from zoo.images import read, resize

    return resize(read(source).pixels, f"{size}x{size}")


def alternating(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median processor and wall seconds of every contestant over ``rounds`` turns, after one of warm-up."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, act in contestants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            act()
            if turn:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {"wall_s": statistics.median(w for w, _ in t), "cpu_s": statistics.median(c for _, c in t)}
        for name, t in taken.items()
    }


def build(args: argparse.Namespace, precision: str, folder: Path) -> Any:
    """The method with the given checkpoint, or with random weights, which cost the same."""
    import torch
    from safetensors.torch import save_file

    from zoo.methods.style_swap import StyleSwap
    from zoo.nn.decoder import VGGDecoder

    checkpoint = args.checkpoint
    if checkpoint is None:
        torch.manual_seed(0)
        checkpoint = folder / "random.safetensors"
        save_file(VGGDecoder(3).state_dict(), checkpoint)
    return StyleSwap(device=args.device, precision=precision, checkpoint=checkpoint)


def cost(args: argparse.Namespace, precision: str, folder: Path) -> dict[str, Any]:
    """Matching, rest and the whole method, beside the ceiling."""
    import torch

    from zoo.device import synchronize
    from zoo.nn.patches import PatchBank, match, rebuild

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model = build(args, precision, folder)
    content, style = square(args.content, args.size), square(args.style, args.size)
    code = model.encode_style(style)
    with torch.no_grad():
        features = model._features(content.to(model.device))
    bank, query = model._bank(code), PatchBank.of([features], 3, 1)
    matches = match(query, bank)
    left = torch.rand(SIDE, SIDE, device=model.device).to(dtype)

    def waiting(act: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            act()
            synchronize(model.device)

        return run

    times = alternating(
        {
            "product": waiting(lambda: left @ left),
            "matching": waiting(lambda: match(query, bank)),
            "rest": waiting(lambda: rebuild(PatchBank.of([features], 3, 1), bank, matches.index)),
            "stylize": waiting(lambda: model.stylize(content, code)),
            "encode_style": waiting(lambda: model.encode_style(style)),
        },
        args.rounds,
    )
    pixels = 2.0 * features.shape[1] * len(query.pixels) * len(bank.pixels)
    plain = 2.0 * features.shape[1] * 9 * len(query) * len(bank)
    result: dict[str, Any] = {"times": times}
    for clock in ("cpu_s", "wall_s"):
        ceiling = 2.0 * SIDE**3 / times["product"][clock]
        result[clock] = {
            "ceiling_gflops": ceiling / 1e9,
            "share_done": pixels / times["matching"][clock] / ceiling,
            "share_plain": plain / times["matching"][clock] / ceiling,
            "rest_over_matching": times["rest"][clock] / times["matching"][clock],
        }
    return result


def agreement(args: argparse.Namespace, precision: str, folder: Path) -> dict[str, float]:
    """Matches, features and images of a format against float32; ``pairs`` of contents and styles as given."""
    import torch

    from zoo.nn.patches import PatchBank, match

    exact, rough = build(args, "fp32", folder), build(args, precision, folder)
    content, style = square(args.content, args.agreement_size), square(args.style, args.agreement_size)
    found = []
    with torch.no_grad():
        for model in (exact, rough):
            code = model.encode_style(style)
            features = model._features(content.to(model.device))
            index = match(PatchBank.of([features], 3, 1), model._bank(code)).index
            found.append((index, model._swapped(features, code).float(), model.stylize(content, code).image))
    (index, swapped, image), (other_index, other_swapped, other_image) = found
    result = {
        "same_matches": (index == other_index).float().mean().item(),
        "feature_difference": ((swapped - other_swapped).norm() / swapped.norm()).item(),
    }
    if args.checkpoint is not None:
        error = (image - other_image).square().mean().item()
        result["psnr_db"] = -10 * torch.tensor(max(error, 1e-12)).log10().item()
    return result


def memory(args: argparse.Namespace, precision: str, size: int) -> dict[str, Any]:
    """Peak of a process of its own."""
    command = [sys.executable, __file__, "--memory-worker", precision, "--size", str(size)]
    command += ["--content", args.content, "--style", args.style, "--device", args.device]
    command += ["--threads", str(args.threads)]
    if args.checkpoint is not None:
        command += ["--checkpoint", str(args.checkpoint)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)


def memory_worker(args: argparse.Namespace, folder: Path) -> None:
    """Stylise once and print the peak; nothing else happens in this process."""
    model = build(args, args.memory_worker, folder)
    idle = peak_resident()
    code = model.encode_style(square(args.style, args.size))
    model.stylize(square(args.content, args.size), code)
    print(json.dumps({"peak_bytes": peak_resident(), "built_bytes": idle, "style_bytes": code.nbytes}))


def table(report: dict[str, Any]) -> str:
    """The figures as Markdown, by the wall clock."""
    lines = [
        f"{report['size']} x {report['size']} pixels, {report['threads']} threads, torch {report['torch']}, "
        f"load {report['load_average']:.1f} when it ended",
        "",
        "| precision | ceiling of products (GFLOP/s) | matching (s) | its rate over the ceiling, by work done | by the "
        "plain formulation's work | rest of the swap over matching | whole method (s) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for precision, found in report["cost"].items():
        row, times = found["wall_s"], found["times"]
        lines.append(
            f"| {precision} | {row['ceiling_gflops']:.0f} | {times['matching']['wall_s']:.2f} | "
            f"{row['share_done']:.2f} | {row['share_plain']:.2f} | {row['rest_over_matching']:.2f} | "
            f"{times['stylize']['wall_s']:.2f} |"
        )
    if report["agreement"]:
        side = report["agreement_size"]
        lines += [
            "",
            f"| against fp32, at {side} x {side} | same matches | difference of features | PSNR of images (dB) |",
        ]
        lines += ["|---|---:|---:|---:|"]
    for precision, row in report["agreement"].items():
        decibel = f"{row['psnr_db']:.1f}" if "psnr_db" in row else "–"
        lines.append(f"| {precision} | {row['same_matches']:.1%} | {row['feature_difference']:.1%} | {decibel} |")
    lines += ["", "| precision, size | peak memory of the process (GB) |", "|---|---:|"]
    lines += [f"| {label} | {row['peak_bytes'] / 1e9:.2f} |" for label, row in report["memory"].items()]
    return "\n".join(lines) + "\n"


def compared(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The entries of a report that the agreement fills."""
    rows = {p: agreement(args, p, folder) for p in args.agreement_precisions if p != "fp32"}
    for precision, row in rows.items():
        print(f"{precision} against fp32: " + ", ".join(f"{k} {v:.4f}" for k, v in row.items()))
    return {"agreement_size": args.agreement_size, "agreement": rows}


def save(report: dict[str, Any], path: Path) -> None:
    """The report as JSON, its table as Markdown beside it."""
    from zoo import files

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(report, indent=1))
    files.write(path.with_suffix(".md"), table(report))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of both images, in pixels")
    parser.add_argument("--agreement-size", type=int, default=256, help="side of the images whose matches are compared")
    parser.add_argument("--agreement-precisions", nargs="+", default=["bf16", "fp16"])
    parser.add_argument(
        "--agreement-only", action="store_true", help="measure the agreement anew, and keep the rest of --out's report"
    )
    parser.add_argument("--memory-sizes", type=int, nargs="*", default=[512, 1024])
    parser.add_argument("--content", default="builtin:astronaut")
    parser.add_argument("--style", default="builtin:swirls")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=3, help="timed turns of each contestant")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], help="those that are timed")
    parser.add_argument("--out", type=Path, help="JSON file to write, with a Markdown table beside it")
    parser.add_argument("--memory-worker", metavar="PRECISION", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.agreement_only and not (args.out and args.out.is_file()):
        parser.error("--agreement-only goes with --out and the JSON file of an earlier run")

    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.memory_worker:
            memory_worker(args, folder)
            return 0
        if args.agreement_only:
            save(json.loads(args.out.read_text(encoding="utf-8")) | compared(args, folder), args.out)
            return 0
        report: dict[str, Any] = {
            "size": args.size,
            "threads": torch.get_num_threads(),
            "device": args.device,
            "machine": platform.platform(),
            "torch": torch.__version__,
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "checkpoint": "random weights" if args.checkpoint is None else args.checkpoint.name,
            "cost": {p: cost(args, p, folder) for p in args.precisions},
            **compared(args, folder),
            "memory": {f"{p} {s}": memory(args, p, s) for p in args.precisions for s in args.memory_sizes},
        }
    missed = False
    for precision, found in report["cost"].items():
        row = found["cpu_s"]
        print(
            f"{precision} matching: {row['share_done']:.2f} of the ceiling by work done, {row['share_plain']:.2f} by "
            f"the plain formulation's, bar 0.6; rest {row['rest_over_matching']:.2f} of it, bar 0.2"
        )
        missed |= row["share_plain"] < 0.6 or row["rest_over_matching"] > 0.2
    if {"fp32", "bf16"} <= set(args.precisions):
        slow, fast = (report["cost"][p]["times"]["stylize"]["cpu_s"] for p in ("fp32", "bf16"))
        print(f"bf16 is {slow / fast:.2f} times as fast as fp32, bar 2")
        missed |= slow < 2 * fast
    for label, row in report["memory"].items():
        bar = MEMORY_BARS.get(int(label.split()[1]))
        print(f"{label}: peak {row['peak_bytes'] / 1e9:.2f} GB" + (f", bar {bar / 1e9:g} GB" if bar else ""))
        missed |= bar is not None and row["peak_bytes"] >= bar
    if args.out:
        save(report, args.out)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
