"""Texture networks: the pyramid, textures that tile, stylisation, and the entropy that keeps seeds apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import HELD_OUT, run

from zoo import images
from zoo.checks import run_checks
from zoo.errors import ConfigError, InputError, UnsupportedError, WeightsError
from zoo.methods.texture_nets import TextureNets, TextureNetsTask, TextureNetsTaskConfig, log_spacing
from zoo.nn.noise_pyramid import Pyramid, draw, with_image
from zoo.training import ImageSet


def small(mode: str, preset: str = "v2", **options) -> TextureNetsTask:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    layers = ("relu1_2", "relu2_2")
    given: dict[str, Any] = {
        "scales": 3,
        "style_size": 48,
        "style_layers": layers,
        "content_layer": "relu2_2",
        **options,
    }
    return TextureNetsTask(TextureNetsTaskConfig(mode=mode, preset=preset, **given))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """swirls for both, hatching for photographs (v1), mosaic for textures, in one file."""
    torch.manual_seed(1)
    tasks = {
        "swirls": small("stylise"),
        "swirls-texture": small("texture"),
        "hatching": small("stylise", "v1", style="builtin:hatching"),
        "mosaic-texture": small("texture", style="builtin:mosaic"),
    }
    state = {f"{name}.{k}": v.half() for name, task in tasks.items() for k, v in task.network.state_dict().items()}
    records = [record for task in tasks.values() for record in task.describe()["styles"]]
    path = tmp_path_factory.mktemp("table") / "texture-nets.safetensors"
    save_file(state, path, {"styles": json.dumps(records)})
    return path


# -- the pyramid ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "count"), [(3, 116_915), (6, 118_211)])
def test_the_authors_network_has_the_authors_size(inputs: int, count: int) -> None:
    assert sum(p.numel() for p in Pyramid(6, inputs, "batch", True).parameters()) == count


@pytest.mark.parametrize(
    ("mode", "preset", "scales", "inputs", "kept"),
    [
        ("texture", "v1", 5, 3, {"circular", "enter.0.norm.0.running_mean"}),
        ("stylise", "v1", 6, 6, {"circular", "enter.0.norm.0.running_mean"}),
        ("texture", "v2", 6, 3, {"circular"}),
        ("stylise", "v2", 6, 3, {"replicated"}),
    ],
)
def test_presets(mode: str, preset: str, scales: int, inputs: int, kept: set[str]) -> None:
    task = small(mode, preset, scales=None)
    assert (task.network.scales, task.network.inputs) == (scales, inputs)
    state = task.network.state_dict()
    own = {"circular", "replicated", "enter.0.norm.0.running_mean"}
    assert own & set(state) == kept
    again = Pyramid.like(state)
    levels = draw(again, 2, (64, 96), torch.Generator().manual_seed(3))
    if inputs > 3:
        levels = with_image(again, torch.rand(2, 3, 64, 96), levels)
    with torch.no_grad():
        assert torch.equal(again.eval()(levels), task.network.eval()(levels))


@torch.no_grad()
def test_circular_padding_has_no_seam() -> None:
    """Rolling the noise of every scale by the same distance rolls the texture."""
    torch.manual_seed(0)
    for norm in ("batch", "instance"):
        network = Pyramid(3, 3, norm, True).eval()
        noise = draw(network, 1, (24, 32), torch.Generator().manual_seed(1))
        rolled = [torch.roll(z, (2**k, 3 * 2**k), (2, 3)) for k, z in enumerate(noise)]
        wanted = torch.roll(network(noise), (4, 12), (2, 3))
        torch.testing.assert_close(network(rolled), wanted, atol=1e-5, rtol=1e-4)
    apart = Pyramid(3, 3, "instance", False).eval()
    assert (apart(rolled) - torch.roll(apart(noise), (4, 12), (2, 3))).abs().max() > 1e-3


@torch.no_grad()
def test_the_first_papers_network_normalises_each_image_by_itself() -> None:
    """As the authors' network does, which is never taken out of training mode and sees one image at a time."""
    torch.manual_seed(0)
    network = Pyramid(3, 6, "batch", True)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(1, 9)
    images, noise = torch.rand(2, 3, 16, 24), draw(network, 1, (16, 24), torch.Generator().manual_seed(2))
    batch = network.eval()(with_image(network, images, noise))
    as_theirs = [network.train()(with_image(network, image, noise)) for image in images.split(1)]
    torch.testing.assert_close(batch, torch.cat(as_theirs), atol=1e-5, rtol=1e-4)
    together = network.train()(with_image(network, images, noise))
    assert (together - batch).abs().max() > 1e-3


def test_the_image_is_pooled_to_every_scale() -> None:
    network = Pyramid(3, 6, "batch", True)
    image = torch.rand(2, 3, 8, 12)
    noise = draw(network, 1, (8, 12), torch.Generator().manual_seed(0))
    levels = with_image(network, image, noise)
    assert [tuple(level.shape) for level in levels] == [(2, 6, 2, 3), (2, 6, 4, 6), (2, 6, 8, 12)]
    torch.testing.assert_close(levels[0][1, :3, 0, 0], image[1, :, :4, :4].mean((1, 2)))
    assert torch.equal(levels[2][:, :3], image)
    assert torch.equal(levels[1][1, 3:], noise[1][0])


# -- the method -------------------------------------------------------------------------------------------------------


def test_contract(table: Path) -> None:
    def build(*, device: str, precision: str) -> TextureNets:
        return TextureNets(device=device, precision=precision, checkpoint=table)

    results = run_checks(build)
    assert not {r.name: r.reason for r in results if r.status == "failed"}
    assert {"texture", "texture-seed", "batch"} <= {r.name for r in results if r.status == "passed"}


def test_each_style_does_what_it_was_trained_for(table: Path) -> None:
    model = TextureNets(checkpoint=table, device="cpu", name="texture-nets.zoo")
    assert model.style_names == ("swirls", "hatching", "mosaic")
    photo = images.read("builtin:chelsea", size="exact:70x66").pixels
    assert model(photo, images.read("builtin:hatching", size="long:120").pixels).shape == photo.shape
    with pytest.raises(UnsupportedError, match="synthesise textures in the style 'hatching', only in mosaic, swirls"):
        model.synthesize(model.encode_style("hatching"), (64, 64))
    with pytest.raises(UnsupportedError, match="stylise photographs in the style 'mosaic', only in hatching, swirls"):
        model(photo, "mosaic")
    with pytest.raises(InputError, match="at least 64 pixels"):
        model.synthesize(model.encode_style("swirls"), (64, 63))


def test_a_texture_of_whole_cells_tiles_and_any_other_size_is_cut_from_it(table: Path) -> None:
    model = TextureNets(checkpoint=table, device="cpu", precision="fp32")
    code = model.encode_style("swirls")
    whole = model.synthesize(code, (68, 72), seed=3).image
    assert torch.equal(model.synthesize(code, (66, 70), seed=3).image, whole[..., :66, :70])
    assert not torch.equal(model.synthesize(code, (68, 72), seed=4).image, whole)


def test_single_files_are_named_by_their_record(photographs: ImageSet, tmp_path: Path) -> None:
    path = run(small("texture", "v1"), photographs, tmp_path / "run", steps=2)
    model = TextureNets(checkpoint=path, device="cpu")
    assert model.style_names == ("swirls",)
    assert model.synthesize(model.encode_style("swirls"), (64, 80)).image.shape == (1, 3, 64, 80)
    with pytest.raises(UnsupportedError, match="nor in any other"):
        model(torch.rand(1, 3, 64, 64), "swirls")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="no network of this method"):
        TextureNets(checkpoint=tmp_path / "x.safetensors", device="cpu")
    with pytest.raises(WeightsError, match="give a checkpoint"):
        TextureNets(device="cpu")


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "preset"), [("texture", "v2"), ("stylise", "v2"), ("stylise", "v1")])
def test_training_lowers_the_objective(photographs: ImageSet, tmp_path: Path, mode: str, preset: str) -> None:
    task = small(mode, preset)
    key = "style" if mode == "texture" else "total"
    before = task.evaluate(HELD_OUT)[key]
    path = run(task, photographs, tmp_path / "run", steps=12, lr=5e-3)
    record = json.loads((path.parent / "run.json").read_text())
    assert record["figures"][key] < 0.9 * before
    assert record["task"]["styles"][0]["name"] == ("swirls-texture" if mode == "texture" else "swirls")
    assert load_file(path)["out.weight"].dtype == torch.float16


def test_preview_and_figures_of_either_mode() -> None:
    stylize, texture = small("stylise"), small("texture")
    (row,) = stylize.preview(HELD_OUT)
    assert [tuple(image.shape) for image in row] == [(1, 3, 40, 36)] * 2
    assert set(stylize.evaluate(HELD_OUT)) == {"total", "content", "style", "unchanged"}
    (row,) = texture.preview(HELD_OUT)
    assert [tuple(image.shape) for image in row] == [(1, 3, 48, 48)] * 4
    figures = texture.evaluate(HELD_OUT)
    assert set(figures) == {"style", "spacing"}
    assert figures["spacing"] > 0


def test_spacing_is_the_distance_to_the_nearest() -> None:
    levels = torch.tensor([0.1, 0.2, 0.7]).view(3, 1, 1, 1)
    found = log_spacing(levels.expand(-1, 3, 4, 4))
    assert found.item() == pytest.approx(np.log([0.1, 0.1, 0.5]).mean(), abs=1e-3)
    same = torch.full((2, 3, 4, 4), 0.5)
    assert log_spacing(same).item() == pytest.approx(np.log(1 / 255))


def test_entropy_pulls_samples_apart() -> None:
    content = {"content": torch.rand(2, 3, 32, 32)}
    plain, diverse = small("texture", diversity=0.0), small("texture", diversity=0.5)
    torch.manual_seed(1)
    without = plain.loss(content)
    torch.manual_seed(1)
    terms = diverse.loss(content)
    assert "entropy" not in without
    assert terms["style"].item() == pytest.approx(without["style"].item(), rel=1e-5)
    assert terms["total"].item() == pytest.approx(terms["style"].item() + terms["entropy"].item(), rel=1e-5)
    torch.manual_seed(1)
    output = diverse.generate(content["content"])
    assert terms["entropy"].item() == pytest.approx(-0.5 * log_spacing(output).item(), rel=1e-4)


def test_crops_that_do_not_fit_the_pyramid_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiples of 4 pixels"):
        small("stylise").loss({"content": torch.rand(1, 3, 30, 32)})
