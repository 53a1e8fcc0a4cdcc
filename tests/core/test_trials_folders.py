"""Folders as people have them: links, hidden files, other extensions, one picture, tens of thousands of files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from PIL import Image as PILImage

from zoo import images
from zoo.errors import ImageError
from zoo.training import find_images


def picture(path: Path, format: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.new("RGB", (32, 24), "#c02040").save(path, format)
    return path


def listed(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the images of a folder, and what was said of the rest."""
    said: list[str] = []
    return [path.name for path in images.list_images(folder, told=said.append)], said


def test_other_names_of_the_same_formats_are_listed_and_the_rest_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.jfif", "c.JPE", "d.pjpeg", "e.apng", "f.mpo"):
        picture(tmp_path / name, "PNG" if "png" in name else "JPEG")
    (tmp_path / "g.avif").touch()
    names, said = listed(tmp_path)
    assert names == ["a.png", "b.jfif", "c.JPE", "d.pjpeg", "e.apng", "f.mpo"]
    assert [images.read(tmp_path / name).size for name in names] == [(24, 32)] * 6
    assert len(said) == 1
    assert "1 file is left out (g.avif)" in said[0]


def test_many_files_left_out_are_counted_by_extension(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for index in range(3):
        (tmp_path / f"{index}.HEIC").touch()
    for name in ("x.avif", "y.avif", "notes.txt", "README", "z.mov"):
        (tmp_path / name).touch()
    ((_, said),) = [listed(tmp_path)]
    assert "8 files are left out (3 .heic, 2 .avif, 1 " in said[0]
    assert "2 others" in said[0]


@pytest.mark.parametrize("name", [".hidden.png", "._a.png", "Thumbs.db", "desktop.ini", ".DS_Store"])
def test_what_systems_leave_behind_is_passed_over_in_silence(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / name).touch()
    assert listed(tmp_path) == (["a.png"], [])


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path) -> None:
    picture(tmp_path / ".photos" / "a.png")
    assert listed(tmp_path / ".photos") == (["a.png"], [])


def test_links(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    real = picture(photos / "a.png")
    picture(tmp_path / "elsewhere" / "deep.png")
    (photos / "b.png").symlink_to(real)  # the same picture again
    (photos / "broken.png").symlink_to(tmp_path / "gone.png")
    (photos / "circle.png").symlink_to(photos / "circle.png")
    (photos / "c.png").symlink_to(tmp_path / "elsewhere" / "deep.png")
    (tmp_path / "link").symlink_to(photos)
    for folder in (photos, tmp_path / "link"):
        names, said = listed(folder)
        assert names in (["a.png", "c.png"], ["b.png", "c.png"])
        assert "2 files are left out (broken.png, circle.png)" in said[0]
    with pytest.raises(ImageError, match=r"broken.png' does not exist"):
        images.list_images(photos / "broken.png")


def test_a_folder_of_folders_says_so(tmp_path: Path) -> None:
    picture(tmp_path / "10" / "a.png")
    picture(tmp_path / "9" / "a.png")
    with pytest.raises(ImageError, match=r"only folders: name one of them, such as '.*9'"):
        images.list_images(tmp_path)
    (tmp_path / "phone.heic").touch()
    with pytest.raises(ImageError, match=r"holds no images \(left out: phone.heic\)"):
        images.list_images(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert listed(tmp_path)[0] == ["a.png"]


def test_training_finds_what_links_lead_to_and_nothing_hidden(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    wanted = [picture(photos / "a.png"), picture(photos / "b" / "c.jfif", "JPEG")]
    picture(photos / ".thumbnails" / "a.png")
    picture(photos / "b" / ".hidden.png")
    outside = picture(tmp_path / "elsewhere" / "d.png")
    (photos / "x").symlink_to(outside.parent)
    (photos / "b" / "circle").symlink_to(photos)
    (photos / "b" / "again").symlink_to(photos / "b")
    assert find_images(photos) == [*wanted, photos / "x" / "d.png"]


def test_thousands_of_files_are_listed_quickly(tmp_path: Path) -> None:
    picture(tmp_path / "frame0.png")
    for index in range(1, 5000):
        os.link(tmp_path / "frame0.png", tmp_path / f"frame{index}.png")
    began = time.process_time()
    found = images.list_images(tmp_path)
    assert time.process_time() - began < 5  # what looks at every pair takes minutes
    assert [path.name for path in (found[2], found[10], found[-1])] == ["frame2.png", "frame10.png", "frame4999.png"]
