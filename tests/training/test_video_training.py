"""Two frames of one photograph, and networks that are trained to keep them together."""

from __future__ import annotations

import pytest
import torch

from zoo.methods.adain import AdaINTraining, AdaINTrainingConfig
from zoo.methods.johnson import JohnsonTask, JohnsonTaskConfig
from zoo.training.motion import move, temporal_loss
from zoo.video.flow import warp


def photographs(count: int, side: int = 48) -> torch.Tensor:
    coarse = torch.rand(count, 3, 7, 7, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def test_the_second_frame_is_the_first_moved() -> None:
    torch.manual_seed(0)
    images = photographs(3)
    moved = move(images)
    apart = (moved.images - warp(images, moved.backward)).abs()
    assert float(apart.max()) < 0.01  # noise alone
    assert 1 < float(moved.backward.abs().mean()) < 18
    assert not torch.equal(moved.backward[0], moved.backward[1])
    assert 0.2 < float(moved.trusted.mean()) < 1
    # A network that does the same to every pixel keeps frames together; one that looks at places does not.
    assert temporal_loss(1 - images, 1 - moved.images, images, moved) < 1e-5
    ramp = torch.linspace(0, 1, 48)
    assert temporal_loss(images * ramp, moved.images * ramp, images, moved) > 1e-4


def test_brightness_may_change_with_the_frames() -> None:
    torch.manual_seed(1)
    gray = photographs(2)[:, :1].expand(-1, 3, -1, -1) * 0.7
    moved = move(gray, brightness=True)
    strict = temporal_loss(gray, moved.images, gray, moved)
    aware = temporal_loss(gray, moved.images, gray, moved, luminance=True)
    assert aware < 1e-5 < 1e-4 < strict  # noise alone


@pytest.mark.parametrize("aware", [False, True])
def test_networks_are_trained_on_both_frames(aware: bool) -> None:
    wishes = {"temporal_weight": 50.0, "luminance_aware": aware}
    johnson = JohnsonTask(JohnsonTaskConfig(style_size=32, width=4, **wishes))
    adain = AdaINTraining(AdaINTrainingConfig(**wishes))
    batch = {"content": photographs(1), "style": photographs(1).flip(-1)}
    torch.manual_seed(3)
    found = johnson.loss(batch)
    terms = sum(found[name] for name in ("content", "style", "tv", "temporal"))
    torch.testing.assert_close(found["total"], terms)
    decoder = adain.loss(batch)
    total = decoder["content"] + 0.1 * decoder["style"] + 50.0 * decoder["temporal"]
    torch.testing.assert_close(decoder["total"], total)
    for task, losses in ((johnson, found), (adain, decoder)):
        assert losses["temporal"] > 0
        losses["temporal"].backward()
        assert any(float(p.grad.abs().sum()) > 0 for p in task.network.parameters() if p.grad is not None)
