"""Metrics: identity, order, independence from batch and history, closed forms, agreement with the definition."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
import warnings
from collections.abc import Iterator

import forked
import metric_cases
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from zoo import images
from zoo.errors import ConfigError, InputError, NumericalError, UnknownNameError
from zoo.metrics import base, load_metric, load_set_metric
from zoo.metrics.base import Metric, SetMetric
from zoo.nn.whitening import Moments
from zoo.registry import MetricEntry, import_object, load_registry

NAMES = ["ssim", "content_loss", "gram_loss"]


@pytest.fixture(scope="module")
def metrics() -> dict[str, Metric]:
    return {name: load_metric(name) for name in NAMES}


@pytest.fixture(scope="module")
def content() -> Tensor:
    return images.read("builtin:astronaut", size="long:64").pixels


@pytest.fixture(scope="module")
def style() -> Tensor:
    return images.read("builtin:coffee", size="exact:80x64").pixels


def noisy(image: Tensor, amount: float, seed: int = 0) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + amount * noise).clamp(0, 1)


def test_registry_and_code_agree():
    for name, entry in load_registry().metrics.items():
        cls = import_object(entry.implementation)
        assert issubclass(cls, Metric if entry.scope == "pair" else SetMetric), name
        assert cls.scope == entry.scope
        assert cls.__module__ == f"zoo.metrics.{name}"


@pytest.mark.parametrize("name", NAMES)
def test_identity_and_order_under_growing_noise(name, metrics, content, style):
    metric, entry = metrics[name], load_registry().metric(name)
    target = content if entry.measures == "content" else style
    # A style metric compares with the style, so its "content" is only there to have the output's shape.
    values = [metric(noisy(target, amount), target, style) for amount in (0, 0.05, 0.1, 0.2, 0.4)]
    assert values[0] == pytest.approx(1.0 if entry.direction == "higher" else 0.0, abs=1e-12)
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert all(step < 0 if entry.direction == "higher" else step > 0 for step in steps)


@pytest.mark.parametrize("name", NAMES)
def test_symmetry(name, metrics, content):
    metric, other = metrics[name], noisy(content.flip(-1), 0.1)
    if load_registry().metric(name).measures == "content":
        there, back = metric(other, content, content), metric(content, other, content)
    else:
        there, back = metric(other, other, content), metric(content, content, other)
    assert there == pytest.approx(back, rel=1e-6)
    assert there != pytest.approx(metric(content, content, content), rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_reads_the_side_that_it_measures_and_no_other(name, metrics, content, style):
    output = noisy(content, 0.1)
    measures = load_registry().metric(name).measures
    value = metrics[name](output, content, style)
    if measures == "content":
        assert metrics[name](output, content, style.flip(1)) == value
    elif measures == "style":
        assert metrics[name](output, content.flip(1), style) == value


@pytest.mark.parametrize("name", NAMES)
def test_value_depends_neither_on_the_batch_nor_on_what_came_before(name, metrics, content, style):
    outputs = torch.cat([noisy(content, 0.1, seed) for seed in range(3)])
    contents, styles = torch.cat([content, content.flip(-1), content]), torch.cat([style, style, style.flip(-2)])
    together = metrics[name].many(outputs, contents, styles)
    fresh = load_metric(name)
    alone = [fresh(*(t[i : i + 1] for t in (outputs, contents, styles))) for i in reversed(range(3))]
    assert together == list(reversed(alone))
    assert len(set(together)) == 3 or name == "gram_loss"


def test_another_process_gives_the_same_values():
    done = forked.run([sys.executable, metric_cases.__file__], capture_output=True, text=True, check=True)
    there, here = json.loads(done.stdout), metric_cases.values()
    assert {"ssim", "cfsd", "gram_loss", "lp", "color_histogram", "fd_vgg19", "kid_vgg19"} < here.keys()
    assert there == pytest.approx(here, rel=1e-5)


def test_what_is_remembered_of_an_image_is_bounded_and_keyed_by_its_pixels(content):
    metric = load_metric("ssim")
    calls = []

    def mean(image: Tensor) -> float:
        calls.append(1)
        return float(image.mean())

    assert metric.remember(content, mean) == metric.remember(content.clone(), mean)
    assert len(calls) == 1
    assert metric.remember(content * 0.5, mean) != metric.remember(content, mean)
    for i in range(40):
        metric.remember(content * (i / 40), mean)
    assert len(metric._memory) <= 16


def test_what_is_remembered_is_bounded_in_bytes(content, monkeypatch):
    monkeypatch.setattr(base, "_REMEMBERED_BYTES", 3 * content.numel() * content.itemsize)
    metric = load_metric("ssim")
    calls = []

    def features(image: Tensor) -> tuple[dict[str, Tensor], Moments]:
        calls.append(1)
        return {"tap": image.clone()}, Moments(image.clone(), torch.zeros(0), 1.0)

    first, second = content, content * 0.5
    for image in (first, first, second, second, first):
        metric.remember(image, features)
    assert len(calls) == 3, "each takes two shares of three, so only one is kept"
    assert len(metric._memory) == 1
    monkeypatch.setattr(base, "_REMEMBERED_BYTES", 1)
    metric.remember(second, features)
    metric.remember(second, features)
    assert len(calls) == 4, "the newest stays, however large"


@pytest.mark.numerical
def test_ssim_of_two_constants_is_the_luminance_term(metrics):
    a, b = 0.3, 0.7
    value = metrics["ssim"](torch.full((1, 3, 32, 32), a), torch.full((1, 3, 32, 32), b), torch.zeros(1, 3, 8, 8))
    c1 = 0.01**2
    assert value == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-6)


def wang_2004(first: Tensor, second: Tensor) -> float:
    """Equation 13 of the paper on one plane, with its 11 x 11 window of standard deviation 1.5, inside windows only."""
    x = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(x**2) / (2 * 1.5**2))
    window = (line[:, None] * line[None, :] / line.sum() ** 2)[None, None]

    def mean(t: Tensor) -> Tensor:
        return F.conv2d(t[None, None], window)

    mu1, mu2 = mean(first), mean(second)
    v1, v2 = mean(first**2) - mu1**2, mean(second**2) - mu2**2
    cov = mean(first * second) - mu1 * mu2
    c1, c2 = 0.01**2, 0.03**2
    return float(((2 * mu1 * mu2 + c1) * (2 * cov + c2) / ((mu1**2 + mu2**2 + c1) * (v1 + v2 + c2))).mean())


def test_ssim_follows_its_paper(metrics, content, style):
    output = noisy(content, 0.15)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)
    planes = [(image[0].double() * weights).sum(0) for image in (output, content)]
    assert metrics["ssim"](output, content, style) == pytest.approx(wang_2004(*planes), abs=1e-9)
    by_channel = [wang_2004(output[0, c].double(), content[0, c].double()) for c in range(3)]
    assert load_metric("ssim", channels="rgb")(output, content, style) == pytest.approx(sum(by_channel) / 3, abs=1e-9)


def test_ssim_agrees_with_scikit_image(metrics, content, style):
    from skimage.metrics import structural_similarity

    gray = content.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    output = noisy(content, 0.2).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    expected = structural_similarity(
        output[0, 0].double().numpy(),
        gray[0, 0].double().numpy(),
        win_size=11,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert metrics["ssim"](output, gray, style) == pytest.approx(float(expected), abs=1e-6)


def test_content_loss_is_the_mean_squared_difference_of_features(content, style):
    metric = load_metric("content_loss", tap="relu2_1")
    metric.encoder = lambda image: {"relu2_1": image * 3}  # type: ignore[attr-defined]
    output = (content * 0.5).contiguous()
    expected = float((3 * 0.5 * content).double().square().mean())
    assert metric(output, content, style) == pytest.approx(expected, rel=1e-6)


def test_gram_loss_is_the_frobenius_distance_of_gram_matrices(content, style):
    metric = load_metric("gram_loss", taps="relu1_1,relu2_1")
    metric.encoder = lambda image: {"relu1_1": image, "relu2_1": 2 * image}  # type: ignore[attr-defined]

    def gram(image: Tensor) -> Tensor:
        features = image[0].double().flatten(1)
        return features @ features.T / features.numel()

    difference = float((gram(content) - gram(style)).square().sum())
    assert metric(content, content, style) == pytest.approx(difference * (1 + 2**4), rel=1e-5)
    # Where things are does not count, only which channels are active together.
    shuffled = content.flip(-1).transpose(-1, -2).contiguous()
    assert metric(shuffled, shuffled, content) == pytest.approx(0.0, abs=1e-12)


def test_gram_loss_needs_more_than_matching_colour_means(metrics, content, style):
    flat = style.mean(dim=(2, 3), keepdim=True).expand_as(content).contiguous()
    mirrored = style.flip(-1)
    assert metrics["gram_loss"](flat, content, style) > 10 * metrics["gram_loss"](mirrored, mirrored, style)


@pytest.mark.parametrize("name", NAMES)
def test_malformed_images_are_refused(name, metrics, content, style):
    metric = metrics[name]
    with pytest.raises(InputError, match="one shape"):
        metric(content[..., :-8], content, style)
    with pytest.raises(InputError, match="float32"):
        metric(content.double(), content, style)
    with pytest.raises(InputError, match="3 outputs and 1 styles"):
        metric.many(content.repeat(3, 1, 1, 1), content.repeat(3, 1, 1, 1), style)
    with pytest.raises(InputError):
        metric(content.repeat(2, 1, 1, 1), content.repeat(2, 1, 1, 1), style.repeat(2, 1, 1, 1))


def test_ssim_refuses_what_its_window_does_not_fit_in(metrics):
    tiny = torch.zeros(1, 3, 10, 40)
    with pytest.raises(InputError, match="11 x 11"):
        metrics["ssim"](tiny, tiny, tiny)


def test_a_value_that_is_not_finite_is_an_error(content, style):
    class Undefined(Metric):
        def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> float:
            return math.nan

    with pytest.raises(NumericalError, match="Undefined"):
        Undefined()(content, content, style)


def test_unknown_names_and_settings_get_a_suggestion():
    with pytest.raises(UnknownNameError, match="ssim"):
        load_metric("sim")
    with pytest.raises(ConfigError, match="channels"):
        load_metric("ssim", chanels="rgb")
    with pytest.raises(ConfigError):
        load_metric("ssim", channels="cmyk")


@pytest.mark.numerical
def test_the_cosine_of_rounding_is_that_of_nothing() -> None:
    vector, zero = torch.rand(9, generator=torch.Generator().manual_seed(0)), torch.zeros(9)
    for nothing in (zero, 1e-8 * vector, -1e-7 * vector):
        assert float(base.cosine(vector, nothing)) == float(base.cosine(nothing, vector)) == 0
    assert float(base.cosine(zero, zero)) == 1
    assert float(base.cosine(1e-3 * vector, vector)) == pytest.approx(1)


def test_every_value_is_computed_in_full_float32(
    monkeypatch: pytest.MonkeyPatch, content: Tensor, style: Tensor
) -> None:
    entered: list[torch.device] = []

    @contextlib.contextmanager
    def record(device: torch.device) -> Iterator[None]:
        entered.append(device)
        yield

    monkeypatch.setattr(base, "ieee_float32", record)
    load_metric("ssim")(content, content, style)
    assert len(entered) == 1
    metric = load_set_metric("fd_vgg19")
    for _ in range(2):
        metric.add(content, content, style)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", base.SmallSetWarning)
        metric.value()
    assert len(entered) == 4


def test_a_device_without_float64_is_left_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "resolve_device", torch.device)
    assert load_metric("ssim", device="mps").device.type == "cpu"


def test_every_range_holds_two_bounds_in_order() -> None:
    for entry in load_registry().metrics.values():
        low, high = entry.bounds
        assert low < high


@pytest.mark.parametrize("wrong", ["[zero, one]", "0 to 1", "[0, 1", "[0; 1]"])
def test_a_range_that_holds_no_numbers_is_refused(wrong: str) -> None:
    entry = load_registry().metric("ssim").model_dump(by_alias=True)
    assert MetricEntry.model_validate({**entry, "range": "(-inf, -0.5]"}).bounds == (-math.inf, -0.5)
    with pytest.raises(ValidationError, match="range"):
        MetricEntry.model_validate({**entry, "range": wrong})
