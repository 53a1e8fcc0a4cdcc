"""What an evaluation of each method that fits pixels costs, beside a bare pass of its network over the same layers.

    python benchmarks/optimizer_cost.py --out results/networks

An evaluation is the loss and its gradient in the pixels at full size, as the method's own steps take them. A bare pass
goes forward to the deepest layer that the method looks at, and back from it, in the same precision. Where something is
done at every few evaluations (``refresh``) as many are timed at once, and told of one. Both are processes of their own
that act in turns. Bar: 1.3 passes, 2 of methods that search for nearest neighbors. Memory is the peak
resident set of the evaluations above the level after imports; bar: 3 GB.

Writes optimizers.json and optimizers.md; exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turns import Contestant, conditions, ratios, serve, summary, take_turns, write

from zoo.registry import load_registry

METHODS = ("gatys", "lapstyle", "risser", "cnnmrf", "nnst", "strotss")
SEARCH = ("cnnmrf", "nnst", "strotss")
PASSES, SEARCHING, BYTES = 1.3, 2.0, 3e9


def refreshed(method: str) -> int:
    """Evaluations after which all was done that a method does."""
    return next((option.default for option in load_registry().options(method) if option.name == "refresh"), 1)


def prepared(method: str, size: int, bare: bool) -> Callable[[], Any]:
    """An evaluation of a method's loss at its full size, or a bare pass over its layers."""
    import torch

    import zoo
    from zoo.stylizer import Call, Mix

    content, style = (
        zoo.read(f"builtin:{name}", size=f"exact:{size}x{size}").pixels for name in ("astronaut", "swirls")
    )
    model: Any = zoo.load(method, device="cpu")
    mix = Mix([(model.encode_style(style, (size, size)), 1.0)])
    with torch.no_grad():
        problem = model._problem(content, mix, (size, size), Call())
        last = len(problem.sizes) - 1
        terms = model._summed(problem.loss(last, problem.start(problem.sizes[last])), None, problem.finish)
    image = content.clone().requires_grad_()

    cycle = refreshed(method)

    def evaluate() -> None:
        for _ in range(cycle):
            with torch.enable_grad():
                terms(image)["total"].backward()

    if not bare:
        return evaluate
    evaluate()  # after it the networks of all its layers are known
    layers = list(dict.fromkeys(layer for taps in model._encoders for layer in taps))

    def through() -> None:
        for _ in range(cycle):
            with torch.enable_grad():
                found = list(model._features(image, layers).values())
                deepest = min(reversed(found), key=lambda features: features.shape[-1])
                deepest.backward(torch.ones_like(deepest))

    return through


def main() -> int:
    """Return whether a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--worker", nargs=2, metavar=("METHOD", "WHAT"))
    args = parser.parse_args()
    if args.worker:
        method, what = args.worker
        importlib.import_module("zoo.methods._pixels")  # before the memory is read
        serve(lambda: prepared(method, args.size, what == "bare"))
        return 0
    found: dict[str, Any] = {}
    for method in args.methods:
        sides = []
        for what in ("evaluation", "bare"):
            command = [__file__, "--out", str(args.out), "--size", str(args.size), "--worker", method, what]
            sides.append(Contestant(f"{method} {what}", command, args.threads))
        take_turns(sides, args.rounds, warmup=1)
        (one, bare), cycle = sides, refreshed(method)
        found[method] = {
            "seconds": summary([seconds / cycle for seconds in one.seconds]),
            "bare_seconds": summary([seconds / cycle for seconds in bare.seconds]),
            "passes": ratios(one.seconds, bare.seconds),
            "bar": SEARCHING if method in SEARCH else PASSES,
            "bytes": one.memory,
        }
    report = {"size": args.size, **conditions(args.threads), "rounds": args.rounds, "methods": found}
    write(args.out, "optimizers", report, text_of(report))
    print(text_of(report))
    return int(any(one["passes"]["median"] > one["bar"] or one["bytes"] > BYTES for one in found.values()))


def text_of(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    size = report["size"]
    lines = [
        f"{size} x {size} pixels, {report['machine']}, {report['threads']} threads, torch {report['torch']}, median "
        f"(range) of {report['rounds']} rounds in turns, {report['date']}",
        "",
        "| method | evaluation (s) | bare pass (s) | passes | bar | peak above idle (MiB) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in report["methods"].items():
        passes = "{median:.2f} ({low:.2f} to {high:.2f})".format(**one["passes"])
        lines.append(
            f"| {name} | {one['seconds']['median']:.3f} | {one['bare_seconds']['median']:.3f} | {passes} | "
            f"{one['bar']:g} | {one['bytes'] / 2**20:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
