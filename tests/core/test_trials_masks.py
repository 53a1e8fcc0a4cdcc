"""Masks as people's tools write them: alpha, 0 and 1, 16 bits, palettes, turned by EXIF, of other sizes."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from zoo import images
from zoo.errors import InputError
from zoo.images import SizePolicy

LEFT = np.zeros((6, 8), np.uint8)
LEFT[:, :4] = 1


def saved(image: PILImage.Image, format: str = "PNG", **options: object) -> images.Image:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return images.read(buffer.getvalue())


def palette(*colors: int) -> PILImage.Image:
    image = PILImage.fromarray(LEFT, "P")
    image.putpalette(colors)
    return image


def with_alpha(level: int, alpha: np.ndarray) -> PILImage.Image:
    return PILImage.fromarray(np.dstack([np.full((6, 8, 3), level, np.uint8), alpha]))


def turned() -> images.Image:
    """Stored as a phone stores an upright picture, and so told in its EXIF."""
    exif = PILImage.Exif()
    exif[274] = 6
    return saved(PILImage.fromarray(LEFT * 255).transpose(PILImage.Transpose.ROTATE_90), exif=exif)


SELECT_LEFT: dict[str, Callable[[], images.Image]] = {
    "grey": lambda: saved(PILImage.fromarray(LEFT * 255)),
    "black and white": lambda: saved(PILImage.fromarray(LEFT * 255).convert("1")),
    "0 and 1": lambda: saved(PILImage.fromarray(LEFT)),
    "0 and 1 in RGB": lambda: saved(PILImage.fromarray(LEFT).convert("RGB")),
    "0 and 1 in 16 bits": lambda: saved(PILImage.fromarray(LEFT.astype(np.uint16))),
    "0 and 255 in 16 bits": lambda: saved(PILImage.fromarray(LEFT.astype(np.uint16) * 255)),
    "0 and 65535": lambda: saved(PILImage.fromarray(LEFT.astype(np.uint16) * 65535), "TIFF"),
    "0 and 1 in floating point": lambda: saved(PILImage.fromarray(LEFT.astype(np.float32)), "TIFF"),
    "palette": lambda: saved(palette(0, 0, 0, 255, 255, 255)),
    "palette of labels": lambda: saved(palette(0, 0, 0, 128, 0, 0)),
    "palette of 0 and 1": lambda: saved(palette(0, 0, 0, 1, 1, 1)),
    "white with alpha": lambda: saved(with_alpha(255, LEFT * 255)),
    "grey with alpha": lambda: saved(with_alpha(255, LEFT * 255).convert("LA")),
    "opaque": lambda: saved(PILImage.fromarray(LEFT * 255).convert("RGBA")),
    "red on black": lambda: saved(PILImage.fromarray(np.dstack([LEFT * 200, LEFT * 0, LEFT * 10]))),
    "turned": turned,
}  # fmt: skip


@pytest.mark.parametrize("case", SELECT_LEFT)
def test_a_mask_selects_its_white(case: str) -> None:
    assert torch.equal(images.selection(SELECT_LEFT[case](), "m.png")[0, 0], torch.from_numpy(LEFT).float())


def test_soft_masks_stay_soft() -> None:
    levels = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
    for image in (saved(PILImage.fromarray(levels)), saved(with_alpha(255, levels))):
        assert np.allclose(images.selection(image, "m.png")[0, 0], levels / 255, atol=1e-6)
    half = images.selection(saved(PILImage.fromarray(LEFT * 128)), "m.png")
    assert torch.equal(half.unique(), torch.tensor([0, 128 / 255]))


def test_a_grey_jpeg_is_grey() -> None:
    wide = PILImage.fromarray(np.kron(LEFT * 255, np.ones((8, 8), np.uint8)))
    found = images.selection(saved(wide.convert("RGB"), "JPEG", quality=90), "m.jpg")
    assert abs(float(found[0, 0, :, :24].mean()) - 1) < 0.02
    assert float(found[0, 0, :, 40:].mean()) < 0.02


@pytest.mark.parametrize("level", [0, 255])
def test_one_level_is_a_mask(level: int) -> None:
    found = images.selection(saved(PILImage.new("L", (8, 6), level)), "m.png")
    assert found.unique().tolist() == [level / 255]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (palette(200, 0, 0, 0, 0, 200), "has several colours"),
        (PILImage.fromarray(np.add.outer(np.arange(6), LEFT[0]).astype(np.uint8)), "brightest level is 6 of 255"),
        (with_alpha(0, LEFT * 255), "black where it is not transparent"),
    ],
)
def test_masks_that_leave_open_what_they_select(image: PILImage.Image, words: str) -> None:
    with pytest.raises(InputError, match=f"'m.png' .*{words}"):
        images.selection(saved(image), "m.png")


def content(height: int, width: int, size: str = "0") -> images.Image:
    return saved_at(np.zeros((height, width), np.uint8), size)


def saved_at(pixels: np.ndarray, size: str) -> images.Image:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    return images.read(buffer.getvalue(), size=size)


def fit(height: int, width: int, photo: images.Image, size: str = "0") -> tuple[int, ...]:
    mask = torch.rand(1, 1, height, width)
    return tuple(images.fitted(mask, "m.png", photo, SizePolicy.parse(size)).shape)


@pytest.mark.parametrize(("height", "width"), [(60, 80), (30, 40), (120, 160), (15, 20), (45, 60), (61, 80), (14, 20)])
def test_masks_of_the_contents_shape(height: int, width: int) -> None:
    assert fit(height, width, content(60, 80)) == (1, 60, 80)
    assert fit(height, width, content(60, 80, "long:32"), "long:32") == (1, 24, 32)


@pytest.mark.parametrize(("height", "width"), [(80, 60), (60, 60), (60, 78), (58, 80), (1, 1)])
def test_masks_of_another_shape_are_refused_with_both_sizes(height: int, width: int) -> None:
    with pytest.raises(InputError, match=rf"'m.png' is {width} x {height} pixels .* is 80 x 60: give the mask"):
        fit(height, width, content(60, 80))


def test_what_is_cropped_of_the_content_is_cropped_of_the_mask() -> None:
    pixels = np.zeros((40, 80), np.uint8)
    pixels[:, 20:60] = 255
    policy = SizePolicy.parse("exact:40x40")
    photo = saved_at(pixels, "exact:40x40")
    for mask in (saved_at(pixels, "0"), saved_at(pixels, "long:40"), photo):
        selected = images.selection(mask, "m.png")
        assert float((images.fitted(selected, "m.png", photo, policy) - photo.pixels[:, 0]).abs().max()) < 0.6
        assert float(images.fitted(selected, "m.png", photo, policy).mean()) > 0.95
