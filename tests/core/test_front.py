"""zoo.stylize takes a picture in any form and returns one that a notebook shows."""

from __future__ import annotations

import inspect
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.cli.stylize import StylizeOptions
from zoo.cli.video import VideoOptions
from zoo.errors import ConfigError, ImageError, InputError, UnknownNameError, UnsupportedError
from zoo.front import as_picture, as_tensor

PHOTO = (np.random.default_rng(1).random((40, 48, 3)) * 255).astype(np.uint8)
PAINTING = (np.random.default_rng(2).random((32, 36, 3)) * 255).astype(np.uint8)


def test_every_form_of_a_picture_is_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(PHOTO).save(path)
    tensor = torch.from_numpy(PHOTO).permute(2, 0, 1).float() / 255
    forms = [path, str(path), path.read_bytes(), Image.open(path), PHOTO, PHOTO / 255, tensor, tensor[None]]
    for form in forms:
        torch.testing.assert_close(as_tensor(form), tensor[None], atol=1e-6, rtol=0)
    gray = PHOTO[..., 0]
    torch.testing.assert_close(as_tensor(gray), as_tensor(np.stack([gray] * 3, -1)))
    torch.testing.assert_close(as_tensor(Image.fromarray(gray)), as_tensor(gray))


@pytest.mark.parametrize("kind", ["deep grey", "float", "turned", "ink", "premultiplied grey"])
def test_a_pil_image_is_what_its_file_is(kind: str) -> None:
    picture, format, exif = Image.fromarray(PHOTO), "PNG", Image.Exif()
    if kind == "deep grey":
        picture = Image.fromarray((np.arange(40 * 48).reshape(40, 48) * 32).astype(np.uint16))
    elif kind == "float":
        picture, format = Image.fromarray(PHOTO[..., 0] / np.float32(255)), "TIFF"
    elif kind == "turned":
        exif[0x0112] = 6  # orientation
    elif kind == "ink":
        picture, format = picture.convert("CMYK"), "TIFF"
    else:
        gray = Image.merge("LA", [picture.getchannel("R"), Image.new("L", picture.size, 255)])
        torch.testing.assert_close(as_tensor(gray.convert("La")), as_tensor(gray))
        return
    file = io.BytesIO()
    picture.save(file, format, exif=exif)
    torch.testing.assert_close(as_tensor(Image.open(file)), as_tensor(file.getvalue()))


def test_a_damaged_file_behind_a_pil_image_is_one_sentence() -> None:
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "PNG")
    cut = Image.open(io.BytesIO(file.getvalue()[:2000]))
    with pytest.raises(ImageError, match="The content is damaged or cut short"):
        as_tensor(cut, "content")


def test_bytes_in_a_tensor_are_bytes_in_an_array() -> None:
    dark = PHOTO // 128  # no value betrays the range
    torch.testing.assert_close(as_tensor(torch.from_numpy(dark).permute(2, 0, 1)), as_tensor(dark))


def test_the_command_line_takes_the_same_method_by_default() -> None:
    default = inspect.signature(zoo.stylize).parameters["method"].default
    assert {default, StylizeOptions().method, VideoOptions().method} == {"adain"}


def test_transparency_becomes_white() -> None:
    alpha = np.dstack([PHOTO, np.where(np.arange(48)[None] < 10, 0, 255).repeat(40, 0)]).astype(np.uint8)
    for form in (alpha, Image.fromarray(alpha)):
        pixels = as_tensor(form)
        assert (pixels[..., :10] == 1).all()
        torch.testing.assert_close(pixels[..., 10:], as_tensor(PHOTO)[..., 10:])


def test_a_picture_there_and_back_is_the_same() -> None:
    assert np.array_equal(np.asarray(as_picture(as_tensor(PHOTO))), PHOTO)


def test_it_equals_the_method_itself() -> None:
    picture = zoo.stylize(PHOTO, PAINTING, method="adain", size=None, style_size=None)
    model = zoo.load("adain")
    wanted = model(as_tensor(PHOTO), as_tensor(PAINTING))
    assert picture.size == (48, 40)
    assert np.array_equal(np.asarray(picture), np.asarray(as_picture(wanted)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")


def test_sizes_strength_colors_and_mixes() -> None:
    assert zoo.stylize(PHOTO, PAINTING, size=64).size == (64, 53)
    plain = np.asarray(zoo.stylize(PHOTO, PAINTING, size=None))
    kept = zoo.stylize(PHOTO, PAINTING, size=None, preserve_color="luminance")
    assert not np.array_equal(np.asarray(kept), plain)
    one = zoo.stylize(PHOTO, [PAINTING, PAINTING[::-1]], size=None, weights=[1, 0])
    assert np.array_equal(np.asarray(one), plain)
    assert zoo.stylize(PHOTO, "mosaic", method="johnson", size=None, strength=0.5).size == (48, 40)
    layers = {"style_layers": ["relu1_1"], "style_layer_weights": [1.0]}
    assert zoo.stylize(PHOTO, PAINTING, method="gatys", size=None, num_steps=1, **layers).size == (48, 40)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"content": 3}, InputError, "must be a path, a PIL image, an array or a tensor, not int"),
        ({"content": PHOTO.astype(np.int64)}, InputError, "uint8 or floats"),
        ({"content": PHOTO.astype(np.float32)}, InputError, "divide 8-bit values by 255"),
        ({"content": np.zeros((4, 4, 2))}, InputError, "shape"),
        ({"content": torch.zeros(2, 3, 32, 32)}, InputError, "one picture"),
        ({"content": "no-such-file.png"}, ImageError, "no-such-file.png"),
        ({"style": []}, InputError, "at least one style"),
        ({"weights": [0.5, 0.5]}, InputError, "one weight for each"),
        ({"weights": 1.0}, InputError, "one weight for each of the 1 styles, not 1.0"),
        ({"weights": ["a"]}, InputError, "Style weights must be numbers"),
        ({"method": "adian"}, UnknownNameError, "adain"),
        ({"method": "johnson", "style": "mosiac"}, UnknownNameError, "mosaic"),
        ({"method": "johnson", "style": ["mosaic", "swirls"]}, UnsupportedError, "one style at a time"),
        ({"num_steps": 3}, ConfigError, "num_steps"),
        ({"method": "gatys", "style_layers": {"relu1_1": 1}}, ConfigError, "style_layers.*list of texts"),
        ({"strength": "x"}, InputError, "number between 0 and 1, not 'x'"),
        ({"seed": "a"}, InputError, "A seed is a whole number from .*, not 'a'"),
        ({"device": None}, ConfigError, "Unknown device 'None': use auto"),
        ({"device": [1]}, ConfigError, "Unknown device"),
        ({"precision": [1]}, ConfigError, "Unknown precision"),
        ({"method": None}, UnknownNameError, "Unknown method 'None'"),
        ({"method": ["adain"]}, UnknownNameError, "Unknown method"),
        ({"preserve_color": ["coral"]}, ConfigError, "luminance or coral"),
        ({"preserve_color": "lumen"}, ConfigError, "luminance or coral"),
    ],
)
def test_what_does_not_fit_is_one_sentence(arguments: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        zoo.stylize(**{"content": PHOTO, "style": PAINTING, **arguments})
