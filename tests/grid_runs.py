"""A finished run of three methods on a full grid of four contents and three styles, written as the harness does."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.bench.rows import Row

METHODS = ("gatys.zoo[num_steps=50]", "adain.zoo", "wct.zoo")
CONTENTS = ("astronaut", "coffee", "chelsea", "rocket")
STYLES = ("swirls", "mosaic", "woodblock")
SANITY = ("content-copy", "style-copy")
# Mean of the first method, and what every further row adds.
METRICS = {"ssim": (0.5, -0.05), "gram_loss": (4e9, -3e8), "lp": (0.4, 0.02)}
SECONDS = {"gatys.zoo[num_steps=50]": 7.0, "adain.zoo": 0.1, "wct.zoo": 0.4}
PROTOCOL = "grid@0123456789ab"


def run_file() -> dict[str, Any]:
    """run.json of the run."""
    resolved = {
        "contents": [{"name": name, "sha256": "0" * 64} for name in CONTENTS],
        "styles": [{"name": name, "sha256": "0" * 64} for name in STYLES],
        "pairs": [[content, style] for content in CONTENTS for style in STYLES],
        "seeds": [0],
        "strengths": [1.0],
        "sizes": [64],
        "resize": "long",
        "timing": {"warmup": 1},
        "baselines": list(SANITY),
    }
    conditions = {"version": "0.1.0", "device": "cpu", "precision": "auto", "threads": 2, "machine": "Box, 2 cores"}
    environment = {"usable_cores": 2, "source": "abc"}
    runs = [{"run_id": "r", "started": "2026-01-02T03:04:05Z", "load_before": 0.1, "environment": environment}]
    return {"protocol": {"id": PROTOCOL, "resolved": resolved}, "conditions": conditions, "runs": runs}


def rows() -> list[Row]:
    """Every content and every style has an effect of its own that all methods share."""
    draw = random.Random(1)
    effects = {name: draw.gauss(0, 0.02) for name in (*CONTENTS, *STYLES)}
    found = []
    for i, method in enumerate((*METHODS, *SANITY)):
        for content in CONTENTS:
            for style in STYLES:
                if method in METHODS:
                    timings = tuple(SECONDS[method] * draw.uniform(0.95, 1.05) for _ in range(7))
                    found.append(row(method, content, style, "seconds.stylize", statistics.median(timings), timings))
                    found.append(row(method, content, style, "memory.resident", 100.0 + i + draw.random()))
                for metric, (start, step) in METRICS.items():
                    share = 1 + effects[content] + effects[style] + draw.gauss(0, 0.005)
                    found.append(row(method, content, style, metric, (start + i * step) * share))
    return found


def row(
    method: str, content: str, style: str, metric: str, value: float | None, samples: tuple[float, ...] = ()
) -> Row:
    """One row; without a value it failed."""
    own = method in METHODS
    return Row(
        run_id="r",
        protocol=PROTOCOL,
        method=method,
        checkpoint=None,
        encoder="vgg19" if own else None,
        precision="fp32" if own else None,
        content=content,
        style=style,
        size=64,
        seed=0,
        strength=1.0,
        metric=metric,
        value=value,
        unit="s" if metric.startswith("seconds.") else "",
        status="failed" if value is None else "ok",
        reason="50% of {x}_1 & more." if value is None else "",
        utc="2026-01-02T03:04:05Z",
        samples=samples,
    )


def write_run(
    folder: Path, *, change: Callable[[Row], Row | None] = lambda row: row, conditions: dict[str, Any] | None = None
) -> Path:
    """The run in a folder; ``change`` may replace a row or leave it out (None)."""
    folder.mkdir(parents=True, exist_ok=True)
    data = run_file()
    data["conditions"] |= conditions or {}
    (folder / "run.json").write_text(json.dumps(data), encoding="utf-8")
    kept = [changed for one in rows() if (changed := change(one)) is not None]
    (folder / "rows.jsonl").write_text("".join(one.to_json() + "\n" for one in kept), encoding="utf-8")
    return folder
