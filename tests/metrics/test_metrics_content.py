"""LPIPS, ST-LPIPS, CFSD and CF: identity, order, symmetry, independence, closed forms, agreement with the reference."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from metric_cases import AMOUNTS, blurred, noisy, require_growing, require_independent, seeded_state
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from zoo import images, weights
from zoo.cli import main
from zoo.encoders import load_encoder
from zoo.errors import DownloadRequiredError, InputError, UnsupportedError, WeightsError
from zoo.metrics import cfsd, load_metric, lpips, stlpips
from zoo.metrics.base import Metric, cosine, import_package
from zoo.registry import load_registry

NAMES = ["lpips", "stlpips", "cfsd", "cf"]


@pytest.fixture(scope="module")
def content() -> Tensor:
    return images.read("builtin:astronaut", size="exact:80x64").pixels


@pytest.fixture(scope="module")
def style() -> Tensor:
    return images.read("builtin:coffee", size="exact:64x80").pixels


@pytest.fixture(scope="module")
def trunks() -> dict[str, dict[str, Tensor]]:
    """Seeded trunks by torchvision's names: the paths that a value takes are tested, its size means nothing."""
    from torchvision.models import alexnet, vgg16

    with torch.device("meta"):
        shapes = {"alex": alexnet().features, "vgg": vgg16().features}
    return {net: seeded_state(nn.ModuleDict({"features": module})) for net, module in shapes.items()}


@pytest.fixture
def seeded(trunks: dict[str, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Tensor]]:
    monkeypatch.setattr(lpips, "read_network", lambda name: trunks["vgg" if "vgg" in name else "alex"])
    return trunks


@pytest.mark.parametrize("name", NAMES)
def test_identity_and_order(name: str, seeded: Any, content: Tensor, style: Tensor) -> None:
    metric, entry = load_metric(name), load_registry().metric(name)
    best = 1.0 if entry.direction == "higher" else 0.0
    assert metric(content, content, style) == pytest.approx(best, abs=1e-12)
    for worse in ([noisy(content, a) for a in AMOUNTS], [blurred(content, radius) for radius in (1, 2, 4, 8)]):
        require_growing([best, *(metric(output, content, style) for output in worse)], entry.direction)


@pytest.mark.parametrize("name", NAMES)
def test_a_content_metric_ignores_the_style(name: str, seeded: Any, content: Tensor, style: Tensor) -> None:
    metric, output = load_metric(name), noisy(content, 0.1)
    assert metric(output, content, style) == metric(output, content, 1 - style)


@pytest.mark.parametrize("name", NAMES)
def test_value_depends_neither_on_the_batch_nor_on_what_came_before(
    name: str, seeded: Any, content: Tensor, style: Tensor
) -> None:
    require_independent(name, lambda: load_metric(name), content, style)


@pytest.mark.parametrize(("name", "symmetric"), [("lpips", True), ("stlpips", True), ("cf", True), ("cfsd", False)])
def test_symmetry(name: str, symmetric: bool, seeded: Any, content: Tensor, style: Tensor) -> None:
    metric, other = load_metric(name), noisy(blurred(content, 2), 0.1)
    there, back = metric(other, content, style), metric(content, other, style)
    assert (there == pytest.approx(back, rel=1e-6)) is symmetric


# -- LPIPS -----------------------------------------------------------------------------------------------------------


def reference_lpips(net: str, trunk: dict[str, Tensor]) -> Any:
    """The package's own network, its trunk filled by hand."""
    package = import_package("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    for key, value in model.net.state_dict().items():
        value.copy_(trunk[f"features.{key.partition('.')[2]}"])
    return model


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_the_packages_value_of_pixels_from_minus_one_to_one(
    net: str, seeded: dict[str, dict[str, Tensor]], content: Tensor, style: Tensor
) -> None:
    metric, output = load_metric("lpips", net=net), noisy(content, 0.2)
    with torch.no_grad():
        expected = float(reference_lpips(net, seeded[net])(output * 2 - 1, content * 2 - 1))
        wrong_range = float(reference_lpips(net, seeded[net])(output, content))
    assert metric(output, content, style) == pytest.approx(expected, rel=1e-5)
    assert metric(output, content, style) != pytest.approx(wrong_range, rel=1e-2)


def test_lpips_follows_its_paper(seeded: dict[str, dict[str, Tensor]], content: Tensor, style: Tensor) -> None:
    from torchvision.models import alexnet

    layers = alexnet().features
    layers.load_state_dict({key.removeprefix("features."): value for key, value in seeded["alex"].items()})
    package = import_package("lpips")
    heads = torch.load(Path(package.__file__).parent / "weights/v0.1/alex.pth", "cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    output = noisy(content, 0.2)
    found: list[list[Tensor]] = []
    layers.requires_grad_(False)
    for image in (output, content):
        x = (image * 2 - 1 - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1)
        found.append([])
        for layer in layers[:12]:
            x = layer(x.clone())  # torchvision's ReLU works in place
            if isinstance(layer, nn.ReLU):
                found[-1].append(x / x.square().sum(dim=1, keepdim=True).sqrt())
    total = sum(
        (heads[f"lin{i}.model.1.weight"] * (a - b).square()).sum(dim=1).mean()
        for i, (a, b) in enumerate(zip(*found, strict=True))
    )
    assert load_metric("lpips")(output, content, style) == pytest.approx(float(total), rel=1e-4)


def test_building_lpips_leaves_the_random_numbers_and_the_warning_filters_alone(seeded: Any) -> None:
    torch.manual_seed(7)
    filters, expected = list(warnings.filters), torch.get_rng_state()
    load_metric("lpips")
    assert list(warnings.filters) == filters
    assert torch.equal(torch.get_rng_state(), expected)


def test_lpips_without_its_trunk_says_what_fetches_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DownloadRequiredError, match=r"244\.4 MB.*'zoo weights fetch alexnet.torchvision'"):
        load_metric("lpips")
    with pytest.raises(DownloadRequiredError, match=r"'zoo weights fetch vgg16\.torchvision'"):
        load_metric("lpips", net="vgg")


def test_a_trunk_that_does_not_fit_is_refused(seeded: dict[str, dict[str, Tensor]]) -> None:
    package = import_package("lpips")
    with pytest.raises(WeightsError, match=r"lack features\.0\.weight"):
        lpips.assembled(package, "alex", {})
    with pytest.raises(WeightsError, match="do not fit"):
        lpips.assembled(package, "alex", {**seeded["alex"], "features.0.weight": torch.zeros(1, 3, 11, 11)})


def test_a_package_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(UnsupportedError, match=r"nonesuch.*style-transfer-zoo\[metrics\]"):
        import_package("nonesuch")


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_works_down_to_its_smallest_size(net: str, seeded: Any, content: Tensor, style: Tensor) -> None:
    metric, side = load_metric("lpips", net=net), lpips.MIN_SIZE[net]
    small = content[..., :side, :side].contiguous()
    assert metric(1 - small, small, style) > 0
    with pytest.raises(InputError, match=f"at least {side} pixels"):
        metric(small[..., 1:], small[..., 1:], style)


# -- ST-LPIPS --------------------------------------------------------------------------------------------------------


def test_stlpips_has_the_values_that_an_independent_reader_found() -> None:
    """To the digits that it gave, on scikit-image's astronaut at 256: noise, blur, a shift of one pixel, a cat."""
    from scipy.ndimage import gaussian_filter
    from skimage import data, transform

    def photo(pixels: Any) -> Tensor:
        small = transform.resize(pixels, (256, 256), anti_aliasing=True)
        return torch.from_numpy(small).float().permute(2, 0, 1)[None].contiguous()

    metric, astronaut = load_metric("stlpips"), photo(data.astronaut())
    noise = torch.randn(astronaut.shape, generator=torch.Generator().manual_seed(0))

    def found(output: Tensor, content: Tensor = astronaut) -> float:
        return metric(output.contiguous(), content.contiguous(), astronaut)

    assert round(found((astronaut + 0.01 * noise).clamp(0, 1)), 3) == 0.003
    assert round(found(torch.from_numpy(gaussian_filter(astronaut, (0, 0, 4, 4)))), 2) == 0.72
    assert round(found(astronaut[..., 1:, 1:], astronaut[..., :-1, :-1]), 3) == 0.009
    assert round(found(photo(data.chelsea())), 2) == 0.69


def test_stlpips_grows_with_a_shift_and_hardly_with_its_first_pixel(style: Tensor) -> None:
    metric, photo = load_metric("stlpips"), images.read("builtin:astronaut", size="exact:112x96").pixels
    shifted = [photo[..., k : k + 80, k : k + 64].contiguous() for k in (0, 1, 2, 4, 8, 16)]
    values = [metric(output, shifted[0], style) for output in shifted]
    require_growing(values, "lower")
    assert values[1] < values[-1] / 20


def test_stlpips_halves_by_a_binomial_blur_with_a_reflected_border() -> None:
    x = torch.randn(1, 2, 9, 12, generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16
    padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
    expected = F.conv2d(padded, kernel.expand(2, 1, 3, 3), stride=2, groups=2)
    torch.testing.assert_close(stlpips.halved(x), expected)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_stlpips_works_down_to_its_smallest_size(net: str, content: Tensor, style: Tensor) -> None:
    metric, side = load_metric("stlpips", net=net), stlpips.MIN_SIZE[net]
    small = content[..., :side, :side].contiguous()
    assert metric(1 - small, small, style) > 0
    with pytest.raises(InputError, match=f"at least {side} pixels"):
        metric(small[..., 1:], small[..., 1:], style)


def test_stlpips_without_its_package_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_metric("stlpips")
    assert "stlpips_pytorch" not in sys.modules  # its weights are read and none of its code is run
    monkeypatch.setattr(weights, "package_folder", lambda name: None)
    with pytest.raises(DownloadRequiredError, match=r"package stlpips_pytorch.*style-transfer-zoo\[metrics\]"):
        load_metric("stlpips")
    assert command("fetch", "stlpips.alex") == 2
    assert "pip install" in capsys.readouterr().err
    monkeypatch.setattr(weights, "package_folder", lambda name: tmp_path)
    other = tmp_path / "weights/vST0.0/alex_shift_tolerant.pth"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another version")
    with pytest.raises(WeightsError, match=r"damaged.*force-reinstall style-transfer-zoo\[metrics\]"):
        load_metric("stlpips")


# -- networks --------------------------------------------------------------------------------------------------------


def test_a_damaged_network_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of it")
    with pytest.raises(WeightsError, match="damaged"):
        weights.read_network("alexnet.torchvision")
    assert "damaged" in weights.state("alexnet.torchvision")


def test_a_network_is_fetched_only_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    served = tmp_path / "served/matthias-wright/art_inception/resolve/main/art_inception.pth"
    served.parent.mkdir(parents=True)
    torch.save({"a.weight": torch.ones(2)}, served)
    monkeypatch.setenv("ZOO_MIRROR", (tmp_path / "served").as_uri())
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(DownloadRequiredError, match="ZOO_OFFLINE"):
        weights.fetch("inception.art")
    monkeypatch.delenv("ZOO_OFFLINE")
    with pytest.raises(DownloadRequiredError, match=r"zoo weights fetch inception\.art"):
        weights.path("inception.art")
    path = weights.fetch("inception.art")
    assert path.is_relative_to(tmp_path / "hub")
    assert weights.read_network("inception.art")["a.weight"].tolist() == [1, 1]
    assert weights.state("inception.art") == "ready"


# -- CFSD ------------------------------------------------------------------------------------------------------------


def test_cfsd_is_the_divergence_of_softmaxed_self_similarities(content: Tensor, style: Tensor) -> None:
    output = blurred(content, 2)
    encoder = load_encoder("vgg19", taps=["relu3_1"])
    whole = []
    for image in (output, content):
        rows = encoder(image)["relu3_1"][0].flatten(1).T.double() / (255 * (0.229 + 0.224 + 0.225) / 3) / 256
        whole.append((rows @ rows.T).log_softmax(dim=1))
    expected = float(F.kl_div(whole[0], whole[1], reduction="sum", log_target=True))
    assert load_metric("cfsd")(output, content, style) == pytest.approx(expected, rel=1e-4)


def test_cfsd_chunks_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(37, 8, generator=generator) for _ in range(2))
    whole = cfsd.divergence(a, b, chunk=37 * 37)
    for chunk in (1, 100, 37 * 36):
        assert float(cfsd.divergence(a, b, chunk=chunk)) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])  # the last has products of thousands: exponentials overflow
def test_cfsd_in_blocks_is_the_divergence_of_whole_matrices(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(50, 8, generator=generator) * scale for _ in range(2))
    w, f = ((x @ x.T).double().log_softmax(dim=1) for x in (a, b))
    for chunk in (64, 2500):
        found = cfsd.divergence(a, b, chunk=chunk)
        assert float(found) == pytest.approx(float((w.exp() * (w - f)).sum()), rel=1e-6)


class Largest(TorchDispatchMode):
    """The elements of the largest tensor made inside."""

    found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.found = max(self.found, result.numel())
        return result


def test_cfsd_never_holds_all_products() -> None:
    rows = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        cfsd.divergence(rows, rows.flip(0), chunk=10_000)
    assert largest.found <= 10_000  # all of them would be 160,000


@pytest.mark.numerical
def test_cfsd_of_two_positions_has_a_closed_form() -> None:
    # Orthogonal rows of length 1 against rows of zeros: softmax (e, 1) / (e + 1) against (1/2, 1/2), twice.
    wanted, found = torch.eye(2), torch.zeros(2, 2)
    p = torch.tensor([1.0, 0.0]).double().softmax(0)
    assert float(cfsd.divergence(wanted, found)) == pytest.approx(float(2 * (p * (2 * p).log()).sum()), rel=1e-6)


def test_cfsd_reads_another_network_without_our_unit(content: Tensor, style: Tensor) -> None:
    output = blurred(content, 2)
    metric = load_metric("cfsd", encoder="vgg19.normalised")
    assert isinstance(metric, cfsd.CFSD)
    assert metric.divisor == 1
    assert metric(output, content, style) != load_metric("cfsd")(output, content, style)


# -- CF --------------------------------------------------------------------------------------------------------------


def test_cf_is_the_mean_cosine_of_two_layers(content: Tensor, style: Tensor) -> None:
    output = noisy(content, 0.2)
    encoder = load_encoder("vgg19", taps=["relu4_1", "relu5_1"], pool="avg")
    ours, theirs = encoder(output), encoder(content)
    each = [F.cosine_similarity(ours[tap].flatten(), theirs[tap].flatten(), dim=0) for tap in ours]
    assert load_metric("cf")(output, content, style) == pytest.approx(float(sum(each)) / 2, rel=1e-5)


@pytest.mark.numerical
def test_cosine_of_zeros() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    assert [float(cosine(a, b)) for a, b in ((zero, zero), (zero, one), (one, zero), (one, -one))] == [1, 0, 0, -1]


def test_content_metrics_are_registered_as_they_are() -> None:
    for name in NAMES:
        entry = load_registry().metric(name)
        assert (entry.measures, entry.scope) == ("content", "pair")
        assert issubclass(type(load_metric(name)) if name != "lpips" else lpips.LPIPS, Metric)


def command(*arguments: str) -> int:
    try:
        main(["weights", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_fetches_what_a_metric_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert command("fetch", "lpips") == 2
    assert "alexnet.torchvision" in capsys.readouterr().err
    assert command("fetch", "ssim") == 2
    assert "nothing to fetch" in capsys.readouterr().err
    path = tmp_path / "hub/checkpoints/art_inception.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"whatever its publisher changed it to")
    assert command("fetch", "inception.art") == 0
    assert str(path) in capsys.readouterr().out
    assert command("list", "--json") == 0
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states["inception.art"] == "ready"
    assert "zoo weights fetch inception.fid" in states["inception.fid"]
