"""Draw the pictures of the documentation with the zoo itself: ``python docs/figures.py [styles] [sheets] ...``.

``docs/images/styles.webp`` shows the built-in styles, ``front.webp`` one photograph by six methods;
``beside-any-style.webp`` and ``beside-trained-styles.webp`` (``beside``) show the networks of a family on the same
pairs, beside Gatys;
``docs/images/METHOD.webp`` is a sheet of six photographs in six styles for every network that takes any style, of six
pairs (``optimised``) for methods that fit pixels or need no training, and (``trained``) of four photographs in all its
styles for every method of trained styles; ``what-goes-where.webp`` shows methods of labels and places,
``film-strips.webp`` frames of films and ``textures.webp`` textures from several seeds.

Networks take a few minutes on two CPU cores, at 512 pixels as everything but ``optimised`` (256). Methods that fit
pixels take hours: each picture of theirs is kept in ``build/figures`` once it is there, so that a run broken off goes
on, and networks trained anew cost nothing but themselves. Delete that folder after a change of those methods.

``docs/images/results`` holds charts of the runs in ``results/``, as ``zoo report RUN --figures`` draws them.
"""

from __future__ import annotations

import functools
import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import zoo
from zoo import images
from zoo.controls.video import Video
from zoo.errors import UnsupportedError
from zoo.report.figures import FigureOptions, draw_figures
from zoo.stylizer import Context, Style
from zoo.video.clips import Clip, ClipOptions

IMAGES = Path(__file__).resolve().parent / "images"
PAIRS = (("astronaut", "swirls"), ("coffee", "woodblock"), ("chelsea", "mosaic"), ("rocket", "marbling"))
BESIDE_STEPS = 300  # of Gatys
FRONT_CONTENT = "chelsea"
FRONT = {
    "wct": "stained-glass",
    "adain": "marbling",
    "style-swap": "woodblock",
    "johnson": "mosaic",
    "cin": "great-wave",
    "texture-nets": "pointillism",
}
SIZE = "512"
KEPT = IMAGES.parent.parent / "build" / "figures"
SHEETS = ("adain", "wct", "style-swap")
SHEET_CONTENTS = ("astronaut", "chelsea", "coffee", "rocket", "camera", "hubble_deep_field")
# Methods that fit pixels, with steps that a CPU does in a minute or two at this size.
OPTIMIZED: dict[str, int | None] = {
    "gatys": 150,
    "cnnmrf": 150,
    "nnst": 150,
    "strotss": 150,
    "lapstyle": 150,
    "risser": 150,
    "deep-photo": 100,
    "deep-analogy": 96,
    "efdm": None,
}
SMALL = "256"
SIX_PAIRS = (
    *(("astronaut", "swirls"), ("chelsea", "mosaic"), ("coffee", "woodblock")),
    *(("rocket", "marbling"), ("astronaut", "stained-glass"), ("chelsea", "pointillism")),
)
PHOTO_PAIRS = (
    *(("coffee", "rocket"), ("rocket", "coffee"), ("chelsea", "coffee")),
    *(("astronaut", "rocket"), ("coffee", "hubble_deep_field"), ("astronaut", "coffee")),
)
TRAINED = ("johnson", "texture-nets", "cin")
FAMILIES = {"any-style": SHEETS, "trained-styles": TRAINED}
# Runs in results/ and which of their figures.
CHARTS = {
    "speed": ("speed", "memory"),
    "styleid-sample": ("tradeoff",),
    "tradeoff": ("tradeoff",),
    "convergence": ("convergence",),
}
SHEET_STYLES = ("swirls", "stained-glass", "pointillism", "woodblock", "cubism", "marbling")


def styles() -> None:
    """Four by two pictures with their names."""
    names = list(images.builtin_styles())
    pictures = [zoo.read(f"builtin:{name}", size="320").pixels for name in names]
    rows, captions = [pictures[:4], pictures[4:]], [names[:4], names[4:]]
    zoo.write(IMAGES / "styles.webp", images.contact_sheet(rows, captions=captions, cell=320), quality=85)


@functools.cache
def model(method: str, steps: int | None) -> zoo.Stylizer:
    """A method, with a number of steps where it takes any."""
    return zoo.load(method, **({} if steps is None else {"num_steps": steps}))


def result(method: str, content: str, style: str, steps: int | None, size: str) -> torch.Tensor:
    """What ``method`` makes of a pair; of one that optimises the picture it is read again where it is kept."""
    photo, painting = (zoo.read(f"builtin:{name}", size=size).pixels for name in (content, style))
    path = KEPT / f"{method}-{steps}-{content}-{style}-{size}.png"
    if steps is None or not path.exists():
        print(f"{method}: {content} in {style}", flush=True)
        picture = model(method, steps)(photo, painting)
        if steps is None:
            return picture
        KEPT.mkdir(parents=True, exist_ok=True)
        zoo.write(path, picture)
    return zoo.read(path).pixels


def front() -> None:
    """One photograph by six methods, each in a style that suits it."""
    photo = zoo.read(f"builtin:{FRONT_CONTENT}", size=SIZE).pixels
    made, captions = [], []
    for method, style in FRONT.items():
        known = style in images.builtin_styles()
        given = zoo.read(f"builtin:{style}", size=SIZE).pixels if known else style
        made.append(zoo.load(method)(photo, given))
        captions.append(f"{method}: {style}")
    rows, names = [made[:3], made[3:]], [captions[:3], captions[3:]]
    zoo.write(IMAGES / "front.webp", images.contact_sheet(rows, captions=names, cell=384), quality=85)


def beside() -> None:
    """The networks of each family beside Gatys, large enough to see the strokes: a row per pair."""
    for family, networks in FAMILIES.items():
        methods: dict[str, int | None] = {"gatys": BESIDE_STEPS, **dict.fromkeys(networks)}
        rows = [
            [
                *(zoo.read(f"builtin:{x}", size=SIZE).pixels for x in pair),
                *(result(method, *pair, steps, SIZE) for method, steps in methods.items()),
            ]
            for pair in PAIRS
        ]
        labels = ["content", "style", f"gatys, {BESIDE_STEPS} steps", *networks]
        sheet = images.contact_sheet(rows, column_labels=labels, cell=448)
        zoo.write(IMAGES / f"beside-{family}.webp", sheet, quality=85)


def sheets() -> None:
    """For every feed-forward method, a row per photograph and a column per style, at the photographs' 512 pixels."""
    photos = [zoo.read(f"builtin:{name}", size=SIZE).pixels for name in SHEET_CONTENTS]
    paintings = [zoo.read(f"builtin:{name}", size=SIZE).pixels for name in SHEET_STYLES]
    for method in SHEETS:
        model = zoo.load(method)
        codes = [model.encode_style(painting) for painting in paintings]
        rows: list[list[torch.Tensor | None]] = [[None, *paintings]]
        rows += [[photo, *(model.stylize(photo, code).image for code in codes)] for photo in photos]
        sheet = images.contact_sheet(rows, column_labels=["", *SHEET_STYLES], cell=256)
        zoo.write(IMAGES / f"{method}.webp", sheet, quality=85)
        print(method, flush=True)


def optimized() -> None:
    """Six pairs, two a row, for methods that fit pixels, with fewer steps than by default, and for EFDM."""
    for method, steps in OPTIMIZED.items():
        pairs = PHOTO_PAIRS if method == "deep-photo" else SIX_PAIRS
        cells = [
            [*(zoo.read(f"builtin:{x}", size=SMALL).pixels for x in pair), result(method, *pair, steps, SMALL)]
            for pair in pairs
        ]
        rows = [[*cells[i], *cells[i + 1]] for i in range(0, len(cells), 2)]
        said = f"{steps} steps, {SMALL} pixels" if steps else f"{SMALL} pixels"
        sheet = images.contact_sheet(rows, column_labels=["content", "style", said] * 2, cell=int(SMALL))
        zoo.write(IMAGES / f"{method}.webp", sheet, quality=60)


def trained() -> None:
    """For every method of trained styles, a row per style and a column per photograph, at 512 pixels."""
    photos = [zoo.read(f"builtin:{name}", size=SIZE).pixels for name in SHEET_CONTENTS[:4]]
    known = images.builtin_styles()
    for method in TRAINED:
        model = zoo.load(method)
        rows: list[list[torch.Tensor | None]] = [[None, *photos]]
        names = [name for name in model.style_names if name in known]
        names += [name for name in model.style_names if name not in known]
        for name in names:
            # A painting's picture is not part of the project.
            painting = zoo.read(f"builtin:{name}", size=SIZE).pixels if name in known else None
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
            for name in [name for name in names if name in drawn.written]:
                (picture,) = (file for file in drawn.written[name] if file.suffix == ".png")
                zoo.write(
                    IMAGES / "results" / f"{run}-{name}.webp", zoo.read(picture, size="long:1200").pixels, quality=90
                )
        for name, reason in drawn.omitted.items():
            print(f"{run}: no {name}: {reason}")


def places() -> None:
    """Methods that take from somewhere and put somewhere: content or drawing, style, result."""
    from zoo.controls import Instance
    from zoo.controls.subject import person

    def read(name: str, size: int = 256) -> torch.Tensor:
        return zoo.read(f"builtin:{name}", size=str(size)).pixels

    drawing, painting = _drawn_map(240, 192, _DRAWING), read("pointillism", 192)
    labels = _drawn_map(192, 192, _PAINTING)
    doodle = zoo.load("neural-doodle.doodle", num_steps=150)
    code = doodle.encode_style(Style(painting, labels=labels))
    colors = torch.tensor(_COLORS)[drawing[0, 0]].permute(2, 0, 1)[None] / 255
    made = doodle.stylize(colors, code, context=Context(content_labels=drawing)).image
    rows = [[colors, painting, made]]
    for method, content, style, options in (
        ("deep-analogy", "chelsea", "hatching", {}),
        ("deep-photo", "coffee", "rocket", {"num_steps": 100}),
    ):
        pair = read(content), read(style)
        rows.append([*pair, zoo.load(method, **options)(*pair)])
    pair = read("astronaut"), read("swirls")
    rows.append([*pair, Instance(zoo.load("adain"), person)(*pair)])
    names = ["neural-doodle.doodle", "deep-analogy", "deep-photo", "adain --subject"]
    sheet = images.contact_sheet(rows, row_labels=names, column_labels=["content or drawing", "style", "result"])
    zoo.write(IMAGES / "what-goes-where.webp", sheet, quality=85)


def films() -> None:
    """Six of twenty frames of two clips: the film, and ways of keeping frames together; last, Gatys by its own loss."""
    rows, names = [], []
    for clip, size in (("carphone", "256"), ("bigbuckbunny", "256"), ("carphone", "176")):
        opened = Clip(f"builtin:{clip}", ClipOptions(size=size))
        contents = [frame.pixels for frame in itertools.islice(opened.frames(), 20)]
        ways = [("johnson", "none"), ("johnson", "warp"), ("johnson.video", "none")]
        if size == "176":
            ways = [("gatys", "temporal")]
        else:
            rows.append(contents)
            names.append("film")
        for method, keep in ways:
            network = model(method, 40 if method == "gatys" else None)
            style = zoo.read("builtin:mosaic", size=size).pixels if method == "gatys" else "mosaic"
            made = list(Video(network, keep).frames(contents, network.encode_style(style, opened.size)))
            rows.append([frame.image for frame in made])
            names.append(f"{method}, {keep}")
            if keep == "warp":
                blank = torch.zeros(1, 3, *opened.size)
                rows.append([blank if one.trusted is None else one.trusted.expand(1, 3, -1, -1) for one in made])
                names.append("carried on")
    sheet = images.contact_sheet([[row[at] for at in _FRAMES] for row in rows], row_labels=names, cell=200)
    zoo.write(IMAGES / "film-strips.webp", sheet, quality=80)


_FRAMES = (0, 1, 2, 6, 12, 19)

# Sky, trees, water and meadow: their colors, and where they are, in hundredths of width and height, one over the other.
_COLORS = ((153, 204, 255), (26, 128, 26), (51, 77, 230), (230, 204, 77))
_DRAWING = (
    (2, ((0, 55), (100, 55), (100, 85), (0, 85))),
    (3, ((0, 85), (30, 78), (60, 84), (100, 72), (100, 100), (0, 100))),
    (1, ((60, 15), (75, 8), (92, 18), (95, 40), (86, 50), (84, 75), (78, 76), (77, 50), (62, 42))),
    (1, ((8, 38), (20, 33), (30, 40), (28, 55), (10, 56))),
)
_PAINTING = (
    (1, ((0, 0), (22, 0), (32, 10), (47, 30), (46, 50), (34, 56), (24, 62), (0, 62))),
    (2, ((20, 48), (34, 56), (46, 47), (100, 44), (100, 92), (70, 92), (40, 82), (30, 60))),
    (3, ((0, 62), (24, 62), (34, 78), (55, 88), (80, 93), (100, 90), (100, 100), (0, 100))),
    (1, ((78, 60), (84, 50), (100, 46), (100, 88), (88, 90), (80, 84))),
)


def _drawn_map(width: int, height: int, shapes: Sequence[tuple[int, Sequence[tuple[int, int]]]]) -> torch.Tensor:
    """Labels (1, 1, H, W) of polygons over sky."""
    drawn = Image.new("L", (width, height))
    for label, corners in shapes:
        ImageDraw.Draw(drawn).polygon([(x * width / 100, y * height / 100) for x, y in corners], fill=label)
    return torch.from_numpy(np.array(drawn)).long()[None, None]


DRAWN = {
    "styles": styles,
    "front": front,
    "beside": beside,
    "sheets": sheets,
    "optimized": optimized,
    "trained": trained,
    "textures": textures,
    "places": places,
    "films": films,
    "charts": charts,
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or list(DRAWN):
        DRAWN[wanted]()
