"""FID, KID, ArtFID and their VGG-19 counterparts: closed forms, order, independence, agreement with torch-fidelity."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import AMOUNTS, noisy, require_growing, seeded_state
from pretended import Pretended
from torch import Tensor, nn

from zoo import images
from zoo.errors import ConfigError, DownloadRequiredError, InputError, NumericalError, UnsupportedError, WeightsError
from zoo.metrics import build, fid, fidelity, load_metric, load_set_metric, lpips
from zoo.metrics.base import SetMetric, SmallSetWarning, import_package
from zoo.registry import load_registry

NAMES = ["fid", "kid", "artfid", "fd_vgg19", "kid_vgg19"]
FRECHET, KERNEL = ["fid", "artfid", "fd_vgg19"], ["kid", "kid_vgg19"]
Picture = tuple[Tensor, Tensor, Tensor]


def eight_bit(image: Tensor) -> Tensor:
    return (image * 255).round() / 255


@pytest.fixture(scope="module")
def styles() -> list[Tensor]:
    names = ("coffee", "swirls", "woodblock", "astronaut", "mosaic", "cubism")
    return [eight_bit(images.read(f"builtin:{name}", size="exact:80x80").pixels) for name in names]


@pytest.fixture(scope="module")
def content() -> Tensor:
    return eight_bit(images.read("builtin:astronaut", size="exact:80x80").pixels)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded weights in the form of torch-fidelity's file: the path of a value is tested, its size means nothing."""
    package = import_package("torch_fidelity.feature_extractor_inceptionv3")

    class Shapes(package.FeatureExtractorInceptionV3):
        def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> None:
            """Nothing to load: the weights are being made."""

    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({}, path)
    torch.save(seeded_state(Shapes("shapes", ["2048"], feature_extractor_weights_path=str(path))), path)
    return path


@pytest.fixture(scope="module")
def art_state() -> dict[str, Tensor]:
    from torchvision.models import inception_v3

    with torch.device("meta"):
        network = inception_v3(weights=None, init_weights=False, aux_logits=False)
    return seeded_state(network.to_empty(device="cpu"))


@pytest.fixture(scope="module")
def alex_state() -> dict[str, Tensor]:
    from torchvision.models import alexnet

    with torch.device("meta"):
        features = alexnet().features
    return seeded_state(nn.ModuleDict({"features": features}))


@pytest.fixture
def make(
    inception_file: Path, art_state: dict[str, Tensor], alex_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], SetMetric]:
    """Builds a set metric on seeded networks; Inception is read at its first 64 features, which are cheap."""
    path = fidelity.weights.path
    monkeypatch.setattr(fidelity.weights, "path", lambda name: inception_file if "inception" in name else path(name))
    monkeypatch.setattr(fidelity, "INCEPTION_LAYER", "64")
    monkeypatch.setattr(fidelity, "read_network", lambda name: art_state)
    monkeypatch.setattr(lpips, "read_network", lambda name: alex_state)
    # A Fréchet distance in 2,048 dimensions takes half a minute: the last ones are left out.
    whole = fid.art_features
    for module in ("fid", "artfid"):
        monkeypatch.setattr(f"zoo.metrics.{module}.art_features", lambda network, image: whole(network, image)[:64])
    return load_set_metric


@pytest.fixture(autouse=True)
def _small_sets() -> Iterator[None]:
    """Every set here is small, and says so; the test of the warning undoes this."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSetWarning)
        yield


def score(metric: SetMetric, pictures: list[Picture]) -> float:
    metric.begin()
    for picture in pictures:
        metric.add(*picture)
    return metric.value()


def stylized(content: Tensor, styles: list[Tensor], amount: float) -> list[Picture]:
    """Pictures that are their styles, further and further from them with ``amount``."""
    return [(noisy(style, amount, seed), content, style) for seed, style in enumerate(styles)]


@pytest.mark.parametrize("name", NAMES)
def test_the_styles_themselves_are_best_and_noise_makes_it_worse(
    name: str, make: Callable[[str], SetMetric], content: Tensor, styles: list[Tensor]
) -> None:
    metric = make(name)

    def value(amount: float) -> float:
        return score(metric, [(output, style, style) for output, _, style in stylized(content, styles, amount)])

    best = value(0)
    if name in KERNEL:  # an unbiased estimate is below zero for equal sets
        assert best < 1e-6
    else:
        assert best == pytest.approx(1 if name == "artfid" else 0, abs=1e-3)
    require_growing([best, *map(value, AMOUNTS)], "lower")


@pytest.mark.parametrize("name", NAMES)
def test_neither_order_nor_history_changes_the_value(
    name: str, make: Callable[[str], SetMetric], content: Tensor, styles: list[Tensor]
) -> None:
    pictures = stylized(content, styles[:4], 0.1)
    metric = make(name)
    first = score(metric, pictures)
    assert score(metric, stylized(1 - content, styles[:3], 0.3)) != first
    assert score(metric, pictures) == first
    assert score(make(name), [pictures[i] for i in (2, 0, 3, 1)]) == first


@pytest.mark.parametrize("name", ["fid", "kid", "fd_vgg19", "kid_vgg19"])  # ArtFID reads the contents too
def test_symmetry(name: str, make: Callable[[str], SetMetric], content: Tensor, styles: list[Tensor]) -> None:
    outputs = [eight_bit(noisy(style, 0.4, seed)) for seed, style in enumerate(styles)]
    metric = make(name)
    there = score(metric, [(output, content, style) for output, style in zip(outputs, styles, strict=True)])
    back = score(metric, [(style, content, output) for output, style in zip(outputs, styles, strict=True)])
    assert there == pytest.approx(back, rel=1e-4)
    assert abs(there) > 1e-4


@pytest.mark.parametrize("name", FRECHET[:1] + FRECHET[2:])
def test_frechet_distance_counts_a_style_once_per_picture(
    name: str, make: Callable[[str], SetMetric], content: Tensor, styles: list[Tensor]
) -> None:
    metric = make(name)
    repeated = [(style, content, style) for style in [*styles[:3], styles[0], styles[0]]]
    assert score(metric, repeated) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", KERNEL)
def test_kernel_distance_counts_a_style_once(
    name: str, make: Callable[[str], SetMetric], content: Tensor, styles: list[Tensor]
) -> None:
    outputs = [noisy(content, 0.1, seed) for seed in range(6)]
    metric = make(name)
    few = score(metric, [(output, content, styles[i % 2]) for i, output in enumerate(outputs)])
    uneven = score(metric, [(output, content, styles[i > 4]) for i, output in enumerate(outputs)])
    assert few == pytest.approx(uneven, rel=1e-6)
    with pytest.raises(InputError, match="two styles"):
        score(metric, [(output, content, styles[0]) for output in outputs])


# -- agreement with torch-fidelity -----------------------------------------------------------------------------------


def reference(folder: Path, outputs: list[Tensor], styles: list[Tensor], **how: Any) -> dict[str, float]:
    """torch-fidelity's own run over two folders of pictures."""
    package = import_package("torch_fidelity")
    for name, pictures in (("outputs", outputs), ("styles", styles)):
        for i, picture in enumerate(pictures):
            images.write(folder / name / f"{i}.png", picture)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return package.calculate_metrics(
            input1=str(folder / "outputs"),
            input2=str(folder / "styles"),
            fid=True,
            kid=True,
            kid_subset_size=min(len(outputs), len(styles)),
            cuda=False,
            save_cpu_ram=True,
            cache=False,
            verbose=False,
            **how,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("outputs", "styles"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_vgg19_distances_are_torch_fidelitys_with_our_extractor(
    folder: Path, content: Tensor, styles: list[Tensor]
) -> None:
    fidelity.register_vgg19()
    pictures = [(eight_bit(noisy(style, 0.2)), content, style) for style in styles]
    expected = reference(folder, [output for output, _, _ in pictures], styles, feature_extractor=fidelity.VGG19)
    frechet = score(load_set_metric("fd_vgg19"), pictures)
    kernel = score(load_set_metric("kid_vgg19"), pictures)
    assert frechet == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert kernel == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)


def test_inception_distances_are_torch_fidelitys(
    make: Callable[[str], SetMetric], inception_file: Path, folder: Path, content: Tensor, styles: list[Tensor]
) -> None:
    pictures = [(eight_bit(noisy(style, 0.2)), content, style) for style in styles]
    how = {"feature_layer_fid": "64", "feature_layer_kid": "64", "feature_extractor_weights_path": str(inception_file)}
    expected = reference(folder, [output for output, _, _ in pictures], styles, **how)
    assert score(make("fid"), pictures) == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert score(make("kid"), pictures) == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)


def test_by_default_fid_reads_the_2048_pooled_features(
    inception_file: Path, monkeypatch: pytest.MonkeyPatch, content: Tensor
) -> None:
    monkeypatch.setattr(fidelity.weights, "path", lambda name: inception_file)
    package = import_package("torch_fidelity.feature_extractor_inceptionv3")
    own = package.FeatureExtractorInceptionV3("own", ["2048"], feature_extractor_weights_path=str(inception_file))
    state = torch.get_rng_state()
    metric = load_set_metric("fid")
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(metric, fid.FID)
    vector = metric._vector(content)
    assert vector.shape == (2048,)
    torch.testing.assert_close(vector, own((content * 255).round().byte())[0][0])


def test_the_extractor_is_known_to_torch_fidelity_once_and_takes_bytes(content: Tensor) -> None:
    cls = fidelity.register_vgg19()
    assert fidelity.register_vgg19() is cls
    extractor = cls(fidelity.VGG19, ["relu1_1", "relu4_1"])
    first, second = extractor(fidelity.eight_bits(content))
    assert (first.shape, second.shape) == ((1, 64), (1, 512))
    with pytest.raises(InputError, match="bytes"):
        extractor(content)


def test_eight_bits_are_exact_for_what_files_hold() -> None:
    levels = torch.arange(256)
    assert torch.equal(fidelity.eight_bits(levels.float() / 255).long(), levels)


# -- closed forms ----------------------------------------------------------------------------------------------------


def test_frechet_distance_of_shifted_and_scaled_clouds() -> None:
    cloud = torch.from_numpy(np.random.RandomState(0).randn(400, 3))
    cloud = cloud - cloud.mean(0)
    shift = torch.tensor([3.0, 0.0, 4.0])
    assert fidelity.frechet(cloud, cloud + shift) == pytest.approx(25, rel=1e-6)
    # (s - 1)^2 times the trace of the covariance.
    assert fidelity.frechet(cloud, 3 * cloud) == pytest.approx(4 * float(torch.cov(cloud.T).trace()), rel=1e-6)


def test_kernel_distance_is_the_unbiased_estimate_of_its_paper() -> None:
    x, y = (torch.from_numpy(np.random.RandomState(seed).randn(5, 7)) for seed in (0, 1))

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 7 + 1) ** 3)

    def within(cloud: Tensor) -> float:
        return sum(k(a, b) for i, a in enumerate(cloud) for j, b in enumerate(cloud) if i != j) / (5 * 4)

    expected = within(x) + within(y) - 2 * sum(k(a, b) for a in x for b in y) / 25
    assert fidelity.kernel(x, y) == pytest.approx(expected, rel=1e-9)


def test_artfid_is_the_product_of_its_parts(
    make: Callable[..., SetMetric], content: Tensor, styles: list[Tensor]
) -> None:
    pictures = stylized(content, styles[:4], 0.1)
    distance = load_metric("lpips")
    content_part = sum(distance(*picture) for picture in pictures) / len(pictures)
    style_part = score(make("fid", network="art"), pictures)
    assert style_part > 0
    assert score(make("artfid"), pictures) == pytest.approx((1 + content_part) * (1 + style_part), rel=1e-6)


def test_artfids_network_sees_pixels_as_they_are_at_their_own_size(
    art_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, content: Tensor
) -> None:
    from torchvision.models import inception_v3

    monkeypatch.setattr(fidelity, "read_network", lambda name: {**art_state, "fc1.weight": torch.zeros(3, 2048)})
    network = inception_v3(weights=None, init_weights=False, aux_logits=False, transform_input=False).eval()
    network.load_state_dict(art_state)
    pooled: list[Tensor] = []
    network.avgpool.register_forward_hook(lambda module, inputs, output: pooled.append(output.flatten()))
    with torch.no_grad():
        network(content)
        torch.testing.assert_close(fid.art_features(fidelity.art_inception(), content), pooled[0])
    with pytest.raises(InputError, match="75 pixels"):
        fid.art_features(network, content[..., :74])


# -- the interface ---------------------------------------------------------------------------------------------------


def test_a_small_set_says_so(content: Tensor, styles: list[Tensor]) -> None:
    for name, words in (
        ("fd_vgg19", "2 pictures.*biased upwards.*512 x 512.*rank-deficient"),
        ("kid_vgg19", "2 styles"),
    ):
        metric = load_set_metric(name)
        metric.begin()
        for picture in stylized(content, styles[:2], 0.1):
            metric.add(*picture)
        with pytest.warns(SmallSetWarning, match=words):
            metric.value()
        assert "2,048" in metric.note


def test_a_large_set_needs_no_words(monkeypatch: pytest.MonkeyPatch, content: Tensor, styles: list[Tensor]) -> None:
    monkeypatch.setattr(fidelity, "ENOUGH", 2)
    for name in ("fd_vgg19", "kid_vgg19"):
        metric = load_set_metric(name)
        score(metric, stylized(content, styles[:2], 0.1))
        assert metric.note == ""


def test_a_set_has_two_pictures_and_begins_anew(content: Tensor, styles: list[Tensor]) -> None:
    metric = load_set_metric("fd_vgg19")
    metric.add(*stylized(content, styles[:1], 0)[0])
    with pytest.raises(InputError, match="not 1"):
        metric.value()
    with pytest.raises(InputError, match="not 1"):
        score(metric, stylized(content, styles[:1], 0))
    score(metric, stylized(content, styles[:2], 0))
    with pytest.raises(InputError, match="not 0"):
        score(metric, [])
    with pytest.raises(InputError, match="one shape"):
        metric.add(content[..., :-8], content, styles[0])
    with pytest.raises(InputError, match="one picture"):
        metric.add(*(image.repeat(2, 1, 1, 1) for image in (content, content, content)))


def test_a_value_that_is_not_finite_is_an_error(content: Tensor) -> None:
    class Undefined(SetMetric):
        def _begin(self) -> None: ...

        def _add(self, output: Tensor, content: Tensor, style: Tensor) -> None: ...

        def _value(self) -> float:
            return math.nan

    with pytest.raises(NumericalError, match="Undefined"):
        score(Undefined(), [(content, content, content)] * 2)


def test_each_kind_is_built_by_its_own_function() -> None:
    with pytest.raises(ConfigError, match="load_set_metric"):
        load_metric("fd_vgg19")
    with pytest.raises(ConfigError, match="load_metric"):
        load_set_metric("ssim")
    assert (build("fd_vgg19").scope, build("ssim").scope) == ("set", "pair")
    assert [load_registry().metric(name).scope for name in NAMES] == ["set"] * 5


@pytest.mark.parametrize(
    ("name", "settings", "network"),
    [
        ("fid", {}, "inception.fid"),
        ("fid", {"network": "art"}, "inception.art"),
        ("kid", {}, "inception.fid"),
        ("artfid", {}, "alexnet.torchvision"),
    ],
)
def test_without_its_network_a_metric_says_what_fetches_it(
    name: str, settings: dict[str, str], network: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DownloadRequiredError, match=f"'zoo weights fetch {network}'"):
        load_set_metric(name, **settings)


def test_weights_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(2)}, path)
    monkeypatch.setattr(fidelity.weights, "path", lambda name: path)
    with pytest.raises(WeightsError, match="FID's Inception"):
        fidelity.inception()
    monkeypatch.setattr(fidelity, "read_network", lambda name: {})
    with pytest.raises(WeightsError, match="do not fit"):
        fidelity.art_inception()


def test_without_torch_fidelity_a_set_metric_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        return import_package("nonesuch")

    monkeypatch.setattr(fidelity, "import_package", missing)
    with pytest.raises(UnsupportedError, match=r"style-transfer-zoo\[metrics\]"):
        load_set_metric("fd_vgg19")


@pytest.mark.parametrize("name", ["artfid", "kid"])
def test_fetched_networks_stay_on_their_device(
    name: str, make: Callable[[str], SetMetric], content: Tensor, styles: list[Tensor]
) -> None:
    """LPIPS, ArtFID's Inception and that of FID on a pretended CUDA device."""
    with Pretended("cuda") as device:
        metric = build(name, device="cuda")
        assert isinstance(metric, SetMetric)
        metric.begin()
        for style in styles[:3]:
            metric.add(style, content, style)
        with pytest.warns(SmallSetWarning):
            metric.value()
    assert "convolution" in device.operators
