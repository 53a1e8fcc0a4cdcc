"""Pictures by tiles: the pieces, each method against its whole picture, and when tiles are chosen."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from plugins.good.zoo_tint.tint import Tint
from rich.console import Console
from rich.progress import Progress as RichProgress
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo import memory
from zoo.checks.core import picture
from zoo.cli.common import Reporter, StopRequest
from zoo.controls import Color, Tiles
from zoo.errors import ConfigError, InputError, MemoryLimitError, NumericalError, UnsupportedError
from zoo.methods.johnson import JohnsonNet
from zoo.nn.noise_pyramid import NOISE, Pyramid, draw, with_image
from zoo.nn.optimize import Fitting
from zoo.nn.tiles import (
    Local,
    Map,
    Normalized,
    Stopped,
    Whole,
    boxes,
    boxes_of,
    collect,
    from_levels,
    mean_and_variance,
    store,
    to_levels,
    watched,
)
from zoo.nn.whitening import MomentSums, moments
from zoo.stylizer import Call, Context, Mix, Style

LEVEL = 1 / 255
TILE = 64
PHOTO = picture(72, 104, seed=1)
PAINTINGS = [picture(72, 80, seed=seed, stripes=True) for seed in (2, 3)]


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("size", [(1, 1), (7, 64), (65, 130), (200, 63)])
@pytest.mark.parametrize("side", [1, 16, 64, 1000])
def test_boxes_cover_every_position_once(size: tuple[int, int], side: int) -> None:
    count = torch.zeros(size)
    for rows, columns in boxes(size, side):
        count[rows, columns] += 1
        assert max(rows.stop - rows.start, columns.stop - columns.start) <= max(2, side) + 1
    assert (count == 1).all()


def reflected(conv: nn.Module) -> nn.Module:
    return nn.Sequential(nn.ReflectionPad2d(1), conv)


@pytest.mark.parametrize("size", [(41, 52), (40, 53)])
@torch.no_grad()
def test_a_chain_of_local_maps_is_the_whole_network(size: tuple[int, int]) -> None:
    torch.manual_seed(3)
    first, second, last = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3, stride=2), nn.Conv2d(12, 3, 3)
    pool, image = nn.MaxPool2d(2, ceil_mode=True), noise(1, 3, *size)
    one, two, three = reflected(first), reflected(second), reflected(last)

    def enlarge(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=4, mode="nearest")

    def join(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], 1)

    small = pool(two(F.instance_norm(one(image)).relu()))
    wanted = three(enlarge(join(small, small.sin())))

    whole = Whole(image)
    features = Normalized(Local(one, whole, halo=1), torch.ones(5), torch.zeros(5), 16)
    deep = Local(pool, Local(two, Local(F.relu, features), halo=1, down=2), down=2)
    joined = Local(join, deep, Local(torch.sin, deep))
    found = Local(three, Local(enlarge, joined, up=4), halo=1)
    assert (found.stride, deep.stride) == (1, 4)
    assert found.size == wanted.shape[-2:]
    torch.testing.assert_close(store(found, 16).tensor, wanted, atol=1e-5, rtol=0)


def test_patches_keep_their_grid_in_every_tile() -> None:
    image = noise(1, 1, 44, 61)

    def every_third(x: Tensor) -> Tensor:
        kept = torch.zeros_like(x)
        kept[..., ::3, ::3] = x[..., ::3, ::3]
        return kept

    assert torch.equal(store(Local(every_third, Whole(image), halo=2, cell=3), 16).tensor, every_third(image))


def test_moments_are_those_of_the_whole_map() -> None:
    features = noise(1, 6, 37, 50) * torch.arange(1.0, 7).view(1, -1, 1, 1) + 100
    mean, variance = mean_and_variance(Whole(features), 16)
    torch.testing.assert_close(mean, features.double().mean((0, 2, 3)))
    torch.testing.assert_close(variance, features.double().var((0, 2, 3), correction=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_covariances_are_those_of_the_whole_map(weighted: bool) -> None:
    features = noise(1, 6, 37, 50).cumsum(1) + 10
    mask = noise(37, 50) if weighted else None
    sums, wanted = MomentSums(), moments(features, mask)
    for box in boxes_of(Whole(features), 16):
        sums.add(features[..., box[0], box[1]], None if mask is None else mask[box])
    found = sums.moments()
    assert found.count == pytest.approx(wanted.count)
    torch.testing.assert_close(found.mean, wanted.mean)
    torch.testing.assert_close(found.covariance, wanted.covariance)


def test_a_map_can_be_stored_over_its_source() -> None:
    kept = noise(1, 8, 40, 40)
    wanted = kept + 1
    target: Map = Local(lambda x: x + 1, Whole(kept))
    assert store(target, 16, out=kept).tensor is kept
    assert torch.equal(kept, wanted)


@pytest.mark.parametrize("method", ["adain", "efdm", "wct", "style-swap"])
@pytest.mark.parametrize("regions", [False, True])
def test_tiles_give_the_whole_picture(method: str, regions: bool) -> None:
    model = zoo.load(method, device="cpu", precision="fp32")
    codes = [model.encode_style(image) for image in PAINTINGS]
    mix, context = Mix([(codes[0], 0.25), (codes[1], 0.75)]), None
    if regions:
        left = (torch.arange(PHOTO.shape[-1]) < 70).float().expand(PHOTO.shape[-2], -1)
        context = Context(content_masks=torch.stack([left, (1 - left) * 0.5]))
    whole, tiled = (
        model.stylize(PHOTO, mix, strength=0.5 if regions else 1.0, context=context, tile=tile).image
        for tile in (None, TILE)
    )
    assert (whole - tiled).abs().max() < LEVEL / 50


@pytest.mark.parametrize(("method", "style"), [("johnson", "swirls"), ("cin", "swirls"), ("texture-nets", "marbling")])
def test_normalised_networks_are_exact(method: str, style: str) -> None:
    model = zoo.load(method, device="cpu", precision="fp32")
    content = PHOTO[..., :71, :101]  # no multiple of anything
    code = model.encode_style(style)
    whole, tiled = (model.stylize(content, code, tile=tile).image for tile in (None, TILE))
    assert (whole - tiled).abs().max() < LEVEL / 5


@pytest.mark.parametrize(
    ("method", "style", "strength", "options"),
    [
        ("johnson", "swirls", 1.0, {}),
        ("johnson", "swirls", 0.5, {}),  # blended with the whole content
        ("cin", "swirls", 1.0, {}),
        ("texture-nets", "marbling", 1.0, {}),
        ("texture-nets", "marbling", 0.25, {}),
        ("adain", None, 0.5, {}),
        ("wct", None, 1.0, {"levels": (2, 1)}),
        ("style-swap", None, 1.0, {}),
    ],
)
def test_levels_are_the_floats_rounded(
    method: str, style: str | None, strength: float, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo.load(method, device="cpu", precision="fp32", **options)
    levels = to_levels(PHOTO[..., :71, :101])  # no multiple of anything
    code, shown = model.encode_style(style or PAINTINGS[0]), list[Tensor]()
    wanted = model.stylize(from_levels(levels), code, strength=strength, tile=TILE).image

    def watch(step: int, total: int, losses: Any, image: Any) -> bool:
        shown.append(image())
        return False

    found = model.stylize(levels, code, strength=strength, tile=TILE, levels=True, progress=watch).image
    assert torch.equal(found, to_levels(wanted))
    assert all(image.dtype == torch.float32 and image.max() <= 1 for image in shown)
    resized = model.stylize(from_levels(levels), code, strength=strength, tile=TILE, levels=True).image
    assert torch.equal(resized, found)
    # Nobody makes floats of the whole content, or a copy of a whole result.
    monkeypatch.setattr(zoo.stylizer, "from_levels", None)
    monkeypatch.setattr(zoo.stylizer.Stylizer, "_finish", None)
    assert torch.equal(model.stylize(levels, code, strength=strength, tile=TILE, levels=True).image, found)
    with pytest.raises(InputError, match="must be float32"):
        model.stylize(levels, code, tile=TILE)


class OfSize(TorchDispatchMode):
    """Counts the floating-point tensors that are as large as a picture."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size, self.count = (height, width), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.is_floating_point() and made.dim() == 4:
            self.count += made.shape[-2] >= self.size[0] and made.shape[-1] >= self.size[1]
        return made


@pytest.mark.parametrize(
    ("method", "style"),
    [("johnson", "swirls"), ("texture-nets", "marbling"), ("adain", None), ("efdm", None), ("style-swap", None)],
)
def test_nothing_as_large_as_the_picture_is_of_floats(method: str, style: str | None) -> None:
    model, height, width = zoo.load(method, device="cpu", precision="fp32"), 250, 301
    code, levels = model.encode_style(style or PAINTINGS[0]), to_levels(noise(1, 3, height, width))
    with OfSize(height, width) as seen:
        model.stylize(levels, code, tile=TILE, levels=True)
    assert seen.count == 0


@pytest.mark.parametrize("method", ["adain", "wct"])
def test_a_watched_batch_of_levels_is_shown_as_it_came_and_as_it_is_made(method: str) -> None:
    model = zoo.load(method, device="cpu", precision="fp32", **({"levels": (1,)} if method == "wct" else {}))
    code, shown = model.encode_style(PAINTINGS[0]), list[Tensor]()
    both = to_levels(torch.cat([PHOTO, PHOTO.flip(-1)]))

    def watch(step: int, total: int, losses: Any, image: Any) -> None:
        shown.append(image())

    found = model.stylize(both, code, tile=TILE, levels=True, progress=watch).image
    assert found.dtype == torch.uint8
    assert torch.equal(shown[0][1], from_levels(both)[1])
    assert (from_levels(found) - shown[-1]).abs().max() <= LEVEL / 2 + 1e-6


def test_who_watches_is_told_of_every_tile_of_every_pass() -> None:
    told: list[tuple[int, int]] = []
    model, content = zoo.load("johnson", device="cpu"), noise(1, 3, 130, 70)
    with watched(lambda done, total: told.append((done, total))):
        model.stylize(content, model.encode_style("mosaic"), tile=64)
    model.stylize(content, model.encode_style("mosaic"), tile=64)  # nobody watches any more
    passes = [number for number, (done, _) in enumerate(told) if done == 1]
    assert len(passes) > 10  # moments of each normalisation, and the picture
    for first, after in itertools.pairwise([*passes, len(told)]):
        assert told[first:after] == [(done, after - first) for done in range(1, after - first + 1)]
    assert max(total for _, total in told) == 6
    # A bar says which pass it is.
    with RichProgress(console=Console(file=io.StringIO())) as bar:
        reporter = Reporter(bar, StopRequest())
        reporter.begin("photo.png")
        for done, total in told[: passes[1] + 1]:
            reporter.tile(done, total)
        (task,) = bar.tasks
        assert (task.description, task.completed) == ("photo.png, pass 2", 1)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_a_picture_at_the_next_tile(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out, told = save(tmp_path / "photo.png", noise(1, 3, 192, 192)), tmp_path / "out.png", list[int]()
    tile = Reporter.tile

    def asked(self: Reporter, done: int, total: int) -> bool:
        told.append(done)
        os.kill(os.getpid(), number)
        return tile(self, done, total)

    monkeypatch.setattr(Reporter, "tile", asked)
    call = ("stylize", "-m", "johnson", "--style", "swirls", "--precision", "fp32", "--content-size", "0", "--tile")
    assert run(*call, "64", "--content", photo, "-o", str(out)) == 128 + number
    assert told == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
    assert capsys.readouterr().err.strip() == "zoo: stopped before photo__swirls__johnson was made."


LIGHT = {"content_layers": ("relu1_1",), "style_layers": ("relu1_1",), "style_layer_weights": (1.0,)}


def test_a_picture_without_tiles_ends_between_its_levels() -> None:
    model, asked, steps = zoo.load("wct", device="cpu", precision="fp32"), list[tuple[int, int]](), list[int]()
    code = model.encode_style(PAINTINGS[0])

    def ask(done: int, total: int) -> bool:
        asked.append((done, total))
        return done == 2

    def watch(step: int, *rest: Any) -> None:
        steps.append(step)

    with watched(ask), pytest.raises(Stopped):
        model.stylize(PHOTO, code, progress=watch)
    assert asked == [(1, len(model.config.levels)), (2, len(model.config.levels))]
    assert steps == [1, 2]


@pytest.mark.parametrize(("steps_done", "levels"), [(0, 1), (2, 1), (0, 2), (2, 2)])
def test_an_optimiser_stopped_among_its_tiles_hands_over_its_best_image(steps_done: int, levels: int) -> None:
    """Of two sizes the first has a single tile, and both have two of the four steps."""
    model = zoo.load("gatys", device="cpu", precision="fp32", num_steps=4, levels=levels, **LIGHT)
    code, steps, told = model.encode_style(PAINTINGS[0]), list[int](), list[bool]()

    def ask(done: int, total: int) -> bool:
        told.append(len(steps) >= steps_done)
        return told[-1]

    def watch(step: int, *rest: Any) -> None:
        steps.append(step)

    def stylize() -> Any:
        with watched(ask):
            return model.stylize(PHOTO, code, tile=TILE, progress=watch, levels=True)

    if (steps_done, levels) == (0, 1):
        with pytest.raises(Stopped):
            stylize()
        assert told == [True]
        return
    result = stylize()
    assert result.stopped
    assert result.steps == len(steps) == 2
    assert told.count(True) == 1
    alone = zoo.load("gatys", device="cpu", precision="fp32", num_steps=2, **LIGHT)
    if levels == 1:  # the better of two steps
        same = alone.encode_style(PAINTINGS[0])
        assert torch.equal(result.image, alone.stylize(PHOTO, same, tile=TILE, levels=True).image)


def test_a_result_that_is_not_finite_is_no_picture() -> None:
    broken = PHOTO.clone()
    broken[0, 1, 70, 100] = float("nan")
    with pytest.raises(NumericalError, match="not finite"):
        collect(Whole(broken), Call(tile=TILE, levels=True), PHOTO)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize("output", ["linear", "tanh"])
@torch.no_grad()
def test_every_kind_of_johnson_network_goes_by_tiles(norm: Any, upsampling: Any, output: Any) -> None:
    torch.manual_seed(5)
    network = JohnsonNet(norm, 4, upsampling, output).eval()
    network.body.out.weight.mul_(10)
    for layer in network.norm.values():
        for value in (*layer.parameters(), *(b for b in layer.buffers() if b.is_floating_point())):
            value.uniform_(0.5, 1.5)
    for image in (PHOTO, PHOTO[..., :67, :101]):
        found = collect(network.by_tiles(image, 32), Call(tile=32), image)
        torch.testing.assert_close(found, network(image), atol=1e-4, rtol=0)


@torch.no_grad()
def test_noise_goes_by_tiles_and_circular_padding_does_not() -> None:
    torch.manual_seed(6)
    networks = [Pyramid(4, 2 * NOISE, "batch", circular) for circular in (False, True)]
    image, drawn = PHOTO, draw(networks[0], 1, (72, 104), None)
    whole = networks[0].eval()(with_image(networks[0], image, drawn))
    found = store(networks[0].by_tiles(image, drawn, 32), 32).tensor
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=0)
    with pytest.raises(UnsupportedError, match="pads circularly and cannot be computed by tiles"):
        networks[1].by_tiles(image, drawn, 32)


@pytest.mark.parametrize("stride", [2, 3])
def test_the_swaps_patches_keep_their_grid(stride: int) -> None:
    model = zoo.load("style-swap", device="cpu", precision="fp32", stride=stride)
    code = model.encode_style(PAINTINGS[0])
    whole, tiled = (model.stylize(PHOTO, code, tile=tile).image for tile in (None, TILE))
    assert (whole - tiled).abs().max() < LEVEL / 50


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"pool": "avg", "content_loss": "half-sum", "gram_divisor": "chw", "content_layers": ("relu2_2", "relu3_1")}],
    ids=["zoo", "others"],
)
def test_the_loss_and_its_gradient_are_those_of_the_whole_image(options: dict[str, Any], regions: bool) -> None:
    layers = ("relu1_1", "relu2_1", "relu3_2")
    options = {"content_layers": ("relu3_1",), "content_layer_weights": (2.0,), **options}
    model = zoo.load(
        "gatys", device="cpu", precision="fp32", style_layers=layers, style_layer_weights=(1.0, 0.5, 0.25), **options
    )
    codes = [model.encode_style(image) for image in PAINTINGS]
    size = (PHOTO.shape[-2], PHOTO.shape[-1])
    masks = torch.stack([noise(*size), noise(*size).flip(0) * 0.5]) if regions else None
    found = []
    for tile in (None, TILE):
        call = Call(strength=0.5, context=Context(content_masks=masks), tile=tile)
        image = picture(*size, seed=4).requires_grad_()
        terms = model._problem(PHOTO, Mix([(codes[0], 0.25), (codes[1], 0.75)]), size, call).loss(0, image)(image)
        # Of unequal shares, so that each term's own gradient counts.
        (gradient,) = torch.autograd.grad(0.7 * terms["content"] + 0.3 * terms["style"], image)
        found.append((terms, gradient))
    (wanted, slope), (terms, gradient) = found
    assert list(terms) == list(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=0)
    assert (gradient - slope).norm() < 1e-5 * slope.norm()


@functools.cache
def light(method: str) -> Any:
    layers = {"content_layers": ("relu2_1",), "style_layers": ("relu1_1", "relu3_1"), "style_layer_weights": (1.0, 0.5)}
    options = {"smoothing_radius": 5} if method == "deep-photo" else {}
    return zoo.load(method, device="cpu", precision="fp32", **layers, **options)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.sampled_from(["gatys", "lapstyle", "deep-photo"]), st.integers(32, 130), st.integers(32, 130), st.booleans())
def test_losses_of_pictures_of_any_size(method: str, height: int, width: int, regions: bool) -> None:
    model, photo, style = light(method), noise(1, 3, height, width).cumsum(-1) % 1, Style(PAINTINGS[0])
    context = Context()
    if regions and method == "deep-photo":
        style = Style(PAINTINGS[0], labels=(noise(1, 1, 72, 80) * 3).long())
        context = Context(content_labels=(noise(1, 1, height, width) * 2).long())
    elif regions:
        context = Context(content_masks=noise(1, height, width))
    mix, found = Mix([(model.encode_style(style), 1.0)]), []
    for tile in (None, TILE):
        problem = model._problem(photo, mix, (height, width), Call(strength=0.5, context=context, tile=tile))
        image = picture(height, width, seed=4).requires_grad_()
        terms = problem.loss(len(problem.sizes) - 1, image)(image)
        (gradient,) = torch.autograd.grad(sum(terms.values()), image)
        shown = image.detach() if problem.finish is None else problem.finish(image.detach())
        found.append((terms, gradient, shown))
    (wanted, slope, finished), (terms, gradient, shown) = found
    assert list(terms) == list(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=0)
    assert (gradient - slope).norm() < 1e-5 * slope.norm()
    torch.testing.assert_close(shown, finished, atol=1e-6, rtol=0)


def test_lbfgs_keeps_by_tiles_what_memory_is_granted() -> None:
    model = zoo.load("gatys", device="cpu")
    how = Fitting(history=25)
    assert model._within(how, (8192, 8192), Call()).history == 25
    assert model._within(how, (4096, 4096), Call(tile=1024)).history == 5
    assert model._within(how, (512, 512), Call(tile=64)).history == 25
    assert model._within(how, (60_000, 60_000), Call(tile=64)).history == 1


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("adain", {}),
        ("efdm", {}),
        ("wct", {}),
        ("gatys", {"levels": 2}),
        ("deep-photo", {}),
        ("portrait", {"align": "none"}),
    ],
)
def test_a_large_style_is_encoded_by_tiles(
    method: str, options: dict[str, Any], regions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo.load(method, device="cpu", precision="fp32", **options)
    if regions and not model.traits.context & {"content_masks", "content_labels"}:
        pytest.skip("takes no regions")
    height, width = 101, 150  # no multiple of anything
    style = Style(noise(1, 3, height, width).cumsum(-1) % 1)
    if "content_masks" in model.traits.context and regions:
        style = dataclasses.replace(style, mask=noise(1, 1, height, width))
    elif regions:
        style = dataclasses.replace(style, labels=(noise(1, 1, height, width) * 3).long())
    whole, told = model.encode_style(style), list[int]()
    monkeypatch.setattr(memory, "_LARGE_STYLE", 100 * 150)
    monkeypatch.setattr(memory, "_STYLE_TILE", 64)
    with watched(lambda done, total: told.append(total)):
        tiled = model.encode_style(style)
    assert set(told) == {6}
    found, wanted = (flat(code.data) for code in (tiled, whole))
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() <= 1e-4 * other.norm()


def flat(data: Any) -> list[Tensor]:
    """The tensors of a style's code."""
    if isinstance(data, Tensor):
        return [data]
    parts = data.values() if isinstance(data, dict) else data
    return [tensor for part in parts for tensor in flat(part)]


def test_the_command_line_takes_a_style_that_fits_by_tiles_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    painting = save(tmp_path / "painting.png", noise(1, 3, 128, 128))
    call = ("stylize", "--style-size", "0", "--content-size", "32", "-q", "-o", str(tmp_path / "out.png"), "--style")
    monkeypatch.setattr(memory, "free_memory", lambda device: 128 * 128 * 200)
    assert run(*call, painting, "-m", "adain", "--precision", "fp32") == 2
    assert "for a style of 128 x 128 pixels" in capsys.readouterr().err
    monkeypatch.setattr(memory, "_LARGE_STYLE", 100 * 100)
    monkeypatch.setattr(memory, "_STYLE_TILE", 64)
    assert run(*call, painting, "-m", "adain", "--precision", "fp32") == 0
    assert run(*call, painting, "-m", "style-swap", "--precision", "fp32") == 2


def test_a_batch_by_tiles_is_its_pictures_one_by_one() -> None:
    model = zoo.load("adain", device="cpu", precision="fp32")
    code = model.encode_style(PAINTINGS[0])
    both = model.stylize(torch.cat([PHOTO, PHOTO.flip(-1)]), code, tile=TILE).image
    torch.testing.assert_close(both[:1], model.stylize(PHOTO, code, tile=TILE).image)


def test_controls_hand_tiles_on_and_nest() -> None:
    model = zoo.load("adain", device="cpu", precision="fp32")
    wanted = Color(model, "luminance")(PHOTO, PAINTINGS[0])
    for nested in (Tiles(Color(model, "luminance"), TILE), Color(Tiles(model, TILE), "luminance")):
        assert (nested(PHOTO, PAINTINGS[0]) - wanted).abs().max() < LEVEL / 50
    assert (zoo.load("adain")(PHOTO, PAINTINGS[0]) - wanted).abs().max() > LEVEL


def test_what_cannot_be_cut_is_one_sentence() -> None:
    code = Tint().encode_style(PAINTINGS[0])
    with pytest.raises(UnsupportedError, match="cannot be computed by tiles, only a whole picture at once"):
        Tint().stylize(PHOTO, code, tile=TILE)
    with pytest.raises(UnsupportedError, match="by tiles"):
        Tiles(Tint(), TILE)(PHOTO, PAINTINGS[0])
    fitted = zoo.load("style-swap", device="cpu", inversion="optimisation")
    with pytest.raises(UnsupportedError, match="by tiles"):
        fitted.stylize(PHOTO, fitted.encode_style(PAINTINGS[0]), tile=TILE)
    model = zoo.load("adain", device="cpu")
    with pytest.raises(InputError, match="at least 64 whole pixels"):
        model.stylize(PHOTO, model.encode_style(PAINTINGS[0]), tile=32)
    for tile in ("large", 63, "-1"):
        with pytest.raises(ConfigError, match=r"auto, off or a side of at least 64 pixels"):
            Tiles(model, tile)


def test_auto_cuts_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.load("adain", device="cpu", precision="fp32")
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**10)
    assert memory.tile_side(model, 3700, 3700) is None
    assert memory.tile_side(model, 4000, 4000) == 1024  # 9.0 GB, of numbers that are rounded down
    assert memory.tile_side(model, 8000, 8000) == 1024
    assert memory.tile_side(Tint(), 8000, 8000) is None
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**9)
    assert memory.tile_side(model, 8000, 8000) == 512
    memory.require(model, 4000, 4000, 512)
    with pytest.raises(MemoryLimitError):
        memory.require(model, 4000, 4000)
    with pytest.raises(MemoryLimitError):
        memory.require(model, 8000, 8000, 512)


def test_what_is_kept_of_a_large_picture_is_the_methods_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Style-swap keeps its result alone, CIN two maps at a quarter of the side: 4.5 GB in float32."""
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**9)
    memory.require(zoo.load("style-swap", device="cpu", precision="fp32"), 8192, 8192, 1024)
    monkeypatch.setattr(memory, "free_memory", lambda device: 4 * 10**9)
    wide = zoo.load("cin", device="cpu", precision="fp32")
    with pytest.raises(MemoryLimitError):
        memory.require(wide, 8192, 8192, 1024)
    narrow = zoo.load("cin.narrow", device="cpu", precision="fp32")
    memory.require(narrow, 8192, 8192, 1024)
    assert narrow.traits.pixel_bytes == wide.traits.pixel_bytes * 10 // 32


def test_what_an_optimiser_takes_counts_its_pairs() -> None:
    few, usual, many = (
        zoo.load("gatys", device="cpu", **options).traits.pixel_bytes
        for options in ({"num_steps": 5}, {}, {"history": 100})
    )
    assert usual - few == 24 * (25 - 4)
    assert many - usual == 24 * (100 - 25)
    assert zoo.load("gatys", device="cpu", optimizer="adam").traits.pixel_bytes == few


def save(path: Path, image: Tensor) -> str:
    zoo.write(path, image)
    return str(path)


def test_the_command_line_and_the_notebook_make_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = save(tmp_path / "photo.png", PHOTO)
    painting = save(tmp_path / "painting.png", PAINTINGS[0])
    made = {}
    call = ("stylize", "-m", "adain", "--precision", "fp32", "--content", photo, "--style", painting)
    for tile in ("off", "64", "auto"):
        out = tmp_path / f"{tile}.png"
        if tile == "auto":
            monkeypatch.setattr(memory, "_TILES", (TILE,))
            monkeypatch.setattr(memory, "free_memory", lambda device: 3 * 10**6)
        assert run(*call, "--tile", tile, "--content-size", "0", "--style-size", "0", "-o", str(out)) == 0
        made[tile] = np.asarray(Image.open(out)).astype(int)
    told = capsys.readouterr().err
    assert told.count("made by tiles") == 1
    assert "adain.zoo takes up to 0.0 GB for 104 x 72 pixels and 0.0 GB of memory are free" in told, told
    options = {"size": None, "style_size": None, "precision": "fp32", "device": "cpu"}
    made["notebook"] = np.asarray(zoo.stylize(photo, painting, "adain", tile=TILE, **options)).astype(int)
    for name in ("64", "auto", "notebook"):
        assert abs(made["off"] - made[name]).max() <= 1, name
    assert np.array_equal(made["64"], made["notebook"])  # which holds floats


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-m", "adain", "--tile", "63"), "a side of at least 64 pixels, not '63'"),
        (("-m", "adain", "--tile", "small"), "Tiles are auto, off"),
        (("-m", "cnnmrf", "--tile", "64", "--content-size", "96"), "cnnmrf.code cannot be computed by tiles"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("stylize", *arguments, "-o", str(tmp_path / "out.png"), "-q") == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
