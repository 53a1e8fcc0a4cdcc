"""Every method, control, metric and training step on a CUDA and an MPS device, both pretended (see pretended.py)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from metric_cases import SMALL_E
from pretended import DeviceError, Pretended
from torch import Tensor
from torch.nn import functional as F

import zoo
from zoo.checks.core import picture
from zoo.controls import Color, Photorealism
from zoo.controls.video import Video
from zoo.metrics import load_metric, load_set_metric
from zoo.nn.gram import gram
from zoo.registry import import_object, load_registry
from zoo.stylizer import Call, Context, Mix, Style, Stylized, Stylizer, Traits
from zoo.training import TrainConfig, train

DEVICES = ("cuda", "mps")


def halves(height: int, width: int) -> Tensor:
    """Two regions side by side, (2, H, W)."""
    left = (torch.arange(width) < width // 2).float().expand(height, width)
    return torch.stack([left, 1 - left])


def exercise(model: Stylizer) -> None:
    """Everything that the traits promise, on pictures whose sides nothing divides."""
    side = max(model.traits.min_size, 32)
    size = (side + 1, side + 9)
    content, traits = picture(*size, seed=1), model.traits
    styles: list[Any] = list(model.style_names[:2]) or [picture(side + 3, side + 5, seed=2 + i) for i in range(2)]
    codes = [model.encode_style(style, size) for style in styles]
    model.stylize(content, codes[0], progress=lambda step, total, losses, image: bool(image().sum() < 0))
    # Two promises in one call, where they go together.
    strength = 1.0 if traits.strength == "none" else 0.5
    if traits.mixes:
        model.stylize(content, Mix([(codes[0], 0.25), (codes[1], 0.75)]), strength=strength)
    elif strength < 1:
        model.stylize(content, codes[0], strength=strength)
    start = {"init": content.flip(3)} if "init" in traits.context else {}
    if "content_masks" in traits.context:
        own = [Style(image=style, mask=halves(side + 3, side + 5)[None, :1]) for style in styles]
        mix = Mix([(model.encode_style(style, size), 0.5) for style in own])
        model.stylize(content, mix, context=Context(content_masks=halves(*size), **start))
    elif start:
        model.stylize(content, codes[0], context=Context(**start))
    if traits.texture:
        model.synthesize(codes[0], size)


# Options that take another way through the code than the method's default; all are made as short as can be.
METHODS: dict[str, dict[str, Any]] = {
    "adain": {},
    "cin": {},
    "johnson": {},
    "texture-nets": {},
    "wct": {"levels": (3, 1), "texture_passes": 1},
    "style-swap": {"stride": 2},
    "style-swap shortlist": {"search": "shortlist"},
    "style-swap inverted": {"inversion": "optimisation", "num_steps": 2},
    "gatys": {"num_steps": 2, "levels": 2},
    "gatys luminance": {"num_steps": 2, "preserve_color": "luminance", "init": "style", "optimizer": "adam"},
    "gatys coral": {"num_steps": 1, "preserve_color": "coral", "init": "noise", "tv_weight": 1e-3},
    "cnnmrf": {"num_steps": 2, "levels": 2, "rotations": 1, "mrf_layers": ("relu3_1",)},
    "deep-analogy": {"num_steps": 8, "iterations": 1},
    "deep-photo": {"num_steps": 2},
    "neural-doodle": {"num_steps": 1},
    "portrait": {"num_steps": 1, "align": "none"},
    "nnst": {"num_steps": 1},
    "strotss": {"num_steps": 1},
    "lapstyle": {"num_steps": 1},
    "risser": {"num_steps": 1},
    "efdm": {},
}


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("case", METHODS)
def test_a_method_stays_on_its_device(case: str, kind: str) -> None:
    with Pretended(kind) as device:  # type: ignore[arg-type]
        model = zoo.load(case.split()[0], device=kind, precision="fp32", **METHODS[case])
        exercise(model)
        if case == "gatys":
            model.reconstruct_content(picture(64, 72, seed=1))
    assert device.operators


def test_every_method_is_pretended() -> None:
    assert {case.split()[0] for case in METHODS} == set(load_registry().methods)


# -- faults that the pretended devices must find ----------------------------------------------------------------------


class Plugin(Stylizer):
    """A method that keeps the rules, for others to break."""

    traits = Traits(strength="blend", min_size=16)

    def _build(self) -> None:
        self.weight = torch.ones(3, 3, 1, 1).to(self.device)

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> dict[str, Tensor]:
        assert style.image is not None
        return {"mean": style.image.mean((2, 3), keepdim=True)}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        ((code, _),) = style
        return Stylized(self.change(F.conv2d(content, self.weight)) + 0 * code.data["mean"])

    def change(self, x: Tensor) -> Tensor:
        return x


def resampled(x: Tensor) -> Tensor:
    return F.interpolate(x, size=x.shape[2:], mode="bicubic", antialias=True)


def bordered(x: Tensor) -> Tensor:
    grid = torch.zeros(1, *x.shape[2:], 2, device=x.device)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


FAULTS: dict[str, tuple[str, str, Callable[[Tensor], Tensor]]] = {
    "a constant left on the CPU": ("cuda", "same device", lambda x: x * torch.ones(3, 1, 1)),
    "an index made on the device of nothing": ("mps", "same device", lambda x: x.index_select(3, torch.arange(64))),
    "numpy without cpu": ("cuda", "numpy", lambda x: torch.from_numpy(x.numpy()).to(x.device)),
    "float64 sums": ("mps", "float64", lambda x: x - x.double().mean().float()),
    "float64 moved there": ("mps", "float64", lambda x: x + torch.ones(1, dtype=torch.float64).to(x.device)),
    "float64 made there": ("mps", "float64", lambda x: x + torch.zeros(1, dtype=torch.float64, device=x.device)),
    "antialiased bicubic": ("mps", "no MPS kernel", resampled),
    "eigenvectors": ("mps", "no MPS kernel", lambda x: x + torch.linalg.eigh(torch.eye(3, device=x.device))[0].sum()),
    "border padding": (
        "mps",
        "border padding",
        bordered,
    ),
    "uneven pooling": ("mps", "does not divide", lambda x: x + F.adaptive_avg_pool2d(x, (7, 7)).mean()),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str) -> None:
    kind, message, change = FAULTS[fault]
    broken = type("Broken", (Plugin,), {"change": lambda self, x: change(x)})
    with Pretended(kind), pytest.raises(DeviceError, match=message):  # type: ignore[arg-type]
        exercise(broken(device=kind))


def test_a_plugin_that_keeps_the_rules_passes() -> None:
    for kind in DEVICES:
        with Pretended(kind):  # type: ignore[arg-type]
            exercise(Plugin(device=kind))


def _waits(model: Stylizer) -> int:
    """How often one call waits for the device."""
    content = picture(64, 64, seed=1)
    code = model.encode_style(model.style_names[0] if model.style_names else picture(64, 64, seed=2), (64, 64))
    before = device_of_test.syncs
    model.stylize(content, code)
    return device_of_test.syncs - before


device_of_test: Pretended


# One, to bring the picture back to the CPU. WCT looks at the covariance and the picture of each of two levels, so that
# it can say which one failed.
WAITS = {"adain": 1, "cin": 1, "johnson": 1, "texture-nets": 1, "wct": 5}


@pytest.mark.parametrize("name", WAITS)
def test_a_network_does_not_wait_for_the_device(name: str) -> None:
    global device_of_test
    with Pretended("cuda") as device_of_test:
        assert _waits(zoo.load(name, device="cuda", precision="fp32", **METHODS[name])) == WAITS[name]


def test_a_wait_inside_a_network_is_counted() -> None:
    global device_of_test
    broken = type("Broken", (Plugin,), {"change": lambda self, x: x / max(x.max().item(), 1.0)})
    with Pretended("cuda") as device_of_test:
        assert _waits(Plugin(device="cuda")) == 1
        assert _waits(broken(device="cuda")) == 2


# -- metrics ----------------------------------------------------------------------------------------------------------

# Those whose networks must be fetched are in test_metrics_sets.py, on seeded ones.
PAIR = (
    "ssim",
    "stray_hue",
    "content_loss",
    "cf",
    "cfsd",
    "gram_loss",
    "mean_std_loss",
    "ge",
    "lp",
    "e_statistic",
    "color_histogram",
)


@pytest.mark.parametrize("kind", DEVICES)
def test_metrics_stay_on_their_device(kind: str) -> None:
    with Pretended(kind):  # type: ignore[arg-type]
        output, content, style = (picture(64, 72, seed=seed).to(kind) for seed in (1, 2, 3))
        for name in PAIR:
            load_metric(name, device=kind, **(SMALL_E if name == "e_statistic" else {}))(output, content, style)
        group = load_set_metric("fd_vgg19", device=kind)
        group.begin()
        for image in (output, content):
            group.add(image, content, style)
        with pytest.warns(UserWarning, match="rank-deficient"):
            group.value()


# -- controls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DEVICES)
def test_controls_take_pictures_from_anywhere(kind: str) -> None:
    with Pretended(kind):  # type: ignore[arg-type]
        content, style = (picture(32, 40, seed=seed).to(kind) for seed in (1, 2))
        model = Plugin(device=kind)
        for control in (Color(model, "luminance"), Color(model, "coral"), Photorealism(model)):
            assert control(content, style).device.type == kind
        fitted = zoo.load("gatys", device=kind, precision="fp32", num_steps=1)
        still = torch.zeros(1, 2, 32, 40)
        video = Video(fitted, motion=lambda *frames: (still, still))
        frames = list(video.frames([content, content], fitted.encode_style(style)))
        assert {frame.image.device.type for frame in frames} == {kind}


# -- training ---------------------------------------------------------------------------------------------------------


class Anywhere(CPUAccelerator):
    """Takes any device's word for it."""

    def setup_device(self, device: torch.device) -> None:
        pass


def fabric(device: Pretended, **options: Any) -> Fabric:
    """Lightning's Fabric, which looks for devices by itself, told to use the pretended one."""
    strategy = SingleDeviceStrategy(device=device.device, accelerator=Anywhere())
    return Fabric(strategy=strategy, precision=options["precision"], plugins=options["plugins"])


LAYERS = {"content_layer": "relu2_1", "style_layers": ("relu1_1", "relu2_1")}
TRAINING: dict[str, dict[str, Any]] = {
    "adain": {"color_weight": 1.0},
    "cin": {"styles": ("builtin:swirls", "builtin:mosaic"), "style_size": 32, "width": 4, **LAYERS},
    "johnson": {"style_size": 32, "width": 4, **LAYERS},
    "style-swap": {"pixel_weight": 1.0},
    "texture-nets": {"style_size": 32, "scales": 2, "diversity": 1.0, "mode": "texture", "style_layers": ("relu1_1",)},
    "wct": {"level": 2, "feature_weight": 1.0},
    "wct upper": {"level": 2, "upper_only": True, "whiten": False},
}


@pytest.mark.parametrize("case", TRAINING)
def test_a_step_of_training_stays_on_its_device(
    case: str, photographs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On MPS, which forbids all that CUDA does."""
    monkeypatch.setattr("zoo.training.export.plot_losses", lambda folder: None)
    cls = import_object(load_registry().methods[case.split()[0]].training)
    task = cls(cls.Config.make(TRAINING[case]))
    config = TrainConfig(steps=2, batch_size=2, crop=32, clip=1.0, ema=0.9, preview_every=1, precision="fp32")
    config = dataclasses.replace(config, accelerator="mps")
    sets = {name: photographs for name in task.sets}
    held_out = {name: [picture(32, 40, seed=1)] for name in task.sets}
    with Pretended("mps") as device:
        monkeypatch.setattr("lightning_fabric.Fabric", functools.partial(fabric, device))
        result = train(task, config, sets, tmp_path / "run", held_out=held_out)
    assert result.ended == "steps"
    assert {"convolution", "convolution_backward"} <= device.operators


def test_every_training_is_pretended() -> None:
    trainable = {name for name, entry in load_registry().methods.items() if entry.training}
    assert {case.split()[0] for case in TRAINING} == trainable


def test_a_half_precision_product_of_cuda_comes_back_in_float32() -> None:
    features = torch.rand(2, 8, 5, 7)
    with Pretended("cuda"):
        for dtype in (torch.bfloat16, torch.float16):
            found = gram(features.to("cuda", dtype))
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.cpu(), gram(features.to(dtype).float()), rtol=2e-2, atol=0)
