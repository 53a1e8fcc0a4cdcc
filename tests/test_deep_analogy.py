"""Deep image analogy and its nearest-neighbor fields."""

from __future__ import annotations

import pytest
import torch

from zoo.checks.core import picture
from zoo.errors import ConfigError
from zoo.images import builtin
from zoo.images.sizes import resize
from zoo.methods.deep_analogy import DeepAnalogy
from zoo.nn.patchmatch import Windows, disagreement, enlarged, exhaustive, patchmatch, positions, voted, warped


def _unit(*shape: int, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return noise / noise.norm(dim=1, keepdim=True)


def test_patchmatch_finds_a_shifted_map_and_agrees_both_ways() -> None:
    whole = _unit(1, 8, 40, 50)
    ours, theirs = whole[..., 3:33, 5:45], whole[..., :32, :44]
    a, b = Windows.of(ours, 3), Windows.of(theirs, 3)
    start = torch.zeros(30, 40, 2, dtype=torch.int64)
    field = patchmatch(a, b, start, radius=16, iterations=8, generator=torch.Generator().manual_seed(1))
    back = patchmatch(
        b, a, torch.zeros(32, 44, 2, dtype=torch.int64), radius=16, iterations=8, generator=torch.Generator()
    )
    true = positions((30, 40)) + torch.tensor([3, 5])
    inside = (true[..., 0] < 31) & (true[..., 1] < 43)
    inside[0] = inside[-1] = inside[:, 0] = inside[:, -1] = False
    assert (field == true).all(dim=-1)[inside].float().mean() > 0.97
    assert (exhaustive(a, b) == true).all(dim=-1)[inside].all()
    assert disagreement(field, back)[inside].median() == 0
    assert torch.equal(warped(theirs, true.clamp(max=31))[..., inside], ours[..., inside])


def test_a_field_without_motion_votes_the_picture_itself_and_grows_with_the_maps() -> None:
    image = picture(37, 53, seed=3)
    assert torch.allclose(voted(image, positions((37, 53)), 5), image, atol=1e-6)
    assert torch.equal(enlarged(positions((18, 26)), (36, 52), (36, 52), (18, 26)), positions((36, 52)))
    odd = enlarged(positions((18, 26)), (37, 53), (37, 53), (18, 26)) - positions((37, 53))
    assert odd.abs().max() <= 1
    # A map of another size: twice as far in the smaller one is twice as far in the larger one.
    assert torch.equal(enlarged(positions((8, 8)) * 2, (16, 16), (32, 32), (16, 16))[::2, ::2], positions((8, 8)) * 4)


@pytest.mark.slow
def test_edges_of_the_content_in_colors_of_the_style() -> None:
    content = resize(builtin("coffee").pixels, (96, 144))
    style = resize(builtin("swirls").pixels, (112, 112))
    model = DeepAnalogy(device="cpu", precision="fp32").with_config(num_steps=24)
    result = model.stylize(content, model.encode_style(style))
    image = result.image

    def edges(x: torch.Tensor) -> torch.Tensor:
        luma = resize(x.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1), (48, 72))[:, 0]
        return torch.cat([luma.diff(dim=1).abs().flatten(), luma.diff(dim=2).abs().flatten()])

    alone = torch.corrcoef(torch.stack([edges(image), edges(content)]))[0, 1]
    turned = torch.corrcoef(torch.stack([edges(image), edges(content.flip(-1))]))[0, 1]
    assert alone > 0.3
    assert alone > turned + 0.2
    # Every pixel is a mean of a few of the style's: none is far from all of these.
    palette = style[0].flatten(1).T[::7]
    away = torch.cdist(image[0].flatten(1).T[::7], palette).amin(dim=1)
    before = torch.cdist(content[0].flatten(1).T[::7], palette).amin(dim=1)
    assert away.mean() < 0.5 * before.mean()
    # Each layer's deconvolution ends nearer to the matched features than it began.
    totals = torch.tensor([row["total"] for row in result.losses]).view(8, 3)
    assert (totals[:, -1] < totals[:, 0]).all()
    field, back = result.extras["forward"], result.extras["backward"]
    chance = disagreement(field, back[torch.randperm(len(back), generator=torch.Generator().manual_seed(0))])
    assert disagreement(field, back).median() < 0.1 * chance.median()


def test_options_that_do_not_fit_the_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 values"):
        DeepAnalogy(device="cpu").with_config(patch_sizes=(3, 5))
    with pytest.raises(ConfigError, match="odd"):
        DeepAnalogy(device="cpu").with_config(patch_sizes=(3, 3, 3, 4, 5))
