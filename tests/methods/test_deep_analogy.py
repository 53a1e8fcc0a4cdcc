"""Deep image analogy and its nearest-neighbor fields."""

from __future__ import annotations

import pytest
import torch

from zoo.checks.core import picture
from zoo.errors import ConfigError
from zoo.images import read, resize
from zoo.methods.deep_analogy import DeepAnalogy
from zoo.nn.patchmatch import Windows, disagreement, enlarged, exhaustive, patchmatch, positions, voted, warped


def _unit(*shape: int, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return noise / noise.norm(dim=1, keepdim=True)


def test_patchmatch_finds_a_shifted_map_and_agrees_both_ways() -> None:
    whole = _unit(1, 8, 40, 50)
    ours, theirs = whole[..., 3:33, 5:45], whole[..., :32, :44]
    a, b = Windows.of(ours, 3), Windows.of(theirs, 3)
    field = patchmatch(a, b, positions((30, 40)), radius=8, iterations=12, generator=torch.Generator().manual_seed(1))
    back = patchmatch(b, a, positions((32, 44)), radius=8, iterations=12, generator=torch.Generator())
    true = positions((30, 40)) + torch.tensor([3, 5])
    inside = (true[..., 0] < 31) & (true[..., 1] < 43)
    inside[0] = inside[-1] = inside[:, 0] = inside[:, -1] = False
    assert (field == true).all(dim=-1)[inside].float().mean() > 0.97
    assert (exhaustive(a, b) == true).all(dim=-1)[inside].all()
    assert disagreement(field, back)[inside].median() == 0
    kept = torch.minimum(true, torch.tensor([31, 43]))
    assert torch.equal(warped(theirs, kept)[..., inside], ours[..., inside])


def test_a_field_without_motion_votes_the_picture_itself_and_grows_with_the_maps() -> None:
    image = picture(37, 53, seed=3)
    assert torch.allclose(voted(image, positions((37, 53)), 5), image, atol=1e-6)
    assert torch.equal(enlarged(positions((18, 26)), (36, 52), (36, 52), (18, 26)), positions((36, 52)))
    odd = enlarged(positions((18, 26)), (37, 53), (37, 53), (18, 26)) - positions((37, 53))
    assert odd.abs().max() <= 1
    # A map of another size: twice as far in the smaller one is twice as far in the larger one.
    assert torch.equal(enlarged(positions((8, 8)) * 2, (16, 16), (32, 32), (16, 16))[::2, ::2], positions((8, 8)) * 4)


def _edges(image: torch.Tensor) -> torch.Tensor:
    luma = image.mean(dim=1)
    return torch.cat([luma.diff(dim=1).abs().flatten(), luma.diff(dim=2).abs().flatten()])


@pytest.mark.slow
def test_edges_of_the_content_in_colors_of_the_style_and_maps_that_agree() -> None:
    photo = resize(read("builtin:astronaut").pixels, (144, 144))
    content = photo[..., 8:120, :112]
    # The same scene from elsewhere, in other colors: what the fields must find is known.
    recolored = photo.roll(1, dims=1)
    style = recolored[..., :112, 16:128]
    model = DeepAnalogy(device="cpu", precision="fp32").with_config(num_steps=24, iterations=2)
    result = model.stylize(content, model.encode_style(style))
    wanted = recolored[..., 8:120, :112]
    seen = (slice(None), slice(None), slice(0, 104), slice(16, 112))
    image = result.image[seen]
    assert torch.corrcoef(torch.stack([_edges(image), _edges(content[seen])]))[0, 1] > 0.9
    assert (image - wanted[seen]).abs().mean() < 0.3 * (content[seen] - wanted[seen]).abs().mean()
    # Each layer's deconvolution ends nearer to the matched features than it began.
    totals = torch.tensor([row["total"] for row in result.losses]).view(8, 3)
    assert (totals[:, -1] < totals[:, 0]).all()
    forward, backward = result.extras["forward"], result.extras["backward"]
    moved = (forward - positions((112, 112)) - torch.tensor([8, -16])).float().norm(dim=-1)[seen[2:]]
    assert moved.median() <= 1
    assert (disagreement(forward, backward)[seen[2:]] <= 2).float().mean() > 0.6


def test_options_that_do_not_fit_the_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 values"):
        DeepAnalogy(device="cpu").with_config(patch_sizes=(3, 5))
    with pytest.raises(ConfigError, match="odd"):
        DeepAnalogy(device="cpu").with_config(patch_sizes=(3, 3, 3, 4, 5))
