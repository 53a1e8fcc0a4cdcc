"""Files of films as they come, and as they go: what real ones, damaged ones and those of strangers bring along."""

from __future__ import annotations

import io
import itertools
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import run
from PIL import Image
from plugins.good.zoo_tint.tint import Tint, TintConfig
from test_video import encode, moving
from torch import Tensor

from zoo import images
from zoo.controls.video import Video
from zoo.errors import ConfigError, DataError, ZooError
from zoo.stylizer import Style
from zoo.video import clips, flow
from zoo.video import film as films
from zoo.video.ahead import Ahead
from zoo.video.clips import Clip, ClipOptions, Sent
from zoo.video.film import Film

av = pytest.importorskip("av", reason="the extra video is not installed")
pytest.importorskip("cv2", reason="the extra video is not installed")


def jpegs(path: Path, entries: list[tuple[float, Tensor | bytes]]) -> Path:
    """A Matroska film of JPEGs, each with its second and of any size, or bytes that are none."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        first = entries[0][1]
        assert isinstance(first, Tensor)
        stream.height, stream.width, stream.pix_fmt = *first.shape[-2:], "yuvj444p"
        for second, entry in entries:
            if isinstance(entry, Tensor):
                coder = av.CodecContext.create("mjpeg", "w")
                coder.height, coder.width, coder.pix_fmt = *entry.shape[-2:], "yuvj444p"
                coder.time_base = Fraction(1, 25)
                array = entry[0].permute(1, 2, 0).mul(255).add(0.5).to(torch.uint8).contiguous().numpy()
                made = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="yuvj444p")
                (packet,) = [*coder.encode(made), *coder.encode()]
            else:
                packet = av.Packet(entry)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = round(1000 * second)
            out.mux(packet)
    return path


def sounding(
    path: Path,
    seconds: int = 2,
    codec: str = "aac",
    rate: int = 25,
    later: float = 0.0,
    size: tuple[int, int] = (48, 64),
) -> Path:
    """A film with a tone that begins ``later`` seconds after its pictures."""
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("libx264", rate=rate), out.add_stream(codec, rate=48000)
        video.height, video.width, video.pix_fmt = *size, "yuv420p"
        for number in range(seconds * rate):
            array = np.full((*size, 3), 5 * number % 256, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        out.mux(video.encode())
        for k in range(seconds * 48000 // 1024):
            tone = np.sin(np.arange(k * 1024, (k + 1) * 1024) / 20)[None].repeat(2, 0).astype(np.float32)
            piece = av.AudioFrame.from_ndarray(tone, format="fltp", layout="stereo")
            piece.sample_rate, piece.pts = 48000, k * 1024 + round(later * 48000)
            out.mux(sound.encode(piece))
        out.mux(sound.encode())
    return path


def written(path: Path, source: Path | None, frames: int, rate: int = 25, **options: Any) -> Film:
    """Gray frames as a film with the sound of ``source``."""
    film = Film(path, (48, 64), Fraction(rate), sound=Clip(source).audio if source else None, **options)
    for number in range(frames):
        film.add(torch.full((1, 3, 48, 64), number / frames))
    film.close()
    return film


def sound_of(path: Path) -> list[Any]:
    """Frames of a film's sound."""
    with av.open(str(path)) as opened:
        return list(opened.decode(audio=0)) if opened.streams.audio else []


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_film_that_was_turned_comes_upright(tmp_path: Path, turn: int) -> None:
    (frame,) = moving(1)
    (found,) = Clip(encode(tmp_path / "a.mp4", [frame], rotate=turn)).frames()
    wanted = torch.rot90(frame, turn // 90, (-2, -1))
    assert found.pixels.shape == wanted.shape
    assert (found.pixels - wanted).abs().mean() < 0.02


def test_pixels_come_square(tmp_path: Path) -> None:
    frames = moving(2)
    clip = Clip(encode(tmp_path / "wide.mp4", frames, aspect=Fraction(3, 2)))
    assert clip.size == (48, 96)
    assert next(clip.frames()).pixels.shape == (1, 3, 48, 96)
    # A header that claims pixels a hundred times as wide as tall is mistaken.
    assert Clip(encode(tmp_path / "odd.mp4", frames, aspect=Fraction(100))).size == (48, 64)


def test_frames_of_another_size_take_that_of_the_first(tmp_path: Path) -> None:
    (large,), (small,) = moving(1, (48, 64)), moving(1, (32, 80))
    path = jpegs(tmp_path / "a.mkv", [(0, large), (0.04, large), (0.08, small), (0.12, large)])
    assert {frame.pixels.shape[-2:] for frame in Clip(path).frames()} == {(48, 64)}
    assert {frame.pixels.shape[-2:] for frame in Clip(path, ClipOptions(size="32")).frames()} == {(24, 32)}


def test_what_comes_after_a_damaged_part_is_read(tmp_path: Path) -> None:
    frames: list[Tensor | bytes] = [*moving(10)]
    frames[4:6] = [b"no picture" * 9] * 2
    clip = Clip(jpegs(tmp_path / "a.mkv", [(number / 25, frame) for number, frame in enumerate(frames)]))
    assert (len(list(clip.frames())), clip.damage[:9]) == (10, "2 packets")


def test_times_that_jump_are_a_mistake(tmp_path: Path) -> None:
    frame = moving(1)[0]
    on = jpegs(tmp_path / "on.mkv", [(second, frame) for second in (0.0, 0.04, 0.08, 9e6, 9e6 + 0.04)])
    back = tmp_path / "back.ts"
    with back.open("wb") as joined:
        for first in (100, 3):
            with av.open(str(tmp_path / "part.ts"), "w") as out:
                stream = out.add_stream("libx264", rate=25)
                stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
                for number in range(5):
                    made = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format="rgb24")
                    made.pts, made.time_base = 25 * first + number, Fraction(1, 25)
                    out.mux(stream.encode(made))
                out.mux(stream.encode())
            joined.write((tmp_path / "part.ts").read_bytes())
    for path, frames in ((on, 5), (back, 10)):
        clip = Clip(path, ClipOptions(fps=Fraction(25)))
        assert len(list(itertools.islice(clip.frames(), 20))) == frames


def test_a_film_that_ends_early_says_so(tmp_path: Path) -> None:
    whole, short = encode(tmp_path / "whole.mp4", moving(100)), tmp_path / "short.mp4"
    with av.open(str(whole)) as opened, av.open(str(short), "w", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream_from_template(opened.streams.video[0])
        for packet in opened.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    for clip in (Clip(whole), Clip(short)):
        assert (len(list(clip.frames())), clip.damage) == (100, "")
    short.write_bytes(short.read_bytes()[: short.stat().st_size // 2])
    clip = Clip(short)
    assert 10 < len(list(clip.frames())) < 90
    assert "of its 4.0 seconds" in clip.damage


def test_a_stream_is_read_as_a_file_is(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.mp4", moving(5)).read_bytes()
    clip = Clip(io.BytesIO(data))
    assert (clip.source, len(list(clip.frames()))) == ("standard input", 5)


def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "a.mp4", moving(3)).rename(tmp_path / "12:30.mp4")
    assert len(list(Clip("12:30.mp4").frames())) == 3
    written(Path("1:2.mp4"), None, 3)
    assert len(list(Clip("1:2.mp4").frames())) == 3


def test_titles_in_other_encodings_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", metadata_encoding="latin-1") as out:
        out.metadata["title"] = "Café"
        stream = out.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuvj420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode())
    assert len(list(Clip(path).frames())) == 1


def test_every_frame_of_a_folder_is_read_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    for number, frame in enumerate(moving(10)):
        images.write(tmp_path / f"{number}.png", frame)
    clip = Clip(tmp_path, ClipOptions(fps=Fraction(10)))
    assert (clip.rate, clip.count, len(list(clip.frames()))) == (10, 10, 10)
    late = Clip(tmp_path, ClipOptions(fps=Fraction(10), start=0.5))
    assert torch.equal(next(late.frames()).pixels, images.read(tmp_path / "5.png").pixels)


def test_a_moment_of_a_film_is_one_frame(tmp_path: Path) -> None:
    clip = Clip(encode(tmp_path / "a.mp4", moving(5)), ClipOptions(duration=0.001))
    assert (clip.count, len(list(clip.frames()))) == (1, 1)


def test_a_rate_that_cannot_be_is_asked_for(tmp_path: Path) -> None:
    frame = moving(1)[0]
    path = jpegs(tmp_path / "a.mkv", [(number / 25, frame) for number in range(5)])
    data = path.read_bytes()
    # DefaultDuration: 40 ms become some microseconds.
    at = data.index(b"\x23\xe3\x83") + 4
    path.write_bytes(data[:at] + (9000).to_bytes(data[at - 1] & 0x7F, "big") + data[at + (data[at - 1] & 0x7F) :])
    with pytest.raises(DataError, match="give --fps"):
        Clip(path)
    assert len(list(Clip(path, ClipOptions(fps=Fraction(25))).frames())) == 5


def test_an_encoding_that_nobody_knows_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(encode(path, moving(3)).read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"))
    with pytest.raises(DataError, match="cannot be decoded here"):
        Clip(path)


def test_frames_that_are_passed_over_are_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", moving(20))
    clip, made, pixels = Clip(path), [], clips._pixels
    monkeypatch.setattr("zoo.video.clips._pixels", lambda *given: made.append(1) or pixels(*given))
    assert len(list(clip.frames(skip=17))) == 3
    assert len(made) == 3


def test_what_a_stranger_sends_is_read_no_further_than_it_says(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.mkv", moving(50)).read_bytes()
    clip = Clip(Sent(data, "a.mkv", 10_000, frames=2))
    assert len(list(clip.frames())) < 21
    assert "far more frames than it says" in clip.damage


# -- writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def full_disk(most: int = 20_000) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".gif", ""])
def test_a_full_disk_is_one_sentence(tmp_path: Path, ending: str) -> None:
    generator = torch.Generator().manual_seed(1)
    film = Film(tmp_path / f"out{ending}", (96, 128), Fraction(25))

    def write() -> None:
        for _ in range(70):
            film.add(torch.rand(1, 3, 96, 128, generator=generator))

    with full_disk(), pytest.raises(ZooError, match="cannot be written"):
        write()
    film.close(finished=False)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_under_the_state_is_one_sentence(tmp_path: Path) -> None:
    film = Film(tmp_path / "out.mp4", (48, 64), Fraction(25))
    film.add(torch.zeros(1, 3, 48, 64), {"image": torch.zeros(1, 3, 480, 640)})
    with full_disk(), pytest.raises(DataError, match=r"0000001\.state cannot be written"):
        film.close()


def test_one_state_is_kept_however_long_the_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "PART", 2)
    film = Film(tmp_path / "out.mp4", (48, 64), Fraction(25))
    for number in range(9):
        film.add(torch.zeros(1, 3, 48, 64), {"number": number})
    assert [path.name for path in film.parts.glob("*.state")] == ["0000008.state"]
    assert film.state() == {"number": 7}
    film.close()
    assert len(list(Clip(tmp_path / "out.mp4").frames())) == 9


def test_frames_are_encoded_as_they_come(tmp_path: Path) -> None:
    """A part of large frames is no heap of them."""
    film = Film(tmp_path / "out.mp4", (48, 64), Fraction(25))
    for number in range(films.PART - 1):
        film.add(torch.full((1, 3, 48, 64), number / 64))
    (part,) = (path for path in film.parts.iterdir() if path.suffix == ".part")
    assert part.stat().st_size > 0
    film.close()
    assert len(list(Clip(tmp_path / "out.mp4").frames())) == films.PART - 1


@pytest.mark.parametrize(("codec", "ending", "wanted"), [
    ("aac", ".mp4", "aac"), ("libmp3lame", ".mp4", "mp3"), ("aac", ".webm", "opus"), ("flac", ".mov", "aac"),
])  # fmt: skip
def test_sound_is_copied_or_encoded_anew(tmp_path: Path, codec: str, ending: str, wanted: str) -> None:
    source = sounding(tmp_path / "source.mkv", codec=codec)
    written(tmp_path / f"out{ending}", source, 50)
    with av.open(str(tmp_path / f"out{ending}")) as made:
        assert made.streams.audio[0].codec_context.codec.canonical_name == wanted
    frames = sound_of(tmp_path / f"out{ending}")
    assert sum(frame.samples for frame in frames) / 48000 == pytest.approx(2, abs=0.1)
    loud = np.concatenate([frame.to_ndarray().astype(np.float32) for frame in frames], -1)
    assert loud.std() / np.abs(loud).max() > 0.5


def test_sound_stays_with_the_pictures(tmp_path: Path) -> None:
    source = sounding(tmp_path / "source.mkv", later=0.5)
    for start in (0.0, 0.4):
        film = Film(tmp_path / "out.mkv", (48, 64), Fraction(25), sound=Clip(source).audio, start=start)
        for _ in range(25):
            film.add(torch.zeros(1, 3, 48, 64))
        film.close()
        assert sound_of(tmp_path / "out.mkv")[0].time == pytest.approx(0.5 - start, abs=0.03)


def test_sound_lies_beside_its_pictures_in_the_file(tmp_path: Path) -> None:
    written(tmp_path / "out.webm", sounding(tmp_path / "source.mkv", 40, rate=1), 40, rate=1)
    times: dict[str, float] = {"video": 0.0, "audio": 0.0}
    with av.open(str(tmp_path / "out.webm")) as made:
        for packet in made.demux():
            if packet.dts is not None:
                times[packet.stream.type] = float(packet.dts * packet.time_base)
                assert abs(times["video"] - times["audio"]) < 3


def test_a_damaged_end_of_the_sound_does_not_take_the_film(tmp_path: Path) -> None:
    source = sounding(tmp_path / "source.mp4", 4, size=(240, 320))
    fast = tmp_path / "fast.mp4"
    with av.open(str(source)) as opened, av.open(str(fast), "w", options={"movflags": "+faststart"}) as out:
        streams = {one.index: out.add_stream_from_template(one) for one in opened.streams}
        for packet in opened.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    fast.write_bytes(fast.read_bytes()[: fast.stat().st_size * 2 // 3])
    written(tmp_path / "out.mp4", fast, 100)
    assert len(list(Clip(tmp_path / "out.mp4").frames())) == 100
    assert sound_of(tmp_path / "out.mp4")


@pytest.mark.parametrize(("rate", "frames"), [(30, 60), (24, 48), (60, 120)])
def test_a_gif_lasts_as_long_as_the_film(tmp_path: Path, rate: int, frames: int) -> None:
    written(tmp_path / "out.gif", None, frames, rate=rate)
    with Image.open(tmp_path / "out.gif") as gif:
        lasts = []
        for number in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(number)
            lasts.append(gif.info["duration"])
        assert gif.info.get("loop") == 0
    assert sum(lasts) == pytest.approx(2000, abs=40)
    assert min(lasts) >= 20


def test_places_that_are_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out.mp4").mkdir()
    (tmp_path / "frames").write_text("mine")
    for name, says in (("out.mp4", "is a folder"), ("frames", "is a file")):
        with pytest.raises(ConfigError, match=says):
            Film(tmp_path / name, (48, 64), Fraction(25))
    monkeypatch.chdir(tmp_path)
    for name in (".", "..", "/"):
        with pytest.raises(ConfigError, match="not empty"):
            Film(name, (48, 64), Fraction(25))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "out.mp4"]


def test_standard_output_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    film = Film("-", (48, 64), Fraction(25))
    for frame in moving(5):
        film.add(frame)
    film.close(finished=False)
    assert list(tmp_path.iterdir()) == []
    assert len(list(Clip(io.BytesIO(capsysbinary.readouterr().out)).frames())) == 5
    with pytest.raises(ConfigError, match="leave --resume out"):
        Film("-", (48, 64), Fraction(25), resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_frames_goes_on_and_takes_nothing_of_others(tmp_path: Path) -> None:
    film = Film(tmp_path / "out", (48, 64), Fraction(25))
    film.add(torch.zeros(1, 3, 48, 64))
    film.close(finished=False)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        Film(tmp_path / "out", (48, 64), Fraction(25), resume=True)
    (tmp_path / "out" / "notes.txt").unlink()
    again = Film(tmp_path / "out", (48, 64), Fraction(25), resume=True)
    again.add(torch.ones(1, 3, 48, 64))
    again.close()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["frame_000000.png", "frame_000001.png"]


def test_a_damaged_state_is_one_sentence(tmp_path: Path) -> None:
    film = Film(tmp_path / "out.mp4", (48, 64), Fraction(25))
    film.add(torch.zeros(1, 3, 48, 64), {"number": 1})
    film.close(finished=False)
    (film.parts / "0000001.state").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="begin anew"):
        Film(tmp_path / "out.mp4", (48, 64), Fraction(25), resume=True).state()


# -- threads and motion -----------------------------------------------------------------------------------------------


def test_whoever_waits_is_told_of_the_end() -> None:
    held = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        held.wait(60)

    inner = Ahead(slow())
    outer = Ahead(item for item in inner)
    assert next(outer) == 1
    threading.Timer(0.1, held.set).start()
    inner.close()
    outer.close()
    assert list(outer) == []


@pytest.mark.parametrize("size", [(8, 40), (12, 300)])  # OpenCV raises an error, and ends the process
def test_frames_too_small_for_motion_are_stylized_one_by_one(size: tuple[int, int]) -> None:
    contents = [torch.full((1, 3, *size), 0.1 * number) for number in range(3)]
    model = Tint(TintConfig(grain=0.0))
    code = model.encode_style(Style(torch.rand(1, 3, 16, 16)))
    found = [frame.image for frame in Video(model).frames(contents, code)]
    assert all(torch.equal(a, model.stylize(b, code).image) for a, b in zip(found, contents, strict=True))


def test_motion_is_the_same_whatever_was_seen_before() -> None:
    used = flow.Estimated()
    for size in ((64, 96), (16, 16), (48, 200), (17, 40), (64, 96)):
        for before, now in itertools.pairwise(moving(3, size)):
            for one, other in zip(used(before, now), flow.Estimated()(before, now), strict=True):
                assert torch.equal(one, other)


# -- the command ------------------------------------------------------------------------------------------------------


def test_a_style_that_cannot_be_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = encode(tmp_path / "a.mp4", moving(3))
    Image.new("RGB", (8, 8)).save(tmp_path / "tiny.png")
    for flags in (["-m", "adain", "--style", "tiny.png"], ["-m", "adain", "--style", str(path)]):
        assert run("video", "--content", "a.mp4", "--style-size", "0", "-o", "out.mp4", *flags) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.mp4", "tiny.png"]


def test_a_film_is_not_written_over_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = encode(tmp_path / "a.mp4", moving(3))
    os.link(path, tmp_path / "b.mp4")
    before = path.read_bytes()
    assert run("video", "-m", "johnson", "--style", "mosaic", "--content", "a.mp4", "-o", "b.mp4") == 2
    assert "is what the result is made of" in capsys.readouterr().err
    assert path.read_bytes() == before
