"""Local affine maps of a photograph, and photo style transfer under their penalty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.images import read, resize
from zoo.methods.deep_photo import DeepPhoto
from zoo.nn.matting import LocalAffine
from zoo.stylizer import Call, Context, Style


def _matting_laplacian(image: Tensor, epsilon: float) -> np.ndarray:
    """The matrix of Levin et al. 2006, eq. 12, entry by entry; windows cut off at the border."""
    _, _, height, width = image.shape
    colors = image[0].flatten(1).T.double().numpy()
    number = np.arange(height * width).reshape(height, width)
    matrix = np.zeros((height * width, height * width))
    for y in range(height):
        for x in range(width):
            window = number[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].ravel()
            count = len(window)
            away = colors[window] - colors[window].mean(0)
            inverse = np.linalg.inv(away.T @ away / count + epsilon / count * np.eye(3))
            matrix[np.ix_(window, window)] += np.eye(count) - (1 + away @ inverse @ away.T) / count
    return matrix


def test_window_sums_are_the_matting_laplacian() -> None:
    image = resize(read("builtin:coffee").pixels, (11, 14))
    values = torch.rand(1, 2, 11, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = _matting_laplacian(image, 1e-5)
    flat = values[0].flatten(1).numpy()
    windows = LocalAffine(image, 1, 1e-5)
    leaf = values.clone().requires_grad_()
    energy = windows.energy(leaf)
    (gradient,) = torch.autograd.grad(energy, leaf)
    assert energy.item() == pytest.approx(sum(v @ matrix @ v for v in flat), rel=1e-9)
    assert np.allclose(gradient[0].flatten(1).numpy(), 2 * flat @ matrix, atol=1e-9)
    # An affine map of the photograph's colors costs what epsilon makes it, and the filter leaves it alone.
    recolored = (image.flip(1) * 0.5 + 0.2).double()
    assert windows.energy(recolored) < 1e-3 * windows.energy(recolored.flip(-1))
    wide = LocalAffine(image, 4, 1e-9)
    assert torch.allclose(wide.filtered(recolored), recolored, atol=1e-4)


def test_the_affine_term_is_lambda_times_what_is_no_affine_map() -> None:
    """Of V in [0, 1], as equation 4 has it and the authors' code, which divides its gradient by 256."""
    content = resize(read("builtin:coffee").pixels, (40, 48))
    model = DeepPhoto(device="cpu", precision="fp32").with_config(
        num_steps=1, init="noise", noise_scale=20.0, affine_weight=3.0, smoothing_radius=0
    )
    (row,) = model.stylize(content, model.encode_style(content.flip(-1))).losses
    start = model._noise((40, 48), Call())
    assert row["affine"] == pytest.approx(3 * LocalAffine(content).energy(start).item(), rel=1e-5)


def _spread(image: Tensor, edge: Tensor) -> float:
    """How far the steepest step of each row is from a straight line, in pixels; looked for around ``edge`` (H,)."""
    luma = image.mean(dim=1)[0]
    step = (luma[:, 1:] - luma[:, :-1]).abs().square()
    at = edge.long()[:, None] + torch.arange(-6, 6)
    near = step.gather(1, at)
    place = ((near * at).sum(dim=1) / near.sum(dim=1)).double().numpy()
    rows = np.arange(len(place))
    return float(np.sqrt(np.mean((np.polyval(np.polyfit(rows, place, 1), rows) - place) ** 2)))


def test_lines_stay_straight_and_the_affine_residual_falls_tenfold_at_equal_gram_loss() -> None:
    photo = resize(read("builtin:coffee").pixels, (72, 72)) * 0.3
    y, x = torch.meshgrid(torch.arange(72), torch.arange(72), indexing="ij")
    content = photo + 0.6 * (x > 30 + y / 6).float()
    edge = 30 + torch.arange(72) / 6
    style = resize(read("builtin:mosaic").pixels, (72, 72))
    model = DeepPhoto(device="cpu", precision="fp32").with_config(num_steps=24, smoothing_radius=4)
    code = model.encode_style(style)
    free = model.with_config(affine_weight=0.0, smoothing_radius=0, num_steps=12)
    ours, windows = model.stylize(content, code), LocalAffine(content)
    gram = ours.losses[-1]["style"]
    # Gatys' loss alone, stopped as soon as its Gram loss is no higher.
    seen: list[Tensor] = []
    free.stylize(
        content,
        free.encode_style(style),
        progress=lambda step, total, losses, image: seen.append(image()) or losses["style"] <= gram,
    )
    assert windows.energy(seen[-1]) > 10 * windows.energy(ours.image)
    assert _spread(ours.image, edge) < _spread(content, edge) + 0.1
    assert _spread(seen[-1], edge) > _spread(ours.image, edge) + 0.05
    # And it is recolored all the same.
    assert (ours.image - content).abs().mean() > 0.02


def test_labels_take_their_colors_from_the_same_label() -> None:
    red, blue = (torch.tensor(c).view(1, 3, 1, 1) for c in ([0.8, 0.2, 0.1], [0.1, 0.2, 0.8]))
    texture = resize(read("builtin:coffee").pixels, (64, 64)) * 0.4
    left = torch.zeros(1, 1, 64, 64, dtype=torch.int64)
    left[..., :32] = 1
    style = texture + torch.where(left == 1, red, blue) * 0.6
    model = DeepPhoto(device="cpu", precision="fp32").with_config(
        num_steps=16, content_weight=0.0, affine_weight=0.0, smoothing_radius=0, optimizer="adam", learning_rate=8.0
    )
    code = model.encode_style(Style(style, labels=left))
    content = texture.flip(-2) + 0.3
    # The content's labels are the other way round: red belongs to its right.
    image = model.stylize(content, code, context=Context(content_labels=1 - left)).image
    warmth = (image[:, 0] - image[:, 2])[0] - (content[:, 0] - content[:, 2])[0]
    assert warmth[:, 36:].mean() > warmth[:, :28].mean() + 0.05
    with pytest.raises(InputError, match="labels that the style lacks: 7"):
        model.stylize(content, code, context=Context(content_labels=left * 7))
