"""Streams, batches, masks, frames and limits of ``zoo stylize``, ``texture`` and ``reconstruct``, as users met them."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command import run
from PIL import Image as PILImage
from torch import Tensor

from zoo import images, loading
from zoo.cli.jobs import check_targets, plan
from zoo.errors import ImageError
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer, Traits

SIZES = ("--content-size", "64", "--style-size", "64")


def noise(path: Path, seed: int, width: int = 64, height: int = 48) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(pixels).save(path, "JPEG" if path.suffix == ".jfif" else None)
    return path


class Painter(Stylizer):
    """Adds its styles' mean colours to the content, in as many steps as it is told."""

    traits = Traits(
        iterative=True,
        source="image",
        strength="blend",
        mixes=True,
        context=frozenset({"content_masks"}),
        pixel_bytes=1000,
    )
    steps = 1

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> dict[str, Tensor]:
        assert style.image is not None
        return {"mean": style.image.mean((2, 3), keepdim=True)}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        masks = call.context.content_masks
        shares = [weight if masks is None else masks[i] for i, (_, weight) in enumerate(style)]
        image = content / 2 + sum(share * code.data["mean"] / 2 for share, (code, _) in zip(shares, style, strict=True))
        losses = [{"step": step, "total": 1 / step} for step in range(1, self.steps + 1)]
        for row in losses:
            call.report(int(row["step"]), self.steps, row, lambda: image)
        return Stylized(image, self.steps, losses)


@pytest.fixture
def painter() -> Painter:
    return Painter(device="cpu", precision="fp32", name="gatys")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, painter: Painter) -> Path:
    """A folder with a photograph and two styles, in which Gatys' method is a cheap one."""
    noise(tmp_path / "a.png", 4)
    noise(tmp_path / "s1.png", 5)
    noise(tmp_path / "s2.png", 6)
    monkeypatch.chdir(tmp_path)

    def load(name: str, **options: Any) -> Stylizer:
        assert name == "gatys"
        painter.steps = int(options.get("num_steps", 1))
        return painter

    monkeypatch.setattr(loading, "load", load)
    return tmp_path


def stylize(*arguments: str) -> int:
    return run("stylize", "-m", "gatys", *SIZES, *arguments)


def piped(data: bytes, *, terminal: bool = False) -> Any:
    return SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: terminal)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_is_read_once_for_every_style(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", piped((here / "a.png").read_bytes()))
    assert stylize("--content", "-", "--style", "s1.png", "s2.png", "-o", "piped", "-q") == 0
    assert stylize("--content", "a.png", "--style", "s1.png", "s2.png", "-o", "named", "-q") == 0
    for style in ("s1", "s2"):
        piped_one, named = here / f"piped/stdin__{style}__gatys.png", here / f"named/a__{style}__gatys.png"
        assert piped_one.read_bytes() == named.read_bytes()


def test_a_style_by_stream_meets_every_content(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", piped((here / "s1.png").read_bytes()))
    assert stylize("--content", "a.png", "s2.png", "--style", "-", "-o", "out", "-q") == 0
    assert names(here / "out") == ["a__stdin__gatys.png", "s2__stdin__gatys.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_read_once(here: Path) -> None:
    os.mkfifo(here / "pipe")
    # A pipe that nobody reads holds its writer for ever.
    data = (here / "a.png").read_bytes()
    writer = threading.Thread(target=lambda: (here / "pipe").write_bytes(data), daemon=True)
    writer.start()
    assert stylize("--content", "pipe", "--style", "s1.png", "s2.png", "-o", "out", "-q") == 0
    writer.join(10)
    assert len(names(here / "out")) == 2


@pytest.mark.parametrize(
    ("stream", "words"),
    [(piped(b""), "is empty"), (piped(b"", terminal=True), "pipe a picture into it")],
)
def test_a_stream_that_brings_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stream: Any, words: str
) -> None:
    monkeypatch.setattr(sys, "stdin", stream)
    assert stylize("--content", "-", "--style", "s1.png", "-o", "out.png") == 2
    assert words in capsys.readouterr().err
    assert not (here / "out.png").exists()


def test_one_stream_cannot_be_two_pictures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stylize("--content", "a.png", "--style", "-", "--mask", "-", "-o", "out.png") == 2
    assert "not both" in capsys.readouterr().err


def test_a_full_disk_behind_standard_output(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=SimpleNamespace(write=full), flush=lambda: None))
    assert stylize("--content", "a.png", "--style", "s1.png", "-o", "-") == 2
    assert "No space left on device" in capsys.readouterr().err


# --- folders ---------------------------------------------------------------------------------------------------------


def test_what_is_left_out_of_a_folder_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise(here / "mix/a.png", 0)
    noise(here / "mix/b.jfif", 1)
    (here / "mix/c.avif").touch()
    assert stylize("--content-dir", "mix", "--style", "s1.png", "-o", "out") == 0
    assert names(here / "out") == ["a__s1__gatys.png", "b__s1__gatys.png"]
    assert "mix: 1 file is left out (c.avif)" in capsys.readouterr().err
    assert stylize("--content-dir", "mix", "--style", "s1.png", "-o", "out", "-q") == 0
    assert capsys.readouterr().err == ""


def test_a_folder_of_one_picture_gives_a_folder(here: Path) -> None:
    noise(here / "one/a.png", 0)
    assert stylize("--content-dir", "one", "--style", "s1.png", "-o", "out", "-q") == 0
    assert names(here / "out") == ["a__s1__gatys.png"]
    assert stylize("--content-dir", "one", "--style", "s1.png", "-o", "out.png", "-q") == 0
    assert (here / "out.png").is_file()


def test_pictures_of_one_name_are_told_apart(here: Path) -> None:
    for path in ("first/a.png", "first/a.jfif", "second/a.png"):
        noise(here / path, 0)
    assert stylize("--content", "first", "second", "--style", "s1.png", "-o", "out", "-q") == 0
    assert names(here / "out") == [
        "a.jfif__s1__gatys.png",
        "first_a.png__s1__gatys.png",
        "second_a.png__s1__gatys.png",
    ]


def test_thousands_of_pictures_are_planned_quickly(tmp_path: Path) -> None:
    contents = [f"{tmp_path}/photos/frame{index}.png" for index in range(10_000)]
    began = time.process_time()
    jobs = plan(contents, ["s.png"], "gatys", str(tmp_path / "out"), joined=False, folders=True)
    check_targets(jobs, None, 0)
    assert time.process_time() - began < 10  # what looks at every pair takes minutes
    assert jobs[-1].output == str(tmp_path / "out" / "frame9999__s__gatys.png")


# --- a batch is worth more than its worst file -----------------------------------------------------------------------


@pytest.fixture
def bad(here: Path) -> Path:
    """Four pictures, the second cut in half."""
    for index in range(4):
        path = noise(here / f"bad/p{index}.png", index)
    path = here / "bad/p1.png"
    path.write_bytes(path.read_bytes()[:4000])
    return here / "bad"


def test_a_damaged_file_costs_its_own_picture_alone(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = ("-o", "out", "--json", "--quiet", "--sheet", "sheet.png")
    assert stylize("--content-dir", "bad", "--style", "s1.png", "s2.png", *extra) == 1
    said = capsys.readouterr()
    summary = json.loads(said.out)
    made = [Path(one["output"]) for one in summary]
    assert [path.name for path in made] == [f"p{i}__{s}__gatys.png" for i in (0, 2, 3) for s in ("s1", "s2")]
    assert all(path.is_file() for path in made)
    assert names(Path("out")) == sorted(path.name for path in made)
    assert said.err.count("p1.png' is damaged or cut short") == 1
    assert "6 of 8 pictures made, 2 left out" in said.err
    with PILImage.open("sheet.png") as sheet:
        assert 6 * 192 < sheet.height < 8 * 192


def test_losses_are_kept_too(bad: Path) -> None:
    extra = ("-o", "out", "--losses", "losses.csv", "--style", "s1.png", "--num-steps", "2")
    assert stylize("--content", "bad/p0.png", "bad/p1.png", *extra) == 1
    rows = list(csv.DictReader(io.StringIO(Path("losses.csv").read_text())))
    assert [(row["output"], row["step"]) for row in rows] == [("out/p0__s1__gatys.png", str(step)) for step in (1, 2)]


def test_a_name_with_a_comma_is_one_field(here: Path) -> None:
    out = 'a, "b".png'
    assert stylize("--content", "a.png", "--style", "s1.png", "-o", out, "--losses", "l.csv") == 0
    (row,) = csv.DictReader(io.StringIO(Path("l.csv").read_text()))
    assert (row["output"], row["step"]) == (out, "1")
    assert None not in row


def test_a_damaged_style_costs_its_own_pictures_alone(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stylize("--content", "a.png", "--style-dir", "bad", "-o", "out") == 1
    assert len(names(Path("out"))) == 3
    assert "3 of 4 pictures made, 1 left out" in capsys.readouterr().err
    blend = ("--style-interpolation-weights", "0.25,0.25,0.25,0.25")
    assert stylize("--content", "a.png", "s1.png", "--style-dir", "bad", "-o", "blend", *blend) == 2
    (bad / "p0.png").write_bytes(b"no picture")
    assert stylize("--content", "a.png", "--style", "bad/p0.png", "bad/p1.png", "-o", "none") == 2
    assert "None of the styles can be read" in capsys.readouterr().err


def test_one_damaged_picture_is_the_calls_own_error(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stylize("--content", "bad/p1.png", "--style", "s1.png", "-o", "out.png", "--json") == 2
    assert capsys.readouterr().out == ""
    assert not Path("out.png").exists()


def test_pictures_too_small_are_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise(here / "tiny.png", 0, 8, 8)
    assert stylize("--content-size", "0", "--content", "tiny.png", "a.png", "--style", "s1.png", "-o", "out") == 1
    said = capsys.readouterr().err
    assert "tiny__s1__gatys: The content is 8 x 8 pixels" in " ".join(said.split())
    assert names(here / "out") == ["a__s1__gatys.png"]


def fail_once(model: Stylizer, error: BaseException) -> Callable[..., Any]:
    """``model.stylize``, but its first call raises."""
    calls = iter([error])
    original = type(model).stylize

    def act(*arguments: Any, **options: Any) -> Any:
        for failure in calls:
            raise failure
        return original(model, *arguments, **options)

    return act


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes.")]
)
def test_a_picture_that_memory_does_not_hold_is_left_out(
    here: Path, painter: Painter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    monkeypatch.setattr(painter, "stylize", fail_once(painter, error))
    assert stylize("--content", "a.png", "s2.png", "--style", "s1.png", "-o", "out") == 1
    assert "a__s1__gatys: There is not enough memory" in " ".join(capsys.readouterr().err.split())
    assert names(here / "out") == ["s2__s1__gatys.png"]


def test_a_fault_of_the_program_is_no_fault_of_a_picture(
    here: Path, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painter, "stylize", fail_once(painter, RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        stylize("--content", "a.png", "s2.png", "--style", "s1.png", "-o", "out")


def test_what_was_made_before_a_full_disk_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, made = images.write, []

    def full(path: str, *arguments: Any, **options: Any) -> Path:
        if made and "__" in str(path):
            raise ImageError(f"'{path}' cannot be written (No space left on device).")
        made.append(path)
        return write(path, *arguments, **options)

    monkeypatch.setattr(images, "write", full)
    extra = ("--json", "--sheet", "sheet.png")
    assert stylize("--content", "a.png", "s2.png", "--style", "s1.png", "-o", "out", *extra) == 2
    said = capsys.readouterr()
    assert [Path(one["output"]).name for one in json.loads(said.out)] == ["a__s1__gatys.png"]
    assert "No space left" in said.err
    assert Path("sheet.png").is_file()


# --- masks -----------------------------------------------------------------------------------------------------------


def test_a_mask_in_the_alpha_channel_and_one_of_another_shape(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = np.zeros((48, 64), np.uint8)
    left[:, :32] = 255
    PILImage.fromarray(left).save("grey.png")
    PILImage.fromarray(255 - left).save("rest.png")
    PILImage.fromarray(np.dstack([np.full((48, 64, 3), 255, np.uint8), left])).save("rgba.png")
    PILImage.fromarray(left.T).save("upright.png")
    both = ("--content", "a.png", "--style", "s1.png", "s2.png", "-q")
    for name in ("grey", "rgba"):
        assert stylize(*both, "--mask", f"{name}.png", "rest.png", "-o", f"by_{name}.png") == 0
    assert Path("by_grey.png").read_bytes() == Path("by_rgba.png").read_bytes()
    assert stylize(*both, "--mask", "upright.png", "rest.png", "-o", "no.png") == 2
    assert "is 48 x 64 pixels and the content 'a' is 64 x 48" in capsys.readouterr().err
    assert not Path("no.png").exists()


def test_masks_that_fit_some_contents_leave_the_others_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise(here / "tall.png", 1, 48, 64)
    PILImage.new("L", (64, 48), 255).save("all.png")
    masked = ("--style", "s1.png", "s2.png", "--mask", "all.png", "all.png")
    assert stylize("--content", "a.png", "tall.png", *masked, "-o", "out") == 1
    assert names(here / "out") == ["a__s1+s2__gatys.png"]
    assert "tall.png" in capsys.readouterr().err


# --- frames ----------------------------------------------------------------------------------------------------------


def film(steps: int, every: int = 1) -> int:
    extra = ("--num-steps", str(steps), "--save-every", str(every))
    return stylize("--content", "a.png", "--style", "s1.png", *extra, "-o", "out.png")


def test_frames_are_of_one_run(here: Path) -> None:
    assert film(3) == 0
    (here / "out_frames/film.mp4").touch()
    (here / "out_frames/thumbs.png").touch()
    assert film(2) == 0
    assert names(here / "out_frames") == ["00001.png", "00002.png", "film.mp4", "thumbs.png"]
    assert film(1, every=5) == 0
    assert names(here / "out_frames") == ["film.mp4", "thumbs.png"]


def test_frames_that_have_no_place_are_refused_before_the_work(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "out_frames").touch()
    assert film(2) == 2
    assert "out_frames is a file" in capsys.readouterr().err
    assert not (here / "out.png").exists()


# --- too large, known before the work --------------------------------------------------------------------------------


@pytest.fixture
def unloaded(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As ``here``, but a method that is loaded is a failure."""

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the method was loaded")

    monkeypatch.setattr(loading, "load", load)
    return here


TOO_LARGE = {
    "texture of a billion pixels": (["texture", "-m", "gatys", "--size", "60000x60000"], "at most 178,956,970 pixels"),
    "texture of endless digits": (["texture", "--size", "9" * 5000], "WIDTHxHEIGHT"),
    "texture in WebP": (["texture", "-m", "gatys", "--size", "16384x64", "-o", "o.webp"], "WEBP holds at most 16383"),
    "texture in JPEG": (["texture", "-m", "gatys", "--size", "64x65501", "-o", "o.jpg"], "65500"),
    "stylized WebP": (
        ["stylize", "--content", "wide.png", "--content-size", "0", "-o", "o.webp"],
        "WEBP holds at most 16383 pixels per side and the image is 16384 x 1",
    ),
    "rebuilt WebP": (
        ["reconstruct", "content", "--image", "wide.png", "--size", "0", "-o", "o.webp"],
        "WEBP holds at most 16383",
    ),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_result_that_its_format_cannot_hold(unloaded: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    PILImage.new("L", (16384, 1)).save("wide.png")
    arguments, words = TOO_LARGE[case]
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err
    assert not list(unloaded.glob("o.*"))


@pytest.mark.parametrize(("name", "words"), [("o.bmp", "BMP holds at most 4 GiB"), ("o.tif", "TIFF holds at most")])
def test_formats_that_count_in_32_bits(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        images.check_writable(tmp_path / name, (32_768, 32_768))
    images.check_writable(tmp_path / "o.png", (32_768, 32_768))


def test_sheets_shrink_until_their_format_holds_them(tmp_path: Path) -> None:
    assert images.sheet_cell(tmp_path / "s.jpg", 4, 3) == 256
    assert images.sheet_cell(tmp_path / "s.png", 300, 3) < 256
    cells = [images.sheet_cell(tmp_path / name, 200, 3) for name in ("s.webp", "s.jpg")]
    assert 32 <= cells[0] < cells[1]
    with pytest.raises(ImageError, match=r"3000 rows does not fit .*s.jpg': write it as PNG"):
        images.sheet_cell(tmp_path / "s.jpg", 3000, 3)
    with pytest.raises(ImageError, match="make it of fewer pictures"):
        images.sheet_cell(tmp_path / "s.png", 100_000, 3)


def test_a_sheet_of_the_foreseen_cell_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["zoo.images.write"]._LARGEST_SIDE, "JPEG", 1000)
    cell = images.sheet_cell(tmp_path / "s.jpg", 12, 3)
    rows = [[torch.rand(1, 3, 8, 8)] * 3] * 12
    heights = [images.contact_sheet(rows, column_labels=["a", "b", "c"], cell=c).shape[-2] for c in (cell, cell + 4)]
    assert heights[0] <= 1000 < heights[1]
