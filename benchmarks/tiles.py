"""What tiles cost and change, measured: ``python benchmarks/tiles.py memory|seams|thumbnail METHOD ... [--size N]``.

``memory``: the peak of a ``zoo stylize`` that reads, makes and writes one picture by tiles. ``seams``: by tiles against
the whole picture. ``thumbnail``: networks with instance normalisation whose statistics come from a picture of
``--side`` pixels, against the exact ones. Rows go to results/tiles/measured.jsonl, and the tables of
docs/large-pictures.md are written beside it, of the newest row of each kind, method, size and format; that of time is
of the same rows as that of memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import zoo
from zoo.device import processor
from zoo.front import as_picture
from zoo.nn import tiles
from zoo.nn.tiles import mean_and_variance

RESULTS = Path(__file__).resolve().parent.parent / "results" / "tiles"
STYLES = {"johnson": "swirls", "cin": "swirls", "texture-nets": "marbling"}


def photograph(side: int) -> Tensor:
    """Return a photograph of 512 x 512 pixels repeated in mirrors, (1, 3, side, side), as sharp as it is."""
    one = zoo.read("builtin:astronaut", size="exact:512x512").pixels
    row = torch.cat([one, one.flip(-1)], -1)
    both = torch.cat([row, row.flip(-2)], -2)
    repeats = -(-side // 1024)
    return both.repeat(1, 1, repeats, repeats)[..., :side, :side].contiguous()


def code_of(model: Any, method: str) -> Any:
    style = STYLES.get(method)
    return model.encode_style(style or zoo.read("builtin:swirls", size="long:512").pixels)


def peak(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one ``zoo stylize``. This process stays small: the peak of a child is at least its parent's."""
    row = {"kind": "memory", "method": method, "size": options.size, "tile": options.tile}
    row |= {"processor": processor(), "threads": options.threads}
    repeats = -(-options.size // 1024)
    with tempfile.TemporaryDirectory() as folder:
        content, out = Path(folder, "content.png"), Path(folder, "out.png")
        one = np.asarray(as_picture(photograph(1024)))
        Image.fromarray(np.tile(one, (repeats, repeats, 1))[: options.size, : options.size]).save(content)
        flags = {"method": method, "content": content, "content-size": 0, "style": STYLES.get(method, "builtin:swirls")}
        flags |= {"tile": options.tile, "precision": options.precision, "device": "cpu", "output": out}
        flags |= {"num-steps": options.steps} if method == "gatys" else {}
        command = [sys.executable, "-m", "zoo", "stylize", "--json", *(f"--{k}={v}" for k, v in flags.items())]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
            assert child.stdout is not None
            told = json.loads(child.stdout.read())[0]
            _, child.returncode, used = os.wait4(child.pid, 0)
    row |= {key: told[key] for key in ("precision", "seconds", "steps")}
    return {**row, "peak_gb": used.ru_maxrss * 1024 / 1e9}


def measure(kind: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return one row."""
    if kind == "memory":
        return peak(method, options)
    extra = {"num_steps": options.steps} if method == "gatys" else {}
    model = zoo.load(method, precision=options.precision, device="cpu", **extra)
    code, content = code_of(model, method), photograph(options.size)
    row = {"kind": kind, "method": method, "size": options.size, "tile": options.tile, "precision": model.precision}
    by_tiles = model.stylize(content, code, tile=options.tile).image
    if kind == "seams":
        other = model.stylize(content, code).image
    else:
        row["side"] = options.side
        with mock.patch.object(tiles, "mean_and_variance", _of_thumbnail(model, code, content, options)):
            other = model.stylize(content, code, tile=options.tile).image
    apart = (by_tiles - other).abs() * 255
    return {**row, "largest": float(apart.max()), "mean": float(apart.mean())}


def _of_thumbnail(model: Any, code: Any, content: Tensor, options: argparse.Namespace) -> Any:
    """The moments of every layer over a small picture, handed out in the order in which the layers ask."""
    small = zoo.images.resize(content, f"long:{options.side}").clamp(0, 1)
    found: list[tuple[Tensor, Tensor]] = []

    def record(source: tiles.Map, side: int) -> tuple[Tensor, Tensor]:
        found.append(mean_and_variance(source, side))
        return found[-1]

    with mock.patch.object(tiles, "mean_and_variance", record):
        model.stylize(small, code, tile=options.side // 2)
    ready = iter(found)
    return lambda source, side: next(ready)


def write(rows: list[dict[str, Any]]) -> None:
    """Write the tables, of the newest row of each kind, method and size."""
    newest = {(row["kind"], row["method"], row["size"], row["precision"]): row for row in rows}
    forms = {
        "memory": ("| method | pixels | tiles | format | peak of the process, GB |", "{peak_gb:.1f}"),
        "seams": (
            "| method | pixels | tiles | format | largest difference, levels of 255 | mean |",
            "{largest:.3f} | {mean:.4f}",
        ),
        "thumbnail": (
            "| method | pixels | thumbnail | format | largest difference, levels of 255 | mean |",
            "{largest:.0f} | {mean:.1f}",
        ),
    }
    for kind, (head, form) in forms.items():
        lines = [head, "|" + "---|" * (head.count("|") - 1)]
        for row in sorted((r for r in newest.values() if r["kind"] == kind), key=lambda r: (r["size"], r["method"])):
            side = row["side"] if kind == "thumbnail" else row["tile"]
            lines.append(f"| {row['method']} | {row['size']} | {side} | {row['precision']} | {form.format(**row)} |")
        if len(lines) > 2:
            (RESULTS / f"{kind}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / "time.md").write_text("\n".join(_times(newest.values())) + "\n", encoding="utf-8")


def _times(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The lines of a table: seconds of the largest picture and of smaller ones made alike, and how they grow."""
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "memory" and "processor" in row:
            alike.setdefault(tuple(row[key] for key in ("method", "precision", "processor", "threads")), []).append(row)
    lines = ["| method | format | processor | pixels | seconds | pixels | seconds | exponent |", "|" + "---|" * 8]
    for (method, precision, name, _), group in sorted(alike.items()):
        *smaller, large = sorted(group, key=lambda row: row["size"])
        for small in smaller:
            grown = math.log(large["seconds"] / small["seconds"]) / (2 * math.log(large["size"] / small["size"]))
            ends = " | ".join(f"{row['size']} | {row['seconds']:.3g}" for row in (small, large))
            lines.append(f"| {method} | {precision} | {name} | {ends} | {grown:.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("memory", "seams", "thumbnail"))
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--side", type=int, default=512, help="of the thumbnail")
    parser.add_argument("--steps", type=int, default=3, help="of Gatys")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / "measured.jsonl"
    if len(options.methods) == 1:
        row = measure(options.kind, options.methods[0], options)
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        print(json.dumps(row))
    else:
        flags = [part for name, value in vars(options).items() for part in (f"--{name}", str(value))][4:]
        for method in options.methods:
            subprocess.run([sys.executable, __file__, options.kind, method, *flags], check=True)
    write([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])


if __name__ == "__main__":
    main()
