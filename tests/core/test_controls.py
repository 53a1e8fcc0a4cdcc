"""Controls around any method: colors kept, gradients put back."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import pytest
import torch
from plugins.good.zoo_tint.tint import Tint, TintConfig
from torch import Tensor

from zoo.checks import CHECKS, run_checks
from zoo.color import color_statistics, luminance
from zoo.controls import Color, Photorealism
from zoo.controls.photorealism import screened_poisson
from zoo.errors import ConfigError, UnsupportedError
from zoo.images import resize
from zoo.stylizer import Call, Mix, Style, Stylized

# Contrasts as photographs have them: no step between neighbors is as steep as Photorealism leaves out.
PHOTO = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
PAINTING = torch.rand(1, 3, 16, 18, generator=torch.Generator().manual_seed(2)) * torch.tensor([0.3, 0.2, 0.1]).view(
    3, 1, 1
)


class Overlay(Tint):
    """A method that sees more of a style than its colors: half the content, half the style's picture."""

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> dict[str, Any]:
        assert style.image is not None
        return {"image": style.image}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        size = (content.shape[-2], content.shape[-1])
        weights = call.context.content_masks
        pictures = [resize(code.data["image"], size) for code, _ in style]
        if weights is not None:
            laid = sum((m * p for m, p in zip(weights, pictures, strict=True)), (1 - weights.sum(0)) * content)
        else:
            laid = sum((w * p for (_, w), p in zip(style, pictures, strict=True)), torch.zeros_like(content))
        image = content + call.strength * (laid - content) / 2
        call.report(1, 1, {}, lambda: image)
        return Stylized(image)


def tint() -> Tint:
    return Tint(TintConfig(grain=0.0))


def chroma(image: Tensor) -> Tensor:
    return image - luminance(image)


def test_luminance_keeps_the_chroma_of_the_content() -> None:
    # Faint contrasts, so that nothing is clamped and the chroma can be exact.
    photo = 0.5 + 0.05 * (PHOTO - 0.5)
    image = Color(tint(), "luminance")(photo, photo.flip(-1))
    torch.testing.assert_close(chroma(image), chroma(photo), atol=1e-6, rtol=0)


def test_coral_gives_the_style_the_colors_of_the_content() -> None:
    # Tint moves mean and deviation per channel, so it is told to reach what the content has already.
    image = Color(tint(), "coral")(PHOTO, PAINTING)
    assert (color_statistics(image)[0] - color_statistics(PHOTO)[0]).abs().max() < 0.03
    assert (color_statistics(tint()(PHOTO, PAINTING))[0] - color_statistics(PHOTO)[0]).abs().max() > 0.1


def test_each_content_of_a_batch_keeps_its_own_colors() -> None:
    model = Color(tint(), "coral")
    batch = torch.cat([PHOTO, 1 - PHOTO])
    code = model.encode_style(PAINTING)
    both = model.stylize(batch, code).image
    singles = [model.stylize(one, code).image for one in batch.split(1)]
    torch.testing.assert_close(both, torch.cat(singles))


def test_mixes_and_strength_reach_the_method_inside() -> None:
    model = Photorealism(tint())
    one, other = model.encode_style(PAINTING), model.encode_style(1 - PAINTING)
    torch.testing.assert_close(model.stylize(PHOTO, one, strength=0.0).image, PHOTO, atol=1e-5, rtol=0)
    mixed = model.stylize(PHOTO, Mix([(one, 0.5), (other, 0.5)])).image
    assert not torch.equal(mixed, model.stylize(PHOTO, one).image)


def test_a_code_of_the_bare_method_is_refused() -> None:
    with pytest.raises(Exception, match="encode it with this"):
        Color(tint(), "coral").stylize(PHOTO, tint().encode_style(PAINTING))


def test_a_trained_style_has_no_image_to_recolor() -> None:
    class Trained(Tint):
        def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> dict[str, Any]:
            return {"mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1)}

    Trained.traits = dataclasses.replace(Tint.traits, styles="trained")
    with pytest.raises(UnsupportedError, match="use luminance"):
        Color(Trained(), "coral").encode_style("mosaic")
    Color(Trained(), "luminance")(PHOTO, "mosaic")


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="luminance or coral"):
        Color(tint(), "lumen")  # type: ignore[arg-type]
    for weights in ((1, 2), (1, 1, -1), (1, 1, float("nan"))):
        with pytest.raises(ConfigError, match="three weights"):
            Photorealism(tint(), weights)


def test_screened_poisson_solves_its_normal_equations() -> None:
    """On gray pictures, where L* is one channel: (G^T w^2 G + 1) u = G^T w^2 G c + s, by a dense solve."""
    from skimage.color import lab2rgb, rgb2lab

    height, width, weight = 5, 7, 5.0
    photo, other = (0.3 + 0.4 * torch.rand(1, 1, height, width, dtype=torch.float64).expand(1, 3, -1, -1) for _ in "ab")
    steps = []
    for y in range(height):
        for x in range(width):
            for down, right in ((1, 0), (0, 1)):
                if y + down < height and x + right < width:
                    row = torch.zeros(height, width, dtype=torch.float64)
                    row[y, x], row[y + down, x + right] = -1, 1
                    steps.append(row.flatten())
    gradient = torch.stack(steps)
    normal = weight**2 * gradient.T @ gradient
    c, s = (torch.from_numpy(rgb2lab(x[0].permute(1, 2, 0).numpy())[..., 0]).flatten() for x in (photo, other))
    lightness = torch.linalg.solve(normal + torch.eye(len(s)), normal @ c + s)
    wanted = lab2rgb(torch.stack([lightness, 0 * s, 0 * s], -1).view(height, width, 3).numpy())
    found = screened_poisson(other, photo)[0].permute(1, 2, 0)
    torch.testing.assert_close(found, torch.from_numpy(wanted), atol=1e-4, rtol=0)


def test_screened_poisson_at_its_ends() -> None:
    torch.testing.assert_close(screened_poisson(PAINTING, PAINTING), PAINTING, atol=1e-5, rtol=0)
    other = PAINTING.flip(-1)
    torch.testing.assert_close(screened_poisson(PAINTING, other, (0, 0, 0)), PAINTING, atol=1e-5, rtol=0)


def test_photorealism_brings_back_gradients_and_leaves_the_mean_color() -> None:
    plain, control = tint()(PHOTO, PAINTING), Photorealism(tint())(PHOTO, PAINTING)
    steps = [(image.diff(dim=-1) - PHOTO.diff(dim=-1)).square().mean() for image in (plain, control)]
    assert steps[1] < steps[0] / 2
    assert (plain - control).mean((0, 2, 3)).abs().max() < 0.01


def test_controls_nest_and_watchers_see_finished_pictures() -> None:
    model = Photorealism(Color(Overlay(), "luminance"))
    seen: list[Tensor] = []

    result = model.stylize(PHOTO, model.encode_style(PAINTING), progress=lambda *a: seen.append(a[3]()))
    torch.testing.assert_close(seen[0], result.image)


@pytest.mark.parametrize(
    "control", [functools.partial(Color, keep="luminance"), Photorealism], ids=["color", "photorealism"]
)
def test_controls_keep_the_contract_of_a_method(control: Any) -> None:
    def subject(*args: Any, **kwargs: Any) -> Any:
        return control(Overlay(*args, **kwargs))

    # Only what is about options is left out: a control has none in the registry.
    only = [name for name in CHECKS if not name.startswith("config") and name != "defaults"]
    assert not [(r.name, r.reason) for r in run_checks(subject, only=only) if r.status == "failed"]


def test_colors_that_no_screen_shows_are_clipped_without_a_word() -> None:
    yellow, blue = (torch.tensor(x).view(1, 3, 1, 1).expand(1, 3, 20, 20) for x in ([0.9, 0.9, 0.0], [0.0, 0.0, 1.0]))
    spots = blue * (torch.arange(20) % 2)
    with warnings.catch_warnings(action="error"):
        found = screened_poisson(yellow, spots)
    assert 0 <= found.min() <= found.max() <= 1
