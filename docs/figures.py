"""Draw the pictures of the documentation with the zoo itself: ``python docs/figures.py [styles] [grid]``.

``docs/images/styles.webp`` shows the built-in styles; ``docs/images/grid.webp`` shows every method on the same pairs of
built-in photographs and styles. A few minutes on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import zoo
from zoo import images

IMAGES = Path(__file__).resolve().parent / "images"
PAIRS = (("astronaut", "swirls"), ("coffee", "woodblock"), ("chelsea", "mosaic"), ("rocket", "marbling"))
METHODS = {"gatys": {"num_steps": 300}, "cnnmrf": {"num_steps": 240}}
SIZE = "320"


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
    labels = ["content", "style", *(f"{name}, {options['num_steps']} steps" for name, options in METHODS.items())]
    zoo.write(IMAGES / "grid.webp", images.contact_sheet(rows, column_labels=labels, cell=320), quality=85)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["styles", "grid"]:
        {"styles": styles, "grid": grid}[wanted]()
