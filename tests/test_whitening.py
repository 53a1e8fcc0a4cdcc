"""Whitening and colouring against float64, also where a covariance is singular."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo.nn.regions import feature_masks
from zoo.nn.whitening import apply_affine, colouring, moments, whitening


def _features(channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Correlated and not centred, as features are; channels-last as the encoders make them."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator) / channels**0.5
    noise = torch.randn(channels, height * width, generator=generator)
    return (
        (mixing @ noise + torch.rand(channels, 1, generator=generator))
        .view(1, channels, height, width)
        .contiguous(memory_format=torch.channels_last)
    )


def _reference(features: Tensor) -> tuple[Tensor, Tensor]:
    flat = features[0].flatten(1).double()
    mean = flat.mean(1, keepdim=True)
    return mean[:, 0], (flat - mean) @ (flat - mean).T / max(flat.shape[1] - 1, 1)


@given(st.integers(1, 24), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=40)
def test_moments_are_those_of_float64(channels: int, height: int, width: int) -> None:
    features = _features(channels, height, width)
    ours = moments(features)
    mean, covariance = _reference(features)
    torch.testing.assert_close(ours.mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.covariance, covariance, rtol=1e-4, atol=1e-5)


def test_moments_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features = _features(16, 40, 30)
    mask = (torch.arange(40)[:, None] > torch.arange(30)).float()
    whole = moments(features), moments(features, mask)
    monkeypatch.setattr("zoo.nn.whitening._CHUNK_BYTES", 4 * 16 * 30 * 7)
    for before, after in zip(whole, (moments(features), moments(features, mask)), strict=True):
        torch.testing.assert_close(after.mean, before.mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(after.covariance, before.covariance, rtol=1e-5, atol=1e-6)


def test_moments_of_a_hard_mask_are_those_of_its_positions() -> None:
    features = _features(12, 20, 20)
    mask = torch.zeros(20, 20)
    mask[3:11, 5:17] = 1
    inside = features[:, :, 3:11, 5:17]
    ours, theirs = moments(features, mask), moments(inside)
    assert ours.count == theirs.count
    torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.covariance, theirs.covariance, rtol=1e-4, atol=1e-5)


def test_whitened_features_have_identity_covariance() -> None:
    features = _features(48, 64, 64)
    statistics = moments(features)
    matrix = whitening(statistics.covariance)
    white = apply_affine(features, matrix, -matrix @ statistics.mean)
    mean, covariance = _reference(white)
    torch.testing.assert_close(covariance, torch.eye(48, dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(mean, torch.zeros(48, dtype=torch.float64), rtol=0, atol=1e-3)


def test_coloured_features_have_the_styles_moments() -> None:
    content, style = _features(48, 64, 64, seed=1), _features(48, 50, 70, seed=2)
    ours, theirs = moments(content), moments(style)
    matrix = colouring(theirs.covariance) @ whitening(ours.covariance)
    moved = apply_affine(content, matrix, theirs.mean - matrix @ ours.mean)
    mean, covariance = _reference(style)
    got_mean, got_covariance = _reference(moved)
    torch.testing.assert_close(got_mean, mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(got_covariance, covariance, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 5)])
def test_a_singular_covariance_is_whitened_on_its_own_directions(shape: tuple[int, int]) -> None:
    features = _features(32, *shape)
    statistics = moments(features)
    matrix = whitening(statistics.covariance)
    assert torch.isfinite(matrix).all()
    # W S W is the projection on the directions that the positions span: its trace counts them.
    rank = shape[0] * shape[1] - 1
    projection = matrix @ statistics.covariance @ matrix
    assert float(projection.trace()) == pytest.approx(rank, abs=1e-3)
    torch.testing.assert_close(projection @ projection, projection, rtol=0, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_map_becomes_the_styles_mean(value: float) -> None:
    flat, style = torch.full((1, 16, 9, 9), value), moments(_features(16, 20, 20))
    ours = moments(flat)
    matrix = colouring(style.covariance) @ whitening(ours.covariance)
    moved = apply_affine(flat, matrix, style.mean - matrix @ ours.mean)
    torch.testing.assert_close(moved[0, :, 4, 4].double(), style.mean, rtol=1e-4, atol=1e-4)


def test_the_map_is_applied_in_float32_whatever_the_features() -> None:
    features = _features(16, 8, 8)
    matrix = torch.eye(16, dtype=torch.float64) * 300 - 299 * torch.eye(16, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        moved = apply_affine(features.bfloat16(), matrix, torch.zeros(16, dtype=torch.float64))
    assert moved.dtype == torch.bfloat16
    torch.testing.assert_close(moved, features.bfloat16())


def test_masks_come_down_by_area_and_share_where_they_overlap() -> None:
    masks = torch.zeros(2, 16, 16)
    masks[0, :, :12] = 1
    masks[1, :, 8:] = 1
    weights = feature_masks(masks, (2, 4))
    torch.testing.assert_close(weights[0], torch.tensor([1.0, 1.0, 0.5, 0.0]).expand(2, 4))
    torch.testing.assert_close(weights[1], torch.tensor([0.0, 0.0, 0.5, 1.0]).expand(2, 4))
    assert feature_masks(torch.zeros(2, 16, 16), (2, 4)).sum() == 0
