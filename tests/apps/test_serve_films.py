"""Films on the page of ``zoo serve``: what is taken from strangers, what comes of it, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_runs import installed
from test_serve import PAINTING, PHOTO

from zoo.apps.serve.films import is_film
from zoo.apps.serve.limits import Limits
from zoo.apps.serve.line import Line
from zoo.apps.serve.page import Page
from zoo.apps.serve.visits import Visits
from zoo.apps.serve.work import Order, Picture, Workshop
from zoo.bench.memory import resident
from zoo.errors import DataError, ImageError, InputError
from zoo.images import encode
from zoo.loading import load
from zoo.video.clips import Clip
from zoo.video.film import Film

SIZE = (48, 64)
FRAMES = 5


def film(folder: Path, frames: int = FRAMES, name: str = "holiday.mp4", size: tuple[int, int] = SIZE) -> Picture:
    """A film of flat frames that grow lighter."""
    film = Film(folder / name, size, Fraction(25))
    for number in range(frames):
        film.add(torch.full((1, 3, *size), 0.2 + 0.5 * number / frames))
    film.close()
    return Picture((folder / name).read_bytes(), name)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with installed(tmp_path_factory.mktemp("plugins")):
        yield Workshop(Limits(side=128, pixels=110_000, frames=8), ("tint", "stepper"), "cpu")


@pytest.fixture(scope="module")
def holiday(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    return film(tmp_path_factory.mktemp("films"))


def order(content: Picture, *methods: str, **changes: Any) -> Order:
    return Order(content, PAINTING, methods or ("tint",), **{"size": SIZE[1], **changes})


def test_a_film_is_made_frame_by_frame(workshop: Workshop, holiday: Picture, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    progress = lambda method: lambda step, total, losses, image: seen.append((step, total))  # noqa: E731
    (result,) = workshop.run(order(holiday), tmp_path / "results", progress)
    assert (result.image, result.said, result.frames, result.stopped) == (None, "", FRAMES, False)
    assert seen == [(number + 1, FRAMES) for number in range(FRAMES)]
    # The film alone: its parts are gone.
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["0.mp4"]
    assert result.film is not None
    tint, style = load("tint", device="cpu"), PAINTING.read(f"long:{SIZE[1]}", workshop.limits).pixels
    before = (tmp_path / "before.mp4", result.film)
    before[0].write_bytes(holiday.source)  # pyright: ignore[reportArgumentType]
    contents, made = ([frame.pixels for frame in Clip(path).frames()] for path in before)
    for content, frame in zip(contents, made, strict=True):
        # Encoded once more, and in colors of half the resolution.
        assert (tint(content, style) - frame).abs().mean() < 3 / 255


def test_a_stopped_film_plays_to_where_it_came(workshop: Workshop, holiday: Picture, tmp_path: Path):
    seen: list[int] = []
    progress = lambda method: lambda step, *_: seen.append(step)  # noqa: E731
    (result,) = workshop.run(order(holiday), tmp_path / "results", progress, lambda: len(seen) >= 2)
    assert (result.frames, result.stopped) == (2, True)
    assert result.film is not None
    assert len(list(Clip(result.film).frames())) == 2
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["0.mp4"]


def test_a_method_that_takes_steps_says_so_and_the_next_goes_on(workshop: Workshop, holiday: Picture, tmp_path: Path):
    refused, made = workshop.run(order(holiday, "stepper", "tint"), tmp_path / "results")
    assert refused.said == "stepper takes minutes a frame: make films with it by 'zoo video'."
    assert made.frames == FRAMES


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda holiday: Order(PHOTO, holiday, ("tint",), size=64), "'holiday.mp4' is a film: a style is a picture."),
        (lambda holiday: order(holiday, mask=PHOTO), "A mask is for pictures: remove it"),
    ],
)
def test_a_film_is_content_alone(workshop: Workshop, holiday: Picture, tmp_path: Path, asked: Any, said: str):
    with pytest.raises(InputError, match=said):
        next(workshop.run(asked(holiday), tmp_path / "results"))


def test_long_and_large_films_are_refused_when_they_are_dropped(workshop: Workshop, tmp_path: Path):
    with pytest.raises(InputError, match=r"'long\.mp4' has 9 frames, above the limit of 8 here: cut it shorter"):
        workshop.preview(film(tmp_path, 9, "long.mp4"))
    with pytest.raises(DataError, match=r"wide\.mp4 has 400 x 320 pixels a frame, above the limit of 0\.11 million"):
        workshop.preview(film(tmp_path, 2, "wide.mp4", (320, 400)))


def test_a_header_that_names_fewer_pixels_than_there_are_does_not_help(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wide = film(tmp_path, 2, "wide.mp4", (320, 400))
    monkeypatch.setattr("zoo.video.clips._frame_pixels", lambda stream: 1)
    with pytest.raises(DataError, match="has no frame that can be read"):
        workshop.preview(wide)


def test_a_header_that_claims_millions_of_frames_takes_no_memory(workshop: Workshop, holiday: Picture):
    assert isinstance(holiday.source, bytes)
    data = bytearray(holiday.source)
    for box, place, numbers in ((b"stsz", 8, (1, 10**8)), (b"stsc", 8, (1, 1, 10**8)), (b"stts", 12, (10**8,))):
        struct.pack_into(f">{len(numbers)}I", data, data.index(box) + place, *numbers)
    before = resident()
    with pytest.raises(DataError, match=r"^holiday\.mp4 "):
        workshop.preview(Picture(bytes(data), "holiday.mp4"))
    assert resident() - before < 300e6


def test_a_film_that_holds_more_than_it_says_is_cut(workshop: Workshop, tmp_path: Path):
    long = film(tmp_path, 60, "long.mkv").source
    assert isinstance(long, bytes)
    at = long.index(b"\x44\x89\x88") + 3  # its duration, in milliseconds
    lying = Picture(long[:at] + struct.pack(">d", 200.0) + long[at + 8 :], "long.mkv")
    assert workshop.preview(lying).source_size == SIZE
    (result,) = workshop.run(order(lying), tmp_path / "results")
    assert (result.said, result.frames) == ("", 8)


def test_a_film_that_fails_leaves_nothing(workshop: Workshop, holiday: Picture, tmp_path: Path):
    def fail(step: int, *_: Any) -> None:
        raise DataError(f"{tmp_path}/results/0.mp4 cannot be written (No space left on device).")

    (result,) = workshop.run(order(holiday), tmp_path / "results", lambda method: fail)
    assert (result.film, "No space left" in result.said) == (None, True)
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n",
        b'<?xml version="1.0"?><MPD><Period/></MPD>',
        b"RIFF\x00\x00\x00\x00AVI LIST",
        b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00",
        b"",
    ],
    ids=["playlist", "list", "session", "manifest", "avi", "picture", "empty"],
)
def test_what_could_name_other_files_is_no_film(workshop: Workshop, data: bytes):
    assert not is_film(data)
    with pytest.raises(ImageError, match=r"'a\.mp4'"):
        workshop.preview(Picture(data, "a.mp4"))


@pytest.mark.parametrize("data", [b"\x00\x00\x00\x18ftypisom" + bytes(64), b"\x1a\x45\xdf\xa3" + bytes(64)])
def test_a_film_that_is_none_is_one_sentence(workshop: Workshop, data: bytes):
    with pytest.raises(DataError, match=r"^a\.mp4 .*\.$"):
        workshop.preview(Picture(data, "a.mp4"))


def test_a_page_takes_a_film_as_content_and_gives_one_out(workshop: Workshop, holiday: Picture, tmp_path: Path):
    line = Line(workshop)
    try:
        visits = Visits(tmp_path, workshop.limits, line)
        page, visit = Page(workshop, visits), visits.came("a")

        def drop(role: str, picture: Picture) -> tuple[str, str]:
            assert isinstance(picture.source, bytes)
            name, _, said = page.accept("a", role, {"path": visits.receive(picture.name, picture.source)})
            return name, said

        name, said = drop("content", holiday)
        assert (name, "holiday.mp4: a film of 64 x 48 pixels." in said) == ("holiday.mp4", True)
        for role in ("style", "mask"):
            name, said = drop(role, holiday)
            assert (name, f"is a film: a {role} is a picture." in said) == ("", True)
        drop("style", Picture(encode(torch.rand(1, 3, 40, 40)), "red.png"))
        given = {"methods": ["tint"], "trained": None, "size": 64, "strength": 1, "seed": 0, "steps": 0}
        chosen = {"content": "upload:holiday.mp4", "style": "upload:red.png", "preserve_color": "none"}
        page.order("a", {**given, **chosen})
        while page.busy("a"):
            pass
        ((shown,), table, said, done) = page.look("a")
        assert ("1 film made." in said, done) == (True, True)
        assert "5 frames" in shown["caption"]
        assert shown["video"]["mime_type"] == "video/mp4"
        place = visits.pictures / shown["video"]["path"].removeprefix("/pictures/")
        assert place.name == "holiday__red__tint.mp4"
        assert len(list(Clip(place).frames())) == FRAMES
        assert "tint" in table
        visits.drop("a")
        assert not visit.folder.exists()
    finally:
        line.close()
