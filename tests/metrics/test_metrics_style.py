"""Metrics of one picture's style: identity, order, independence, closed forms, references."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import AMOUNTS, SMALL_E, blurred, noisy, require_growing, require_independent, seeded_state
from skimage.color import lab2rgb
from torch import Tensor
from torch.nn import functional as F

from zoo import images
from zoo.encoders import load_encoder
from zoo.errors import ConfigError, DownloadRequiredError, InputError, NumericalError, WeightsError
from zoo.metrics import color_histogram, e_statistic, ge, load_metric, sifid, stray_hue
from zoo.metrics.base import Metric, import_package
from zoo.nn.whitening import Moments
from zoo.registry import load_registry

SETTINGS: dict[str, dict[str, Any]] = {
    "mean_std_loss": {},
    "ge": {},
    "lp": {},
    "e_statistic": SMALL_E,
    "color_histogram": {},
    "stray_hue": {},
    "sifid": {},
}
BEST = dict.fromkeys(SETTINGS, 0.0) | {"ge": 1.0, "lp": 1.0, "e_statistic": -math.log(1e-6)}


@pytest.fixture(scope="module")
def content() -> Tensor:
    return images.read("builtin:astronaut", size="exact:80x64").pixels


@pytest.fixture(scope="module")
def style() -> Tensor:
    return images.read("builtin:coffee", size="exact:64x80").pixels


@pytest.fixture(scope="module")
def inception() -> dict[str, Tensor]:
    """A seeded state by torchvision's names: the path that a value takes is tested, its size means nothing."""
    from torchvision.models import inception_v3

    with torch.device("meta"):
        whole = inception_v3(weights=None, init_weights=False)
    first = torch.nn.ModuleDict({name: whole.get_submodule(name) for name in sifid.LAYERS if name})
    shapes = first.to_empty(device="cpu")
    return seeded_state(shapes)


@pytest.fixture
def make(inception: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Metric]:
    monkeypatch.setattr(sifid, "read_network", lambda name: inception)
    return lambda name: load_metric(name, **SETTINGS[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_identity_and_order(name: str, make: Callable[[str], Metric], content: Tensor, style: Tensor) -> None:
    metric, entry = make(name), load_registry().metric(name)
    assert metric(style, style, style) == pytest.approx(BEST[name], abs=1e-6)
    noise, blur = [noisy(style, a) for a in AMOUNTS], [blurred(style, radius) for radius in (1, 2, 4, 8)]
    for worse in (noise, blur):
        values = [metric(output, style, style) for output in worse]
        if name == "stray_hue" and worse is blur:  # means of the style's colours are no new hues
            assert values == [0] * 4
            continue
        if name == "color_histogram" and worse is blur:  # it hardly changes what colours there are
            values = [values[0], values[-1]]
        require_growing([BEST[name], *values], entry.direction)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_style_metric_ignores_the_content(
    name: str, make: Callable[[str], Metric], content: Tensor, style: Tensor
) -> None:
    metric, output = make(name), noisy(content, 0.1)
    assert metric(output, content, style) == metric(output, 1 - content, style)


@pytest.mark.parametrize("name", SETTINGS)
def test_value_depends_neither_on_the_batch_nor_on_what_came_before(
    name: str, make: Callable[[str], Metric], content: Tensor, style: Tensor
) -> None:
    require_independent(name, lambda: make(name), content, style)


@pytest.mark.parametrize("name", SETTINGS)
def test_symmetry(name: str, make: Callable[[str], Metric], content: Tensor, style: Tensor) -> None:
    metric = make(name)
    there, back = metric(content, content, style), metric(style, style, content)
    assert (there == pytest.approx(back, rel=1e-6)) is (name not in ("lp", "e_statistic", "stray_hue"))


@pytest.mark.parametrize("name", ["mean_std_loss", "ge", "color_histogram"])
def test_where_things_are_does_not_count(name: str, make: Callable[[str], Metric], style: Tensor) -> None:
    # Mirroring changes what oriented filters see, but less than any other picture does.
    mirrored = style.flip(-1)
    value = make(name)(mirrored, mirrored, style)
    other = make(name)(1 - style, style, style)
    assert abs(value - BEST[name]) < 0.2 * abs(other - BEST[name])


# -- mean/std loss ---------------------------------------------------------------------------------------------------


def test_mean_std_loss_sums_squares_over_channels_and_layers(content: Tensor, style: Tensor) -> None:
    taps = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    encoder = load_encoder("vgg19.normalised", taps=taps, padding="reflect")
    ours, theirs = encoder(content), encoder(style)
    expected = 0.0
    for tap in taps:
        a, b = ours[tap][0].flatten(1).double(), theirs[tap][0].flatten(1).double()
        expected += float((a.mean(1) - b.mean(1)).square().sum())
        spread = [(x.var(1, correction=0) + 1e-5).sqrt() for x in (a, b)]
        expected += float((spread[0] - spread[1]).square().sum())
    assert load_metric("mean_std_loss")(content, content, style) == pytest.approx(expected, rel=1e-5)


@pytest.mark.numerical
def test_mean_std_loss_of_flat_features_is_the_distance_of_their_means(style: Tensor) -> None:
    metric = load_metric("mean_std_loss", taps="relu1_1")
    metric.encoder = lambda image: {"relu1_1": image}  # type: ignore[attr-defined]
    a, b = torch.full((1, 3, 32, 32), 0.25), torch.full((1, 3, 32, 32), 0.75)
    assert metric(a, a, b) == pytest.approx(3 * 0.5**2, rel=1e-6)


# -- GE --------------------------------------------------------------------------------------------------------------


def test_ge_is_half_gram_and_half_histogram_cosines(content: Tensor, style: Tensor) -> None:
    taps = ["relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    encoder = load_encoder("vgg19", taps=taps, pool="avg")
    ours, theirs = encoder(content), encoder(style)
    grams, colors = [], []
    for tap in taps:
        a, b = (f[tap][0].flatten(1).double() for f in (ours, theirs))
        grams.append(F.cosine_similarity((a @ a.T).flatten(), (b @ b.T).flatten(), dim=0))
    for channel in range(3):
        a, b = (np.histogram(x[0, channel].numpy(), bins=128, range=(0, 1))[0].astype(float) for x in (content, style))
        colors.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    expected = float(sum(grams)) / 4 / 2 + float(sum(colors)) / 3 / 2
    assert load_metric("ge")(content, content, style) == pytest.approx(expected, rel=1e-5)


def test_histograms_hold_every_8_bit_level_in_pairs() -> None:
    levels = (torch.arange(256) / 255).view(1, 1, 256).expand(3, 1, 256)
    assert torch.equal(ge.histograms(levels), torch.full((3, 128), 2 / 256, dtype=torch.float64))


# -- LP --------------------------------------------------------------------------------------------------------------


def patches(features: Tensor) -> Tensor:
    return F.normalize(F.unfold(features.double(), 3)[0].T, dim=1)


def test_lp_is_half_similarity_and_half_variety(content: Tensor, style: Tensor) -> None:
    encoder = load_encoder("vgg19", taps=["relu3_1", "relu4_1"], pool="avg")
    expected = 0.0
    for tap in ("relu3_1", "relu4_1"):
        ours, theirs = patches(encoder(content)[tap]), patches(encoder(style)[tap])
        score, index = (ours @ theirs.T).max(dim=1)
        different = (theirs @ theirs.T).argmax(dim=1).unique()
        expected += (float(score.mean()) + len(index.unique()) / len(different)) / 4
    assert load_metric("lp")(content, content, style) == pytest.approx(expected, rel=1e-5)


@pytest.mark.numerical
def test_lp_of_a_single_repeated_patch_has_no_variety(style: Tensor) -> None:
    metric = load_metric("lp", taps="relu3_1")
    metric.encoder = lambda image: {"relu3_1": image}  # type: ignore[attr-defined]
    flat = torch.full((1, 3, 8, 8), 0.5)
    # The style has a plain, edges and a hole of zeros, which is like no patch; a flat output only finds the plain.
    two = torch.cat([flat[..., :4], torch.zeros_like(flat[..., :3]), flat[..., :1]], dim=-1)
    directions = F.unfold(two, 3)[0].T.unique(dim=0)
    different = int((directions.sum(dim=1) > 0).sum())
    assert metric(flat, flat, two) == pytest.approx((1 + 1 / different) / 2, abs=1e-6)


@pytest.mark.numerical
def test_lp_counts_equal_patches_once_however_they_are_rounded(style: Tensor) -> None:
    """A style of four equal quarters has the patches of one, and their joints; so does one nudged by rounding."""
    metric = load_metric("lp")
    tile = style[..., :48, :48]
    tiled = tile.repeat(1, 1, 2, 2)
    nudged = (tiled * (1 + 1e-7 * torch.randn(tiled.shape, generator=torch.Generator().manual_seed(0)))).clamp(0, 1)
    found = [metric(output, output, picture) for output in (tiled, nudged) for picture in (tiled, nudged)]
    assert found == pytest.approx([1.0] * 4, abs=1e-5)


def test_lp_of_a_smooth_style_and_itself_is_one() -> None:
    """Every patch is like its neighbours, and not like theirs."""
    row = torch.linspace(0.5, 0.501, 96).expand(96, 96)
    smooth = torch.stack([row, row.T, (row + row.T) / 2])[None].contiguous()
    assert load_metric("lp", taps=("relu3_1",))(smooth, smooth, smooth) == pytest.approx(1, abs=1e-6)


def test_lp_needs_room_for_a_patch(style: Tensor) -> None:
    tiny = style[..., :16, :16].contiguous()
    with pytest.raises(InputError, match="no room for a patch"):
        load_metric("lp")(tiny, tiny, style)


# -- E ---------------------------------------------------------------------------------------------------------------


def random_gaussian(size: int, seed: int) -> e_statistic.Gaussian:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.randn(size, generator=generator, dtype=torch.float64), root @ root.T + torch.eye(size)


def test_divergence_is_torchs_of_two_gaussians() -> None:
    first, second = (random_gaussian(6, seed) for seed in (1, 2))
    normals = [torch.distributions.MultivariateNormal(*g) for g in (first, second)]
    expected = float(torch.distributions.kl_divergence(*normals))
    assert float(e_statistic.divergence(first, second)) == pytest.approx(expected, rel=1e-9)
    assert float(e_statistic.divergence(first, first)) == pytest.approx(0, abs=1e-12)


def test_divergence_of_one_dimension_has_a_closed_form() -> None:
    def normal(mean: float, variance: float) -> e_statistic.Gaussian:
        return torch.tensor([mean]).double(), torch.tensor([[variance]]).double()

    expected = (2 / 8 + (3 - 1) ** 2 / 8 - 1 + math.log(8 / 2)) / 2
    assert float(e_statistic.divergence(normal(3, 2), normal(1, 8))) == pytest.approx(expected, rel=1e-12)


def test_e_is_minus_the_logarithm_along_the_principal_axes(content: Tensor, style: Tensor) -> None:
    metric = load_metric("e_statistic", taps="relu3_1", short_side=96)
    encoder = load_encoder("vgg19", taps=["relu3_1"])
    axes = e_statistic.read_basis()["relu3_1"]
    normals = []
    for image in (content, style):
        shape = (96, 120) if image.shape[-1] > image.shape[-2] else (120, 96)
        rows = axes.T @ encoder(images.resize(image, shape))["relu3_1"][0].flatten(1).double()
        normals.append(torch.distributions.MultivariateNormal(rows.mean(1), torch.cov(rows, correction=0)))
    expected = -math.log(float(torch.distributions.kl_divergence(*normals)))
    assert metric(content, content, style) == pytest.approx(expected, rel=1e-5)


def test_the_principal_axes_are_those_of_the_definition() -> None:
    basis = e_statistic.read_basis()
    channels = {"relu1_1": 64, "relu2_1": 128, "relu3_1": 256, "relu4_1": 512, "relu5_1": 512}
    wanted = dict(zip(e_statistic.TAPS, e_statistic.AXES, strict=True))
    assert {tap: tuple(axes.shape) for tap, axes in basis.items()} == {t: (channels[t], k) for t, k in wanted.items()}
    for axes in basis.values():
        torch.testing.assert_close(axes.T @ axes, torch.eye(axes.shape[1]).double(), atol=1e-5, rtol=0)


def test_e_as_defined_takes_five_layers_at_512() -> None:
    # Its value at that scale is among the recorded ones.
    config = load_metric("e_statistic").config
    assert config.to_dict() == {"taps": list(e_statistic.TAPS), "short_side": 512}
    assert e_statistic.scaled(torch.zeros(1, 3, 30, 20), 512).shape == (1, 3, 768, 512)


@pytest.mark.numerical
def test_e_of_a_flat_picture_is_undefined(style: Tensor) -> None:
    flat = torch.full_like(style, 0.5)
    metric = load_metric("e_statistic", **SMALL_E)
    for name, output, wanted in (("output", flat, style), ("style", style, flat)):
        with pytest.raises(NumericalError, match=f"the {name} is so flat .* singular covariance: take another"):
            metric(output, style, wanted)


@pytest.mark.numerical
@pytest.mark.parametrize("level", [0.0, 0.3, 0.5, 1.0])
def test_flat_features_are_singular_at_every_layer_and_level(level: float) -> None:
    """By a factor of a thousand, so that no processor's rounding decides it."""
    encoder = load_encoder("vgg19", taps=e_statistic.TAPS)
    features, basis = encoder(torch.full((1, 3, 96, 96), level)), e_statistic.read_basis()
    for tap in e_statistic.TAPS:
        mean, covariance = e_statistic.projected(e_statistic.gaussian(features[tap]), basis[tap])
        assert e_statistic.singular((mean, covariance)), tap
        ratio = torch.linalg.eigvalsh(covariance)[0] / (covariance.trace() + mean.square().sum())
        assert float(ratio) < e_statistic.SINGULAR / 1000, tap


@pytest.mark.numerical
@pytest.mark.parametrize(("smallest", "wanted"), [(0.0, True), (1e-12, True), (1e-8, False), (1.0, False)])
def test_singular_is_relative_to_the_features(smallest: float, wanted: bool) -> None:
    rotation, _ = torch.linalg.qr(random_gaussian(6, 1)[1])
    variances = torch.tensor([smallest, 1.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    covariance = (rotation * variances) @ rotation.T
    for scale in (1e-6, 1.0, 1e6):
        for mean in (0.0, 1.0):
            gaussian = torch.full((6,), mean * scale, dtype=torch.float64), covariance * scale**2
            assert e_statistic.singular(gaussian) == wanted


@pytest.mark.numerical
def test_fewer_positions_than_axes_are_singular(style: Tensor) -> None:
    """128 x 128 pixels are 256 positions at relu4_1, so the covariance has rank 255; Cholesky may well factorise it."""
    with pytest.raises(NumericalError, match="singular covariance"):
        load_metric("e_statistic", taps="relu4_1", short_side=128)(
            style, style, style.repeat(1, 1, 2, 2)[..., :80, :80]
        )


def test_e_has_five_layers() -> None:
    with pytest.raises(ConfigError, match="not relu1_2"):
        load_metric("e_statistic", taps="relu1_1,relu1_2")


# -- colour histograms -----------------------------------------------------------------------------------------------


def afifi_2021(image: Tensor) -> Tensor:
    """Equations 1 and 2 of the paper, pixel by pixel."""
    centers = np.linspace(-3, 3, 64)
    total = np.zeros((3, 64, 64))
    for pixel in image[0].double().flatten(1).T.numpy():
        logs = np.log(pixel + 1e-6)
        for plane, (c, a, b) in enumerate(((0, 1, 2), (1, 0, 2), (2, 0, 1))):
            u, v = (1 / (1 + ((logs[c] - logs[other] - centers) / 0.02) ** 2) for other in (a, b))
            total[plane] += math.sqrt((pixel**2).sum() + 1e-6) * np.outer(u, v)
    return torch.from_numpy(total / (total.sum() + 1e-6))


def test_color_histogram_follows_its_paper(content: Tensor, style: Tensor) -> None:
    ours, theirs = content[..., :12, :10].contiguous(), style[..., :10, :12].contiguous()
    expected = float((afifi_2021(ours).sqrt() - afifi_2021(theirs).sqrt()).norm()) / math.sqrt(2)
    assert load_metric("color_histogram")(ours, ours, theirs) == pytest.approx(expected, rel=1e-9)


def test_color_histogram_sees_neither_places_nor_brightness_order(style: Tensor) -> None:
    metric = load_metric("color_histogram")
    turned = style.transpose(-1, -2).contiguous()
    assert metric(turned, turned, style) == pytest.approx(0, abs=1e-6)
    # Ratios of channels stay, so a darker picture of the same colours is close; other colours are not.
    assert metric(0.6 * style, style, style) < 0.5 * metric(style.flip(1), style, style)


def test_a_large_picture_is_scaled_to_256(style: Tensor) -> None:
    large = F.interpolate(style, size=(300, 200), mode="nearest")
    small = F.interpolate(large.double(), size=(256, 256), mode="bilinear", align_corners=False)
    assert torch.equal(color_histogram.histogram(large), color_histogram.histogram(small))


# -- stray hue -------------------------------------------------------------------------------------------------------


def hued(degrees: float, chroma: float = 30.0, light: float = 60.0) -> Tensor:
    """One pixel (1, 3, 1, 1) of CIE L*a*b*'s hue in degrees."""
    angle = math.radians(degrees)
    lab = np.array([light, chroma * math.cos(angle), chroma * math.sin(angle)])
    rgb = lab2rgb(lab[:, None, None], channel_axis=0)
    assert rgb.min() > 0, "a colour that no screen has"
    assert rgb.max() < 1, "a colour that no screen has"
    return torch.from_numpy(rgb)[None].float()


def painted(*parts: tuple[Tensor, int]) -> Tensor:
    """A picture of 1000 pixels: so many of each colour, the rest grey."""
    rest = 1000 - sum(count for _, count in parts)
    pixels = [color.expand(1, 3, 1, count) for color, count in (*parts, (torch.full((1, 3, 1, 1), 0.5), rest))]
    return torch.cat(pixels, dim=-1).view(1, 3, 25, 40).contiguous()


@pytest.mark.parametrize("degrees", [7.5, 40.0, 100.0, 200.0, 355.0])
def test_the_opposite_of_the_styles_one_hue_strays_and_the_style_does_not(degrees: float) -> None:
    metric, style, other = load_metric("stray_hue"), *(painted((hued(d), 1000)) for d in (degrees, degrees + 180))
    assert metric(other, other, style) == 1
    assert metric(style, other, style) == 0


@pytest.mark.numerical
@pytest.mark.parametrize("degrees", [7.5, 127.5, 352.5])  # the first and the last bin are neighbours
def test_only_hues_beside_the_styles_are_its_own(degrees: float) -> None:
    metric, style = load_metric("stray_hue"), painted((hued(degrees), 1000))
    values = [metric(o, o, style) for o in (painted((hued(degrees + 15 * step), 1000)) for step in range(-3, 4))]
    assert values == [1, 1, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("stray", [0, 1, 10, 333, 1000])
def test_the_value_is_the_share_of_all_pixels_that_stray(stray: int) -> None:
    metric, style = load_metric("stray_hue"), painted((hued(100), 1000))
    for kept in {0, 1000 - stray}:  # whether the rest is grey or of the style's hue does not count
        output = painted((hued(280), stray), (hued(100), kept))
        assert metric(output, output, style) == pytest.approx(stray / 1000, abs=1e-12)


@pytest.mark.numerical
def test_a_style_has_a_hue_from_four_pixels_in_a_thousand() -> None:
    metric, output = load_metric("stray_hue"), painted((hued(100), 500))
    values = [metric(output, output, painted((hued(100), count))) for count in (0, 3, 4, 5)]
    assert values == [0.5, 0.5, 0, 0]
    split = painted((hued(85), 2), (hued(115), 2))  # its neighbours count with a bin
    assert metric(output, output, split) == 0


@pytest.mark.numerical
@pytest.mark.parametrize(("chroma", "value"), [(0.0, 0.0), (11.9, 0.0), (12.1, 1.0)])
def test_a_pixel_of_little_chroma_has_no_hue(chroma: float, value: float) -> None:
    output = painted((hued(280, chroma), 1000))
    assert load_metric("stray_hue")(output, output, painted((hued(100), 1000))) == value
    assert stray_hue.hues(output).sum() == value


@pytest.mark.numerical
def test_grey_pictures_have_no_hue(style: Tensor) -> None:
    gray = style.mean(dim=1, keepdim=True).expand_as(style).contiguous()
    metric = load_metric("stray_hue")
    assert metric(gray, gray, style) == metric(gray, gray, gray) == 0
    assert metric(style, style, gray) == pytest.approx(float(stray_hue.hues(style).sum()))


# -- SIFID -----------------------------------------------------------------------------------------------------------


def test_sifid_is_the_distance_of_position_clouds(
    make: Callable[[str], Metric], inception: dict[str, Tensor], content: Tensor, style: Tensor
) -> None:
    """Against torch-fidelity's Fréchet distance, and features computed by hand."""
    fidelity = import_package("torch_fidelity.metric_fid")

    def unit(x: Tensor, name: str, **how: int) -> Tensor:
        x = F.conv2d(x, inception[f"{name}.conv.weight"], **how)
        mean, var, scale, shift = (
            inception[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, var, scale, shift, eps=0.001))

    clouds = []
    for image in (content, style):
        x = unit(image * 2 - 1, "Conv2d_1a_3x3", stride=2)
        x = unit(unit(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", padding=1)
        x = unit(unit(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1"), "Conv2d_4a_3x3")
        clouds.append(fidelity.fid_features_to_statistics(x[0].flatten(1).T.double()))
    expected = fidelity.fid_statistics_to_metric(*clouds, verbose=False)["frechet_inception_distance"]
    assert make("sifid")(content, content, style) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_axis_aligned_gaussians_has_a_closed_form() -> None:
    def gaussian(mean: list[float], deviations: list[float]) -> Moments:
        return Moments(torch.tensor(mean).double(), torch.tensor(deviations).double().square().diag(), 10.0)

    value = sifid.frechet(gaussian([0, 1], [1, 2]), gaussian([3, 1], [4, 0]))
    assert float(value) == pytest.approx(3**2 + (1 - 4) ** 2 + (2 - 0) ** 2, rel=1e-12)


def test_sifid_without_its_network_says_what_fetches_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DownloadRequiredError, match=r"'zoo weights fetch inception\.torchvision'"):
        load_metric("sifid")


def test_sifid_refuses_weights_that_do_not_fit_and_pictures_too_small(
    make: Callable[[str], Metric], inception: dict[str, Tensor], style: Tensor
) -> None:
    with pytest.raises(WeightsError, match="do not fit Conv2d_1a_3x3"):
        sifid.trunk({})
    assert sifid.trunk(inception)(style[..., :23, :23]).shape[-2:] == (2, 2)
    small = style[..., :22, :40].contiguous()
    with pytest.raises(InputError, match="23 pixels"):
        make("sifid")(small, small, style)


def test_importing_torch_fidelity_leaves_the_warning_filters_alone() -> None:
    filters = list(warnings.filters)
    import_package("torch_fidelity")
    assert list(warnings.filters) == filters


def test_style_metrics_are_registered_as_they_are() -> None:
    for name in SETTINGS:
        entry = load_registry().metric(name)
        assert (entry.measures, entry.scope) == ("style", "pair")
