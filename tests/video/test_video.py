"""Films in and out, motion, and frames kept together."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import run
from plugins.good.zoo_tint.tint import Tint, TintConfig
from torch import Tensor

import zoo
from zoo import images
from zoo.controls.video import Video, _Link, _long_term
from zoo.errors import ConfigError, DataError, UnknownNameError
from zoo.stylizer import Context, Mix, Style, Stylized
from zoo.video import film as films
from zoo.video import flow, measure
from zoo.video.ahead import Behind, together
from zoo.video.clips import Clip, ClipOptions, builtin_clip
from zoo.video.film import Film

av = pytest.importorskip("av", reason="the extra video is not installed")
pytest.importorskip("cv2", reason="the extra video is not installed")


def moving(count: int, size: tuple[int, int] = (48, 64), shift: int = 2) -> list[Tensor]:
    """A smooth random picture that moves ``shift`` pixels to the right with every frame."""
    generator = torch.Generator().manual_seed(7)
    height, width = size
    wide = 0.5 + 0.5 * torch.rand(1, 3, height // 8 + 1, (width + shift * count) // 8 + 1, generator=generator)
    picture = torch.nn.functional.interpolate(wide, scale_factor=8, mode="bicubic")[..., :height, :].clamp(0, 1)
    at = [shift * (count - 1 - k) for k in range(count)]
    return [picture[..., x : x + width].contiguous() for x in at]


def encode(
    path: Path,
    frames: list[Tensor],
    rate: int = 25,
    times: list[int] | None = None,
    rotate: int = 0,
    fmt: str = "yuv444p",
    matrix: int = 1,
    full: bool = False,
    aspect: Fraction = Fraction(1),
) -> Path:
    """A film by PyAV directly; ``times`` in hundredths of a second make its rate variable, ``rotate`` is its turn
    counterclockwise, ``matrix`` that of its colors, of the ``full`` range or not, ``aspect`` that of its pixels."""
    from av.video.reformatter import ColorRange, Colorspace

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": "1", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[-2:], fmt
        context, color_range = stream.codec_context, ColorRange.JPEG if full else ColorRange.MPEG
        context.colorspace, context.color_range, context.time_base = matrix, int(color_range), Fraction(1, 100)
        context.sample_aspect_ratio = aspect
        if rotate:
            stream.set_display_rotation(rotate)
        for number, frame in enumerate(frames):
            array = frame[0].permute(1, 2, 0).mul(255).add(0.5).to(torch.uint8).contiguous().numpy()
            made = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(
                format=fmt, dst_colorspace=Colorspace(matrix), dst_color_range=color_range
            )
            made.pts = times[number] if times else number * 100 // rate
            made.time_base = Fraction(1, 100)
            out.mux(stream.encode(made))
        out.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", moving(10))


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 9])  # BT.709, BT.2020
@pytest.mark.parametrize("fmt", ["yuv444p", "yuv444p10le"])
def test_colors_come_back_as_they_were(tmp_path: Path, fmt: str, matrix: int, full: bool) -> None:
    color = torch.tensor([200, 40, 90]).view(1, 3, 1, 1).expand(1, 3, 32, 32) / 255
    frames = list(Clip(encode(tmp_path / "a.mp4", [color] * 2, fmt=fmt, matrix=matrix, full=full)).frames())
    assert (frames[0].pixels - color).abs().max() <= 3 / 255


def test_frames_rate_and_count(clip: Path) -> None:
    opened = Clip(clip)
    frames = list(opened.frames())
    assert (opened.rate, opened.size, opened.count, len(frames)) == (25, (48, 64), 10, 10)
    assert [frame.time for frame in frames] == pytest.approx([k / 25 for k in range(10)])
    for found, wanted in zip(frames, moving(10), strict=True):
        assert (found.pixels - wanted).abs().mean() < 0.02
    assert [f.time for f in opened.frames(skip=8)] == pytest.approx([8 / 25, 9 / 25])


def test_start_duration_rate_and_size(clip: Path) -> None:
    part = Clip(clip, ClipOptions(start=0.08, duration=0.2, size="exact:32"))
    frames = list(part.frames())
    assert (len(frames), part.count, part.size) == (5, 5, (32, 32))
    assert frames[0].pixels.shape == (1, 3, 32, 32)
    whole = [frame.pixels for frame in Clip(clip).frames()]
    late = list(Clip(clip, ClipOptions(start=0.08, duration=0.2)).frames())
    assert torch.equal(late[0].pixels, whole[2])
    half = list(Clip(clip, ClipOptions(fps=Fraction(25, 2))).frames())
    assert [int(np.argmin([(f.pixels - w).abs().mean() for w in whole])) for f in half] == [0, 2, 4, 6, 8]
    double = list(Clip(clip, ClipOptions(fps=Fraction(50))).frames())
    assert len(double) == 20


def test_a_variable_rate_is_sampled_evenly(tmp_path: Path) -> None:
    frames = moving(4)
    path = encode(tmp_path / "vfr.mp4", frames, times=[0, 4, 24, 28])
    shown = [f.pixels for f in Clip(path, ClipOptions(fps=Fraction(25))).frames()]
    nearest = [int(np.argmin([(s - w).abs().mean() for w in frames])) for s in shown]
    assert nearest[:8] == [0, 1, 1, 1, 1, 1, 2, 3]


def test_a_folder_of_frames(tmp_path: Path) -> None:
    for number, frame in enumerate(moving(3)):
        images.write(tmp_path / f"{number}.png", frame)
    opened = Clip(tmp_path, ClipOptions(fps=Fraction(25)))
    assert (len(list(opened.frames())), opened.audio) == (3, None)
    images.write(tmp_path / "9.png", torch.zeros(1, 3, 20, 20))
    with pytest.raises(DataError, match="frames of one size"):
        list(Clip(tmp_path).frames())


def test_a_damaged_end_keeps_what_was_read(clip: Path, tmp_path: Path) -> None:
    data = bytearray(encode(tmp_path / "whole.mkv", moving(30)).read_bytes())
    path = tmp_path / "cut.mkv"
    path.write_bytes(bytes(data[: len(data) * 2 // 3]))
    opened = Clip(path)
    assert 3 <= len(list(opened.frames())) < 30


@pytest.mark.parametrize("content", [b"", b"no film at all" * 50], ids=["empty", "text"])
def test_what_is_no_film_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a film"):
        Clip(tmp_path / "a.mp4")


def test_other_places_are_one_sentence(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(DataError, match="check the path"):
        Clip(tmp_path / "none.mp4")
    with pytest.raises(DataError, match="no frame that can be read from second 99"):
        Clip(clip, ClipOptions(start=99))
    with pytest.raises(UnknownNameError, match="bikes"):
        builtin_clip("bike")
    for options in ({"start": -1}, {"duration": 0}, {"fps": Fraction(0)}, {"start": float("nan")}):
        with pytest.raises(ConfigError):
            ClipOptions(**options)


def test_a_song_with_a_cover_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(DataError, match="no video stream"):
        Clip(path)


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".webm", ".gif", ""])
def test_what_is_written_is_read_back(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "PART", 4)
    frames, path = moving(10), tmp_path / f"out{ending}"
    writer = Film(path, (48, 64), Fraction(25))
    for frame in frames:
        writer.add(frame)
    writer.close()
    found = [frame.pixels for frame in Clip(path, ClipOptions(fps=Fraction(25))).frames()]
    assert len(found) == 10
    for ours, wanted in zip(found, frames, strict=True):
        assert (ours - wanted).abs().mean() < (0.06 if ending == ".gif" else 0.03)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_odd_sizes_get_one_more_row_and_column(tmp_path: Path) -> None:
    writer = Film(tmp_path / "out.mp4", (33, 47), Fraction(25))
    for frame in moving(2, (33, 47)):
        writer.add(frame)
    writer.close()
    assert Clip(tmp_path / "out.mp4").size == (34, 48)


def test_a_broken_off_film_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "PART", 3)
    frames, path = moving(10), tmp_path / "out.mp4"
    writer = Film(path, (48, 64), Fraction(25), made_by={"style": "a"})
    for number, frame in enumerate(frames[:8]):
        writer.add(frame, {"number": torch.tensor(number)})
    del writer  # as a kill leaves it: two whole parts, two frames lost
    with pytest.raises(ConfigError, match="--resume"):
        Film(path, (48, 64), Fraction(25), made_by={"style": "a"})
    with pytest.raises(ConfigError, match="another style"):
        Film(path, (48, 64), Fraction(25), made_by={"style": "b"}, resume=True)
    again = Film(path, (48, 64), Fraction(25), made_by={"style": "a"}, resume=True)
    assert (again.done, int(again.state()["number"])) == (6, 5)
    for frame in frames[6:8]:
        again.add(frame)
    again.close(finished=False)
    assert len(list(Clip(path).frames())) == 8  # playable to where it came
    last = Film(path, (48, 64), Fraction(25), made_by={"style": "a"}, resume=True)
    for frame in frames[last.done :]:
        last.add(frame)
    last.close()
    assert len(list(Clip(path).frames())) == 10
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_sound_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "sound.mp4"
    with av.open(str(source), "w") as out:
        video, sound = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=44100)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        for frame in moving(25):
            array = frame[0].permute(1, 2, 0).mul(255).to(torch.uint8).contiguous().numpy()
            out.mux(video.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        out.mux(video.encode())
        for k in range(43):
            tone = np.sin(np.arange(k * 1024, (k + 1) * 1024) / 20)[None].astype(np.float32)
            piece = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            piece.sample_rate, piece.pts = 44100, k * 1024
            out.mux(sound.encode(piece))
        out.mux(sound.encode())
    writer = Film(tmp_path / "out.mp4", (48, 64), Fraction(25), sound=Clip(source).audio, start=0.4)
    for frame in moving(15):
        writer.add(frame)
    writer.close()
    with av.open(str(tmp_path / "out.mp4")) as made:
        seconds = sum(f.samples for f in made.decode(audio=0)) / 44100
    assert seconds == pytest.approx(0.6, abs=0.06)


def test_places_that_do_not_take_a_film(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"end it in \.mp4"):
        Film(tmp_path / "out.avi", (48, 64), Fraction(25))
    with pytest.raises(ConfigError, match="make it first"):
        Film(tmp_path / "none" / "out.mp4", (48, 64), Fraction(25))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(ConfigError, match="not empty"):
        Film(tmp_path / "full", (48, 64), Fraction(25))


def test_several_at_once_keep_their_order_and_what_came_before_a_mistake() -> None:
    waits = threading.Barrier(2, timeout=30)  # passed by two at once alone

    def work(number: int) -> int:
        waits.wait()
        return -number

    def items() -> Iterator[int]:
        yield from range(6)
        raise DataError("no more")

    made: list[int] = []
    with pytest.raises(DataError, match="no more"):
        made.extend(together(work, items(), 2))
    assert made == [0, -1, -2, -3, -4, -5]


# -- the command ------------------------------------------------------------------------------------------------------


def test_a_film_is_stylized_by_the_command(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["-m", "johnson", "--style", "mosaic", "--content", str(clip), "--size", "0", "--duration", "0.12"]
    assert run("video", *flags, "-o", str(tmp_path / "a.mp4")) == 0
    assert "64x48, 3 frames" in " ".join(capsys.readouterr().err.split())
    assert len(list(Clip(tmp_path / "a.mp4").frames())) == 3


def test_temporal_is_the_network_that_was_trained_for_films(clip: Path, tmp_path: Path) -> None:
    flags = ["--style", "mosaic", "--content", str(clip), "--size", "0", "--duration", "0.12"]
    ways = {"learned": ("johnson", "temporal"), "named": ("johnson.video", "none"), "other": ("johnson", "none")}
    for name, (method, keep) in ways.items():
        assert run("video", *flags, "-m", method, "--keep", keep, "-o", str(tmp_path / name)) == 0
    learned, named, other = ([frame.pixels for frame in Clip(tmp_path / name).frames()] for name in ways)
    assert all(torch.equal(one, two) for one, two in zip(learned, named, strict=True))
    assert not torch.equal(learned[0], other[0])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--content", "none.mp4"], "check the path"),
        (["--keep", "glue"], "none, warp, temporal"),
        (["--keep", "temporal", "-m", "cin"], "has no temporal loss"),
        (["--passes", "3"], "with temporal only"),
        (["--blend", "2"], "from 0 to 1"),
        (["-o", "out.avi"], "end it in .mp4"),
        (["--motion", "guess"], "dis or deepflow"),
        (["--fps", "0"], "--fps"),
    ],
)
def test_a_film_that_cannot_be_made_is_one_sentence(
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"--content": str(clip), "--size": "0", "-m": "johnson", "--style": "mosaic", "-o": "out.mp4"}
    given |= dict(zip(flags[::2], flags[1::2], strict=True))
    assert run("video", *itertools.chain(*given.items())) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# -- motion -----------------------------------------------------------------------------------------------------------


def test_warp_moves_by_whole_pixels_exactly() -> None:
    image = torch.rand(1, 3, 12, 16)
    by = torch.zeros(1, 2, 12, 16)
    torch.testing.assert_close(flow.warp(image, by), image, atol=1e-6, rtol=0)
    by[:, 0], by[:, 1] = 3, -2
    torch.testing.assert_close(flow.warp(image, by)[..., 2:, :-3], image[..., :-2, 3:], atol=1e-5, rtol=0)


def test_the_motion_of_a_moving_picture_is_found_and_trusted() -> None:
    first, second = moving(2, (64, 96))
    forward, backward = flow.Estimated()(first, second)
    inside = (..., slice(16, -16), slice(16, -16))
    assert (forward[0, 0][inside[1:]].median() - 2).abs() < 0.3
    trusted = flow.reliability(forward, backward)
    assert trusted[inside].mean() > 0.9
    assert not flow.is_cut(first, second, backward, trusted)
    error = (flow.warp(first, backward) - second).abs()
    assert float((error * trusted).mean()) < float((first - second).abs().mean()) / 3


def test_what_was_hidden_or_outside_is_not_trusted() -> None:
    still = torch.zeros(1, 2, 20, 30)
    assert flow.reliability(still, still).min() == 1
    away = still.clone()
    away[:, 0] = -5.0  # the previous frame ended five pixels before
    trusted = flow.reliability(-away, away)
    assert trusted[..., :4].max() == 0
    assert trusted[..., 8:].min() == 1
    assert flow.reliability(away, away)[..., 8:].max() == 0  # there and back do not agree
    border = still.clone()
    border[..., 15:] = 1.0
    assert flow.reliability(-border, border)[..., 14:16].max() == 0


def test_another_shot_is_a_cut() -> None:
    first, noise = moving(1, (64, 96))[0], torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    for second in (noise, 1 - first, torch.zeros_like(first)):
        forward, backward = flow.Estimated()(first, second)
        trusted = flow.reliability(forward, backward)
        assert flow.is_cut(first, second, backward, trusted)


def test_error_on_a_stereo_pair_with_ground_truth() -> None:
    """DIS on scikit-image's motorcycle: end-point error under 3 pixels of disparity (2.6 where it was chosen)."""
    from skimage import data

    left, right, disparity = data.stereo_motorcycle()
    first, second = (torch.from_numpy(x.copy()).permute(2, 0, 1)[None].float() / 255 for x in (left, right))
    found = flow.Estimated()(first, second)[0][0].numpy()
    known = np.isfinite(disparity)
    error = np.hypot(found[0] + disparity, found[1])[known].mean()
    assert error < 3.0


def test_flo_files(tmp_path: Path) -> None:
    motion = np.random.default_rng(1).normal(size=(3, 4, 2)).astype("<f4")
    path = tmp_path / "a.flo"
    path.write_bytes(b"PIEH" + np.array([4, 3], "<i4").tobytes() + motion.tobytes())
    assert np.array_equal(flow.read_flo(path)[0].permute(1, 2, 0).numpy(), motion)
    for data, says in ((b"nothing", "no .flo"), (path.read_bytes()[:-3], "damaged")):
        path.write_bytes(data)
        with pytest.raises(DataError, match=says):
            flow.read_flo(path)


def test_motion_from_a_folder(tmp_path: Path) -> None:
    header = b"PIEH" + np.array([96, 64], "<i4").tobytes()
    for number in (1, 2):
        for name, x in ((f"forward_{number}_{number + 1}", 2.0), (f"backward_{number + 1}_{number}", -2.0)):
            motion = np.zeros((64, 96, 2), "<f4")
            motion[..., 0] = x
            (tmp_path / f"{name}.flo").write_bytes(header + motion.tobytes())
    contents = moving(4, (64, 96))
    model = Tint(TintConfig(grain=0.0))
    stream = Video(model, motion=flow.FlowFiles(tmp_path)).frames(contents, model.encode_style(Style(contents[0])))
    frames = list(itertools.islice(stream, 3))
    inner = (..., slice(8, -8), slice(16, -8))
    torch.testing.assert_close(frames[2].image[inner], frames[0].image[..., 8:-8, 12:-12], atol=0.03, rtol=0)
    with pytest.raises(DataError, match="forward_3_4"):
        next(stream)
    with pytest.raises(ConfigError, match="backward_2_1"):
        flow.FlowFiles(tmp_path.parent)


def test_a_failure_behind_is_raised_in_front() -> None:
    def work(item: int) -> None:
        done.append(item)
        if item == 2:
            raise DataError("no room")

    done: list[int] = []

    def put_all() -> None:
        with Behind(work) as behind:
            for item in range(100):
                behind.put(item)

    with pytest.raises(DataError, match="no room"):
        put_all()
    assert done == [0, 1, 2]


# -- frames kept together ---------------------------------------------------------------------------------------------


class Flickering(Tint):
    """Grain of its own for every call: what a film must not show."""

    calls = itertools.count()

    def _stylize(self, content: Tensor, style: Mix, call: Any) -> Stylized:
        grain = torch.randn(content.shape, generator=torch.Generator().manual_seed(next(self.calls)))
        return Stylized((content + 0.1 * grain).clamp(0, 1))


def flicker(frames: list[Tensor], shift: int = 2) -> float:
    """Mean change along the true motion, ``shift`` pixels a frame."""
    pairs = itertools.pairwise(frames)
    return float(np.mean([(b[..., 8 + shift : -8] - a[..., 8 : -8 - shift]).abs().mean() for a, b in pairs]))


def detail(image: Tensor) -> float:
    inner = image[..., 8:-8, 24:-8]
    return float((inner[..., 1:, 1:] - inner[..., :-1, :-1]).square().mean())


def test_carrying_along_the_motion_halves_the_flicker_and_keeps_detail() -> None:
    contents = moving(10, (64, 96))
    model = Flickering(TintConfig(grain=0.0))
    code = model.encode_style(Style(contents[0]))
    results = {keep: [frame.image for frame in Video(model, keep).frames(contents, code)] for keep in ("none", "warp")}
    assert flicker(results["warp"]) < flicker(results["none"]) / 2
    assert detail(results["warp"][-1]) > 0.8 * detail(results["none"][-1])


def test_what_the_carried_film_no_longer_shows_is_stylized_afresh() -> None:
    """Motion that claims a still picture, while a patch of the film turns dark."""
    still = torch.zeros(1, 2, 64, 96)
    first = moving(1, (64, 96))[0]
    second = first.clone()
    second[..., 20:40, 30:50] = 0.0
    model = Tint(TintConfig(grain=0.0))
    code = model.encode_style(Style(first.flip(-1)))
    video = Video(model, motion=lambda *frames: (still, still))
    found = list(video.frames([first, second], code))[1]
    assert not found.cut
    torch.testing.assert_close(
        found.image[..., 28:32, 38:42], model.stylize(second, code).image[..., 28:32, 38:42], atol=2e-3, rtol=0
    )
    assert found.trusted is not None
    assert found.trusted[..., 28:32, 38:42].max() == 0
    assert found.trusted[..., 50:, :].mean() > 0.8


def test_a_resumed_stream_equals_an_unbroken_one() -> None:
    contents = moving(5, (64, 96))
    model = Tint(TintConfig(grain=0.05))
    code = model.encode_style(Style(contents[0].flip(-1)))
    whole = [frame.image for frame in Video(model).frames(contents, code, seed=3)]
    first = Video(model)
    list(first.frames(contents[:3], code, seed=3))
    second = Video(model)
    second.resume(first.state)
    rest = [frame.image for frame in second.frames(contents[3:], code, seed=3)]
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[3:], strict=True))


def test_a_cut_begins_anew() -> None:
    one, other = moving(2, (64, 96)), [torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))]
    model = Tint(TintConfig(grain=0.0))
    code = model.encode_style(Style(one[0]))
    found = list(Video(model).frames([*one, *other], code))
    assert [frame.cut for frame in found] == [False, False, True]
    assert torch.equal(found[2].image, model.stylize(other[0], code).image)


def test_earlier_frames_are_part_of_the_loss() -> None:
    contents = moving(3, (48, 64), shift=1)
    model = zoo.load("gatys", num_steps=6, device="cpu", precision="fp32", init="noise", noise_scale=40.0)
    code = model.encode_style(Style(contents[0].flip(-1)))
    frames = [frame.image for frame in Video(model, "temporal").frames(contents, code)]
    again = Video(model, "temporal")
    list(again.frames(contents[:2], code))
    (last,) = again.frames(contents[2:], code)
    assert torch.equal(last.image, frames[2])
    alone = [model.stylize(content, code, seed=seed).image for seed, content in enumerate(contents[:2])]
    assert flicker(frames, 1) < flicker(alone, 1) / 2
    passed = list(Video(model, "temporal", passes=2).frames(contents[:2], code))
    assert flicker([frame.image for frame in passed], 1) < flicker(alone, 1)


def test_what_was_fitted_from_the_carried_picture_is_not_mixed_with_it() -> None:
    content = moving(1, (48, 64))[0]
    model = zoo.load("gatys", num_steps=4, device="cpu", precision="fp32")
    code = model.encode_style(Style(content.flip(-1)))
    first, second = Video(model, motion=lambda *_: (torch.zeros(1, 2, 48, 64),) * 2).frames([content, content], code)
    fitted = model.stylize(content, code, context=Context(init=first.image)).image
    assert second.trusted is not None
    assert second.trusted.min() == 1
    torch.testing.assert_close(second.image, fitted, rtol=0, atol=1e-5)
    assert (first.image - fitted).abs().max() > 0.01


def test_an_earlier_frame_is_moved_as_the_measure_moves_it() -> None:
    flows = (torch.full((1, 2, 48, 64), 0.5), torch.full((1, 2, 48, 64), -0.5))
    model = zoo.load(
        "gatys", num_steps=8, device="cpu", precision="fp32", init="noise", noise_scale=40.0, temporal_weight=1e8
    )
    contents = moving(2, (48, 64))
    video = Video(model, "temporal", motion=lambda *_: flows)
    frames = [frame.image for frame in video.frames(contents, model.encode_style(Style(contents[0].flip(-1))))]
    assert measure.warping_error(frames, [measure.Link(0, 1, flows[1], torch.ones(1, 1, 48, 64))]) < 1


def test_an_anchor_holds_as_strongly_as_its_weight() -> None:
    content = moving(1, (32, 48))[0]
    far = content.flip(-2)
    model = zoo.load("gatys", num_steps=5, device="cpu", precision="fp32", temporal_weight=1e8)
    code = model.encode_style(Style(content.flip(-1)))
    half = torch.ones(1, 1, 32, 48)
    half[..., 24:] = 0.0
    anchored = Context(init=far, anchors=torch.cat([far, half], 1))
    moved = (model.stylize(content, code, context=anchored).image - far).abs()
    assert moved[..., :24].mean() < moved[..., 24:].mean() / 4


def test_a_pixel_counts_for_the_nearest_frame_that_shows_it() -> None:
    zero = torch.zeros(1, 2, 1, 3)
    trusted = ([1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0])
    links = [
        _Link(back, zero, torch.tensor(row).view(1, 1, 1, 3)) for back, row in zip((1, 2, 4), trusted, strict=True)
    ]
    assert [w.flatten().tolist() for w in _long_term(links)] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_other_ways_are_one_sentence() -> None:
    for options in ({"keep": "glue"}, {"blend": 2.0}, {"keep": "temporal"}, {"passes": 2}):
        with pytest.raises(ConfigError):
            Video(Tint(), **options)  # type: ignore[arg-type]
