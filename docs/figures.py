"""Draw the pictures of the documentation with the zoo itself: ``python docs/figures.py [styles] [grid] [sheets] ...``.

``docs/images/styles.webp`` shows the built-in styles; ``docs/images/grid.webp`` shows every method on the same pairs of
built-in photographs and styles; ``docs/images/METHOD.webp`` is a sheet of six photographs in six styles for every
method that takes any style, and (``trained``) of four photographs in all its styles for every method of trained styles;
``docs/images/textures.webp`` shows textures from several seeds. A few minutes on two CPU cores.

``docs/images/results`` holds charts of the runs in ``results/``, as ``zoo report RUN --figures`` draws them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

import zoo
from zoo import images
from zoo.errors import UnsupportedError
from zoo.report.figures import FigureOptions, draw_figures

IMAGES = Path(__file__).resolve().parent / "images"
PAIRS = (("astronaut", "swirls"), ("coffee", "woodblock"), ("chelsea", "mosaic"), ("rocket", "marbling"))
METHODS = {
    "gatys": {"num_steps": 300},
    "cnnmrf": {"num_steps": 240},
    "johnson": {},
    "texture-nets": {},
    "cin": {},
    "adain": {},
    "wct": {},
    "style-swap": {},
}
SIZE = "320"
SHEETS = ("adain", "wct", "style-swap")
SHEET_CONTENTS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "hubble_deep_field")
TRAINED = ("johnson", "texture-nets", "cin")
# Runs in results/ and which of their figures.
CHARTS = {"speed": ("speed", "memory"), "styleid-sample": ("tradeoff",), "tradeoff": ("tradeoff",)}
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


def trained() -> None:
    """For every method of trained styles, a row per style and a column per photograph, at 512 pixels."""
    photos = [zoo.read(f"builtin:{name}", size="512").pixels for name in SHEET_CONTENTS[:4]]
    known = images.builtin_styles()
    for method in TRAINED:
        model = zoo.load(method)
        rows: list[list[torch.Tensor | None]] = [[None, *photos]]
        names = [name for name in model.style_names if name in known]
        names += [name for name in model.style_names if name not in known]
        for name in names:
            # A painting's picture is not part of the project.
            painting = zoo.read(f"builtin:{name}", size="512").pixels if name in known else None
            rows.append([painting, *(model(photo, name) for photo in photos)])
        zoo.write(IMAGES / f"{method}.webp", images.contact_sheet(rows, row_labels=["", *names], cell=256), quality=80)
        print(method, flush=True)


def textures() -> None:
    """Style, four seeds, and two by two copies of the first side by side, for every style trained for textures."""
    model = zoo.load("texture-nets")
    rows, names = [], []
    for name in model.style_names:
        try:
            samples = [model.synthesize(model.encode_style(name), (256, 256), seed=seed).image for seed in range(4)]
        except UnsupportedError:
            continue
        names.append(name)
        painting = zoo.read(f"builtin:{name}", size="256").pixels
        rows.append([painting, *samples, samples[0].repeat(1, 1, 2, 2)])
    labels = ["style", *(f"seed {seed}" for seed in range(4)), "seed 0, tiled"]
    sheet = images.contact_sheet(rows, row_labels=names, column_labels=labels, cell=256)
    zoo.write(IMAGES / "textures.webp", sheet, quality=80)


def charts() -> None:
    """Figures of committed runs, which need their rows alone."""
    for run, names in CHARTS.items():
        with tempfile.TemporaryDirectory() as folder:
            drawn = draw_figures(IMAGES.parent.parent / "results" / run, Path(folder), FigureOptions(only=names))
            for name, files in drawn.written.items():
                (picture,) = (file for file in files if file.suffix == ".png")
                zoo.write(
                    IMAGES / "results" / f"{run}-{name}.webp", zoo.read(picture, size="long:1200").pixels, quality=90
                )
        for name, reason in drawn.omitted.items():
            print(f"{run}: no {name}: {reason}")


DRAWN = {
    "styles": styles,
    "grid": grid,
    "sheets": sheets,
    "trained": trained,
    "textures": textures,
    "charts": charts,
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or list(DRAWN):
        DRAWN[wanted]()
