"""The built-in styles: reproducible, as listed, and different from each other in stroke and not in palette alone."""

from __future__ import annotations

import hashlib
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.styles import generate
from benchmarks.styles.generate import FOLDER, STYLES, draw
from zoo import images
from zoo.color import match_color
from zoo.encoders import load_encoder
from zoo.nn.gram import gram

CATALOGUE = json.loads((FOLDER / "styles.json").read_text())
NAMES = [name for name, _, _ in STYLES]


def test_the_catalogue_lists_every_style_once():
    assert [entry["name"] for entry in CATALOGUE] == NAMES
    assert sorted(p.name for p in FOLDER.glob("*.webp")) == sorted(entry["file"] for entry in CATALOGUE)


@pytest.mark.parametrize("entry", CATALOGUE, ids=NAMES)
def test_file_and_pixels_are_those_listed(entry):
    data = (FOLDER / entry["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    with Image.open(FOLDER / entry["file"]) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (512, 512, 3)
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == entry["pixels_sha256"]
    assert entry["license"] == "CC0-1.0"


# Those whose cost shrinks with the picture; the others lay the same thousands of strokes at any size.
@pytest.mark.parametrize("name", ["stained-glass", "woodblock", "marbling", "hatching"])
def test_drawing_depends_on_the_seed_alone(name):
    first, again, other = draw(name, 24, 0), draw(name, 24, 0), draw(name, 24, 1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (24, 24, 3)
    assert first.std() > 10


def test_a_style_is_redrawn_from_the_command_line(tmp_path, monkeypatch, capsys):
    # The least effort writes the same pixels in a tenth of the time.
    monkeypatch.setattr(generate, "EFFORT", 0)
    assert generate.main(["stained-glass", "--out", str(tmp_path)]) == 0
    entry = next(e for e in CATALOGUE if e["name"] == "stained-glass")
    with Image.open(tmp_path / entry["file"]) as fresh, Image.open(FOLDER / entry["file"]) as shipped:
        # Another build of numpy may round a stroke's edge the other way; the picture is the same.
        difference = np.abs(np.asarray(fresh, dtype=int) - np.asarray(shipped, dtype=int))
    assert difference.mean() < 0.5
    with pytest.raises(SystemExit) as stop:
        generate.main(["stained-glas", "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert "unknown style 'stained-glas'" in capsys.readouterr().err


def _grams(encoder, image: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [gram(features, "chw")[0] for features in encoder(image).values()]


def _distance(a: list[Tensor], b: list[Tensor]) -> float:
    """Squared difference over the mean squared norm of the two, averaged over layers."""
    layers = [2 * (x - y).square().sum() / (x.square().sum() + y.square().sum()) for x, y in zip(a, b, strict=True)]
    return float(torch.stack(layers).mean())


def test_styles_differ_in_stroke_three_times_more_than_their_halves():
    encoder = load_encoder("vgg19", taps=[f"relu{level}_1" for level in range(1, 6)])
    pictures = {name: images.read(f"builtin:{name}", size="256").pixels for name in NAMES}
    # One mean and covariance of colour for all, so that palettes are out of play.
    palette = torch.cat(list(pictures.values()), dim=3)
    own, within = {}, {}
    for name, picture in pictures.items():
        plain = match_color(picture, palette)
        left, right = _grams(encoder, plain[..., :128]), _grams(encoder, plain[..., 128:])
        own[name] = [(a + b) / 2 for a, b in zip(left, right, strict=True)]
        sides = _distance(left, right)
        ends = _distance(_grams(encoder, plain[..., :128, :]), _grams(encoder, plain[..., 128:, :]))
        within[name] = max(sides, ends)
    ratios = {
        (a, b): _distance(own[a], own[b]) / max(within[a], within[b]) for a, b in itertools.combinations(NAMES, 2)
    }
    pair, smallest = min(ratios.items(), key=lambda item: item[1])
    assert smallest >= 3, f"{pair[0]} and {pair[1]} differ only {smallest:.2f} times as much as their halves"
