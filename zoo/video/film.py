"""Writing films: frames go into short parts, and the parts become one file at the end, or when somebody stops.

A part is a whole film of at most ``PART`` frames beside the output, in ``NAME.parts``, each frame encoded as it comes.
Broken off at any moment, all whole parts are there, so ``resume`` goes on after the last of them; joined, the packets
are copied and not encoded again. Beside the parts lies what the next frame depends on (:meth:`Film.state`), exact and
not decoded from the film; its name tells how many frames are whole.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo import files, images
from zoo.errors import ConfigError, DataError, reason
from zoo.images.write import eight_bits
from zoo.video.clips import require_av

if TYPE_CHECKING:
    from torch import Tensor

PART = 64  # frames: two to three seconds of work are at most lost, and a join stays cheap

# x264's preset "medium" at the visually lossless CRF 18 took a fifth of a narrow network's time. This takes a third of
# that, with the same error and a tenth more bytes.
_X264 = {"crf": "16", "preset": "veryfast", "bf": "0"}

# Extension: container of the whole, codec, pixel format, options.
# No frame is stored out of order ("bf", "lag-in-frames"), so that parts join without gaps in time.
_FORMATS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    ".mp4": ("mp4", "libx264", "yuv420p", _X264),
    ".mov": ("mov", "libx264", "yuv420p", _X264),
    ".mkv": ("matroska", "libx264", "yuv420p", _X264),
    ".webm": (
        "webm",
        "libvpx-vp9",
        "yuv420p",
        {"crf": "24", "b": "0", "row-mt": "1", "lag-in-frames": "0", "deadline": "good", "cpu-used": "4"},
    ),
    ".gif": ("gif", "gif", "rgb8", {}),
}
_HD_LINES = 720
_NOTHING = b"{}"  # the file of a state without anything in it, which needs no torch


class Film:
    """A film being written to ``path``: :meth:`add` frames, then :meth:`close`.

    ``path`` ends in .mp4, .mov, .mkv, .webm or .gif, is a folder (frames as PNG), or ``-`` (an MP4 on standard output).
    ``size`` is (height, width), ``rate`` frames a second. ``sound`` opens a film whose sound is copied, cut to the part
    ``start`` to the end of this one, or encoded anew where the container does not take it. ``made_by`` says how the
    frames are made: ``resume`` goes on only with what was made alike, and :attr:`done` is how many frames are there
    then. Films with a side of an odd number of pixels get one more row or column, a copy of the last, because their
    color is stored for squares of four pixels.

    Raises ConfigError (unknown ending, parts of another film, a folder that is not empty) and DataError (no room).
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        rate: Fraction,
        *,
        sound: Callable[[], Any] | None = None,
        start: float = 0.0,
        made_by: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.path, self.size, self.rate = str(path), size, Fraction(rate)
        self._sound, self._start = sound, start
        self._part: Generator[None, Tensor | np.ndarray | None, None] | None = None
        self._begun = 0  # frames in it
        self._state: Mapping[str, Any] = {}
        self._closed = False
        self._folder = None if self.path == "-" or Path(self.path).suffix else Path(self.path)
        if self._folder is None:
            require_av()
        self._ending = ".mp4" if self.path == "-" else Path(self.path).suffix.lower()
        if self._folder is None and self._ending not in _FORMATS:
            raise ConfigError(
                f"{self.path} is no film that the zoo writes: end it in {', '.join(_FORMATS)}, or name a folder."
            )
        target = Path(self.path) if Path(self.path).name else Path(os.path.abspath(self.path))
        # Standard output keeps nothing to go on with.
        if self.path == "-" and resume:
            raise ConfigError("Standard output holds no film to go on with: give -o a file, or leave --resume out.")
        self._scratch = tempfile.TemporaryDirectory(prefix="zoo-film-") if self.path == "-" else None
        if self._scratch is not None:
            target = Path(self._scratch.name) / "film.mp4"
        elif self._folder is None and not target.resolve().parent.is_dir():
            raise ConfigError(f"The folder of {self.path} does not exist: make it first.")
        elif target.exists() and target.is_dir() == (self._folder is None):
            raise ConfigError(
                f"{self.path} is a {'folder' if target.is_dir() else 'file'}: choose another name for the "
                f"{'film' if self._folder is None else 'folder of frames'}."
            )
        self.parts = target.parent / f"{target.name}.parts"
        self._identity = json.loads(json.dumps({"size": size, "rate": str(self.rate), **(made_by or {})}))
        self.done = self._begin(resume)

    def _begin(self, resume: bool) -> int:
        record, begun = self.parts / "film.json", self.parts.exists()
        if begun and not resume:
            raise ConfigError(
                f"{self.parts} holds the beginning of a film: go on with --resume, or delete that folder first."
            )
        if self._folder is not None and self._folder.is_dir():
            # Frames that are there already are those of the parts; the folder is replaced with all that is in it.
            others = [one for one in self._folder.iterdir() if not (begun and one.match("frame_*.png"))]
            if others:
                raise ConfigError(f"{self._folder} is not empty: name a new folder for the frames.")
        if begun:
            try:
                before = json.loads(record.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{record} cannot be read: delete {self.parts} and begin anew.") from error
            changed = [key for key in {**before, **self._identity} if before.get(key) != self._identity.get(key)]
            if changed:
                raise ConfigError(
                    f"{self.parts} was begun with another {', '.join(sorted(changed))}: give what it was begun with, "
                    "or delete that folder."
                )
            return max((int(path.stem) for path in self.parts.glob("*.state")), default=0)
        try:
            # Not the folder of a film: it was there a moment ago.
            self.parts.mkdir(parents=self._folder is not None)
        except OSError as error:
            raise ConfigError(f"{self.parts} cannot be made ({reason(error)}): choose another place.") from error
        try:
            files.write(record, json.dumps(self._identity))
        except ConfigError:
            shutil.rmtree(self.parts, ignore_errors=True)
            raise
        return 0

    def _place(self, first: int) -> Path:
        # A part of a folder of frames is a folder; GIF parts keep every color until the end.
        ending = "" if self._folder is not None else ".mkv" if self._ending == ".gif" else self._ending
        return self.parts / f"part-{first:07d}{ending}"

    def _whole(self) -> list[tuple[int, Path]]:
        """Every part that is there by its first frame, in order."""
        found = [(int(path.stem.partition("-")[2]), path) for path in self.parts.glob("part-*")]
        return sorted((first, path) for first, path in found if first < self.done)

    def _state_of(self, done: int) -> Path:
        return self.parts / f"{done:07d}.state"

    def state(self) -> Mapping[str, Any]:
        """Return what was given to :meth:`add` with the last frame that is kept; empty at the beginning.

        Raises ConfigError where it is damaged."""
        if not self.done:
            return {}
        try:
            data = self._state_of(self.done).read_bytes()
            if data == _NOTHING:
                return {}
            import torch

            return torch.load(io.BytesIO(data), weights_only=True)
        except Exception as error:  # whatever a damaged file makes of it
            raise ConfigError(
                f"{self._state_of(self.done)} cannot be read: delete {self.parts} and begin anew."
            ) from error

    def add(self, frame: Tensor | np.ndarray, state: Mapping[str, Any] | None = None) -> None:
        """Append a frame (1, 3, H, W) in [0, 1]; ``state`` (tensors, numbers, text) is what a resumed run needs."""
        try:
            if self._part is None:
                self._part, self._begun = self._writing(self.done), 0
                next(self._part)
            self._part.send(frame)
        except BaseException:
            self._part = None
            raise
        self._begun, self._state = self._begun + 1, state or {}
        if self._begun >= PART:
            self._end_part()

    def _end_part(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        with contextlib.suppress(StopIteration):
            part.send(None)
        before, after = self._state_of(self.done), self.done + self._begun
        files.write(self._state_of(after), _packed(self._state), DataError)
        self.done = after
        before.unlink(missing_ok=True)

    def _writing(self, first: int) -> Generator[None, Tensor | np.ndarray | None, None]:
        """Write the frames that are sent, up to None, as the part that begins with frame ``first``."""
        place = self._place(first)
        if self._folder is not None:
            with files.new_folder(place, DataError) as work:
                for number in itertools.count(first):
                    frame = yield
                    if frame is None:
                        return
                    images.write(work / f"frame_{number:06d}.png", frame)
        av = require_av()
        try:
            with (
                files.replacing(place, DataError) as work,
                av.open(str(work), "w", format=self._container) as container,
            ):
                stream = self._encoder(container)
                make = _Converter(stream.height, stream.width, stream.pix_fmt)
                for number in itertools.count():
                    frame = yield
                    if frame is None:
                        container.mux(stream.encode())
                        return
                    made = make(frame)
                    made.pts, made.time_base = number, 1 / self.rate
                    container.mux(stream.encode(made))
        except av.FFmpegError as error:  # those of the disk are OSErrors
            raise DataError(
                f"{self.path} cannot be written ({reason(error)}): choose another size or ending."
            ) from error

    @property
    def _container(self) -> str:
        """Of a part."""
        return "matroska" if self._ending == ".gif" else _FORMATS[self._ending][0]

    def _encoder(self, container: Any) -> Any:
        _, codec, pixel_format, options = _FORMATS[self._ending]
        height, width = self.size
        if self._ending == ".gif":
            codec, pixel_format, options = "ffv1", "bgr0", {}
        else:
            height, width = height + height % 2, width + width % 2
        stream = container.add_stream(codec, rate=self.rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        _tag(stream.codec_context, height, pixel_format)
        return stream

    def close(self, *, finished: bool = True) -> None:
        """Write what is left and join all parts into ``path``; ``finished`` removes the parts.

        A film that was stopped (``finished`` False) is playable to where it came, and its parts stay for ``resume``.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._end_part()
            whole = self._whole()
            if whole:
                self._join(whole)
            if finished or not whole:
                shutil.rmtree(self.parts, ignore_errors=True)
        finally:
            if self._scratch is not None:
                self._scratch.cleanup()

    def _join(self, parts: list[tuple[int, Path]]) -> None:
        if self._folder is not None:
            with files.new_folder(self._folder, DataError) as work:
                for _, part in parts:
                    for frame in part.iterdir():
                        files.place(frame, work / frame.name, flush=False)
            return
        if self._scratch is not None:
            work = self.parts / "whole.mp4"
            self._mux(parts, work)
            with work.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        av = require_av()
        try:
            with files.replacing(self.path, DataError) as work:
                if self._ending == ".gif":
                    _to_gif([path for _, path in parts], work, self.size, self.rate)
                else:
                    self._mux(parts, work)
        except av.FFmpegError as error:
            raise DataError(f"{self.path} cannot be written ({reason(error)}): choose another ending.") from error

    def _mux(self, parts: list[tuple[int, Path]], target: Path) -> None:
        av = require_av()
        options = {"movflags": "+faststart"} if self._ending in (".mp4", ".mov") else {}
        with contextlib.ExitStack() as opened:
            out = opened.enter_context(av.open(str(target), "w", format=self._container, options=options))
            with av.open(os.path.abspath(parts[0][1])) as first:
                stream = out.add_stream_from_template(first.streams.video[0])
            streams = [self._pictures(parts, stream)]
            if self._sound is not None:
                # What of it cannot be read was told when the film was opened.
                with contextlib.suppress(av.FFmpegError, DataError):
                    source = opened.enter_context(self._sound())
                    streams.append(_sound(source, out, self._start, float(self.done / self.rate)))
            # In the order of time: a player would look for the sound of the first second at the end of the file.
            for packet in heapq.merge(*streams, key=lambda packet: packet.dts * packet.time_base):
                out.mux(packet)

    def _pictures(self, parts: list[tuple[int, Path]], stream: Any) -> Iterator[Any]:
        av = require_av()
        for first, part in parts:
            with av.open(os.path.abspath(part)) as source:
                for packet in source.demux(source.streams.video[0]):
                    if packet.dts is None:
                        continue
                    shift = round(Fraction(first) / self.rate / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    yield packet


def _packed(state: Mapping[str, Any]) -> bytes:
    if not state:
        return _NOTHING
    import torch

    kept = io.BytesIO()  # in memory: torch's own writer makes no OSError of a full disk
    torch.save(dict(state), kept)
    return kept.getvalue()


class _Converter:
    """RGB as an encoder takes it; one for all frames, since what it converts by is set up once."""

    def __init__(self, height: int, width: int, pixel_format: str) -> None:
        from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

        self._size, self._convert = (height, width), VideoReformatter()
        self._options: dict[str, Any] = {"format": pixel_format}
        if pixel_format.startswith("yuv"):
            self._options |= {
                "dst_colorspace": Colorspace.ITU709 if height >= _HD_LINES else Colorspace.ITU601,
                "src_color_range": ColorRange.JPEG,
                "dst_color_range": ColorRange.MPEG,
                "interpolation": Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
            }

    def __call__(self, frame: Tensor | np.ndarray) -> Any:
        """A frame (1, 3, H, W) in [0, 1]."""
        from av import VideoFrame

        array = eight_bits(frame, 3, "frame")
        if array.shape[:2] != self._size:
            more = [(0, wanted - side) for wanted, side in zip(self._size, array.shape, strict=False)]
            array = np.pad(array, [*more, (0, 0)], mode="edge")
        return self._convert.reformat(VideoFrame.from_ndarray(array, format="rgb24"), **self._options)


# Codecs of sound that players take in each container, and what else is encoded in.
_SOUND = {
    "mp4": ("aac", "mp3", "ac3", "alac", "opus"),
    "mov": ("aac", "mp3", "ac3", "alac", "pcm_s16le"),
    "matroska": ("aac", "mp3", "ac3", "opus", "vorbis", "flac", "pcm_s16le"),
    "webm": ("opus", "vorbis"),
}
_ENCODED = {"webm": "libopus"}
_SOUND_RATE = 48000
_CLOSEST = Fraction(1, 1000)  # seconds between two packets: a file may hold millions of a byte each


def _sound(source: Any, out: Any, start: float, seconds: float) -> Iterator[Any]:
    """Packets of another film's sound for ``out``, from ``start`` of its pictures on, as far as they can be read.

    A stream for them is added to ``out`` before the first is asked for.
    """
    stream, container = source.streams.audio[0], out.format.name.split(",")[0]
    if stream.codec_context is None:  # nothing here decodes it
        return iter(())
    pictures = source.streams.video[0]
    origin = pictures.start_time * pictures.time_base if pictures.start_time is not None else 0
    begin = round((origin + Fraction(start)) / stream.time_base)
    packets = _readable(source, stream, begin, begin + round(seconds / stream.time_base))
    if stream.codec_context.codec.canonical_name in _SOUND[container]:
        return _rising(_copied(packets, begin, out.add_stream_from_template(stream)))
    return _rising(_encoded(packets, begin, out.add_stream(_ENCODED.get(container, "aac"), rate=_SOUND_RATE)))


def _readable(source: Any, stream: Any, begin: int, end: int) -> Iterator[Any]:
    """Packets between two times; a damaged end is left out."""
    with contextlib.suppress(require_av().FFmpegError, OSError):
        for packet in source.demux(stream):
            if packet.dts is None or packet.pts is None or packet.pts < begin:
                continue
            if packet.pts >= end:
                return
            yield packet


def _rising(packets: Iterator[Any]) -> Iterator[Any]:
    """Packets whose times rise, as a file must have them."""
    last = None
    for packet in packets:
        time = packet.dts * packet.time_base
        if last is None or time - last >= _CLOSEST:
            yield packet
            last = time


def _copied(packets: Iterator[Any], begin: int, stream: Any) -> Iterator[Any]:
    for packet in packets:
        packet.pts, packet.dts, packet.stream = packet.pts - begin, packet.dts - begin, stream
        yield packet


def _encoded(packets: Iterator[Any], begin: int, stream: Any) -> Iterator[Any]:
    for packet in packets:
        try:
            frames = packet.decode()
        except require_av().FFmpegError:
            continue
        for frame in frames:
            frame.pts = None if frame.pts is None else frame.pts - begin
            yield from stream.encode(frame)
    yield from stream.encode()


def _tag(context: Any, height: int, pixel_format: str) -> None:
    """Say which matrix and range the colors are in, so that no player guesses."""
    if pixel_format.startswith("yuv"):
        space = 1 if height >= _HD_LINES else 6  # BT.709, SMPTE 170M
        context.colorspace = context.color_primaries = context.color_trc = space
        context.color_range = 1  # 16 to 235


def _to_gif(parts: list[Path], target: Path, size: tuple[int, int], rate: Fraction) -> None:
    """All frames as one GIF with a palette of its own for each."""
    from PIL import Image

    av = require_av()
    # GIF counts hundredths of a second, and players take anything under two for ten.
    frames, last = 0, -2
    options = {"final_delay": str(max(2, round(100 / rate)))}
    with av.open(str(target), "w", format="gif", container_options=options) as out:
        stream = out.add_stream("gif", rate=100)
        (stream.height, stream.width), stream.pix_fmt = size, "pal8"
        for part in parts:
            with av.open(os.path.abspath(part)) as source:
                for frame in source.decode(video=0):
                    time, frames = round(100 * frames / rate), frames + 1
                    if time < last + 2:
                        continue
                    picture = frame.to_image().convert("P", palette=Image.Palette.ADAPTIVE)
                    made = av.VideoFrame.from_ndarray((np.asarray(picture), _argb(picture)), format="pal8")
                    made.pts, made.time_base, last = time, Fraction(1, 100), time
                    out.mux(stream.encode(made))
        out.mux(stream.encode())


def _argb(picture: Any) -> np.ndarray:
    """A picture's palette, opaque, (256, 4)."""
    colors = np.frombuffer(bytes(picture.getpalette("RGB")).ljust(768, b"\0"), np.uint8).reshape(256, 3)
    return np.concatenate([np.full((256, 1), 255, np.uint8), colors], 1)


__all__ = ["PART", "Film"]
