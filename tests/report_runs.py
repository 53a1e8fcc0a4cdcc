"""Small finished runs, written as the harness writes them, for the tests of figures and pages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.bench.folder import Folder
from zoo.bench.plan import Cell
from zoo.bench.rows import Row
from zoo.download import file_sha256

METHODS = ("gatys.zoo[num_steps=50]", "adain.zoo", "wct.zoo")
CONTENTS = ("harbour", "portrait")
STYLES = ("waves", "tiles")
PAIRS = tuple((content, style) for content in CONTENTS for style in STYLES)
Names = tuple[str, ...]
METRICS = {"ssim": (0.2, 0.1), "cf": (0.4, 0.05), "gram_loss": (9e10, -9e9), "lp": (0.5, 0.03)}
ENVIRONMENT = {
    "machine": "Box, 2 cores",
    "processor": "Box",
    "physical_cores": 2,
    "logical_cores": 2,
    "usable_cores": 2,
    "memory_mib": 8000,
    "system": "Linux",
    "python": "3.11.7",
    "libraries": {"zoo": "0.1.0", "torch": "2.15.0"},
    "source": "abc",
    "commit": "0" * 40,
    "dirty": False,
}


def run_file(
    sizes: Iterable[int], strengths: Iterable[float], contents: Names = CONTENTS, styles: Names = STYLES
) -> dict[str, Any]:
    """run.json of a finished run; every content meets every style."""
    resolved = {
        "schema": 1,
        "name": "small",
        "contents": [{"name": name, "sha256": "0" * 64} for name in contents],
        "styles": [{"name": name, "sha256": "0" * 64} for name in styles],
        "pairs": [[content, style] for content in contents for style in styles],
        "sizes": list(sizes),
        "resize": "long",
        "style_size": None,
        "seeds": [0],
        "strengths": list(strengths),
        "timing": {"warmup": 1, "repeats": 10, "budget": 5.0},
        "optimisation": {"options": {"num_steps": 50}, "timing": None},
        "methods": {},
        "metrics": [{"name": name, "settings": {}, "version": 1} for name in METRICS],
        "baselines": ["content-copy", "style-copy"],
        "limits": {"seconds": 600.0, "memory": 0.8},
    }
    return {
        "protocol": {"id": "small@0123456789ab", "description": "For <tests> & nothing else.", "resolved": resolved},
        "conditions": {
            "version": "0.1.0",
            "device": "cpu",
            "precision": "auto",
            "threads": 2,
            "machine": "Box, 2 cores",
        },
        "runs": [
            {
                "run_id": "r",
                "started": "2026-01-02T03:04:05Z",
                "ended": "2026-01-02T03:14:05Z",
                "methods": list(METHODS),
                "load_before": 0.1,
                "load_after": 1.2,
                "environment": ENVIRONMENT,
            }
        ],
    }


def write_run(
    path: Path,
    *,
    sizes: tuple[int, ...] = (64,),
    strengths: tuple[float, ...] = (1.0,),
    pictures: bool = True,
    lost: tuple[str, int] | None = None,
    contents: Names = CONTENTS,
    styles: Names = STYLES,
) -> Path:
    """A results folder; ``lost`` is a method and the size at which it ran out of memory."""
    folder = Folder(path)
    (folder.outputs / "inputs").mkdir(parents=True)
    data = run_file(sizes, strengths, contents, styles)
    pairs = [(content, style) for content in contents for style in styles]
    folder.write_run(data)
    rows: list[Row] = []
    for number, method in enumerate((*METHODS, "content-copy", "style-copy")):
        baseline = number >= len(METHODS)
        for size in sizes:
            for strength in (1.0,) if baseline else strengths:
                for pair, (content, style) in enumerate(pairs):
                    cell = Cell(method, content, style, size, 0, strength)
                    made = pictures and not (lost and method == lost[0] and size >= lost[1])
                    picture = _picture(folder.output(cell), size, number + 10 * pair) if made else None
                    values = {
                        metric: start + step * number * strength + 0.001 * start * (pair % 7)
                        for metric, (start, step) in METRICS.items()
                    }
                    seconds = 1e-6 * (number + 1) * size**2 * (1 + 0.01 * (pair % 7))
                    timed = {"memory.resident": 0.002 * (3 - number) * size**2, "seconds.stylize": seconds}
                    if lost and method == lost[0] and size >= lost[1]:
                        reason = "out of memory: 7000 MiB resident, the limit is 6400 MiB"
                        rows.append(_row(cell, "seconds.stylize", None, reason=reason))
                        continue
                    for name, value in ({} if baseline else timed).items():
                        rows.append(_row(cell, name, value, picture=picture if name == "seconds.stylize" else None))
                    rows += [_row(cell, name, v, picture=picture if baseline else None) for name, v in values.items()]
    if pictures:
        for size in sizes:
            for number, name in enumerate(contents):
                _picture(folder.input("content", name, size), size, 100 + number)
            for number, name in enumerate(styles):
                _picture(folder.input("style", name, size), size, 200 + number)
    folder.rows.write_text("".join(row.to_json() + "\n" for row in rows), encoding="utf-8")
    return path


def _row(cell: Cell, metric: str, value: float | None, reason: str = "", picture: str | None = None) -> Row:
    return Row(
        run_id="r",
        protocol="small@0123456789ab",
        method=cell.method,
        checkpoint=None,
        encoder=None,
        precision="fp32",
        content=cell.content,
        style=cell.style,
        size=cell.size,
        seed=cell.seed,
        strength=cell.strength,
        metric=metric,
        value=value,
        unit={"seconds.stylize": "s", "memory.resident": "MiB"}.get(metric, ""),
        status="ok" if value is not None else "failed",
        reason=reason,
        cause=None if value is not None else "memory",
        utc="2026-01-02T03:04:05Z",
        picture=picture,
    )


def _picture(path: Path, size: int, seed: int) -> str:
    """Noise on a gradient, three quarters as high as wide; the sha256 of its file."""
    size = min(size, 64)
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, size)[None, :, None] + np.zeros((size * 3 // 4, size, 3))
    noise = random.integers(0, 55, (1, 1, 3)) + random.integers(0, 10, ramp.shape)
    Image.fromarray((ramp + noise).clip(0, 255).astype(np.uint8)).save(path)
    return file_sha256(path)


def read_json(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
