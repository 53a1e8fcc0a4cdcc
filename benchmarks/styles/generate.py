"""Draw the built-in styles: ``python -m benchmarks.styles.generate [NAME ...] [--out FOLDER] [--seed N]``.

Same versions of numpy, scipy and scikit-image, same seed: same pixels. Written as lossless WebP together with
``styles.json``, which names each picture's title, seed and hashes. Everything here is CC0.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.styles.canvas import SUPERSAMPLING, finish, generator

FOLDER = Path(__file__).resolve().parents[2] / "zoo" / "assets" / "styles"
SIZE = 512
SEED = 0
#: Of WebP's encoder, 0 to 6: the file becomes smaller, its pixels stay.
EFFORT = 6

# Name on the command line, module that draws it, title.
STYLES = (
    ("swirls", "swirls", "Swirling brush strokes"),
    ("stained-glass", "stained_glass", "Stained glass"),
    ("pointillism", "pointillism", "Pointillism: a river bank in late light"),
    ("woodblock", "woodblock", "Woodblock wave"),
    ("cubism", "cubism", "Cubist facets"),
    ("marbling", "marbling", "Ink marbling"),
    ("mosaic", "mosaic", "Mosaic of tesserae"),
    ("hatching", "hatching", "Cross-hatching in pen and ink"),
)


def draw(name: str, size: int = SIZE, seed: int = SEED) -> NDArray[np.uint8]:
    """The picture ``name`` as sRGB bytes (size, size, 3). KeyError for an unknown name."""
    module = {known: module for known, module, _ in STYLES}[name]
    drawing = importlib.import_module(f"benchmarks.styles.{module}")
    return finish(drawing.draw(generator(name, seed), SUPERSAMPLING * size))


def save(name: str, folder: Path, seed: int = SEED) -> dict[str, object]:
    """Draw and write one picture; returns its entry for ``styles.json``."""
    pixels = draw(name, SIZE, seed)
    path = folder / f"{name}.webp"
    Image.fromarray(pixels).save(path, lossless=True, quality=100, method=EFFORT)
    return {
        "name": name,
        "file": path.name,
        "title": {known: title for known, _, title in STYLES}[name],
        "license": "CC0-1.0",
        "seed": seed,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the styles named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="styles to draw; default: all")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(arguments)
    order = [name for name, _, _ in STYLES]
    unknown = sorted(set(options.names) - set(order))
    if unknown:
        parser.error(f"unknown style {unknown[0]!r}: choose from {', '.join(order)}")
    options.out.mkdir(parents=True, exist_ok=True)
    catalog = options.out / "styles.json"
    entries = {e["name"]: e for e in json.loads(catalog.read_text(encoding="utf-8"))} if catalog.exists() else {}
    for name in options.names or order:
        entries[name] = save(name, options.out, options.seed)
        print(f"{options.out / str(entries[name]['file'])}")
    catalog.write_text(json.dumps([entries[n] for n in order if n in entries], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
