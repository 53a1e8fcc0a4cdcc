"""The shortlist of a style's patches against the exact search: how near it comes, masks, corner cases, the method."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import zoo
from zoo.checks.core import picture
from zoo.methods import style_swap
from zoo.nn import shortlist
from zoo.nn.patches import PatchBank, match
from zoo.nn.shortlist import Shortlist, likely_match


@pytest.fixture(scope="module")
def features() -> tuple[Tensor, Tensor]:
    """relu3_1 of a photograph and of a painting."""
    encoder = style_swap.load_swap_encoder()
    read = [zoo.read(f"builtin:{name}", size=f"exact:{size}").pixels for name, size in PICTURES]
    with torch.no_grad():
        first, second = (encoder(image)["relu3_1"] for image in read)
    return first, second


PICTURES = (("astronaut", "96x96"), ("swirls", "240x208"))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of every third patch both ways, as of a painting of 1500 pixels."""
    monkeypatch.setattr(shortlist, "CANDIDATES", 300)


def banks(features: tuple[Tensor, Tensor], stride: int = 1) -> tuple[PatchBank, PatchBank]:
    query, style = (PatchBank.of([item], 3, stride) for item in features)
    return query, style


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_found_is_nearly_as_alike_as_the_most_similar(features: tuple[Tensor, Tensor], stride: int) -> None:
    query, style = banks(features, stride)
    made = Shortlist.of(style)
    exact, found = match(query, style), likely_match(query, style, made)
    everything = slice(None)
    ours, theirs = query.unfold(everything, torch.float32), style.unfold(found.index, torch.float32)
    torch.testing.assert_close(found.score, torch.cosine_similarity(ours, theirs), rtol=1e-4, atol=1e-5)
    assert (found.score <= exact.score + 1e-5).all()
    assert found.score.mean() >= 0.95 * exact.score.mean()
    # Without the climb the grid's own are what there is.
    grid = match(query, dataclasses.replace(style, allowed=torch.zeros(len(style)).index_fill(0, made.which, 1).bool()))
    assert found.score.mean() > grid.score.mean()


def test_chunks_and_random_states_change_nothing(features: tuple[Tensor, Tensor]) -> None:
    query, style = banks(features)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    whole = likely_match(query, style, Shortlist.of(style))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    parts = likely_match(query, style, Shortlist.of(style), chunk_bytes=1 << 20)
    assert (whole.index == parts.index).float().mean() > 0.99
    torch.testing.assert_close(whole.score, parts.score, rtol=0, atol=1e-3)


@pytest.mark.parametrize("patches", [1, 5, 700])
def test_only_patches_within_the_mask_are_found(features: tuple[Tensor, Tensor], patches: int) -> None:
    query, style = banks(features)
    allowed = torch.zeros(len(style), dtype=torch.bool)
    allowed[1001 : 1001 + patches] = True
    style = dataclasses.replace(style, allowed=allowed)
    assert allowed[likely_match(query, style, Shortlist.of(style)).index].all()


def test_flat_styles_have_no_likeness(features: tuple[Tensor, Tensor]) -> None:
    flat = PatchBank.of([torch.zeros_like(features[1])], 3, 1)
    found = likely_match(banks(features)[0], flat, Shortlist.of(flat))
    assert not found.score.any()


@pytest.mark.parametrize("regions", [False, True])
def test_the_method_takes_it_for_large_styles(regions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    content, painting = picture(72, 104, seed=1), picture(96, 112, seed=2, stripes=True)
    style = zoo.Style(image=painting, mask=torch.ones(1, 1, 96, 112).tril()) if regions else painting
    exact = zoo.load("style-swap", device="cpu", precision="fp32", search="exact")
    monkeypatch.setattr(style_swap, "LARGEST", 400)
    auto = zoo.load("style-swap", device="cpu", precision="fp32")
    code = auto.encode_style(style)
    assert "sketch" in code.data
    assert "sketch" not in auto.encode_style(picture(64, 64, seed=3)).data
    wanted = exact.stylize(content, exact.encode_style(style)).image
    whole, tiled = (auto.stylize(content, code, tile=tile).image for tile in (None, 64))
    assert (whole - tiled).abs().max() < 1 / 255
    kept = (whole - wanted).square().mean() / (content - wanted).square().mean()
    assert kept < 0.1
