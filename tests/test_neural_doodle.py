"""Patches that go where labels say."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.images import read, resize
from zoo.methods.neural_doodle import NeuralDoodle
from zoo.stylizer import Context, Style, Stylized

# A map of four colors over the painting that ships: sky, trees, water, meadow.
SKY, TREES, WATER, MEADOW = range(4)


def _style_labels(size: int) -> Tensor:
    labels = torch.full((1, 1, size, size), SKY)
    labels[..., int(0.48 * size) : int(0.8 * size), int(0.3 * size) :] = WATER
    labels[..., : int(0.5 * size), : int(0.4 * size)] = TREES
    labels[..., int(0.6 * size) :, : int(0.3 * size)] = MEADOW
    labels[..., int(0.85 * size) :, :] = MEADOW
    return labels


def _drawn(height: int, width: int) -> Tensor:
    labels = torch.full((1, 1, height, width), SKY)
    labels[..., height // 2 :, :] = WATER
    labels[..., : height // 2, 2 * width // 3 :] = TREES
    labels[..., 3 * height // 4 :, :] = MEADOW
    return labels


def _agreement(result: Stylized) -> float:
    """Of all patches the share whose match has their label; relu3_1 has four times as many as relu4_1."""
    found = result.extras["agreement"]
    return (4 * found["relu3_1"] + found["relu4_1"]) / 5


def test_a_drawn_map_of_four_colors_becomes_a_picture_in_the_painting() -> None:
    painting = resize(read("builtin:pointillism").pixels, (128, 128))
    labels, drawn = _style_labels(128), _drawn(96, 144)
    model = NeuralDoodle(device="cpu", precision="fp32").with_config(
        num_steps=16, levels=2, content_weight=0.0, init="noise", noise_scale=65.0
    )
    code = model.encode_style(Style(painting, labels=labels))
    blank = torch.full((1, 3, 96, 144), 0.5)
    result = model.stylize(blank, code, context=Context(content_labels=drawn))
    assert _agreement(result) > 0.95
    # What is drawn nowhere but in labels shows: every region has its own region's mean color.
    means = [result.image[0][:, drawn[0, 0] == label].mean(dim=1) for label in range(4)]
    wanted = [painting[0][:, labels[0, 0] == label].mean(dim=1) for label in range(4)]
    for label in (SKY, WATER, MEADOW):
        gaps = torch.stack([(means[label] - other).norm() for other in wanted])
        assert gaps.argmin() == label
    # Without maps in the search, patches come from anywhere.
    free = model.with_config(semantic_weight=0.0)
    other = free.stylize(
        blank, free.encode_style(Style(painting, labels=labels)), context=Context(content_labels=drawn)
    )
    assert _agreement(other) < 0.6


def test_without_labels_it_is_a_markov_random_field_over_features() -> None:
    content = resize(read("builtin:coffee").pixels, (64, 96))
    style = resize(read("builtin:mosaic").pixels, (64, 64))
    model = NeuralDoodle(device="cpu", precision="fp32").with_config(num_steps=6, levels=1)
    result = model.stylize(content, model.encode_style(style))
    assert "agreement" not in result.extras
    assert result.losses[-1]["patches"] < 0.9 * result.losses[0]["patches"]
