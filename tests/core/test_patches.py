"""Patch matching against brute force in float64, the energy's own gradient against autograd, and bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.errors import InputError
from zoo.nn.patches import PatchBank, corners, coverage, match, patch_energy, rebuild


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small tensors run faster on one thread, above all where other programs want the rest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def unfolded(image: Tensor, size: int, stride: int) -> Tensor:
    """Every patch of (C, H, W) as a vector, cut out one by one."""
    ys, xs = corners(image.shape[1], size, stride), corners(image.shape[2], size, stride)
    return torch.stack([image[:, y : y + size, x : x + size].reshape(-1) for y in ys for x in xs])


def brute_force(query: Tensor, style: Tensor) -> Tensor:
    """All normalised cross-correlations of two sets of vectors."""
    unit = lambda v: v / v.norm(dim=1, keepdim=True).clamp(min=1e-12)  # noqa: E731
    return unit(query) @ unit(style).T


def naive_energy(features: Tensor, maps: list[Tensor], size: int, strides: tuple[int, int], mean: bool) -> Tensor:
    """The loss as written in the paper: unfold, match, square, left to autograd; ``mean`` by dividing per pixel."""
    patches = unfolded(features[0], size, strides[0])
    style = torch.cat([unfolded(m, size, strides[1]) for m in maps])
    nearest = style[brute_force(patches.detach(), style).argmax(dim=1)]
    weight = torch.ones_like(patches)
    if mean:
        count = torch.zeros_like(features[0])
        for y in corners(count.shape[1], size, strides[0]):
            for x in corners(count.shape[2], size, strides[0]):
                count[:, y : y + size, x : x + size] += 1
        weight = 1 / unfolded(count, size, strides[0])
    return (weight * (patches - nearest).square()).sum()


MAPS = (noise(5, 8, 7, seed=1), noise(5, 11, 10, seed=2), noise(5, 3, 3, seed=3))


@pytest.mark.parametrize(
    ("length", "patch", "stride", "expected"),
    [(3, 3, 1, [0]), (3, 3, 2, [0]), (7, 3, 2, [0, 2, 4]), (8, 3, 2, [0, 2, 4, 5]), (6, 1, 4, [0, 4, 5])],
)
def test_corners_reach_the_last_pixel(length: int, patch: int, stride: int, expected: list[int]) -> None:
    assert corners(length, patch, stride) == expected


def test_a_map_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(InputError, match="use a larger image"):
        PatchBank.of([noise(4, 2, 9)], 3, 1)


@pytest.mark.numerical
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2), (3, 1)])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("chunk_bytes", [400, 3000, 20_000, 1 << 20])
def test_match_equals_brute_force_whatever_the_chunks(strides: tuple[int, int], size: int, chunk_bytes: int) -> None:
    features = noise(5, 9, 12)
    query = PatchBank.of([features], size, strides[0])
    style = PatchBank.of(MAPS, size, strides[1])
    expected = brute_force(
        unfolded(features, size, strides[0]), torch.cat([unfolded(m, size, strides[1]) for m in MAPS])
    ).max(dim=1)
    found = match(query, style, chunk_bytes=chunk_bytes)
    torch.testing.assert_close(found.index, expected.indices)
    torch.testing.assert_close(found.score, expected.values)


def test_unfold_gives_the_patches_with_channels_last() -> None:
    bank = PatchBank.of(MAPS, 3, 2)
    expected = torch.cat([unfolded(m, 3, 2) for m in MAPS]).view(-1, 5, 9).transpose(1, 2).reshape(-1, 45)
    torch.testing.assert_close(bank.unfold(slice(None), torch.float64), expected)
    torch.testing.assert_close(bank.scale, 1 / expected.norm(dim=1))
    assert len(bank) == len(expected)


@pytest.mark.numerical
@pytest.mark.parametrize("stride", [1, 2])
def test_zero_patches_match_without_nan(stride: int) -> None:
    features = torch.zeros(1, 4, 6, 6)
    style = torch.cat([torch.zeros(4, 6, 3), noise(4, 6, 5, dtype=torch.float32).abs()], dim=2)
    found = match(PatchBank.of([features], 3, stride), PatchBank.of([style], 3, stride))
    assert torch.equal(found.score, torch.zeros_like(found.score))
    full = match(PatchBank.of([style], 3, stride), PatchBank.of([style], 3, stride))
    assert torch.isfinite(full.score).all()


@pytest.mark.numerical
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_picks_are_nearly_as_good(stride: int, dtype: torch.dtype) -> None:
    features = noise(32, 24, 24, dtype=torch.float32).relu()
    style = noise(32, 26, 20, seed=1, dtype=torch.float32).relu()
    query, bank = PatchBank.of([features], 3, stride), PatchBank.of([style], 3, stride)
    exact, rough = match(query, bank), match(query, bank, dtype=dtype)
    scores = brute_force(unfolded(features, 3, stride), unfolded(style, 3, stride))
    regret = 1 - scores.gather(1, rough.index[:, None])[:, 0] / exact.score
    assert regret.max() < 4e-3
    assert (rough.index == exact.index).float().mean() > 0.95


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunk_bytes", [3000, 1 << 20])
def test_only_allowed_patches_are_matched(strides: tuple[int, int], dtype: torch.dtype, chunk_bytes: int) -> None:
    """Also where every one of them is less like the query than any other: correlations may be negative."""
    features = noise(5, 9, 12).abs()
    maps = [MAPS[0].abs(), -MAPS[1].abs()]
    query, style = PatchBank.of([features], 3, strides[0]), PatchBank.of(maps, 3, strides[1])
    first = len(PatchBank.of(maps[:1], 3, strides[1]))
    allowed = torch.arange(len(style)) >= first
    allowed[first + 3] = False
    scores = brute_force(unfolded(features, 3, strides[0]), torch.cat([unfolded(m, 3, strides[1]) for m in maps]))
    assert scores[:, allowed].max() < 0 < scores[:, ~allowed].max()
    found = match(query, dataclasses.replace(style, allowed=allowed), dtype=dtype, chunk_bytes=chunk_bytes)
    assert allowed[found.index].all()
    best = scores.masked_fill(~allowed, -2).max(dim=1)
    if dtype == torch.float64:
        torch.testing.assert_close(found.index, best.indices)
    regret = best.values - scores.gather(1, found.index[:, None])[:, 0]
    assert regret.max() < 1e-2


@pytest.mark.numerical
@pytest.mark.parametrize("stride", [1, 2])
def test_faint_patches_lose_in_half_precision_without_nan(stride: int) -> None:
    """One over the norm of a patch next to nothing, relative to the longest pixel, is beyond float16."""
    style = noise(8, 9, 18, dtype=torch.float32).abs()
    style[:, :, :9] *= 1e-7
    style[:, 4, 4] = 0
    features = noise(8, 7, 7, seed=1, dtype=torch.float32).abs()
    query, bank = PatchBank.of([features], 3, stride), PatchBank.of([style], 3, stride)
    found = match(query, bank, dtype=torch.float16)
    assert torch.isfinite(found.score).all()
    right = bank.first[found.index] % 18 >= 7
    assert right.all()


@pytest.mark.numerical
@pytest.mark.parametrize("stride", [1, 2])
def test_what_rounding_leaves_of_a_patch_is_like_no_other(stride: int) -> None:
    """A patch of next to nothing has a direction too: the query's own, of a ten-millionth of its length."""
    features = noise(4, 7, 7, dtype=torch.float32).abs()
    style = torch.cat([1e-7 * features, noise(4, 7, 7, seed=1, dtype=torch.float32).abs()], dim=2)
    found = match(PatchBank.of([features], 3, stride), bank := PatchBank.of([style], 3, stride))
    assert (bank.first[found.index] % 14 >= 5).all()
    faint = match(PatchBank.of([style], 3, stride), PatchBank.of([features], 3, stride))
    assert (faint.score == 0).any()


@pytest.mark.numerical
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("chunk_bytes", [3000, 1 << 20])
def test_of_patches_that_are_alike_up_to_rounding_the_first_wins(stride: int, chunk_bytes: int) -> None:
    """Three copies of a map, each nudged by rounding: whichever is best by a last bit, the first is found."""
    features = noise(16, 7, 9, dtype=torch.float32).abs()
    copies = [features * (1 + 1e-7 * noise(16, 7, 9, seed=seed, dtype=torch.float32)) for seed in (1, 2, 3)]
    query, bank = PatchBank.of([features], 3, stride), PatchBank.of(copies, 3, stride)
    found = match(query, bank, alike=1e-5, chunk_bytes=chunk_bytes)
    if stride == 1:  # at others the parts of a chunk are interleaved: the same one always, but not always the first
        assert torch.equal(found.index, torch.arange(len(query)))
    assert (found.index % len(query) == torch.arange(len(query))).all()
    assert (found.score == 1).all()
    # What is not alike is not touched.
    other = noise(16, 7, 9, seed=9, dtype=torch.float32)
    plain, told = (match(query, PatchBank.of([other], 3, stride), alike=alike) for alike in (0.0, 1e-5))
    assert torch.equal(plain.index, told.index)
    assert torch.equal(plain.score, told.score)


def test_the_energy_of_far_features_has_a_finite_gradient_in_float16() -> None:
    """Nine patches cover a pixel, each thousands from its match: their sum is beyond float16 until it is weighed."""
    features = torch.full((1, 4, 8, 8), 9000.0, dtype=torch.float16).requires_grad_()
    bank = PatchBank.of([torch.ones(4, 8, 8, dtype=torch.float16)], 3, 1)
    (1e-4 * patch_energy(features, bank, stride=1, dtype=torch.float32)).backward()
    assert float(features.grad[0, 0, 4, 4]) == pytest.approx(1e-4 * 2 * 9 * 8999, rel=1e-3)


def test_autocast_outside_does_not_change_the_format() -> None:
    query, bank = PatchBank.of([noise(8, 9, 9, dtype=torch.float32)], 3, 2), PatchBank.of([MAPS[0]], 3, 2)
    bank = PatchBank.of([noise(8, 9, 9, seed=4, dtype=torch.float32)], 3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = match(query, bank)
    assert torch.equal(inside.score, match(query, bank).score)


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation inside creates (views own nothing)."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.known |= {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_bytes", [100_000, 400_000])
def test_no_tensor_exceeds_the_chunk(stride: int, dtype: torch.dtype, chunk_bytes: int) -> None:
    query = PatchBank.of([noise(16, 40, 36, dtype=torch.float32)], 3, stride)
    style = PatchBank.of([noise(16, 40, 44, seed=i, dtype=torch.float32) for i in range(3)], 3, stride)
    unchunked = len(query) * len(style) * 4
    with Largest() as largest:
        match(query, style, dtype=dtype, chunk_bytes=chunk_bytes)
    assert chunk_bytes / 4 < largest.bytes <= chunk_bytes < unchunked


def test_the_energy_keeps_to_the_chunk_but_for_maps() -> None:
    features = noise(1, 16, 40, 36, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    style = PatchBank.of([noise(16, 40, 44, seed=i, dtype=torch.float32) for i in range(3)], 3, 2)
    with Largest() as largest:
        patch_energy(features.requires_grad_(), style, stride=2, chunk_bytes=50_000).backward()
    assert largest.bytes <= features.numel() * 4


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("overlap", ["sum", "mean"])
@pytest.mark.parametrize("chunk_bytes", [500, 1 << 20])
def test_energy_and_gradient_equal_the_naive_formulation(
    strides: tuple[int, int], overlap: str, chunk_bytes: int
) -> None:
    maps = [MAPS[0], MAPS[1]]
    ours, theirs = noise(1, 5, 8, 9).requires_grad_(), noise(1, 5, 8, 9).requires_grad_()
    style = PatchBank.of(maps, 3, strides[1])
    energy = patch_energy(ours, style, stride=strides[0], overlap=overlap, chunk_bytes=chunk_bytes)  # type: ignore[arg-type]
    expected = naive_energy(theirs, maps, 3, strides, overlap == "mean")
    torch.testing.assert_close(energy, expected)
    (3 * energy).backward()
    (3 * expected).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("overlap", ["sum", "mean"])
def test_gradcheck(overlap: str) -> None:
    style = PatchBank.of([noise(3, 6, 7, seed=1)], 3, 1)
    features = noise(1, 3, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: patch_energy(x, style, stride=2, overlap=overlap), features)  # type: ignore[arg-type]


def test_energy_is_zero_at_the_style_itself_and_not_elsewhere() -> None:
    features = noise(1, 6, 9, 10).requires_grad_()
    style = PatchBank.of([features.detach()], 3, 1)
    energy = patch_energy(features, style, stride=2)
    energy.backward()
    assert energy.item() == 0
    assert torch.equal(features.grad, torch.zeros_like(features))
    assert patch_energy(features.detach().flip(3), style, stride=2).item() > 1


def test_the_gradient_comes_in_the_features_format() -> None:
    features = noise(1, 6, 9, 10, dtype=torch.bfloat16).requires_grad_()
    energy = patch_energy(features, PatchBank.of([noise(6, 9, 9, seed=1, dtype=torch.bfloat16)], 3, 2), stride=2)
    energy.backward()
    assert (energy.dtype, features.grad.dtype) == (torch.float32, torch.bfloat16)


def test_coverage_counts_patches_and_leaves_no_border_out() -> None:
    grid = coverage(PatchBank.of([torch.zeros(1, 8, 8)], 3, 2)).view(8, 8)
    line = torch.tensor([1, 1, 2, 1, 2, 2, 2, 1])
    assert torch.equal(grid, line[:, None] * line)


@pytest.mark.parametrize("stride", [1, 2])
def test_rebuild_is_the_mean_of_overlapping_matches(stride: int) -> None:
    features = noise(5, 8, 9)
    query, style = PatchBank.of([features], 3, stride), PatchBank.of(MAPS[:2], 3, 1)
    index = match(query, style).index
    patches = torch.cat([unfolded(m, 3, 1) for m in MAPS[:2]])[index].view(-1, 5, 3, 3)
    total, count = torch.zeros_like(features), torch.zeros_like(features)
    grid = [(y, x) for y in corners(8, 3, stride) for x in corners(9, 3, stride)]
    for (y, x), patch in zip(grid, patches, strict=True):
        total[:, y : y + 3, x : x + 3] += patch
        count[:, y : y + 3, x : x + 3] += 1
    rebuilt = rebuild(query, style, index, chunk_bytes=700).view(8, 9, 5).permute(2, 0, 1)
    torch.testing.assert_close(rebuilt, total / count)
