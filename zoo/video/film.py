"""Writing films: frames go into short parts, and the parts become one file at the end, or when somebody stops.

A part is a whole film of at most ``PART`` frames beside the output, in ``NAME.parts``. Broken off at any moment, all
whole parts are there, so ``resume`` goes on after the last of them; joined, the packets are copied and not encoded
again. Beside each part lies what the next frame depends on (:meth:`Film.state`), exact and not decoded from the film.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import files, images
from zoo.errors import ConfigError, DataError
from zoo.video.clips import require_av

PART = 64  # frames: two to three seconds of work are at most lost, and a join stays cheap

# Extension: container of the whole, codec, pixel format, options. CRF 18 is visually lossless at x264's default preset.
# No frame is stored out of order ("bf", "lag-in-frames"), so that parts join without gaps in time.
_FORMATS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    ".mp4": ("mp4", "libx264", "yuv420p", {"crf": "18", "bf": "0"}),
    ".mov": ("mov", "libx264", "yuv420p", {"crf": "18", "bf": "0"}),
    ".mkv": ("matroska", "libx264", "yuv420p", {"crf": "18", "bf": "0"}),
    ".webm": (
        "webm",
        "libvpx-vp9",
        "yuv420p",
        {"crf": "24", "b": "0", "row-mt": "1", "lag-in-frames": "0", "deadline": "good", "cpu-used": "4"},
    ),
    ".gif": ("gif", "gif", "rgb8", {}),
}
_HD_LINES = 720


class Film:
    """A film being written to ``path``: :meth:`add` frames, then :meth:`close`; also a context manager.

    ``path`` ends in .mp4, .mov, .mkv, .webm or .gif, is a folder (frames as PNG), or ``-`` (an MP4 on standard output).
    ``size`` is (height, width), ``rate`` frames a second. ``sound`` is a film whose audio is copied, cut to the part
    ``start`` to the end of this one. ``made_by`` says how the frames are made: ``resume`` goes on only with what was
    made alike, and :attr:`done` is how many frames are there then. Films with a side of an odd number of pixels get one
    more row or column, a copy of the last, because their color is stored for squares of four pixels.

    Raises ConfigError (unknown ending, parts of another film, a folder that is not empty) and DataError (no room).
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        rate: Fraction,
        *,
        sound: Path | io.BytesIO | None = None,
        start: float = 0.0,
        made_by: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.path, self.size, self.rate = str(path), size, Fraction(rate)
        self._sound, self._start = sound, start
        self._frames: list[Tensor] = []
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
        target = Path("film.mp4") if self.path == "-" else Path(self.path)
        if self._folder is None and not target.resolve().parent.is_dir():
            raise ConfigError(f"The folder of {self.path} does not exist: make it first.")
        self.parts = target.with_name(target.name + ".parts")
        self._identity = json.loads(json.dumps({"size": size, "rate": str(self.rate), **(made_by or {})}))
        self.done = self._begin(resume)

    def _begin(self, resume: bool) -> int:
        record = self.parts / "film.json"
        if self.parts.exists() and not resume:
            raise ConfigError(
                f"{self.parts} holds the beginning of a film: go on with --resume, or delete that folder first."
            )
        if (
            self._folder is not None
            and not self.parts.exists()
            and self._folder.exists()
            and any(self._folder.iterdir())
        ):
            raise ConfigError(f"{self._folder} is not empty: name a new folder for the frames.")
        if self.parts.exists():
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
        else:
            try:
                self.parts.mkdir(parents=True)
            except OSError as error:
                raise ConfigError(
                    f"{self.parts} cannot be made ({files.reason(error)}): choose another place."
                ) from error
            files.write(record, json.dumps(self._identity))
        return len(self._whole()) and self._whole()[-1][1]

    def _whole(self) -> list[tuple[int, int]]:
        """(first frame, frame after the last) of every part that is there, in order and without a gap."""
        found = sorted(
            (int(first), int(after))
            for path in self.parts.glob("*.state")
            for first, _, after in [path.stem.partition("-")]
        )
        whole: list[tuple[int, int]] = []
        for first, after in found:
            if first == (whole[-1][1] if whole else 0) and self._place(first, after).exists():
                whole.append((first, after))
        return whole

    def _place(self, first: int, after: int) -> Path:
        # A part of a folder of frames is a folder; GIF parts keep every color until the end.
        ending = "" if self._folder is not None else ".mkv" if self._ending == ".gif" else self._ending
        return self.parts / f"{first:07d}-{after:07d}{ending}"

    def state(self) -> Mapping[str, Any]:
        """Return what was given to :meth:`add` with the last frame that is kept; empty at the beginning."""
        whole = self._whole()
        if not whole:
            return {}
        first, after = whole[-1]
        return torch.load(self.parts / f"{first:07d}-{after:07d}.state", weights_only=True)

    def add(self, frame: Tensor, state: Mapping[str, Any] | None = None) -> None:
        """Append a frame (1, 3, H, W) in [0, 1]; ``state`` (tensors, numbers, text) is what a resumed run needs."""
        self._frames.append(frame.detach().cpu().clamp(0, 1).mul(255).add(0.5).to(torch.uint8))
        self._state = state or {}
        if len(self._frames) >= PART:
            self._write_part()

    def _write_part(self) -> None:
        if not self._frames:
            return
        first, after = self.done, self.done + len(self._frames)
        place = self._place(first, after)
        if self._folder is not None:
            with files.new_folder(place, DataError) as work:
                for number, frame in enumerate(self._frames, first):
                    images.write(work / f"frame_{number:06d}.png", frame.float() / 255)
        else:
            with files.replacing(place, DataError) as work:
                self._encode(work)
        with files.replacing(self.parts / f"{first:07d}-{after:07d}.state", DataError) as work:
            torch.save(dict(self._state), work)
        self.done, self._frames = after, []

    def _encode(self, place: Path) -> None:
        av = require_av()
        container_format, codec, pixel_format, options = _FORMATS[self._ending]
        if self._ending == ".gif":
            container_format, codec, pixel_format, options = "matroska", "ffv1", "bgr0", {}
        with av.open(str(place), "w", format=container_format) as container:
            stream = container.add_stream(codec, rate=self.rate, options=options)
            height, width = self._even()
            stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
            _tag(stream.codec_context, height, pixel_format)
            for number, frame in enumerate(self._frames):
                for packet in stream.encode(self._converted(frame, number, pixel_format)):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)

    def _even(self) -> tuple[int, int]:
        height, width = self.size
        return (height, width) if self._ending == ".gif" else (height + height % 2, width + width % 2)

    def _converted(self, frame: Tensor, number: int, pixel_format: str) -> Any:
        av = require_av()
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        height, width = self._even()
        tall, wide = frame.shape[-2:]
        padded = torch.nn.functional.pad(frame.float(), (0, width - wide, 0, height - tall), mode="replicate")
        array = padded.to(torch.uint8)[0].permute(1, 2, 0).contiguous().numpy()
        made = av.VideoFrame.from_ndarray(array, format="rgb24")
        if pixel_format.startswith("yuv"):
            made = made.reformat(
                format=pixel_format,
                dst_colorspace=Colorspace.ITU709 if height >= _HD_LINES else Colorspace.ITU601,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
            )
        else:
            made = made.reformat(format=pixel_format)
        made.pts, made.time_base = number, 1 / self.rate
        return made

    def close(self, *, finished: bool = True) -> None:
        """Write what is left and join all parts into ``path``; ``finished`` removes the parts.

        A film that was stopped (``finished`` False) is playable to where it came, and its parts stay for ``resume``.
        """
        if self._closed:
            return
        self._closed = True
        self._write_part()
        whole = self._whole()
        if whole:
            self._join([self._place(*part) for part in whole])
        if finished or not whole:
            shutil.rmtree(self.parts, ignore_errors=True)

    def _join(self, parts: list[Path]) -> None:
        if self._folder is not None:
            with files.new_folder(self._folder, DataError) as work:
                for part in parts:
                    for frame in sorted(part.iterdir()):
                        files.place(frame, work / frame.name)
            return
        if self.path == "-":
            work = self.parts / "whole.mp4"
            self._mux(parts, work)
            with work.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        with files.replacing(self.path, DataError) as work:
            if self._ending == ".gif":
                _to_gif(parts, work, self.rate)
            else:
                self._mux(parts, work)

    def _mux(self, parts: list[Path], target: Path) -> None:
        av = require_av()
        options = {"movflags": "+faststart"} if self._ending in (".mp4", ".mov") else {}
        with av.open(str(target), "w", format=_FORMATS[self._ending][0], options=options) as out:
            with av.open(str(parts[0])) as first:
                stream = out.add_stream_from_template(first.streams.video[0])
            audio = _Audio.of(self._sound, out, self._start, float(self.done / self.rate))
            offset = 0
            for part in parts:
                frames = 0
                with av.open(str(part)) as source:
                    for packet in source.demux(source.streams.video[0]):
                        if packet.dts is None:
                            continue
                        frames += 1
                        shift = Fraction(offset) / self.rate / packet.time_base
                        packet.pts, packet.dts = packet.pts + round(shift), packet.dts + round(shift)
                        packet.stream = stream
                        out.mux(packet)
                offset += frames
            audio.copy(out)


class _Audio:
    """The sound of another film, its packets copied into this one where the container takes them."""

    def __init__(self, source: Any, stream: Any, start: float, seconds: float) -> None:
        self._source, self._stream, self._start, self._seconds = source, stream, start, seconds

    @classmethod
    def of(cls, sound: Path | io.BytesIO | None, out: Any, start: float, seconds: float) -> _Audio:
        av = require_av()
        if sound is None:
            return cls(None, None, start, seconds)
        if isinstance(sound, io.BytesIO):
            sound.seek(0)
        source = av.open(sound if isinstance(sound, io.BytesIO) else str(sound))
        template = source.streams.audio[0]
        if template.codec_context.name not in _SOUND[out.format.name.split(",")[0]]:
            source.close()
            return cls(None, None, start, seconds)
        return cls(source, out.add_stream_from_template(template), start, seconds)

    def copy(self, out: Any) -> None:
        if self._source is None:
            return
        with self._source as source:
            stream = source.streams.audio[0]
            origin = stream.start_time or 0
            begin = origin + round(self._start / stream.time_base)
            end = begin + round(self._seconds / stream.time_base)
            for packet in source.demux(stream):
                if packet.dts is None or packet.pts < begin:
                    continue
                if packet.pts >= end:
                    break
                packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
                packet.stream = self._stream
                out.mux(packet)


# Codecs of sound that players take in each container.
_SOUND = {
    "mp4": ("aac", "mp3", "ac3", "alac", "opus"),
    "mov": ("aac", "mp3", "ac3", "alac", "pcm_s16le"),
    "matroska": ("aac", "mp3", "ac3", "opus", "vorbis", "flac", "pcm_s16le"),
    "webm": ("opus", "vorbis"),
}


def _tag(context: Any, height: int, pixel_format: str) -> None:
    """Say which matrix and range the colors are in, so that no player guesses."""
    if pixel_format.startswith("yuv"):
        space = 1 if height >= _HD_LINES else 6  # BT.709, SMPTE 170M
        context.colorspace = context.color_primaries = context.color_trc = space
        context.color_range = 1  # 16 to 235


def _to_gif(parts: list[Path], target: Path, rate: Fraction) -> None:
    """All frames as one GIF with a palette of its own for each, made by Pillow."""
    from PIL import Image

    av = require_av()

    def frames() -> Iterator[Image.Image]:
        for part in parts:
            with av.open(str(part)) as source:
                for frame in source.decode(video=0):
                    yield frame.to_image().convert("P", palette=Image.Palette.ADAPTIVE)

    stream = frames()
    # GIF counts hundredths of a second; players take anything under two for ten.
    duration = max(20, round(1000 / float(rate) / 10) * 10)
    next(stream).save(target, "GIF", save_all=True, append_images=stream, duration=duration, loop=0)


__all__ = ["PART", "Film"]
