"""CIN: the network, its mixes, its training, and styles added to a trained network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import HELD_OUT, run
from torch import Tensor
from torch.nn import functional as F

from zoo import images
from zoo.checks import run_checks
from zoo.errors import ConfigError, InputError, UnknownNameError, UnsupportedError, WeightsError
from zoo.methods.cin import CIN, CINNet, CINTask, CINTaskConfig
from zoo.stylizer import Mix
from zoo.training import ImageSet

SMALL: dict[str, Any] = {"width": 4, "style_size": 48}


@pytest.fixture(scope="module")
def trained(photographs: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    task = CINTask(CINTaskConfig(styles=("builtin:swirls", "builtin:hatching"), **SMALL))
    return run(task, photographs, tmp_path_factory.mktemp("runs") / "two", steps=20, lr=3e-3)


@pytest.fixture(scope="module")
def model(trained: Path) -> CIN:
    return CIN(checkpoint=trained, device="cpu", precision="fp32", name="cin.zoo")


# -- the network ------------------------------------------------------------------------------------------------------


def test_the_papers_network_has_the_papers_size() -> None:
    network = CINNet(3)
    assert sum(p.numel() for p in network.body.parameters()) == 1_674_432
    assert network.scale[0].numel() + network.shift[0].numel() == 3_206


@torch.no_grad()
def test_network_against_the_paper_written_out() -> None:
    torch.manual_seed(1)
    network = CINNet(1, 4)
    scale, shift = 1 + 0.3 * torch.randn(network.scale.shape[1]), 0.3 * torch.randn(network.scale.shape[1])
    state = network.body.state_dict()
    position = 0

    def layer(name: str, x: Tensor, stride: int = 1) -> Tensor:
        nonlocal position
        weight = state[f"{name}.weight"]
        pad, count = weight.shape[-1] // 2, weight.shape[0]
        x = F.conv2d(F.pad(x, (pad,) * 4, mode="reflect"), weight, None, stride)
        own = slice(position, position + count)
        position += count
        return F.instance_norm(x, weight=scale[own], bias=shift[own], eps=1e-5)

    content = torch.rand(1, 3, 24, 28)
    x = F.relu(layer("conv1", content))
    x = F.relu(layer("conv2", x, 2))
    x = F.relu(layer("conv3", x, 2))
    for i in range(1, 6):
        x = x + layer(f"res{i}b", F.relu(layer(f"res{i}a", x)))
    for name in ("up1", "up2"):
        x = F.relu(layer(name, F.interpolate(x, scale_factor=2, mode="nearest")))
    wanted = torch.sigmoid(layer("out", x))
    torch.testing.assert_close(network(content, scale, shift), wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_row_for_each_image_is_each_image_with_its_row() -> None:
    torch.manual_seed(2)
    network = CINNet(2, 4)
    network.scale.normal_()
    network.shift.normal_()
    content = torch.rand(2, 3, 21, 26)
    both = network(content, network.scale, network.shift)
    for i in range(2):
        alone = network(content[i : i + 1], network.scale[i], network.shift[i])
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-5, rtol=1e-5)
    assert both.shape == content.shape


# -- the method -------------------------------------------------------------------------------------------------------


def test_contract(trained: Path) -> None:
    def build(*, device: str, precision: str) -> CIN:
        return CIN(device=device, precision=precision, checkpoint=trained)

    results = run_checks(build)
    assert not {r.name: r.reason for r in results if r.status == "failed"}
    assert {"mix-single", "mix-order", "mix-weights"} <= {r.name for r in results if r.status == "passed"}


def test_a_mix_is_the_mix_of_scales_and_shifts(model: CIN) -> None:
    content = images.read("builtin:chelsea", size="long:64").pixels
    a, b = (model.encode_style(name) for name in ("swirls", "hatching"))
    mixed = model.stylize(content, Mix([(a, 0.3), (b, 0.7)])).image
    scale, shift = (0.3 * a.data[k] + 0.7 * b.data[k] for k in ("scale", "shift"))
    with torch.no_grad():
        wanted = model._network(content, scale, shift)
    torch.testing.assert_close(mixed, wanted, atol=1e-5, rtol=0)
    single = model.stylize(content, a).image
    assert torch.equal(model.stylize(content, Mix([(a, 1.0), (b, 0.0)])).image, single)
    assert torch.equal(model.stylize(content, Mix([(a, 0.5), (a, 0.5)])).image, single)
    assert (mixed - single).abs().mean() > 1e-3


@pytest.mark.parametrize("weights", [(0.5, 0.6), (1.5, -0.5), (float("nan"), 1.0)])
def test_wrong_mixes_are_refused(model: CIN, weights: tuple[float, float]) -> None:
    codes = [model.encode_style(name) for name in model.style_names]
    with pytest.raises(InputError, match="Style weights must"):
        Mix(list(zip(codes, weights, strict=True)))
    with pytest.raises(InputError, match="at least one style"):
        Mix([])


def test_styles_by_name_and_by_image(model: CIN) -> None:
    assert model.style_names == ("swirls", "hatching")
    for name in model.style_names:
        by_name = model.encode_style(name).data
        by_copy = model.encode_style(images.read(f"builtin:{name}", size="long:130").pixels).data
        assert all(torch.equal(by_name[k], by_copy[k]) for k in ("scale", "shift"))
    with pytest.raises(UnknownNameError, match="did you mean hatching"):
        model.encode_style("hatchin")
    with pytest.raises(
        UnsupportedError,
        match=r"hatching, swirls.*zoo train cin --add-style FILE --steps 1000 .*1,000 steps",
    ):
        model.encode_style(images.read("builtin:mosaic").pixels)


def test_a_file_whose_rows_have_no_names_is_refused(trained: Path, tmp_path: Path) -> None:
    save_file(load_file(trained), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="holds 2 styles but names 0"):
        CIN(checkpoint=tmp_path / "x.safetensors", device="cpu")
    save_file({"x": torch.zeros(1)}, tmp_path / "y.safetensors")
    with pytest.raises(WeightsError, match="is not a CIN network"):
        CIN(checkpoint=tmp_path / "y.safetensors", device="cpu")
    with pytest.raises(WeightsError, match="give a checkpoint"):
        CIN(device="cpu")


# -- training ---------------------------------------------------------------------------------------------------------


def test_training_lowers_the_objective(trained: Path) -> None:
    record = json.loads((trained.parent / "run.json").read_text())
    torch.manual_seed(0)
    untrained = CINTask(CINTaskConfig(styles=("builtin:swirls", "builtin:hatching"), **SMALL)).evaluate(HELD_OUT)
    assert record["figures"]["total"] < 0.75 * untrained["total"]
    assert record["figures"]["unchanged"] == pytest.approx(untrained["unchanged"], rel=1e-5)
    assert [r["name"] for r in record["task"]["rows"]] == ["swirls", "hatching"]
    assert record["task"]["rows"][1]["title"] == images.builtin("hatching").title
    figures = record["figures"]
    assert figures["total"] == pytest.approx((figures["swirls.total"] + figures["hatching.total"]) / 2, rel=1e-5)


def test_a_batch_learns_the_rows_it_uses_and_no_others() -> None:
    task = CINTask(CINTaskConfig(styles=tuple(f"builtin:{s}" for s in ("swirls", "mosaic", "cubism")), **SMALL))
    torch.manual_seed(4)
    chosen = set(torch.randint(3, (2,)).tolist())
    content = torch.rand(2, 3, 32, 32)
    torch.manual_seed(4)
    task.loss({"content": content})["total"].backward()
    assert task.network.scale.grad is not None
    moved = {row for row in range(3) if task.network.scale.grad[row].abs().sum() > 0}
    assert moved == chosen
    assert len(moved) < 3


def test_rows_have_a_learning_rate_of_their_own() -> None:
    task = CINTask(CINTaskConfig(styles=("builtin:swirls",), row_rate=7.0, **SMALL))
    optimizer = task.optimizer(type(task.defaults)(lr=1e-3), None)
    before = {name: p.detach().clone() for name, p in task.network.named_parameters()}
    task.loss({"content": torch.rand(2, 3, 32, 32)})["total"].backward()
    for group in optimizer.param_groups:  # as the trainer does for every update
        group["lr"] = 1e-3 * group["factor"]
    optimizer.step()
    moved = {name: (p - before[name]).abs().max().item() for name, p in task.network.named_parameters()}
    # Adam's first step is the learning rate itself wherever there is a gradient.
    assert moved["scale"] == pytest.approx(7e-3, rel=0.01)
    assert moved["shift"] == pytest.approx(7e-3, rel=0.01)
    assert moved["body.res3a.weight"] == pytest.approx(1e-3, rel=0.01)


def test_coefficients_scale_the_style_term() -> None:
    content = {"content": torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))}
    found = []
    for factor in (1.0, 3.0):
        torch.manual_seed(0)
        task = CINTask(CINTaskConfig(styles=("builtin:swirls",), coefficients=(factor,), **SMALL))
        found.append({name: float(value.detach()) for name, value in task.loss(content).items()})
    assert found[1]["style"] == pytest.approx(3 * found[0]["style"], rel=1e-5)
    assert found[1]["content"] == pytest.approx(found[0]["content"], rel=1e-5)
    with pytest.raises(ConfigError, match="a factor for each of the 1 styles"):
        CINTask(CINTaskConfig(styles=("builtin:swirls",), coefficients=(1.0, 2.0), **SMALL))


def test_an_added_style_leaves_the_others_bit_identical(
    trained: Path, model: CIN, photographs: ImageSet, tmp_path: Path
) -> None:
    task = CINTask(CINTaskConfig(add_style=("builtin:mosaic",), base=str(trained), style_size=48))
    added = run(task, photographs, tmp_path / "three", steps=6, lr=3e-3)
    before, after = load_file(trained), load_file(added)
    for key, value in before.items():
        assert torch.equal(after[key][: len(value)] if key in ("scale", "shift") else after[key], value), key
    assert after["scale"].shape[0] == 3
    assert not torch.equal(after["scale"][2], before["scale"].float().mean(0).half())
    wider = CIN(checkpoint=added, device="cpu", precision="fp32")
    assert wider.style_names == ("swirls", "hatching", "mosaic")
    content = images.read("builtin:chelsea", size="long:64").pixels
    for name in model.style_names:
        assert torch.equal(wider(content, name), model(content, name))
    assert not torch.equal(wider(content, "mosaic"), wider(content, "swirls"))
    record = json.loads((added.parent / "run.json").read_text())
    assert record["task"]["add_style"] == ["mosaic"]
    assert "mosaic.total" in record["figures"]
    assert "swirls.total" not in record["figures"]


def test_what_cannot_be_added(trained: Path) -> None:
    with pytest.raises(ConfigError, match="same name among swirls, hatching, swirls"):
        CINTask(CINTaskConfig(add_style=("builtin:swirls",), base=str(trained), style_size=48))
    with pytest.raises(ConfigError, match="either 'styles'"):
        CINTaskConfig(add_style=("builtin:mosaic",), styles=("builtin:swirls",))
    with pytest.raises(ConfigError, match="goes with 'add_style'"):
        CINTaskConfig(base="x")


def test_preview_shows_every_style() -> None:
    task = CINTask(CINTaskConfig(styles=("builtin:swirls", "builtin:mosaic"), **SMALL))
    (row,) = task.preview({"content": [torch.rand(1, 3, 33, 30)]})
    assert [tuple(image.shape) for image in row] == [(1, 3, 33, 30)] * 3
