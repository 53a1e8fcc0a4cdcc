"""Johnson: the network against its published form, its training, its styles, and the shared pieces beneath it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import tiny_runs
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from zoo import images
from zoo.checks import run_checks
from zoo.config import describe
from zoo.encoders import load_encoder
from zoo.errors import ConfigError, UnknownNameError, UnsupportedError, WeightsError
from zoo.methods.johnson import Johnson, JohnsonNet, JohnsonTask, JohnsonTaskConfig, import_state
from zoo.nn.gram import gram
from zoo.nn.losses import total_variation
from zoo.nn.transformer import TransformBody
from zoo.styles import TrainedStyle, find_styles, load_style, perceptual_hash, recognize, split_styles
from zoo.stylizer import Style
from zoo.training import ImageSet
from zoo.training.join import join_checkpoints
from zoo.training.perceptual import PerceptualLoss
from zoo.weights import read_state

# -- the published architecture, as straightforwardly as it can be written --------------------------------------------


def published(state: Mapping[str, Tensor], levels: Tensor) -> Tensor:
    """The fast_neural_style example in float32: RGB levels (1, 3, H, W) of 255 in, levels out, sides rounded up to
    multiples of four."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = state[f"{name}.conv2d.weight"], state[f"{name}.conv2d.bias"]
        pad = weight.shape[-1] // 2
        return F.conv2d(F.pad(x, (pad, pad, pad, pad), mode="reflect"), weight, bias, stride)

    def norm(name: str, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=state[f"{name}.weight"], bias=state[f"{name}.bias"], eps=1e-5)

    x = F.relu(norm("in1", conv("conv1", levels)))
    x = F.relu(norm("in2", conv("conv2", x, 2)))
    x = F.relu(norm("in3", conv("conv3", x, 2)))
    for i in range(1, 6):
        y = F.relu(norm(f"res{i}.in1", conv(f"res{i}.conv1", x)))
        x = x + norm(f"res{i}.in2", conv(f"res{i}.conv2", y))
    for i in (1, 2):
        x = F.relu(norm(f"in{3 + i}", conv(f"deconv{i}", F.interpolate(x, scale_factor=2, mode="nearest"))))
    return conv("deconv3", x)


def example_state(width: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the example's names, with the running statistics of old files."""
    generator = torch.Generator().manual_seed(seed)
    w = width
    convs = {"conv1": (w, 3, 9), "conv2": (2 * w, w, 3), "conv3": (4 * w, 2 * w, 3)}
    convs |= {f"res{i}.conv{k}": (4 * w, 4 * w, 3) for i in range(1, 6) for k in (1, 2)}
    convs |= {"deconv1": (2 * w, 4 * w, 3), "deconv2": (w, 2 * w, 3), "deconv3": (3, w, 9)}
    norms = {"in1": w, "in2": 2 * w, "in3": 4 * w, "in4": 2 * w, "in5": w}
    norms |= {f"res{i}.in{k}": 4 * w for i in range(1, 6) for k in (1, 2)}
    state: dict[str, Tensor] = {}
    for name, (out, into, side) in convs.items():
        state[f"{name}.conv2d.weight"] = (
            torch.randn(out, into, side, side, generator=generator) / (into * side**2) ** 0.5
        )
        state[f"{name}.conv2d.bias"] = torch.randn(out, generator=generator)
    for name, channels in norms.items():
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(channels, generator=generator)
        state[f"{name}.bias"] = 0.2 * torch.randn(channels, generator=generator)
        state[f"{name}.running_mean"] = torch.zeros(channels)
    return state


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 80), (67, 61), (33, 34)])
def test_imported_network_equals_the_published_one(size: tuple[int, int]) -> None:
    state = example_state()
    content = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    wanted = published(state, content * 255)[..., : size[0], : size[1]] / 255
    found = JohnsonNet.like(import_state(state))(content)
    assert found.shape == content.shape
    assert (found - wanted).abs().max() < 1e-4
    assert wanted.std() > 0.001


@torch.no_grad()
@pytest.mark.parametrize("name", ["candy", "mosaic"])
def test_published_weights_give_the_published_picture(shared: Path, tmp_path: Path, name: str) -> None:
    state = torch.load(shared / f"weights/johnson_onnx_zoo/{name}.pth", weights_only=True)
    save_file(import_state(state), tmp_path / f"{name}.safetensors")
    model = Johnson(checkpoint=tmp_path / f"{name}.safetensors", precision="fp32", device="cpu")
    assert model.style_names == (name,)
    for photo, size in (("astronaut", "exact:160x128"), ("chelsea", "exact:131x149")):
        content = images.read(f"builtin:{photo}", size=size).pixels
        height, width = content.shape[-2:]
        wanted = (published(state, content * 255) / 255).clamp(0, 1)[..., :height, :width]
        found = model(content, name)
        assert (found - wanted).abs().max() < 1e-4
        assert (found - content).abs().mean() > 0.1


def test_import_refuses_other_networks() -> None:
    state = example_state()
    with pytest.raises(WeightsError, match=r"unknown net\.weight"):
        import_state({**state, "net.weight": torch.zeros(1)})
    del state["in4.bias"]
    with pytest.raises(WeightsError, match=r"missing in4\.bias"):
        import_state(state)
    wrong = {**example_state(), "conv2.conv2d.weight": torch.zeros(8, 4, 5, 5)}
    with pytest.raises(WeightsError, match=r"body\.conv2\.weight is \(8, 4, 5, 5\)"):
        import_state(wrong)


# -- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize(("norm", "output"), [("instance", "linear"), ("batch", "tanh")])
def test_weights_say_which_network_they_are(norm, output, upsampling) -> None:  # type: ignore[no-untyped-def]
    network = JohnsonNet(norm, 4, upsampling, output).eval()
    again = JohnsonNet.like(network.state_dict()).eval()
    content = torch.rand(2, 3, 35, 38)
    with torch.no_grad():
        assert torch.equal(network(content), again(content))
        assert network(content).shape == content.shape
    if output == "tanh":
        assert 0 <= network(content).min() <= network(content).max() <= 1


def test_the_papers_network_has_the_papers_size() -> None:
    # 1,679,235 parameters: the published checkpoints, whose transposed form has as many.
    for upsampling in ("nearest", "transposed"):
        count = sum(p.numel() for p in JohnsonNet("instance", 32, upsampling).parameters())  # type: ignore[arg-type]
        assert count == 1_679_235


def test_channels_are_what_the_layers_give() -> None:
    body, seen = TransformBody(4), {}
    body(torch.rand(1, 3, 16, 16), lambda name, x: seen.setdefault(name, x))
    assert {name: x.shape[1] for name, x in seen.items()} == body.channels()


# -- the loss ---------------------------------------------------------------------------------------------------------


def test_perceptual_loss_against_its_equations() -> None:
    torch.manual_seed(0)
    output, content, style = torch.rand(2, 3, 24, 24), torch.rand(2, 3, 24, 24), torch.rand(1, 3, 32, 24)
    loss = PerceptualLoss(
        content_layer="relu2_2",
        style_layers=("relu1_2", "relu2_2"),
        content_weight=2.0,
        style_weight=3.0,
        tv_weight=1e-6,
    )
    found = loss(output, content, loss.style_targets(style))
    network = load_encoder("vgg19", taps=("relu1_2", "relu2_2"))

    def product(f: Tensor) -> Tensor:
        flat = f.flatten(2).double()
        return flat @ flat.mT / flat[0].numel()

    a, b, s = network(output), network(content), network(style)
    wanted = {
        "content": 2 * (a["relu2_2"] - b["relu2_2"]).square().mean(),
        "style": 3 * sum((product(a[k]) - product(s[k])).square().mean() for k in ("relu1_2", "relu2_2")),
        "tv": 1e-6 * total_variation(output) / 2,
    }
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-3)
    assert float(found["total"]) == pytest.approx(sum(float(v) for v in wanted.values()), rel=1e-3)
    assert loss.teacher.startswith("vgg19 to relu2_2; CC-BY-4.0")


def test_relative_terms_do_not_depend_on_the_features_scale() -> None:
    torch.manual_seed(0)
    output, content, style = torch.rand(2, 3, 24, 24), torch.rand(2, 3, 24, 24), torch.rand(1, 3, 32, 24)
    layers = ("relu1_2", "relu2_2")
    given: dict[str, Any] = {"style_layers": layers, "style_weight": 3.0, "tv_weight": 0.5, "relative": True}
    loss = PerceptualLoss(**given)
    targets = loss.style_targets(style)
    found = loss(output, content, targets)
    a, b = loss.network(output), loss.network(content)
    wanted_content = [
        ((x - y).square().sum() / y.square().sum()).item() for x, y in zip(a["relu2_2"], b["relu2_2"], strict=True)
    ]
    assert found["content"].item() == pytest.approx(sum(wanted_content) / 2, rel=1e-3)
    differences = [(output[..., :-1, 1:] - output[..., :-1, :-1]), (output[..., 1:, :-1] - output[..., :-1, :-1])]
    wanted_tv = sum(d.square().sum() for d in differences) / output.numel()
    assert found["tv"].item() == pytest.approx(0.5 * float(wanted_tv), rel=1e-4)
    # Whatever Gram matrices are divided by.
    divisors: tuple[Literal["chw", "hw"], ...] = ("chw", "hw")
    for divide_by in divisors:
        loss = PerceptualLoss(**given, divide_by=divide_by)
        assert loss(output, content, loss.style_targets(style))["style"].item() == pytest.approx(
            found["style"].item(), rel=1e-4
        )
    ratio = sum(
        ((gram(f, "chw") - targets[k]).square().sum((1, 2)) / targets[k].square().sum()).mean() for k, f in a.items()
    )
    assert found["style"].item() == pytest.approx(3 * float(ratio) / len(layers), rel=1e-3)


def test_perceptual_loss_of_a_style_to_itself_is_its_distance_to_the_content() -> None:
    image = torch.rand(1, 3, 32, 32)
    loss = PerceptualLoss(style_layers=("relu2_2",), content_layer=None)
    assert float(loss(image, None, loss.style_targets(image))["total"]) == pytest.approx(0, abs=1e-3)
    with pytest.raises(ConfigError, match="at least one layer"):
        PerceptualLoss(style_layers=())


# -- training ---------------------------------------------------------------------------------------------------------


def run(task: JohnsonTask, data: ImageSet, folder: Path, **options: Any) -> Path:
    """The folder of a tiny run."""
    return tiny_runs.run(task, data, folder, **options).parent


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all of a tiny run."""
    monkeypatch.setattr("zoo.training.export.plot_losses", lambda folder: None)


@pytest.fixture(scope="module")
def trained(photographs: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a run of a few steps in style swirls."""
    torch.manual_seed(0)
    config = JohnsonTaskConfig(style="builtin:swirls", style_size=64, width=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.training.export.plot_losses", lambda folder: None)
        folder = run(JohnsonTask(config), photographs, tmp_path_factory.mktemp("runs") / "swirls", steps=20, lr=5e-3)
    return folder / "model.safetensors"


def test_training_lowers_the_objective_and_the_file_knows_its_style(trained: Path) -> None:
    record = json.loads((trained.parent / "run.json").read_text())
    rows = (trained.parent / "losses.csv").read_text().splitlines()
    column = rows[0].split(",").index("total")
    totals = [float(row.split(",")[column]) for row in rows[1:]]
    assert sum(totals[-5:]) < 0.7 * sum(totals[:5])
    figures = record["figures"]
    assert figures["total"] == pytest.approx(figures["content"] + figures["style"] + figures["tv"], rel=1e-5)
    assert figures["unchanged"] > 0
    (style,) = record["task"]["styles"]
    assert (style["name"], style["title"]) == ("swirls", images.builtin("swirls").title)
    assert "records" not in record["task"]
    model = Johnson(checkpoint=trained, device="cpu")
    assert model.style_names == ("swirls",)
    assert model.encode_style(images.read("builtin:swirls").pixels).data == {"name": "swirls"}


def test_presets_are_the_papers_networks() -> None:
    assert {s.name: s.default for s in describe(JohnsonTaskConfig)}["preset"] == "zoo"
    paper = JohnsonTask(JohnsonTaskConfig(preset="paper", style_size=32))
    assert paper.criterion.content_layer == "relu2_2"
    assert {"tanh", "norm.conv1.running_mean"} <= set(paper.network.state_dict())
    assert paper.network.body.up1.weight.shape == (128, 64, 3, 3)
    code = JohnsonTask(JohnsonTaskConfig(preset="code", style_size=32, width=8))
    assert code.criterion.content_layer == "relu3_3"
    assert code.network.body.width == 8
    assert code.describe()["output"] == "tanh"
    # train.lua: 1e-6 of the sum over a batch of 4, beside means over it of all other terms.
    batch = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for task in (paper, code):
        found = task.criterion(batch, batch, task.criterion.held())["tv"]
        assert found.item() == pytest.approx(1e-6 * total_variation(batch).item(), rel=1e-4)


def test_batch_normalisation_is_not_moved_by_the_preview(photographs: ImageSet) -> None:
    task = JohnsonTask(JohnsonTaskConfig(preset="paper", width=4, style_size=32))
    before = task.network.norm["conv1"].running_mean.clone()  # type: ignore[union-attr]
    held_out = {"content": [torch.rand(1, 3, 32, 32)]}
    rows, figures = task.preview(held_out), task.evaluate(held_out)
    assert torch.equal(task.network.norm["conv1"].running_mean, before)  # type: ignore[arg-type]
    assert task.network.training
    assert rows[0][1].shape == (1, 3, 32, 32)
    assert set(figures) == {"total", "content", "style", "tv", "unchanged"}


# -- trained styles ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two styles in one file: the union of two single runs, and their records."""
    first = read_state(trained)
    torch.manual_seed(5)
    second = JohnsonNet(width=4).state_dict()
    joined = {f"{name}.{k}": v.half() for name, s in (("swirls", first), ("hatching", second)) for k, v in s.items()}
    records = [load_style(f"builtin:{name}", 64)[0].to_dict() for name in ("swirls", "hatching")]
    path = tmp_path_factory.mktemp("table") / "johnson.safetensors"
    save_file(joined, path, {"method": "johnson", "styles": json.dumps(records)})
    return path


def test_contract(table: Path) -> None:
    def build(*, device: str, precision: str) -> Johnson:
        return Johnson(device=device, precision=precision, checkpoint=table)

    results = run_checks(build)
    failed = {r.name: r.reason for r in results if r.status == "failed"}
    assert not failed
    assert sum(r.status == "passed" for r in results) > 20


def test_a_table_of_styles_by_name_and_by_image(table: Path, trained: Path) -> None:
    model = Johnson(checkpoint=table, device="cpu", precision="fp32")
    assert model.style_names == ("hatching", "swirls")
    content = images.read("builtin:chelsea", size="long:64").pixels
    by_name = model(content, "swirls")
    assert torch.equal(by_name, Johnson(checkpoint=trained, device="cpu", precision="fp32")(content, "swirls"))
    assert not torch.equal(by_name, model(content, "hatching"))
    copy = images.read("builtin:swirls", size="long:150").pixels
    assert torch.equal(model(content, copy), by_name)


def test_joined_runs_are_a_table(trained: Path, tmp_path: Path) -> None:
    out, _ = join_checkpoints(tmp_path / "johnson.safetensors", {"swirls": trained, "other": trained})
    model = Johnson(checkpoint=out, device="cpu", precision="fp32")
    assert model.style_names == ("other", "swirls")
    content = images.read("builtin:chelsea", size="long:64").pixels
    alone = Johnson(checkpoint=trained, device="cpu", precision="fp32")(content, "swirls")
    assert torch.equal(model(content, "other"), alone)
    # Each record is found under its part's name.
    assert model.encode_style(images.read("builtin:swirls").pixels).data["name"] in model.style_names


def test_another_image_is_refused_with_the_way_to_train_it(table: Path) -> None:
    model = Johnson(checkpoint=table, device="cpu", name="johnson.zoo")
    with pytest.raises(UnsupportedError) as caught:
        model.encode_style(images.read("builtin:mosaic").pixels)
    said = str(caught.value)
    assert "hatching, swirls" in said
    assert "'zoo train johnson --style FILE --content-dir PHOTOGRAPHS --out RUN'" in said
    assert f"{JohnsonTask.defaults.steps:,} steps" in said
    with pytest.raises(UnknownNameError, match="did you mean swirls"):
        model.encode_style("swirl")
    swirls = images.read("builtin:swirls", size="long:64").pixels
    with pytest.raises(UnsupportedError, match="leave the style's mask out"):
        model.encode_style(Style(swirls, mask=torch.ones_like(swirls[:, :1])))


def test_checkpoints_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="give a checkpoint"):
        Johnson(device="cpu")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="holds no network of this method"):
        Johnson(device="cpu", checkpoint=tmp_path / "x.safetensors")
    state = {f"a.{k}": v for k, v in JohnsonNet(width=4).state_dict().items()}
    save_file({**state, "stray": torch.zeros(1)}, tmp_path / "y.safetensors")
    with pytest.raises(WeightsError, match="tensors of no style: stray"):
        Johnson(device="cpu", checkpoint=tmp_path / "y.safetensors")
    del state["a.body.res3a.weight"]
    save_file(state, tmp_path / "z.safetensors")
    with pytest.raises(WeightsError, match=r"missing body\.res3a\.weight"):
        Johnson(device="cpu", checkpoint=tmp_path / "z.safetensors")


@pytest.mark.parametrize("name", sorted(images.builtin_styles()))
def test_copies_are_recognised_and_others_are_not(name: str) -> None:
    known = {n: TrainedStyle(n, perceptual_hash(images.read(f"builtin:{n}").pixels)) for n in images.builtin_styles()}
    whole = images.read(f"builtin:{name}").pixels
    for side in (96, 200, 389):
        small = images.resize(whole, f"long:{side}")
        assert recognize(small, known) == name
        assert recognize(images.read(images.encode(small, "jpg", quality=40)).pixels, known) == name
    others = {n: s for n, s in known.items() if n != name}
    assert recognize(whole, others) is None
    assert recognize(whole.flip(3), known) is None
    assert recognize(whole, {}) is None
    assert recognize(whole, {name: TrainedStyle(name)}) is None


def test_records_of_styles(tmp_path: Path) -> None:
    images.write(tmp_path / "My Style.png", torch.rand(1, 3, 40, 60))
    (tmp_path / "r.json").write_text(json.dumps({"My Style": {"title": "T", "artist": "A", "year": 1889}}))
    record, pixels = load_style(str(tmp_path / "My Style.png"), 30, str(tmp_path / "r.json"))
    assert (record.name, record.title, record.artist, record.year) == ("my-style", "T", "A", "1889")
    assert pixels.shape == (1, 3, 20, 30)
    assert load_style(str(tmp_path / "My Style.png"), 99)[1].shape == (1, 3, 40, 60)
    (tmp_path / "r.json").write_text(json.dumps({"My Style": {"colour": "T"}}))
    with pytest.raises(ConfigError, match="unknown keys: colour"):
        load_style(str(tmp_path / "My Style.png"), 30, str(tmp_path / "r.json"))
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        load_style(str(tmp_path / "My Style.png"), 30, str(tmp_path / "none.json"))
    for content in ([1], {"My Style": 3}):
        (tmp_path / "r.json").write_text(json.dumps(content))
        with pytest.raises(ConfigError, match="an object for every style"):
            load_style(str(tmp_path / "My Style.png"), 30, str(tmp_path / "r.json"))


def test_records_are_found_however_deep() -> None:
    a, b = TrainedStyle("a", "0" * 16, title="A"), TrainedStyle("b", "f" * 16)
    assert find_styles({"task": {"styles": [a.to_dict(), b.to_dict()]}}) == {"a": a, "b": b}
    joined = {"parts": {"one": {"task": {"styles": [a.to_dict()]}}, "b": {"task": {"styles": [b.to_dict()]}}}}
    found = find_styles(joined, ["one", "b", "unknown"])
    assert (found["one"].title, found["b"].phash, found["unknown"].phash) == ("A", "f" * 16, "")
    assert split_styles({"a.x.w": torch.zeros(1), "b.c.x.w": torch.ones(1)}, "x.w").keys() == {"a", "b.c"}
