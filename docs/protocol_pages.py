"""Write docs/protocols.md from benchmarks/protocols and the manifests of image sets: ``python docs/protocol_pages.py``.

Nothing in it is typed by hand; with --check nothing is written and the exit code is 1 where it is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from generated import DOCS, plain, table, write_pages

from zoo.bench.protocol import ImageRef, MetricUse, Protocol, Timing, find_protocol, list_protocols, load_protocol
from zoo.bench.selection import SET_PREFIX
from zoo.imagesets import list_sets, load_manifest
from zoo.registry import load_registry

INTRODUCTION = """\
# Protocols

A protocol is a YAML file that fixes everything a number depends on: images by their sha256, pairs, sizes, resizing,
seeds, strengths, metrics with their versions and settings, options of the methods, how often a call is timed, limits.
Its id, the name with a hash over all of that (`quick@` and twelve digits), stands in every row and in the caption of
every table: rows of one id measure the same thing, and a folder of results refuses rows of another.

```
zoo bench --protocol standard
zoo bench --protocol my-protocol.yaml --methods adain,wct
```

These ship, in `benchmarks/protocols`; copy one to write your own, whose images are paths relative to it. `zoo bench`
names the first fault of a file and its place. Images of sets are fetched when you ask for it (`zoo data fetch NAME`),
each checked by its sha256.

A large protocol can be shared out over a Slurm cluster (the extra `cluster`): each task measures a share of the pairs,
and one more merges them into the rows of one run.

```
zoo bench --protocol styleid --methods adain,wct --shards 16 --device cuda --cluster-option slurm_time=2:00:00
```

The device must be named: with `cuda` every task asks for one GPU, with `cpu` for a whole node. Options are those of
submitit; `[...]` and `{...}` are read as JSON. `--cluster local` takes one shard after the other on this machine.
"""


def page() -> str:
    """The whole page."""
    names = list_protocols()
    specs = {name: load_protocol(find_protocol(name)) for name in names}
    rows = [
        (f"[`{name}`](#{name})", spec.description, len(spec.listed), ", ".join(map(str, spec.sizes)))
        for name, spec in specs.items()
    ]
    parts = [INTRODUCTION + "\n" + table(["protocol", "what it holds", "pairs", "sizes"], rows)]
    parts += [section(name, spec) for name, spec in specs.items()]
    return "\n\n".join([*parts, _sets()]) + "\n"


def section(name: str, spec: Protocol) -> str:
    """One protocol: the comment at the head of its file, and every field."""
    lines = find_protocol(name).read_text(encoding="utf-8").split("\n")
    comment = "\n".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line[:1] == "#", lines))
    rows: list[tuple[str, str]] = [
        ("contents", _images(spec.contents)),
        ("styles", _images(spec.styles)),
        ("pairs", f"{len(spec.listed)}, {'every content with every style' if spec.pairs == 'all' else 'chosen'}"),
        ("sizes", _sizes(spec)),
        ("seeds", plain(spec.seeds)),
        ("strengths", ", ".join(map(plain, spec.strengths))),
        ("metrics", ", ".join(map(_metric, spec.metrics)) or "none"),
        ("sanity rows", ", ".join(spec.baselines) or "none"),
        ("timing", _timing(spec.timing)),
        ("methods that optimise the image", _settings(spec.optimisation.options, spec.optimisation.timing)),
    ]
    if spec.film is not None:
        film = spec.film
        kept = ", ".join(film.keep)
        rows[6] = ("films", f"{film.frames} frames from second {film.start:g} on; kept together: {kept}")
    if spec.steps:
        rows[6:6] = [("steps", f"{', '.join(map(str, spec.steps))} of one run of methods that optimise the image")]
    for method, choice in spec.methods.items():
        chosen = {"preset": choice.preset} if choice.preset else {}
        rows.append((f"`{method}`", _settings({**chosen, **choice.options}, choice.timing)))
    limits = f"{spec.limits.seconds:g} seconds a cell, {spec.limits.memory:.0%} of the machine's memory a method"
    rows.append(("limits", limits))
    return f"## {name}\n\n{comment}\n\n" + table(["", "fixed to"], rows)


def _images(refs: list[ImageRef]) -> str:
    sets = sorted(
        {ref.image.removeprefix(SET_PREFIX).split("/")[0] for ref in refs if ref.image.startswith(SET_PREFIX)}
    )
    if not sets:
        return ", ".join(f"`{ref.image}`" for ref in refs)
    return f"{len(refs)} of {', '.join(f'[the set {name}](#the-set-{name})' for name in sets)}"


def _sizes(spec: Protocol) -> str:
    side = {"long": "the long side", "short": "the short side", "exact": "both sides"}[spec.resize]
    return f"{', '.join(map(str, spec.sizes))} pixels, {side}; styles {spec.style_size or 'the same'}"


def _metric(use: MetricUse) -> str:
    return f"[`{use.label}`](metrics.md#{use.name}) v{load_registry().metric(use.name).version}"


def _timing(timing: Timing) -> str:
    said = f"{timing.warmup} to warm up, then up to {timing.repeats}, none begun after {timing.budget:g} s"
    if timing.count:
        said += "; operations counted"
    return said + (f"; batches of {', '.join(map(str, timing.batches))}" if timing.batches else "")


def _settings(options: Mapping[str, Any], timing: Timing | None) -> str:
    said = [f"`{key}={plain(value)}`" for key, value in options.items()]
    return "; ".join([*said, *([f"timing: {_timing(timing)}"] if timing else [])]) or "as the others"


def _sets() -> str:
    parts = []
    for name in list_sets():
        manifest = load_manifest(name)
        parts.append(
            f"## The set {name}\n\n{manifest.title}: {len(manifest.contents)} contents and {len(manifest.styles)} "
            f"styles of [{manifest.source}]({manifest.source}), commit `{manifest.commit[:12]}`. Licence as stated "
            f"there: {manifest.license}. `zoo data fetch {name}` brings it."
        )
    return "\n\n".join(parts)


def pages() -> dict[Path, str]:
    """The page and where it lies."""
    return {DOCS / "protocols.md": page()}


if __name__ == "__main__":
    sys.exit(write_pages(pages(), "protocol_pages.py", __doc__))
