"""One object in a style, and the seam around it."""

from __future__ import annotations

import pytest
import torch
from plugins.good.zoo_tint.tint import Tint
from torch import Tensor

from zoo.checks.core import picture
from zoo.controls import Instance
from zoo.controls.instance import border_labels
from zoo.errors import InputError


def _disc(height: int, width: int, radius: float) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((y - height / 2) ** 2 + (x - width / 2) ** 2 < radius**2)[None, None].float()


def _steps(image: Tensor, labels: Tensor) -> Tensor:
    """Differences of color across the borders of ``labels`` (H, W)."""
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().mean(dim=1)[0][labels[1:] != labels[:-1]]
    across = (image[..., 1:] - image[..., :-1]).abs().mean(dim=1)[0][labels[:, 1:] != labels[:, :-1]]
    return torch.cat([down, across])


def test_the_seam_is_softer_than_a_hard_paste_and_the_rest_is_bit_equal() -> None:
    content, stylized = picture(90, 110, seed=1), picture(90, 110, seed=2, stripes=True)
    mask = _disc(90, 110, 30)
    inside = mask[0, 0] > 0.5
    control = Instance(Tint(device="cpu"), mask, band=8)
    result = control._composite(content, stylized, mask[0] > 0.5)
    far_in, far_out = _disc(90, 110, 21.5)[0, 0] > 0.5, _disc(90, 110, 39)[0, 0] < 0.5
    assert torch.equal(result[..., far_in], stylized[..., far_in])
    assert torch.equal(result[..., far_out], content[..., far_out])
    hard = torch.where(inside, stylized, content)
    labels = border_labels(content, stylized, inside, band=8, pull=0.1)
    cut = torch.where(labels, stylized, content)
    assert _steps(cut, labels).mean() < 0.85 * _steps(hard, inside).mean()
    assert _steps(result, labels).mean() < 0.6 * _steps(hard, inside).mean()
    # A cut may not be free: with nothing to see anywhere it is the outline itself.
    assert torch.equal(border_labels(content, content, inside, band=8, pull=0.1), inside)


def test_the_cut_is_the_best_of_all() -> None:
    # One row of pixels between a fixed inside (left) and outside (right): every place for the seam can be tried.
    content = torch.zeros(1, 3, 1, 12)
    stylized = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.8, 0.05, 0.05, 0.9, 0.9, 0.9, 0.9, 0.9]).expand(1, 3, 1, 12)
    mask = (torch.arange(12) < 8)[None]
    labels = border_labels(content, stylized, mask, band=4, pull=0.2)
    assert labels[0].tolist() == [True] * 6 + [False] * 6


def test_a_pull_beyond_all_seams_leaves_the_mask() -> None:
    content, stylized = picture(40, 50, seed=1), picture(40, 50, seed=2, stripes=True)
    inside = _disc(40, 50, 14)[0, 0] > 0.5
    assert not torch.equal(border_labels(content, stylized, inside, band=6, pull=0.01), inside)
    # More than what whole numbers of 32 bits hold.
    assert torch.equal(border_labels(content, stylized, inside, band=6, pull=1e9), inside)


def test_a_control_around_a_method_and_masks_that_do_not_fit() -> None:
    model = Tint(device="cpu")
    content = torch.cat([picture(40, 50, seed=1), picture(40, 50, seed=2)])
    mask = torch.cat([_disc(40, 50, 12), _disc(40, 50, 15)])
    control = Instance(model, mask, band=3)
    code = control.encode_style(picture(40, 40, seed=3))
    image = control.stylize(content, code).image
    whole = model.stylize(content, model.encode_style(picture(40, 40, seed=3))).image
    assert torch.equal(image[..., 20, 25], whole[..., 20, 25])
    assert torch.equal(image[..., 0, 0], content[..., 0, 0])
    with pytest.raises(InputError, match="50 x 40 pixels"):
        Instance(model, mask, band=3).stylize(picture(40, 60, seed=1), code)
    with pytest.raises(InputError, match="covers nothing"):
        Instance(model, torch.zeros(1, 1, 40, 50))
    with pytest.raises(InputError, match="whole picture"):
        Instance(model, torch.ones(1, 1, 40, 50))
