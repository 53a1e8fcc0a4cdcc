"""WCT against its equations in float64: levels, strengths, mixes, regions, textures; and what its decoders must be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from zoo import images
from zoo.errors import ConfigError, NumericalError, WeightsError
from zoo.methods.wct import WCT, WCTConfig
from zoo.nn.decoder import VGGDecoder
from zoo.registry import load_registry
from zoo.stylizer import Context, Mix, Style


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoders of levels 1 to 3; any show the arithmetic on features, these are random."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("wct") / "decoders.safetensors"
    save_file({f"level{k}.{n}": t for k in (1, 2, 3) for n, t in VGGDecoder(k).state_dict().items()}, path)
    return path


def _model(decoders: Path, **options: object) -> WCT:
    config = WCTConfig.make({"levels": (3, 2, 1), **options})
    return WCT(config, device="cpu", precision="fp32", checkpoint=decoders)


@pytest.fixture(scope="module")
def model(decoders: Path) -> WCT:
    return _model(decoders)


def _image(seed: int, height: int = 64, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=generator)
    fine = torch.rand(1, 3, height, width, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (0.8 * smooth + 0.2 * fine).clamp(0, 1)


def _through(model: WCT, level: int, image: Tensor) -> Tensor:
    """Encoded and decoded at one level."""
    encoder, decoder = model.networks["fp32"][level]
    return decoder(encoder(image)[f"relu{level}_1"])


def _root(covariance: Tensor, exponent: float) -> Tensor:
    """Through the singular values, another route than the method's."""
    left, values, _ = torch.linalg.svd(covariance)
    powers = torch.where(values > 1e-5, values**exponent, 0.0)
    return left * powers @ left.T


def _transformed(content: Tensor, style: Tensor) -> Tensor:
    """Equations 3 and 4 in float64 for (C, N) content and (C, M) style features."""
    content, style = content.double(), style.double()
    mean, style_mean = content.mean(1, keepdim=True), style.mean(1, keepdim=True)
    white = _root(torch.cov(content), -0.5) @ (content - mean)
    return _root(torch.cov(style), 0.5) @ white + style_mean


def test_a_level_is_equations_3_and_4(model: WCT) -> None:
    content, style = _image(1, 96, 96), _image(2, 80, 112)
    for level in (1, 2, 3):
        features = model._features(content, level)
        ours = model._transform_(features.clone(), Mix([(model.encode_style(style), 1.0)]), level, 1.0, None)
        wanted = _transformed(features[0].flatten(1), model._features(style, level)[0].flatten(1))
        torch.testing.assert_close(ours[0].flatten(1).double(), wanted, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("level", [4, 5])
def test_deep_levels_are_equations_3_and_4_on_photographs(level: int) -> None:
    """Within 1e-3 of the scale of the style's features, their deviation over all channels; level 5 has fewer positions
    (256) than channels."""
    model = zoo.load("wct", device="cpu", precision="fp32", levels=(level,))
    assert isinstance(model, WCT)
    content, style = (images.read(f"builtin:{n}", size="exact:256x256").pixels for n in ("astronaut", "swirls"))
    features, other = model._features(content, level), model._features(style, level)
    ours = model._transform_(features.clone(), Mix([(model.encode_style(style), 1.0)]), level, 1.0, None)
    wanted = _transformed(features[0].flatten(1), other[0].flatten(1))
    torch.testing.assert_close(ours[0].flatten(1).double(), wanted, rtol=0, atol=1e-3 * float(other.std()))


def test_strength_is_linear_in_features(model: WCT) -> None:
    features, mix = model._features(_image(1), 2), Mix([(model.encode_style(_image(2)), 1.0)])
    full = model._transform_(features.clone(), mix, 2, 1.0, None)
    half = model._transform_(features.clone(), mix, 2, 0.4, None)
    torch.testing.assert_close(half, features + 0.4 * (full - features), rtol=1e-3, atol=1e-3)


def test_strength_zero_is_the_chain_of_reconstructions(model: WCT) -> None:
    content, code = _image(1), model.encode_style(_image(2))
    image = content
    for level in (3, 2, 1):
        image = _through(model, level, image)
    torch.testing.assert_close(model.stylize(content, code, strength=0.0).image, image.clamp(0, 1), atol=1e-5, rtol=0)


def test_levels_are_run_as_given_and_weighed_one_by_one(decoders: Path) -> None:
    content, style = _image(1), _image(2)
    one = _model(decoders, levels=(2,))
    two = _model(decoders, levels=(3, 2), level_strengths=(0.0, 1.0))
    first = _through(one, 2, content)
    assert first.shape == content.shape
    step = _through(two, 3, content)
    wanted = one._run(step, Mix([(one.encode_style(style), 1.0)]), _call(), (1.0,))
    ours = two._run(content, Mix([(two.encode_style(style), 1.0)]), _call(), two._strengths(two.config.level_strengths))
    torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-3)


def _call() -> object:
    from zoo.stylizer import Call

    return Call()


def test_mixes_of_weights_and_orders(model: WCT) -> None:
    content, one, two = _image(1), model.encode_style(_image(2)), model.encode_style(_image(3))
    single = model.stylize(content, one).image
    assert torch.equal(model.stylize(content, Mix([(one, 1.0), (two, 0.0)])).image, single)
    ab = model.stylize(content, Mix([(one, 0.3), (two, 0.7)])).image
    ba = model.stylize(content, Mix([(two, 0.7), (one, 0.3)])).image
    torch.testing.assert_close(ab, ba, atol=1e-4, rtol=0)
    assert (ab - single).abs().max() > 0.01


def test_a_mix_is_the_mean_of_transformed_features(model: WCT) -> None:
    one, two = model.encode_style(_image(2)), model.encode_style(_image(3))
    features = model._features(_image(1), 3)
    both = model._transform_(features.clone(), Mix([(one, 0.25), (two, 0.75)]), 3, 1.0, None)
    parts = [model._transform_(features.clone(), Mix([(code, 1.0)]), 3, 1.0, None) for code in (one, two)]
    torch.testing.assert_close(both, 0.25 * parts[0] + 0.75 * parts[1], rtol=1e-3, atol=2e-3)


def test_masks_of_all_ones_equal_no_mask(model: WCT) -> None:
    style = _image(2)
    content, code = _image(1), model.encode_style(style)
    masked = model.stylize(content, code, context=Context(content_masks=torch.ones(1, 64, 64))).image
    torch.testing.assert_close(masked, model.stylize(content, code).image, atol=1e-3, rtol=0)
    whole = model.encode_style(Style(style, mask=torch.ones(1, 1, 64, 64)))
    for level in (1, 2, 3):
        tap = f"relu{level}_1"
        torch.testing.assert_close(whole.data[tap]["coloring"], code.data[tap]["coloring"], rtol=1e-3, atol=1e-4)


def test_each_region_is_transformed_by_its_own_features(model: WCT) -> None:
    styles = [_image(2), _image(3)]
    codes = [model.encode_style(style) for style in styles]
    masks = torch.zeros(2, 64, 64)
    masks[0, :, :32] = 1
    masks[1, :, 32:] = 1
    features = model._features(_image(1), 2)
    ours = model._transform_(features.clone(), Mix([(c, 0.5) for c in codes]), 2, 1.0, masks)
    for style, part in zip(styles, (slice(0, 16), slice(16, 32)), strict=True):
        own = features[0, :, :, part]
        wanted = _transformed(own.flatten(1), model._features(style, 2)[0].flatten(1)).view_as(own)
        torch.testing.assert_close(ours[0, :, :, part].double(), wanted, rtol=1e-3, atol=3e-3)


@pytest.mark.parametrize("area", [(0, 0), (1, 1), (4, 4)])
def test_an_empty_or_tiny_region_keeps_to_itself(model: WCT, area: tuple[int, int]) -> None:
    """At relu1_1, a position per pixel: one position alone takes the style's mean, 16 of them their own transform."""
    content, one, two = _image(1), _image(2), _image(3)
    codes = [model.encode_style(style) for style in (one, two)]
    small = torch.zeros(64, 64, dtype=torch.bool)
    small[: area[0], : area[1]] = True
    masks = torch.stack([~small, small]).float()
    mix = Mix([(code, 0.5) for code in codes])
    features = model._features(content, 1)
    ours = model._transform_(features.clone(), mix, 1, 1.0, masks)[0].double()
    styles = [model._features(style, 1)[0].flatten(1) for style in (one, two)]
    wanted = _transformed(features[0][:, ~small], styles[0])
    torch.testing.assert_close(ours[:, ~small], wanted, rtol=1e-3, atol=1e-2)
    if area == (1, 1):
        torch.testing.assert_close(ours[:, 0, 0], styles[1].double().mean(1), rtol=1e-5, atol=1e-5)
    elif area == (4, 4):
        wanted = _transformed(features[0][:, small], styles[1])
        torch.testing.assert_close(ours[:, small], wanted, rtol=1e-3, atol=1e-2)
    image = model.stylize(content, mix, context=Context(content_masks=masks)).image
    alone = model.stylize(content, codes[0]).image
    assert torch.isfinite(image).all()
    if not any(area):
        torch.testing.assert_close(image, alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("area", [(0, 0), (1, 1), (4, 4)])
def test_regions_in_half_precision_are_finite(model: WCT, area: tuple[int, int]) -> None:
    """The map of a nearly flat region is steep: far away, where it does not count, its values leave float16."""
    codes = [model.encode_style(_image(seed)) for seed in (2, 3)]
    features = 200 * torch.rand(1, 64, 32, 32, generator=torch.Generator().manual_seed(0))
    features[..., :4, :4] *= 2e-4
    masks = torch.zeros(2, 32, 32)
    masks[0] = 1
    masks[:, : area[0], : area[1]] = torch.tensor([0.0, 1.0])[:, None, None]
    mix = Mix([(code, 0.5) for code in codes])
    rough = features.half()
    ours = model._transform_(rough.clone(), mix, 1, 1.0, masks)
    assert ours.dtype == torch.float16
    exact = model._transform_(rough.float(), mix, 1, 1.0, masks)
    torch.testing.assert_close(ours.float(), exact, rtol=1e-3, atol=1e-3)


def test_weights_gone_wrong_are_told_in_a_sentence(decoders: Path, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in load_file(decoders).items()}
    state["level3.conv1_1.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match=r"is broken: conv1_1\.weight holds values that are no finite numbers"):
        _model(tmp_path / "broken.safetensors")
    state["level3.conv1_1.weight"].fill_(1e37)
    save_file(state, tmp_path / "huge.safetensors")
    model = _model(tmp_path / "huge.safetensors")
    with pytest.raises(NumericalError, match="level 3 decoded is not finite"):
        model.stylize(_image(1), model.encode_style(_image(2)))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_images_give_finite_results(model: WCT, value: float) -> None:
    flat = torch.full((1, 3, 32, 32), value)
    for content, style in ((flat, _image(2)), (_image(1), flat), (flat, flat)):
        assert torch.isfinite(model.stylize(content, model.encode_style(style)).image).all()


def test_textures_begin_from_noise_and_repeat(model: WCT) -> None:
    code = model.encode_style(_image(2))
    first, again = (model.synthesize(code, (40, 56), seed=s).image for s in (0, 0))
    other = model.synthesize(code, (40, 56), seed=1).image
    assert first.shape == (1, 3, 40, 56)
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.01
    steps: list[int] = []
    model.synthesize(code, (32, 32), progress=lambda step, total, losses, image: steps.append(step) or False)
    assert steps == list(range(1, 3 * 3 + 1))


def test_textures_are_made_at_full_strength_unless_asked(decoders: Path) -> None:
    """As in the paper (section 4.2), also where pictures are made at less, as those of wct.paper."""
    assert load_registry().resolve("wct.paper").options["level_strengths"] == [0.6] * 5

    def texture(**options: object) -> Tensor:
        model = _model(decoders, **options)
        return model.synthesize(model.encode_style(_image(2)), (32, 32)).image

    full = texture()
    assert torch.equal(texture(level_strengths=(0.6, 0.6, 0.6)), full)
    assert (texture(texture_strengths=(0.6, 0.6, 0.6)) - full).abs().mean() > 0.001


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="at most once"):
        WCTConfig.make({"levels": (3, 3)})
    with pytest.raises(ConfigError, match="one level strength per level"):
        WCTConfig.make({"levels": (3, 2), "level_strengths": (1.0,)})
    with pytest.raises(ConfigError, match="one texture strength per level"):
        WCTConfig.make({"levels": (3, 2), "texture_strengths": (1.0,)})


def test_it_needs_weights_of_every_level(decoders: Path) -> None:
    with pytest.raises(WeightsError, match="needs the weights of its decoders"):
        WCT(device="cpu")
    with pytest.raises(WeightsError, match="level 4"):
        WCT(WCTConfig.make({"levels": (4,)}), device="cpu", checkpoint=decoders)


def test_small_images_run_in_float32(decoders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, style = _image(1), _image(2)
    exact = _model(decoders)
    rough = WCT(exact.config, device="cpu", precision="bf16", checkpoint=decoders)
    wanted = exact.stylize(content, exact.encode_style(style)).image
    assert torch.equal(rough.stylize(content, rough.encode_style(style)).image, wanted)
    monkeypatch.setattr("zoo.methods.wct.SMALL", 0)
    rounded = rough.stylize(content, rough.encode_style(style)).image
    assert not torch.equal(rounded, wanted)
    assert (rounded - wanted).abs().mean() < 0.05
