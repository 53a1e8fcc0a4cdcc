"""Luminance and colour statistics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zoo.color import (
    color_statistics,
    from_lab,
    gray,
    luminance,
    match_color,
    match_luminance,
    recolor_style,
    reinhard,
    to_lab,
    with_luminance,
)

YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@pytest.fixture
def photos() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    mix = torch.rand(2, 3, 3, generator=generator)
    return torch.einsum("bij,bjhw->bihw", mix, torch.rand(2, 3, 20, 31, generator=generator)) / 3


@pytest.fixture
def painting() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return 0.2 + 0.6 * torch.rand(1, 3, 17, 13, generator=generator) ** 2


def test_luminance_is_that_of_yiq(photos: Tensor) -> None:
    wanted = torch.einsum("ij,bjhw->bihw", YIQ, photos)[:, :1]
    torch.testing.assert_close(luminance(photos), wanted)
    gray = torch.full((1, 3, 4, 4), 0.37)
    torch.testing.assert_close(luminance(gray), gray[:, :1])


def test_with_luminance_changes_y_and_keeps_i_and_q(photos: Tensor) -> None:
    wanted = torch.rand(2, 1, 20, 31, generator=torch.Generator().manual_seed(5))
    y, i, q = torch.einsum("ij,bjhw->bihw", YIQ, with_luminance(photos, wanted)).split(1, dim=1)
    _, old_i, old_q = torch.einsum("ij,bjhw->bihw", YIQ, photos).split(1, dim=1)
    torch.testing.assert_close(y, wanted, atol=1e-5, rtol=0)
    # The published YIQ coefficients are rounded to four digits, so their rows do not sum to zero exactly.
    torch.testing.assert_close(i, old_i, atol=1e-3, rtol=0)
    torch.testing.assert_close(q, old_q, atol=1e-3, rtol=0)


def test_own_luminance_changes_nothing(photos: Tensor) -> None:
    torch.testing.assert_close(with_luminance(photos, luminance(photos)), photos)


def test_match_luminance_has_the_mean_and_deviation_of_the_other(photos: Tensor, painting: Tensor) -> None:
    y, wanted = match_luminance(photos, painting), luminance(painting)
    for single in y:
        assert float(single.mean()) == pytest.approx(float(wanted.mean()), abs=1e-5)
        assert float(single.std(correction=0)) == pytest.approx(float(wanted.std(correction=0)), rel=1e-4)


def test_color_statistics_are_those_of_the_definition(photos: Tensor) -> None:
    mean, covariance = color_statistics(photos)
    for image, m, c in zip(photos, mean, covariance, strict=True):
        values = image.flatten(1).double()
        torch.testing.assert_close(m, values.mean(1))
        torch.testing.assert_close(c, torch.cov(values, correction=0))


def test_match_color_has_the_mean_and_covariance_of_the_other(photos: Tensor, painting: Tensor) -> None:
    mean, covariance = color_statistics(match_color(photos, painting))
    wanted_mean, wanted_covariance = color_statistics(painting)
    for m, c in zip(mean, covariance, strict=True):
        torch.testing.assert_close(m, wanted_mean[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(c, wanted_covariance[0], atol=1e-6, rtol=1e-3)


def test_match_color_to_itself_changes_nothing(photos: Tensor) -> None:
    torch.testing.assert_close(match_color(photos, photos), photos, atol=1e-4, rtol=0)


@pytest.mark.numerical
def test_match_color_of_flat_and_grey_images_stays_small(painting: Tensor) -> None:
    flat = torch.full((1, 3, 8, 8), 0.5)
    mean, _ = color_statistics(painting)
    torch.testing.assert_close(match_color(flat, painting)[0, :, 0, 0].double(), mean[0], atol=1e-5, rtol=0)
    gray = torch.rand(1, 1, 8, 8).expand(1, 3, 8, 8) + 1e-4 * torch.randn(1, 3, 8, 8)
    colored = match_color(gray, painting)
    # Noise of a tenth of a level must not become colour.
    spread = (colored - match_color(gray.mean(1, keepdim=True).expand(1, 3, 8, 8), painting)).abs().max()
    assert float(spread) < 0.02


def test_results_do_not_depend_on_the_batch(photos: Tensor, painting: Tensor) -> None:
    both = match_color(photos, painting)
    torch.testing.assert_close(both[1:], match_color(photos[1:], painting))
    torch.testing.assert_close(match_luminance(photos, painting)[1:], match_luminance(photos[1:], painting))


def test_a_recoloured_style_has_the_contents_colours() -> None:
    generator = torch.Generator().manual_seed(3)
    style = 0.3 + 0.2 * torch.rand(1, 3, 20, 20, generator=generator)
    content = 0.4 + 0.2 * torch.rand(1, 3, 24, 16, generator=generator)
    assert recolor_style(style, content, "none") is style
    coral = recolor_style(style, content, "coral")
    for ours, theirs in zip(color_statistics(coral), color_statistics(content), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    plain = recolor_style(style, content, "luminance")
    assert torch.equal(plain[:, 0], plain[:, 2])
    assert luminance(plain).mean().item() == pytest.approx(luminance(content).mean().item(), abs=1e-3)
    torch.testing.assert_close(luminance(gray(content)), luminance(content))


def test_lab_of_grey_is_its_logarithm() -> None:
    # The rows of eq. 4 sum to 0.9996, 0.9993 and 0.9973, so grey is almost, not exactly, without α and β.
    lab = to_lab(torch.full((1, 3, 2, 2), 0.1))[0, :, 0, 0]
    logs = [math.log10(0.1 * total) for total in (0.9996, 0.9993, 0.9973)]
    assert float(lab[0]) == pytest.approx(sum(logs) / 3**0.5, rel=1e-6)
    assert float(lab[1]) == pytest.approx((logs[0] + logs[1] - 2 * logs[2]) / 6**0.5, rel=1e-4)
    assert float(lab[2]) == pytest.approx((logs[0] - logs[1]) / 2**0.5, rel=1e-4)


@pytest.mark.numerical
def test_lab_and_back_changes_nothing_but_black(photos: Tensor) -> None:
    bright = 0.05 + 0.9 * photos
    torch.testing.assert_close(from_lab(to_lab(bright)).float(), bright)
    assert float(from_lab(to_lab(torch.zeros(1, 3, 2, 2))).max()) < 2 / 255


def test_reinhard_has_the_moments_of_the_other_in_lab(photos: Tensor, painting: Tensor) -> None:
    bright = 0.05 + 0.9 * photos
    moved, wanted = to_lab(reinhard(bright.double(), painting.double())), to_lab(painting)
    for single in moved:
        torch.testing.assert_close(single.mean((1, 2)), wanted[0].mean((1, 2)), atol=1e-6, rtol=0)
        torch.testing.assert_close(
            single.std((1, 2), correction=0), wanted[0].std((1, 2), correction=0), atol=1e-6, rtol=0
        )


def test_reinhard_of_a_brighter_copy_is_that_copy(photos: Tensor) -> None:
    # Twice the light moves the logarithms of all three responses by the same amount: l alone shifts.
    bright = 0.05 + 0.4 * photos
    torch.testing.assert_close(reinhard(bright, 2 * bright), 2 * bright, atol=1e-5, rtol=0)
    torch.testing.assert_close(reinhard(bright, bright), bright, atol=1e-5, rtol=0)


@pytest.mark.numerical
def test_reinhard_of_flat_images_is_the_mean_and_noise_stays_small(painting: Tensor) -> None:
    flat, red = torch.full((1, 3, 4, 4), 0.5), torch.tensor([0.8, 0.2, 0.1]).view(1, 3, 1, 1)
    torch.testing.assert_close(reinhard(flat, red.expand(1, 3, 6, 6)), red.expand(1, 3, 4, 4))
    noisy = flat + 1e-5 * torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert float((reinhard(noisy, painting) - reinhard(flat, painting)).abs().max()) < 0.02


def test_reinhard_does_not_depend_on_the_batch(photos: Tensor, painting: Tensor) -> None:
    torch.testing.assert_close(reinhard(photos, painting)[1:], reinhard(photos[1:], painting))
