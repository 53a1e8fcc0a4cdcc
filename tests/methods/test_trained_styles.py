"""Trained styles on the command line: by name, by a picture that looks like one, and what is said of any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import run
from PIL import Image

import zoo
from zoo.errors import WeightsError
from zoo.methods.johnson import JohnsonTask
from zoo.methods.texture_nets import TextureNetsTask
from zoo.registry import PACKAGE, load_registry
from zoo.styles import one_of
from zoo.weights import read_state

SMALL = ["--content", "builtin:chelsea", "--content-size", "96", "--precision", "fp32", "--quiet"]


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
        # A network that another test exported runs on onnxruntime, whose sums round another way.
        assert abs(pixels(tmp_path / f"{label}.png") - first).max() <= 1


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
    assert all(style["phash"] and style["license"] for style in styles)
    assert run("info", "johnson") == 0
    assert "Trained styles" in capsys.readouterr().out


def test_the_registry_names_the_styles_that_the_weights_hold():
    trained = [
        (f"{method}.{tag}", checkpoint.styles)
        for method, entry in load_registry().methods.items()
        for tag, checkpoint in entry.checkpoints.items()
        if entry.taxonomy.styles != "any"
    ]
    assert len(trained) >= 4
    for name, styles in trained:
        assert zoo.load(name, device="cpu").style_names == styles, name


@pytest.mark.parametrize(
    ("kind", "options", "part"),
    [
        (JohnsonTask, {"style": "builtin:mosaic"}, "mosaic"),
        (TextureNetsTask, {"style": "builtin:mosaic"}, "mosaic"),
        (TextureNetsTask, {"style": "builtin:marbling", "mode": "texture"}, "marbling-texture"),
    ],
)
def test_training_begins_from_the_shipped_network_of_its_style(kind, options, part):
    task = kind(kind.Config(**options))
    file = f"{task.method.replace('-', '_')}.safetensors"
    state = read_state(PACKAGE / "checkpoints" / file)
    network = task.adopt(state)
    assert network.keys() == task.network.state_dict().keys()
    for key, value in network.items():
        assert torch.equal(value, state[f"{part}.{key}"])


def test_a_new_style_begins_from_another_of_its_kind():
    shipped = read_state(PACKAGE / "checkpoints" / "texture_nets.safetensors")
    anchor = "enter.0.conv.0.weight"
    assert torch.equal(one_of(shipped, anchor, "mine-texture")[anchor], shipped[f"marbling-texture.{anchor}"])
    photographs = [value for key, value in shipped.items() if key.endswith(anchor) and "-texture." not in key]
    assert any(torch.equal(one_of(shipped, anchor, "mine")[anchor], value) for value in photographs)
    with pytest.raises(WeightsError, match="no network to start"):
        one_of({f"mosaic.{anchor}": torch.zeros(1)}, anchor, "mine-texture")
