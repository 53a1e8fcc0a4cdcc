"""Patches that go where labels say."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.images import read, resize
from zoo.methods.neural_doodle import NeuralDoodle
from zoo.stylizer import Context, Style, Stylized

# A map of four colors.
SKY, TREES, WATER, MEADOW = range(4)


def _painting(size: int) -> tuple[Tensor, Tensor]:
    """A picture in four kinds of paint that ship, and which is where."""
    half = size // 2
    parts = [resize(read(f"builtin:{x}").pixels, (half, half)) for x in ("swirls", "mosaic", "woodblock", "hatching")]
    picture = torch.cat([torch.cat(parts[:2], dim=3), torch.cat(parts[2:], dim=3)], dim=2)
    labels = torch.full((1, 1, size, size), SKY)
    labels[..., :half, half:] = TREES
    labels[..., half:, :half] = WATER
    labels[..., half:, half:] = MEADOW
    return picture, labels


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
    painting, labels = _painting(128)
    drawn = _drawn(96, 144)
    model = NeuralDoodle(device="cpu", precision="fp32").with_config(
        num_steps=16, levels=2, content_weight=0.0, init="noise", noise_scale=65.0
    )
    code = model.encode_style(Style(painting, labels=labels))
    blank = torch.full((1, 3, 96, 144), 0.5)
    result = model.stylize(blank, code, context=Context(content_labels=drawn))
    assert _agreement(result) > 0.95
    # What is drawn nowhere but in labels shows: regions differ in color as those of the painting do.
    means = torch.stack([result.image[0][:, drawn[0, 0] == label].mean(dim=1) for label in range(4)])
    wanted = torch.stack([painting[0][:, labels[0, 0] == label].mean(dim=1) for label in range(4)])
    found = torch.cosine_similarity((means - means.mean(0)).flatten(), (wanted - wanted.mean(0)).flatten(), dim=0)
    assert found > 0.7
    # Without maps in the search, patches come from anywhere.
    free = model.with_config(semantic_weight=0.0)
    other = free.stylize(
        blank, free.encode_style(Style(painting, labels=labels)), context=Context(content_labels=drawn)
    )
    assert _agreement(other) < 0.6


def test_settings_that_the_authors_code_has_beside_its_weights() -> None:
    config = NeuralDoodle(device="cpu", precision="fp32").config
    assert (config.pool, config.clamp) == ("avg", True)


def test_without_labels_it_is_a_markov_random_field_over_features() -> None:
    content = resize(read("builtin:coffee").pixels, (64, 96))
    style = resize(read("builtin:mosaic").pixels, (64, 64))
    model = NeuralDoodle(device="cpu", precision="fp32").with_config(num_steps=6, levels=1)
    result = model.stylize(content, model.encode_style(style))
    assert "agreement" not in result.extras
    assert result.losses[-1]["patches"] < 0.9 * result.losses[0]["patches"]
