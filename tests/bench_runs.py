"""What tests of whole runs need: the fakes as a plugin, and pictures. Not in bench_fakes, which workers import too."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bench_fakes
import numpy as np
import pytest
import yaml
from PIL import Image

from zoo.bench.protocol import ResolvedProtocol, load_protocol, resolve_protocol
from zoo.registry import load_registry

# Two contents by two styles, measured once; a test adds its metrics.
GRID: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "contents": ["red.png", "green.png"],
    "styles": ["sea.png", "sand.png"],
    "sizes": [32],
    "timing": {"warmup": 0, "repeats": 1, "budget": 0},
    "baselines": ["content-copy"],
    "limits": {"seconds": 120},
}


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """The fakes as an installed plugin inside the block, here and in every process started from here."""
    bench_fakes.install(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        load_registry.cache_clear()
        yield patch
    load_registry.cache_clear()


def write_protocol(folder: Path, protocol: Mapping[str, Any], **changes: Any) -> Path:
    """``tiny.yaml`` in ``folder``, beside the pictures of :func:`draw`."""
    draw(folder)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**protocol, **changes}))
    return path


def resolved(path: Path) -> ResolvedProtocol:
    """A protocol's file as a run reads it."""
    return resolve_protocol(load_protocol(path), path.parent, load_registry())


def draw(folder: Path) -> None:
    """Four noisy pictures of one colour each, 48 x 40: red, green, sea and sand."""
    rng = np.random.default_rng(0)
    colors = {"red": (200, 60, 60), "green": (60, 200, 60), "sea": (60, 60, 200), "sand": (200, 190, 90)}
    for name, color in colors.items():
        pixels = np.clip(np.array(color) + rng.integers(-50, 50, (40, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
