"""How far each per-style network brings the objective of its own training, against Gatys-style optimisation of it.

    python benchmarks/objective.py --content PHOTOGRAPHS --out results/networks

For every trained style and a few photographs that no training saw: the objective (content + style + total variation,
with the weights that the checkpoint says it was trained with) of the network's picture; of the best picture that 50
steps of L-BFGS on that very objective find from the photograph (a step is one evaluation of loss and gradient, pixels
kept in [0, 1], as the preset gatys.zoo runs); and of the unchanged photograph. Bars: the network's mean over the
photographs is at or below the optimisation's, and the unchanged photograph scores at least three times as much as the
optimisation's result. The optimisation goes on, up to --steps, until it matches the network, and the number of steps
is told.

Networks: the registered checkpoints of johnson, cin and texture-nets, or --network METHOD=FILE, any number of times.
Images of styles that are not built in are looked for in --styles by name. Every result is kept as soon as it is there
in objective.json, and the same command goes on from it. Writes objective.md; exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turns import conditions, write

if TYPE_CHECKING:
    from torch import Tensor

METHODS = ("johnson", "cin", "texture-nets")
STEPS = 50
UNCHANGED = 3.0


@dataclass(frozen=True)
class Trained:
    """One style of a network: the objective it was trained on, and how it stylises."""

    method: str
    style: str
    sha256: str
    criterion: Any
    targets: dict[str, Tensor]
    factor: float
    stylizer: Any

    def score(self, image: Tensor, content: Tensor) -> dict[str, Tensor]:
        """``total`` and its terms of ``image`` (1, 3, H, W)."""
        terms = {name: value.mean() for name, value in self.criterion.each(image, content, self.targets).items()}
        terms["style"] = self.factor * terms["style"]
        return {"total": sum(terms.values()), **terms}


def find_image(name: str, folder: Path | None) -> str | None:
    """The image of a style by its name: built in, or a file in ``folder``."""
    from zoo import images
    from zoo.styles import slug

    if name in images.builtin_styles():
        return f"builtin:{name}"
    paths = images.list_images([folder]) if folder else []
    return next((str(path) for path in paths if slug(path.stem) == name), None)


def objectives(method: str, path: Path, folder: Path | None) -> Iterator[Trained]:
    """Every style of a checkpoint for which there is an image."""
    import torch

    from zoo.methods import cin, johnson, texture_nets
    from zoo.styles import find_styles, read_metadata

    kind, task_class = {
        "johnson": (johnson.Johnson, johnson.JohnsonTask),
        "cin": (cin.CIN, cin.CINTask),
        "texture-nets": (texture_nets.TextureNets, texture_nets.TextureNetsTask),
    }[method]
    stylizer = kind(checkpoint=path, device="cpu", precision="fp32", name=method)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    metadata = read_metadata(path)
    # A joined file keeps what each part says of itself; a single run's says it at the top.
    for prefix, part in metadata.get("parts", {"": metadata}).items():
        described = part.get("task")
        if not isinstance(described, dict):
            raise SystemExit(f"{path} does not say what it was trained on: it was not written by 'zoo train'.")
        if described.get("mode") == "texture":
            continue
        records = list(find_styles(part).values())
        factors = described.get("coefficients") or ()
        if len(factors) != len(records):
            factors = [1.0] * len(records)
        for record, factor in zip(records, factors, strict=True):
            source = find_image(record.name, folder)
            if source is None:
                print(f"{method}: no image of style {record.name!r}: give its folder as --styles", file=sys.stderr)
                continue
            known = set(task_class.Config.__dataclass_fields__) - {"add_style", "base", "records", "coefficients"}
            options = {key: value for key, value in described.items() if key in known and value is not None}
            options["styles" if method == "cin" else "style"] = [source] if method == "cin" else source
            task = task_class(task_class.Config.make(options))
            targets = task.targets(torch.tensor([0])) if method == "cin" else task.criterion.held()
            task.criterion.to(memory_format=torch.channels_last)
            yield Trained(
                method, prefix or record.name, sha256, task.criterion.eval(), targets, float(factor), stylizer
            )


def measure(trained: Trained, content: Tensor, most: int) -> dict[str, Any]:
    """The scores of one pair, and how many steps match the network."""
    import torch

    from zoo.methods.gatys import GatysConfig
    from zoo.nn.optimize import Fitting, optimize_pixels
    from zoo.stylizer import Call

    began = time.perf_counter()
    with torch.no_grad():
        picture = trained.stylizer.stylize(content, trained.stylizer.encode_style(trained.style)).image
        network = {name: float(value) for name, value in trained.score(picture, content).items()}
        unchanged = {name: float(value) for name, value in trained.score(content, content).items()}
    best = float("inf")

    def enough(step: int, total: int, losses: Any, image: Any, /) -> bool:
        nonlocal best
        best = min(best, losses["total"])
        return step >= STEPS and best <= network["total"]

    found = optimize_pixels(
        content,
        lambda image: trained.score(image, content),
        Fitting("lbfgs", clamp=True, history=GatysConfig().history),
        num_steps=max(most, STEPS),
        call=Call(progress=enough),
    )
    rows = [{name: float(value) for name, value in row.items()} for row in found.losses]
    matched = next((int(row["step"]) for row in rows if row["total"] <= network["total"]), None)
    optimized = min(rows[:STEPS], key=lambda row: row["total"])
    return {
        "network": network,
        "unchanged": unchanged,
        "optimised": {name: value for name, value in optimized.items() if name != "step"},
        "matched": matched,
        "steps": len(rows),
        "seconds": time.perf_counter() - began,
    }


# -- the report -------------------------------------------------------------------------------------------------------


def verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the photographs, per method and style."""
    found = []
    for method, style in dict.fromkeys((row["method"], row["style"]) for row in rows):
        own = [row for row in rows if (row["method"], row["style"]) == (method, style)]
        mean = {
            side: {name: statistics.mean(row[side][name] for row in own) for name in own[0][side]}
            for side in ("network", "optimised", "unchanged")
        }
        matched = [row["matched"] for row in own]
        found.append(
            {
                "method": method,
                "style": style,
                "photographs": len(own),
                **mean,
                "ratio": mean["network"]["total"] / mean["optimised"]["total"],
                "unchanged_ratio": mean["unchanged"]["total"] / mean["optimised"]["total"],
                "pairs": sum(row["network"]["total"] <= row["optimised"]["total"] for row in own),
                "matched": statistics.median(
                    row["steps"] if m is None else m for row, m in zip(own, matched, strict=True)
                ),
                "beyond": sum(m is None for m in matched),
            }
        )
    return found


def table(report: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"Objective of each network's own training over {report['photographs']} photographs that no training saw, "
        f"{report['size']}, float32. L-BFGS: the best of {STEPS} steps on the same objective from the photograph. "
        f"{report['machine']}, torch {report['torch']}, {report['date']}",
        "",
        "| network | style | network: total (content, style) | L-BFGS: total (content, style) | network over L-BFGS | "
        "pairs at or below | steps that match | unchanged over L-BFGS |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["styles"]:
        sides = [
            f"{row[s]['total']:.3g} ({row[s].get('content', 0):.3g}, {row[s]['style']:.3g})"
            for s in ("network", "optimised")
        ]
        most = "more than " * bool(row["beyond"] > row["photographs"] / 2)
        lines.append(
            f"| {row['method']} | {row['style']} | {sides[0]} | {sides[1]} | {row['ratio']:.2f} | "
            f"{row['pairs']} of {row['photographs']} | {most}{row['matched']:g} | {row['unchanged_ratio']:.1f} |"
        )
    lines += ["", "Means over photographs; steps: the median."]
    return "\n".join(lines) + "\n"


def missed(styles: Sequence[dict[str, Any]]) -> list[str]:
    """What is above its bar."""
    lines = []
    for row in styles:
        name = f"{row['method']} {row['style']}"
        if row["ratio"] > 1:
            lines.append(f"{name}: {row['ratio']:.2f} times the objective of {STEPS} steps, bar 1")
        if row["unchanged_ratio"] < UNCHANGED:
            lines.append(f"{name}: the photograph scores {row['unchanged_ratio']:.1f} times as much, bar {UNCHANGED:g}")
    return lines


def networks(given: Sequence[str]) -> list[tuple[str, Path]]:
    """Methods and files: those given, else those registered."""
    from zoo import weights
    from zoo.registry import load_registry

    pairs = [tuple(text.partition("=")[::2]) for text in given]
    if not pairs:
        registry = load_registry()
        pairs = [(method, "") for method in METHODS if method in registry.methods]
    found = []
    for method, path in pairs:
        if method not in METHODS:
            raise SystemExit(f"--network is METHOD or METHOD=FILE with one of {', '.join(METHODS)}, not {method!r}.")
        if path:
            found.append((method, Path(path)))
            continue
        resolved = load_registry().resolve(method)
        if resolved.checkpoint is None:
            raise SystemExit(f"{resolved.label} has no weights: give them as --network {method}=FILE.")
        found.append((method, weights.path(resolved.weights)))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--content", type=Path, required=True, help="folder of photographs that no training saw")
    parser.add_argument("--count", type=int, default=4, help="of them")
    parser.add_argument("--size", default="long:256")
    parser.add_argument("--network", action="append", default=[], help="METHOD or METHOD=FILE")
    parser.add_argument("--styles", type=Path, help="folder of the style images that are not built in")
    parser.add_argument("--only", help="styles, separated by commas")
    parser.add_argument("--steps", type=int, default=100, help="of L-BFGS at most, where 50 do not match the network")
    parser.add_argument("--out", type=Path, required=True, help="folder for objective.json and objective.md")
    args = parser.parse_args(argv)

    import torch

    from zoo import images

    only = args.only.split(",") if args.only else None
    photographs = {
        path.stem: images.read(path, size=args.size) for path in images.list_images([args.content])[: args.count]
    }
    kept = args.out / "objective.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text())["rows"] if kept.is_file() else []
    current: list[dict[str, Any]] = []
    report: dict[str, Any] = {"size": args.size, "photographs": len(photographs), **conditions(torch.get_num_threads())}
    for method, path in networks(args.network):
        for trained in objectives(method, path, args.styles):
            if only is not None and trained.style not in only:
                continue
            for name, photograph in photographs.items():
                content = photograph.pixels
                key = {
                    "method": method,
                    "style": trained.style,
                    "photograph": name,
                    "pixels": hashlib.sha256(content.numpy().tobytes()).hexdigest()[:16],
                    "most": max(args.steps, STEPS),
                    "checkpoint": trained.sha256,
                }
                row = next((r for r in rows if all(r.get(k) == v for k, v in key.items())), None)
                if row is None:
                    row = {**key, **measure(trained, content, args.steps)}
                    rows = [r for r in rows if any(r[k] != key[k] for k in ("method", "style", "photograph"))] + [row]
                current.append(row)
                report |= {"styles": verdicts(current), "rows": rows}
                write(args.out, "objective", report, table(report))
                print(
                    f"{method} {trained.style} {name}: network {row['network']['total']:.4g}, "
                    f"{STEPS} steps {row['optimised']['total']:.4g}, matched at {row['matched']} of {row['steps']}, "
                    f"unchanged {row['unchanged']['total']:.4g} ({row['seconds']:.0f} s)",
                    file=sys.stderr,
                    flush=True,
                )
    if not current:
        raise SystemExit("No trained style was measured: name a network with --network METHOD=FILE.")
    print(table(report))
    lines = missed(report["styles"])
    for line in lines:
        print(f"missed: {line}")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
