"""NNST, STROTSS, Lapstyle, Risser and EFDM: their formulas on tensors, and what each adds, on small pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.checks.core import picture
from zoo.errors import ConfigError
from zoo.images import resize
from zoo.loading import load
from zoo.methods.deep_photo import DeepPhotoConfig
from zoo.methods.lapstyle import Lapstyle, LapstyleConfig, laplacian
from zoo.methods.neural_doodle import NeuralDoodleConfig
from zoo.methods.nnst import NNST, NNSTConfig
from zoo.methods.portrait import PortraitConfig
from zoo.methods.risser import Risser, RisserConfig
from zoo.methods.strotss import STROTSS, STROTSSConfig, moment_loss, moments, transport
from zoo.nn.palette import from_oklab, smoothed, to_oklab
from zoo.nn.ranks import by_rank, quantiles
from zoo.stylizer import Call, Context, Mix, Style


def styled(method: Any, config: Any, content: Tensor, style: Tensor, **options: Any) -> Any:
    model = method(config, device="cpu", precision="fp32")
    return model.stylize(content, model.encode_style(style), **options)


# -- ranks: EFDM and Risser -------------------------------------------------------------------------------------------


def test_ranks_give_the_wanted_distribution_and_keep_the_order() -> None:
    values = torch.randn(3, 50)
    values[:, 10:20] = 0.0  # equals, as a ReLU leaves them
    wanted = torch.sort(torch.randn(3, 50), dim=1).values
    moved = by_rank(values, wanted)
    assert torch.equal(torch.sort(moved, dim=1).values, wanted)
    for old, new in zip(values, moved, strict=True):
        assert (new[torch.argsort(old, stable=True)].diff() >= 0).all()
    fewer = by_rank(values, wanted[:, ::7])
    assert torch.equal(fewer.amin(1), wanted[:, 0])
    assert torch.equal(fewer.amax(1), wanted[:, 49])


def test_efdm_has_the_styles_distribution_at_the_bottleneck_and_within_a_region() -> None:
    model = load("efdm", device="cpu", precision="fp32")
    content, style = picture(48, 64, seed=1), picture(48, 64, seed=2, stripes=True)
    code = Mix([(model.encode_style(style), 1.0)])
    features = model._features(content)
    wanted = next(iter(code))[0].data["quantiles"][0]
    assert torch.equal(quantiles(model._target(features, code, None)), wanted)
    left = torch.zeros(1, 48, 64)
    left[..., :32] = 1
    target = model._target(features, code, left)
    assert torch.equal(target[..., 4:], features[..., 4:])
    there = quantiles(target[..., :4])
    assert (there[:, [0, -1]] - wanted[:, [0, -1]]).abs().max() < 1e-5


def test_the_histogram_loss_moves_distributions_closer_than_gram_matrices_alone() -> None:
    content, style = picture(48, 48, seed=1), picture(48, 48, seed=2, stripes=True)
    small = {
        "num_steps": 15,
        "levels": 1,
        "style_layers": ("relu1_1", "relu2_1"),
        "style_layer_weights": (0.1,),
        "content_layers": ("relu2_2",),
        "content_weight": 0.1,
        "histogram_layers": ("relu1_1",),
    }
    model = Risser(RisserConfig.make(small), device="cpu", precision="fp32")
    wanted = quantiles(model._features(style, ["relu1_1"])["relu1_1"])

    def apart(weight: float) -> float:
        image = styled(Risser, RisserConfig.make({**small, "histogram_weight": weight}), content, style).image
        return float((quantiles(model._features(image, ["relu1_1"])["relu1_1"]) - wanted).abs().mean())

    assert apart(1e4) < 0.8 * apart(0.0)


# -- Lapstyle ---------------------------------------------------------------------------------------------------------


def test_the_laplacian_is_the_papers() -> None:
    image = torch.rand(1, 3, 12, 20)
    squares = 255 * image.sum(1)[0].view(3, 4, 5, 4).mean((1, 3))
    middle = squares[1:-1, 1:-1]
    around = squares[:-2, 1:-1] + squares[2:, 1:-1] + squares[1:-1, :-2] + squares[1:-1, 2:]
    torch.testing.assert_close(laplacian(image, 4)[0, 0], 4 * middle - around, atol=1e-2, rtol=1e-4)
    assert laplacian(image, 5).numel() == 0


def test_edges_stay_where_they_weigh() -> None:
    content, style = picture(48, 48, seed=1), picture(48, 48, seed=2, stripes=True)
    small = {"num_steps": 20, "style_layers": ("relu1_1", "relu2_1"), "content_layers": ("relu2_2",), "pools": (2,)}

    def error(weight: float) -> float:
        config = LapstyleConfig.make({**small, "laplacian_weights": (weight,)})
        result = styled(Lapstyle, config, content, style)
        assert "laplacian" in result.losses[0]
        return float((laplacian(result.image, 2) - laplacian(content, 2)).square().mean())

    assert error(1e4) < 0.5 * error(0.0)
    with pytest.raises(ConfigError, match="1 values for 2 pools"):
        LapstyleConfig(pools=(4, 8))


def test_edges_of_a_gray_picture_are_those_of_the_content_made_gray() -> None:
    content, style = picture(48, 48, seed=1), picture(48, 48, seed=2, stripes=True)
    config = LapstyleConfig(num_steps=1, preserve_color="luminance", tv_weight=0.0)
    (row,) = styled(Lapstyle, config, content, style).losses
    assert row["laplacian"] < 1e-2  # it starts from the content


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [NNSTConfig, DeepPhotoConfig, NeuralDoodleConfig, PortraitConfig])
def test_a_start_from_the_style_is_refused_where_there_is_none(config: Any) -> None:
    with pytest.raises(ConfigError, match="'init' must be content or noise"):
        config(init="style")


@pytest.mark.parametrize("config", [NNSTConfig, STROTSSConfig, DeepPhotoConfig])
def test_a_scale_of_levels_is_refused_where_it_is_fixed(config: Any) -> None:
    with pytest.raises(ConfigError, match="'level_scale' must be"):
        config(level_scale=0.7)


# -- NNST -------------------------------------------------------------------------------------------------------------


def test_wanted_hypercolumns_are_the_styles_nearest_and_those_of_the_content_where_no_region_is() -> None:
    model = NNST(NNSTConfig(rotations=False), device="cpu", precision="fp32")
    content, style = picture(40, 48, seed=1), picture(36, 44, seed=2, stripes=True)
    mix = Mix([(model.encode_style(style), 1.0)])

    def flat(columns: Any) -> Tensor:
        return F.normalize(torch.cat([x[0].flatten(1).float() for x in columns.values()]).T, dim=1)

    left = torch.zeros(1, 40, 48)
    left[..., :24] = 1
    call = Call(context=Context(content_masks=left))
    copies = [model._scaled_style(code.data, 1.0) for code, _ in mix]
    wanted = flat(model._wanted(content, content, mix, copies, call)).view(10, 12, -1)
    ours, theirs = flat(model._columns(content)).view(10, 12, -1), flat(model._columns(style))
    torch.testing.assert_close(wanted[:, 6:], ours[:, 6:])
    likeness = (wanted[:, :6].reshape(60, -1) @ theirs.T).amax(1)
    torch.testing.assert_close(likeness, torch.ones(60), atol=1e-4, rtol=0)
    # The same by the definition: centered over the region, and over the style.
    columns = [torch.cat([x[0].flatten(1) for x in model._columns(image).values()]).T for image in (content, style)]
    query = columns[0].view(10, 12, -1)[:, :6].reshape(60, -1)
    scores = F.normalize(query - query.mean(0), dim=1) @ F.normalize(columns[1] - columns[1].mean(0), dim=1).T
    assert torch.equal((wanted[:, :6].reshape(60, -1) @ theirs.T).argmax(1), scores.argmax(1))


def test_oklab_goes_there_and_back_and_gray_has_no_chroma() -> None:
    image = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(from_oklab(to_oklab(image)), image, atol=1e-3, rtol=0)
    gray = to_oklab(torch.full((1, 3, 1, 1), 0.5))
    assert gray[:, 1:].abs().max() < 1e-4
    # Ottosson's own example: red.
    red = to_oklab(torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(red, torch.tensor([0.628, 0.2249, 0.1258]), atol=1e-3, rtol=0)


def test_chroma_is_smoothed_within_edges_and_not_across() -> None:
    lightness = torch.zeros(1, 1, 6, 8)
    lightness[..., 4:] = 1
    chroma = torch.rand(1, 2, 6, 8) + lightness
    found = smoothed(chroma, lightness)
    assert found[..., :4].std() < 0.5 * chroma[..., :4].std()
    assert (found[..., 4:].mean() - found[..., :4].mean()) > 0.95 * (chroma[..., 4:].mean() - chroma[..., :4].mean())


def test_a_result_has_the_styles_palette_and_pyramids_are_not_clamped() -> None:
    content, style = picture(40, 48, seed=1), picture(36, 44, seed=2)
    result = styled(NNST, NNSTConfig(num_steps=4), content, style).image
    ours, theirs = (to_oklab(image)[0, 1:].flatten(1) for image in (result, style))
    before = to_oklab(content)[0, 1:].flatten(1)
    assert (ours.mean(1) - theirs.mean(1)).norm() < 0.3 * (before.mean(1) - theirs.mean(1)).norm()
    with pytest.raises(ConfigError, match="'pyramid' 0"):
        NNSTConfig(clamp=True)


def test_the_palette_follows_strength() -> None:
    content, style = picture(40, 48, seed=1), picture(36, 44, seed=2)
    means = [to_oklab(image)[0, 1:].mean((1, 2)) for image in (content, style)]

    def moved(strength: float) -> float:
        image = styled(NNST, NNSTConfig(num_steps=2), content, style, strength=strength).image
        return float((to_oklab(image)[0, 1:].mean((1, 2)) - means[0]).norm() / (means[1] - means[0]).norm())

    assert moved(0.1) < 0.2 < 0.7 < moved(1.0)


def test_a_long_strip_has_positions_to_look_at_in_the_last_pass() -> None:
    content, style = picture(32, 2048, seed=1), picture(32, 40, seed=2)
    (first, last) = styled(NNST, NNSTConfig(num_steps=2, rotations=False), content, style).losses
    assert first["match"] > 0
    assert last["split"] > 0


# -- STROTSS ----------------------------------------------------------------------------------------------------------


def test_transport_is_no_more_than_the_earth_movers_distance_and_zero_for_the_same_sample() -> None:
    from scipy.optimize import linear_sum_assignment

    one, two = torch.randn(12, 5), torch.randn(12, 5) + 1
    costs = torch.cdist(one, two)
    rows, columns = linear_sum_assignment(costs.numpy())
    relaxed = max(float(costs.amin(0).mean()), float(costs.amin(1).mean()))
    assert float(transport(one, two, cosine=False)) == pytest.approx(relaxed, abs=1e-4)
    assert 0 < relaxed <= float(costs[rows, columns].mean())
    units = [F.normalize(x, dim=1) for x in (one, two)]
    angles = 1 - units[0] @ units[1].T
    assert float(transport(*units)) == pytest.approx(float(max(angles.amin(0).mean(), angles.amin(1).mean())))
    assert float(transport(units[0], units[0][torch.randperm(12)])) == pytest.approx(0, abs=1e-5)
    assert float(moment_loss(moments(one), moments(one[torch.randperm(12)]))) == pytest.approx(0, abs=1e-6)
    assert float(moment_loss(moments(one), moments(one + 2))) == pytest.approx(2, abs=1e-5)


def test_strotss_starts_on_the_styles_color_with_the_contents_details() -> None:
    content, style = picture(40, 48, seed=1), picture(36, 44, seed=2)
    model = STROTSS(STROTSSConfig(num_steps=1), device="cpu", precision="fp32")
    image = model.stylize(content, model.encode_style(style)).image
    expected = style.mean((2, 3), keepdim=True) + content - resize(resize(content, (20, 24)), (40, 48))
    torch.testing.assert_close(image, expected.clamp(0, 1), atol=1e-3, rtol=0)


def test_strotss_approaches_the_content_with_less_strength() -> None:
    content, style = picture(64, 64, seed=1), picture(64, 64, seed=2, stripes=True)

    def apart(strength: float) -> float:
        config = STROTSSConfig(num_steps=12, samples=64, style_samples=64)
        image = styled(STROTSS, config, content, style, strength=strength).image
        return float((image - content).square().mean().sqrt())

    found = [apart(strength) for strength in (0.1, 0.4, 0.7, 1.0)]
    assert found == sorted(found)
    assert found[0] < 0.5 * found[-1]


def test_strotss_has_the_contents_details_once_where_steps_are_fewer_than_sizes() -> None:
    content, style = picture(128, 128, seed=1), picture(36, 44, seed=2)
    model = STROTSS(STROTSSConfig(num_steps=2, coarsest=32), device="cpu", precision="fp32")
    shown: list[Tensor] = []
    model.stylize(content, model.encode_style(style), progress=lambda step, total, losses, image: shown.append(image()))
    small = resize(content, (64, 64))
    start = style.mean((2, 3), keepdim=True) + small - resize(resize(small, (32, 32)), (64, 64))
    torch.testing.assert_close(shown[0], resize(start, (128, 128)), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [("nnst", {"num_steps": 4, "learning_rate": 12}), ("strotss", {"num_steps": 10, "content_weight": 0.1})],
)
def test_a_guided_region_takes_its_own_style(name: str, options: dict[str, Any]) -> None:
    dark, bright = 0.3 * picture(32, 32, seed=3), 0.3 * picture(32, 32, seed=4) + 0.7
    content = picture(32, 48, seed=1)
    model = load(name, device="cpu", precision="fp32", **options)
    left = torch.zeros(1, 32, 48)
    left[..., :24] = 1
    codes = [model.encode_style(Style(image)) for image in (dark, bright)]
    masks = Context(content_masks=torch.cat([left, 1 - left]))
    image = model.stylize(content, Mix([(code, 0.5) for code in codes]), context=masks).image
    before = (content[..., 26:].mean() - content[..., :22].mean()).item()
    assert (image[..., 26:].mean() - image[..., :22].mean()).item() > before + 0.05
