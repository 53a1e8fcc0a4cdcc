"""Draw the pictures of the documentation with the zoo itself: ``python docs/figures.py [styles] [grid] [sheets]``.

``docs/images/styles.webp`` shows the built-in styles; ``docs/images/grid.webp`` shows every method on the same pairs of
built-in photographs and styles; ``docs/images/METHOD.webp`` is a sheet of six photographs in six styles for every
feed-forward method. A few minutes on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import zoo
from zoo import images

IMAGES = Path(__file__).resolve().parent / "images"
PAIRS = (("astronaut", "swirls"), ("coffee", "woodblock"), ("chelsea", "mosaic"), ("rocket", "marbling"))
METHODS = {"gatys": {"num_steps": 300}, "cnnmrf": {"num_steps": 240}, "adain": {}, "wct": {}, "style-swap": {}}
SIZE = "320"
SHEETS = ("adain", "wct", "style-swap")
SHEET_CONTENTS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "hubble_deep_field")
SHEET_STYLES = ("swirls", "stained-glass", "pointillism", "woodblock", "cubism", "marbling")


def styles() -> None:
    """Four by two pictures with their names."""
    names = list(images.builtin_styles())
    pictures = [zoo.read(f"builtin:{name}", size="320").pixels for name in names]
    rows, captions = [pictures[:4], pictures[4:]], [names[:4], names[4:]]
    zoo.write(IMAGES / "styles.webp", images.contact_sheet(rows, captions=captions, cell=320), quality=85)


def grid() -> None:
    """A row per pair: content, style, and each method's result."""
    models = {name: zoo.load(name, **options) for name, options in METHODS.items()}
    rows = []
    for content, style in PAIRS:
        photo, painting = (zoo.read(f"builtin:{name}", size=SIZE).pixels for name in (content, style))
        rows.append([photo, painting, *(model(photo, painting) for model in models.values())])
        print(f"{content} in {style}", flush=True)
    steps = {name: f", {options['num_steps']} steps" for name, options in METHODS.items() if options}
    labels = ["content", "style", *(name + steps.get(name, "") for name in METHODS)]
    zoo.write(IMAGES / "grid.webp", images.contact_sheet(rows, column_labels=labels, cell=320), quality=85)


def sheets() -> None:
    """For every feed-forward method, a row per photograph and a column per style, at the photographs' 512 pixels."""
    photos = [zoo.read(f"builtin:{name}", size="512").pixels for name in SHEET_CONTENTS]
    paintings = [zoo.read(f"builtin:{name}", size="512").pixels for name in SHEET_STYLES]
    for method in SHEETS:
        model = zoo.load(method)
        codes = [model.encode_style(painting) for painting in paintings]
        rows: list[list[torch.Tensor | None]] = [[None, *paintings]]
        rows += [[photo, *(model.stylize(photo, code).image for code in codes)] for photo in photos]
        sheet = images.contact_sheet(rows, column_labels=["", *SHEET_STYLES], cell=256)
        zoo.write(IMAGES / f"{method}.webp", sheet, quality=85)
        print(method, flush=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["styles", "grid", "sheets"]:
        {"styles": styles, "grid": grid, "sheets": sheets}[wanted]()
