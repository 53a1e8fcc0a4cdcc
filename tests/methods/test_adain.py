"""AdaIN against its equations in float64: moments, strength, mixes, regions, and the loss of its decoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from zoo.errors import ConfigError, WeightsError
from zoo.methods.adain import EPS, TAP, AdaIN, AdaINTraining, AdaINTrainingConfig, _color_loss, adain, mean_std
from zoo.nn.decoder import VGGDecoder
from zoo.stylizer import Context, Mix, Style, StyleCode


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Any decoder shows the arithmetic on features; this one is random."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("adain") / "decoder.safetensors"
    save_file(VGGDecoder(4).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(decoder: Path) -> AdaIN:
    return AdaIN(device="cpu", precision="fp32", checkpoint=decoder)


def _image(seed: int, height: int = 64, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    flat = features.double().flatten(2)
    return flat.mean(2), (flat.var(2, correction=0) + EPS).sqrt()


def test_output_has_the_styles_moments() -> None:
    features, style = torch.rand(2, 8, 12, 10) * 3 - 1, torch.rand(1, 8, 7, 9) * 2
    moved = adain(features, *mean_std(style))
    for ours, theirs in zip(_moments(moved), _moments(style), strict=True):
        torch.testing.assert_close(ours, theirs.expand_as(ours), rtol=1e-4, atol=1e-4)


def test_a_dead_channel_takes_the_styles_mean() -> None:
    features, style = torch.zeros(1, 4, 6, 6), torch.rand(1, 4, 6, 6)
    mean, _ = mean_std(style)
    torch.testing.assert_close(adain(features, *mean_std(style)), mean.expand(1, 4, 6, 6))


def test_moments_over_a_mask_are_those_of_its_positions() -> None:
    features, mask = torch.rand(1, 4, 8, 8), torch.zeros(8, 8)
    mask[2:5, 1:7] = 1
    for ours, theirs in zip(mean_std(features, mask), mean_std(features[:, :, 2:5, 1:7]), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_strength_is_linear_in_features(model: AdaIN) -> None:
    content, code = _image(1), model.encode_style(_image(2))
    features = model.encoder(content)[TAP]
    target = adain(features, code.data["mean"], code.data["std"])
    for strength in (0.0, 0.3, 1.0):
        wanted = model.decoder(features + strength * (target - features)).clamp(0, 1)
        torch.testing.assert_close(model.stylize(content, code, strength=strength).image, wanted, atol=1e-4, rtol=0)


def test_mixes_of_weights_and_orders(model: AdaIN) -> None:
    content, one, two = _image(1), model.encode_style(_image(2)), model.encode_style(_image(3))
    single = model.stylize(content, one).image
    assert torch.equal(model.stylize(content, Mix([(one, 1.0), (two, 0.0)])).image, single)
    ab = model.stylize(content, Mix([(one, 0.3), (two, 0.7)])).image
    ba = model.stylize(content, Mix([(two, 0.7), (one, 0.3)])).image
    torch.testing.assert_close(ab, ba, atol=1e-5, rtol=0)
    assert (ab - single).abs().max() > 0.01


def test_equation_15_is_the_mean_of_targets(model: AdaIN) -> None:
    content, one, two = _image(1), model.encode_style(_image(2)), model.encode_style(_image(3))
    features = model.encoder(content)[TAP].double()
    mean, std = _moments(features)
    white = (features - mean[..., None, None]) / std[..., None, None]
    target = sum(
        weight * (white * code.data["std"].double() + code.data["mean"].double())
        for code, weight in ((one, 0.25), (two, 0.75))
    )
    ours = model._target(features.float(), Mix([(one, 0.25), (two, 0.75)]), None)
    torch.testing.assert_close(ours.double(), target, rtol=1e-4, atol=1e-4)


def test_masks_of_all_ones_equal_no_mask(model: AdaIN) -> None:
    content, code = _image(1), model.encode_style(_image(2))
    masked = model.stylize(content, code, context=Context(content_masks=torch.ones(1, 64, 64))).image
    torch.testing.assert_close(masked, model.stylize(content, code).image, atol=1e-4, rtol=0)
    style = _image(2)
    whole = model.encode_style(Style(style, mask=torch.ones(1, 1, 64, 64)))
    torch.testing.assert_close(whole.data["std"], code.data["std"], rtol=1e-4, atol=1e-5)


def test_each_region_is_transformed_by_its_own_moments(model: AdaIN) -> None:
    content, one, two = _image(1, 64, 96), model.encode_style(_image(2)), model.encode_style(_image(3))
    masks = torch.zeros(2, 64, 96)
    masks[0, :, :40] = 1
    masks[1, :, 40:] = 1
    features = model.encoder(content)[TAP]
    ours = model._target(features, Mix([(one, 0.5), (two, 0.5)]), masks)
    for code, part in ((one, slice(0, 5)), (two, slice(5, 12))):
        own = features[..., part].double()
        mean, std = _moments(own)
        wanted = (own - mean[..., None, None]) / std[..., None, None] * code.data["std"].double()
        wanted = wanted + code.data["mean"].double()
        torch.testing.assert_close(ours[..., part].double(), wanted, rtol=1e-3, atol=1e-3)


def _moved(features: Tensor, weight: Tensor, code: StyleCode) -> Tensor:
    """Equation 8 in float64, with moments over positions that weigh ``weight`` (h, w)."""
    features, shares = features.double(), weight.double() / weight.double().sum()
    mean = (features * shares).sum((2, 3), keepdim=True)
    variance = ((features - mean).square() * shares).sum((2, 3), keepdim=True)
    return (features - mean) / (variance + EPS).sqrt() * code.data["std"].double() + code.data["mean"].double()


@pytest.mark.parametrize("area", [(0, 0), (1, 1), (8, 8)])
def test_an_empty_or_tiny_region_keeps_to_itself(model: AdaIN, area: tuple[int, int]) -> None:
    """A position of relu4_1 is 8 x 8 pixels: a region of one pixel has a 64th of one, and that of the style's mean."""
    content, one, two = _image(1), model.encode_style(_image(2)), model.encode_style(_image(3))
    masks = torch.zeros(2, 64, 64)
    masks[0] = 1
    masks[:, : area[0], : area[1]] = torch.tensor([0.0, 1.0])[:, None, None]
    mix = Mix([(one, 0.5), (two, 0.5)])
    features = model.encoder(content)[TAP]
    share = area[0] * area[1] / 64
    weight = torch.ones(8, 8)
    weight[0, 0] = 1 - share
    wanted = weight * _moved(features, weight, one)
    wanted[..., 0, 0] += share * two.data["mean"][..., 0, 0].double()
    torch.testing.assert_close(model._target(features, mix, masks).double(), wanted, rtol=1e-3, atol=1e-3)
    image = model.stylize(content, mix, context=Context(content_masks=masks)).image
    alone = model.stylize(content, one).image
    assert torch.isfinite(image).all()
    if not any(area):
        torch.testing.assert_close(image, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("area", [(0, 0), (1, 1), (16, 8)])
def test_regions_in_half_precision_are_finite(model: AdaIN, area: tuple[int, int]) -> None:
    """The map of a flat region is steep: far away, where it does not count, its values leave float16."""
    one, two = (model.encode_style(_image(seed)) for seed in (2, 3))
    features = 400 * torch.rand(1, 512, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    features[..., :2, :1] = 0.5
    masks = torch.zeros(2, 64, 64)
    masks[0] = 1
    masks[:, : area[0], : area[1]] = torch.tensor([0.0, 1.0])[:, None, None]
    mix = Mix([(one, 0.5), (two, 0.5)])
    ours = model._target(features, mix, masks)
    assert ours.dtype == torch.float16
    exact = model._target(features.float(), mix, masks)
    torch.testing.assert_close(ours.float(), exact, rtol=1e-3, atol=1e-3)


def test_positions_in_no_region_keep_their_features(model: AdaIN) -> None:
    content, code = _image(1), model.encode_style(_image(2))
    features = model.encoder(content)[TAP]
    kept = model._target(features, Mix([(code, 1.0)]), torch.zeros(1, 64, 64))
    assert torch.equal(kept, features)


def test_it_needs_weights() -> None:
    with pytest.raises(WeightsError, match="needs the weights of its decoder"):
        AdaIN(device="cpu")


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (4.0, 2.0, 1.0, 0.0)])
def test_loss_is_that_of_the_equations(weights: tuple[float, float, float, float]) -> None:
    torch.manual_seed(1)
    task = AdaINTraining(AdaINTrainingConfig(style_weight=0.1, tap_weights=weights))
    batch = {
        "content": torch.cat([_image(1, 48, 48), _image(2, 48, 48)]),
        "style": torch.cat([_image(3, 48, 48), _image(4, 48, 48)]),
    }
    losses = task.loss(batch)
    style = task.encoder(batch["style"])
    features = task.encoder(batch["content"])[TAP].double()
    mean, std = _moments(features)
    style_mean, style_std = _moments(style[TAP])
    target = (features - mean[..., None, None]) / std[..., None, None] * style_std[..., None, None] + style_mean[
        ..., None, None
    ]
    output = task.encoder(task.network(target.float()))
    content_loss = (output[TAP].double() - target).square().mean()
    style_loss = sum(
        (
            weight * (a - b).square().sum() / 2
            for tap, weight in zip(style, weights, strict=True)
            for a, b in zip(_moments(output[tap]), _moments(style[tap]), strict=True)
        ),
        torch.zeros((), dtype=torch.float64),
    )
    assert losses["content"].item() == pytest.approx(content_loss.item(), rel=1e-3)
    assert losses["style"].item() == pytest.approx(style_loss.item(), rel=1e-3)
    assert losses["total"].item() == pytest.approx((content_loss + 0.1 * style_loss).item(), rel=1e-3)
    losses["total"].backward()
    assert all(p.grad is not None for p in task.network.parameters())
    assert all(p.grad is None for p in task.encoder.parameters())


def test_recolouring_exchanges_the_colours_of_its_share_of_paintings() -> None:
    torch.manual_seed(0)
    paintings = torch.cat([_image(seed, 16, 16) for seed in range(40)])
    task = AdaINTraining(AdaINTrainingConfig(recolor=0.5))
    changed = task._recolor(paintings)
    assert changed.shape == paintings.shape
    assert 0 <= changed.min() <= changed.max() <= 1
    same = (changed == paintings).flatten(1).all(dim=1)
    assert 8 <= same.sum() <= 32
    assert task._recolor(paintings)[~same].ne(changed[~same]).any()
    assert AdaINTraining(AdaINTrainingConfig())._recolor(paintings) is paintings


def test_colour_loss_is_of_mean_and_covariance_alone() -> None:
    painting = _image(3, 16, 20)
    shuffled = painting.flatten(2)[..., torch.randperm(320, generator=torch.Generator().manual_seed(0))]
    assert _color_loss(shuffled.view(1, 3, 20, 16), painting).item() == pytest.approx(0, abs=1e-6)
    variance = painting.flatten(2).var(dim=2, correction=0).sum().item()
    assert _color_loss(painting + 0.1, painting).item() == pytest.approx(3 * 0.01 / variance, rel=1e-4)
    mean = painting.mean(dim=(2, 3), keepdim=True)
    # Twice the contrast is four times the covariance: three times itself apart.
    assert _color_loss(mean + 2 * (painting - mean), painting).item() == pytest.approx(9, rel=1e-4)
    task = AdaINTraining(AdaINTrainingConfig(color_weight=30.0))
    losses = task.loss({"content": _image(1, 48, 48), "style": _image(2, 48, 48)})
    parts = losses["content"] + 0.1 * losses["style"] + 30 * losses["color"]
    assert losses["total"].item() == pytest.approx(parts.item(), rel=1e-6)


def test_training_begins_from_a_reconstruction_decoder(decoder: Path, tmp_path: Path) -> None:
    task = AdaINTraining(AdaINTrainingConfig(start=str(decoder)))
    task.prepare(iter(()))
    torch.manual_seed(0)
    wanted = VGGDecoder(4)
    assert torch.equal(task.network.conv4_1.weight, wanted.conv4_1.weight)
    shallow = tmp_path / "level3.safetensors"
    save_file(VGGDecoder(3).state_dict(), shallow)
    with pytest.raises(ConfigError, match="no decoder of level 4"):
        AdaINTraining(AdaINTrainingConfig(start=str(shallow))).prepare(iter(()))
