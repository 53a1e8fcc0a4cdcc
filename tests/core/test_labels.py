"""Label maps and objects, from files to methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command import run
from PIL import Image as Pillow

from zoo.controls.subject import person
from zoo.errors import InputError
from zoo.images import fitted_labels, label_colors, paired_labels, read


def _save(path: Path, colors: list[str], size: tuple[int, int]) -> str:
    """A map of equally wide columns."""
    drawn = Pillow.new("RGB", size)
    for k, color in enumerate(colors):
        left = k * size[0] // len(colors)
        drawn.paste(color, (left, 0, size[0], size[1]))
    drawn.save(path)
    return str(path)


def test_the_same_color_is_the_same_label_at_every_size(tmp_path: Path) -> None:
    picture = read("builtin:coffee", size=48)
    ours = read(_save(tmp_path / "a.png", ["red", "blue"], (60, 40)), size=0)
    theirs = read(_save(tmp_path / "b.png", ["blue", "white", "red"], (90, 60)), size=0)
    fitted = [fitted_labels(label_colors(x, "map"), "map", picture) for x in (ours, theirs)]
    content, style = paired_labels(*fitted)
    assert content.shape == style.shape == (1, 1, *picture.size)
    assert content[0, 0, 0, 0] == style[0, 0, 0, -1]
    assert content[0, 0, 0, -1] == style[0, 0, 0, 0]
    with pytest.raises(InputError, match="#ffffff"):
        paired_labels(*fitted[::-1])
    with pytest.raises(InputError, match=r"60 x 40 pixels .* 48 x 32|give the map the picture's shape"):
        fitted_labels(label_colors(read(_save(tmp_path / "c.png", ["red"], (50, 50)), size=0), "c"), "c", picture)
    with pytest.raises(InputError, match="colors: draw it with a few"):
        label_colors(picture, "photo")


def test_labels_of_one_side_or_too_few_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = _save(tmp_path / "a.png", ["red", "blue"], (60, 40))
    call = ("stylize", "-m", "neural-doodle", "--content", "builtin:coffee", "--style", "builtin:mosaic")
    for options in (["--content-labels", drawn], ["--style-labels", drawn]):
        assert run(*call, *options, "-o", str(tmp_path / "out.png")) == 2
        assert "--style-labels per style" in " ".join(capsys.readouterr().err.split())
    assert run(*call, "--subject", "--object", drawn, "-o", str(tmp_path / "out.png")) == 2
    assert not (tmp_path / "out.png").exists()


def test_an_object_alone_is_stylized(tmp_path: Path) -> None:
    mask = Pillow.new("L", (48, 32))
    mask.paste(255, (12, 8, 36, 24))
    mask.save(tmp_path / "mask.png")
    out = tmp_path / "out.png"
    call = (
        "stylize",
        "-m",
        "adain",
        "--content",
        "builtin:coffee",
        "--style",
        "builtin:mosaic",
        "--content-size",
        "48",
    )
    assert run(*call, "--object", str(tmp_path / "mask.png"), "--style-size", "48", "-o", str(out)) == 0
    picture, before = np.asarray(Pillow.open(out)), read("builtin:coffee", size=48).pixels
    kept = np.round(before[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    assert (picture[0] == kept[0]).all()
    assert np.abs(picture[16, 24].astype(int) - kept[16, 24]).max() > 0


def test_a_person_is_found_and_its_absence_said() -> None:
    from zoo import weights
    from zoo.controls.subject import NETWORK

    pytest.importorskip("cv2")
    asset = weights.find(NETWORK)[1][0]
    if not weights.place(NETWORK, asset).is_file():
        pytest.skip(f"{NETWORK} is not on this machine")
    mask = person(read("builtin:astronaut", size=128).pixels)
    assert mask[0, 0, 30, 55] > 0.9
    assert mask[0, 0, 5, 120] < 0.1
    with pytest.raises(InputError, match="No person"):
        person(read("builtin:coffee", size=64).pixels * 0)
