"""What tests of whole runs need: the fakes as a plugin, and pictures. Not in bench_fakes, which workers import too."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path

import bench_fakes
import numpy as np
import pytest
from PIL import Image

from zoo.registry import load_registry


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


def draw(folder: Path) -> None:
    """Four noisy pictures of one colour each, 48 x 40: red, green, sea and sand."""
    rng = np.random.default_rng(0)
    colours = {"red": (200, 60, 60), "green": (60, 200, 60), "sea": (60, 60, 200), "sand": (200, 190, 90)}
    for name, colour in colours.items():
        pixels = np.clip(np.array(colour) + rng.integers(-50, 50, (40, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
