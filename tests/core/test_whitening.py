"""Whitening and colouring against float64, also where a covariance is singular."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo import images
from zoo.encoders import load_encoder
from zoo.errors import NumericalError
from zoo.nn.regions import feature_masks
from zoo.nn.whitening import (
    SMALLEST_EIGENVALUE,
    MomentSums,
    add_affine,
    apply_affine_,
    coloring,
    moments,
    whitening,
)

pytestmark = pytest.mark.numerical


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


def test_small_parts_have_the_directions_of_the_whole() -> None:
    features, sums = _features(80, 40, 30), MomentSums()
    for rows in range(0, 40, 8):
        sums.add(features[:, :, rows : rows + 8])
    wanted, found = moments(features), sums.moments()
    assert float(wanted.rounding) > 0
    assert float(found.rounding) == pytest.approx(float(wanted.rounding))


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
    white = apply_affine_(features.clone(), matrix, -matrix @ statistics.mean)
    mean, covariance = _reference(white)
    torch.testing.assert_close(covariance, torch.eye(48, dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(mean, torch.zeros(48, dtype=torch.float64), rtol=0, atol=1e-3)


def test_coloured_features_have_the_styles_moments() -> None:
    content, style = _features(48, 64, 64, seed=1), _features(48, 50, 70, seed=2)
    ours, theirs = moments(content), moments(style)
    matrix = coloring(theirs.covariance) @ whitening(ours.covariance)
    moved = apply_affine_(content.clone(), matrix, theirs.mean - matrix @ ours.mean)
    mean, covariance = _reference(style)
    got_mean, got_covariance = _reference(moved)
    torch.testing.assert_close(got_mean, mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(got_covariance, covariance, rtol=0, atol=1e-3)


@pytest.mark.parametrize("root", [whitening, coloring])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_covariance_that_is_not_finite_is_told(root: Callable[[Tensor], Tensor], value: float) -> None:
    features = _features(8, 6, 6)
    features[0, 3, 2, 2] = value
    with pytest.raises(NumericalError, match="not finite"):
        root(moments(features).covariance)


def test_a_small_region_far_from_the_rest_has_only_its_own_directions() -> None:
    """Float32 sums about the whole map's mean would leave it rounding errors, and whitening would blow them up."""
    features = _features(32, 40, 40)
    mask = torch.zeros(40, 40)
    mask[10, 10:14] = 1
    features[:, :, 10, 10:14] += 40
    ours = moments(features, mask)
    _, covariance = _reference(features[:, :, 10:11, 10:14])
    torch.testing.assert_close(ours.covariance, covariance, rtol=0, atol=1e-9)
    matrix = whitening(ours.covariance)
    assert float((matrix @ ours.covariance @ matrix).trace()) == pytest.approx(3, abs=1e-6)


def test_a_weighted_map_is_added_where_it_weighs_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.nn.whitening._CHUNK_BYTES", 4 * 6 * 9 * 3)
    features = _features(6, 10, 9)
    features[..., 5:] = 3e38
    matrix, offset = _features(6, 2, 3, seed=3).view(6, 6).double(), torch.arange(6.0).double()
    weight = torch.rand(10, 9)
    weight[:, 5:] = 0
    total = torch.ones(1, 6, 10, 9)
    add_affine(total, features, 5 * matrix, offset, weight)
    inside = features[0, :, :, :5].double()
    wanted = 1 + weight[:, :5] * (torch.einsum("ij,jhw->ihw", 5 * matrix, inside) + offset[:, None, None])
    torch.testing.assert_close(total[0, :, :, :5].double(), wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(total[..., 5:], torch.ones(1, 6, 10, 4))


LEVELS = (1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def pictures() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features of a photograph and of a style on every level; deepest, 576 positions of 512 channels."""
    encoder = load_encoder("vgg19.normalised", taps=tuple(f"relu{k}_1" for k in LEVELS), padding="reflect")
    photo, style = (images.read(f"builtin:{name}", size="exact:384x384").pixels for name in ("astronaut", "swirls"))
    with torch.no_grad():
        return encoder(photo), encoder(style)


def _real(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The directions that a covariance really has, and their variances; by SVD, another route than the module's."""
    vectors, values, _ = torch.linalg.svd(covariance)
    kept = values > SMALLEST_EIGENVALUE
    return vectors[:, kept], values[kept]


@pytest.mark.parametrize("level", LEVELS)
def test_features_of_a_photograph_are_whitened(pictures: tuple[dict[str, Tensor], ...], level: int) -> None:
    """The covariance is the identity within 1e-3, of variances that are 1, on the directions that the features have.

    On level 1 the flattest direction has a variance of 8e-4 and the greatest 58.
    """
    features = pictures[0][f"relu{level}_1"]
    statistics = moments(features)
    matrix = whitening(statistics.covariance)
    white = apply_affine_(features.clone(), matrix, -matrix @ statistics.mean)
    _, covariance = _reference(features)
    vectors, _ = _real(covariance)
    mean, found = _reference(white)
    identity = torch.eye(vectors.shape[1], dtype=torch.float64)
    torch.testing.assert_close(vectors.T @ found @ vectors, identity, rtol=0, atol=1e-3)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-3)


@pytest.mark.parametrize("level", LEVELS)
def test_features_of_a_photograph_take_the_styles_moments(pictures: tuple[dict[str, Tensor], ...], level: int) -> None:
    """Within 1e-3 of the scale of the style's features: of the mean variance of a channel, and of its root.

    Of the style's covariance there comes what the content has directions for: on level 2 it lacks one of 128.
    """
    content, style = (features[f"relu{level}_1"] for features in pictures)
    ours, theirs = moments(content), moments(style)
    matrix = coloring(theirs.covariance) @ whitening(ours.covariance)
    moved = apply_affine_(content.clone(), matrix, theirs.mean - matrix @ ours.mean)
    mean, covariance = _reference(style)
    found_mean, found = _reference(moved)
    scale = float(covariance.diagonal().mean())
    directions, _ = _real(_reference(content)[1])
    vectors, variances = _real(covariance)
    root = (vectors * variances.sqrt()) @ vectors.T @ directions
    if directions.shape[1] == len(covariance):
        torch.testing.assert_close(root @ root.T, covariance, rtol=0, atol=1e-3 * scale)
    torch.testing.assert_close(found, root @ root.T, rtol=0, atol=1e-3 * scale)
    torch.testing.assert_close(found_mean, mean, rtol=0, atol=1e-3 * scale**0.5)


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


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_directions_that_float32_sums_leave_are_none(scale: float) -> None:
    """Of 96 channels 40 directions vary; with variances of a million, rounding in the others passes 1e-5; with small
    ones it depends on the processor."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(96, 40, generator=generator, dtype=torch.float64)
    flat = scale * (mixing @ torch.randn(40, 64 * 64, generator=generator, dtype=torch.float64))
    found = moments(flat.float().view(1, 96, 64, 64))
    left = float(torch.linalg.eigvalsh(found.covariance)[:56].abs().max())
    assert scale == 1 or left > SMALLEST_EIGENVALUE
    assert left < 0.8 * float(found.rounding)
    matrix = whitening(found.covariance, found.rounding)
    assert float((matrix @ found.covariance @ matrix).trace()) == pytest.approx(40, abs=1e-2)
    root = torch.linalg.eigvalsh(coloring(found.covariance, found.rounding))
    assert int((root.abs() > 1e-9 * root.max()).sum()) == 40


def test_rounding_drops_nothing_of_a_photograph(pictures: tuple[dict[str, Tensor], ...]) -> None:
    """The authors' threshold, in units of the features, is the one that counts."""
    for features in pictures:
        for level in LEVELS:
            found = moments(features[f"relu{level}_1"])
            values = torch.linalg.eigvalsh(found.covariance)
            assert bool((values[values > SMALLEST_EIGENVALUE] > found.rounding).all())


def test_two_positions_are_two_whatever_their_weights_round_to() -> None:
    features = _features(8, 4, 4)
    mask = torch.zeros(4, 4)
    mask[1, 1], mask[2, 3] = 1.0, 1.0 - 2**-23
    assert float(moments(features, mask).covariance.trace()) == pytest.approx(
        float(moments(features, mask.ceil()).covariance.trace()), rel=1e-4
    )
    mask[2, 3] = 0.99
    assert float(moments(features, mask).covariance.abs().max()) == 0


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_map_becomes_the_styles_mean(value: float) -> None:
    flat, style = torch.full((1, 16, 9, 9), value), moments(_features(16, 20, 20))
    ours = moments(flat)
    matrix = coloring(style.covariance) @ whitening(ours.covariance)
    moved = apply_affine_(flat.clone(), matrix, style.mean - matrix @ ours.mean)
    torch.testing.assert_close(moved[0, :, 4, 4].double(), style.mean, rtol=1e-4, atol=1e-4)


def test_the_map_is_applied_in_float32_whatever_the_features() -> None:
    features = _features(16, 8, 8)
    matrix = torch.eye(16, dtype=torch.float64) * 300 - 299 * torch.eye(16, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        moved = apply_affine_(features.bfloat16(), matrix, torch.zeros(16, dtype=torch.float64))
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
