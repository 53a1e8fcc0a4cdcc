"""Trained styles on the command line: by name, by a picture that looks like one, and what is said of any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.cli import main

SMALL = ["--content", "builtin:chelsea", "--content-size", "96", "--precision", "fp32", "--quiet"]


def run(*arguments: str) -> int:
    """Exit code of the command, run in this process."""
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_a_name_a_builtin_and_a_smaller_copy_are_one_style(tmp_path):
    copy = tmp_path / "copy.jpg"
    zoo.write(copy, zoo.read("builtin:mosaic", size="200").pixels)
    styles = {"name": "mosaic", "builtin": "builtin:mosaic", "copy": str(copy)}
    for label, style in styles.items():
        assert run("stylize", "-m", "johnson", "--style", style, "-o", str(tmp_path / f"{label}.png"), *SMALL) == 0
    first = pixels(tmp_path / "name.png")
    assert first.std() > 10
    for label in styles:
        assert (pixels(tmp_path / f"{label}.png") == first).all()


def test_several_names_make_several_pictures_and_a_sheet(tmp_path):
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    styles = ["--style", "swirls", "hatching"]
    assert run("stylize", "-m", "johnson", *styles, "-o", str(out), "--sheet", str(sheet), *SMALL) == 0
    assert sorted(p.name for p in out.iterdir()) == ["chelsea__hatching__johnson.png", "chelsea__swirls__johnson.png"]
    assert (pixels(out / "chelsea__hatching__johnson.png") != pixels(out / "chelsea__swirls__johnson.png")).any()
    assert sheet.exists()


def test_luminance_keeps_the_colours_of_the_photograph(tmp_path):
    out = tmp_path / "out.png"
    assert (
        run("stylize", "-m", "johnson", "--style", "mosaic", "--preserve-color", "luminance", "-o", str(out), *SMALL)
        == 0
    )
    photo = np.round(zoo.read("builtin:chelsea", size="96").pixels[0].permute(1, 2, 0).numpy() * 255)
    # Red over blue is the cat's, not the mosaic's teal.
    assert abs((pixels(out)[..., 0] - pixels(out)[..., 2]).mean() - (photo[..., 0] - photo[..., 2]).mean()) < 15


@pytest.mark.parametrize(
    ("style", "extra", "words"),
    [
        ("mosaik", [], ["'mosaik'", "mosaic", "woodblock"]),
        ("builtin:astronaut", [], ["mosaic", "zoo train johnson --style"]),
        ("mosaic", ["--preserve-color", "coral"], ["luminance"]),
    ],
)
def test_any_other_style_is_one_clear_sentence(style, extra, words, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert run("stylize", "-m", "johnson", "--style", style, "-o", str(out), *SMALL, *extra) == 2
    said = capsys.readouterr().err
    assert all(word in said.replace("\n", " ") for word in words), said
    assert "Traceback" not in said
    assert not out.exists()


def test_info_lists_the_trained_styles(capsys):
    assert run("info", "johnson", "--json") == 0
    styles = json.loads(capsys.readouterr().out)["trained_styles"]
    assert {"swirls", "mosaic"} <= {style["name"] for style in styles}
    assert all(style["phash"] and style["licence"] for style in styles)
    assert run("info", "johnson") == 0
    assert "Trained styles" in capsys.readouterr().out
