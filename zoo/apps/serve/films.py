"""Short films on the page: opened as a stranger's, their frames kept together, kept as MP4.

Only for methods of one pass: one that optimizes takes minutes a frame, and the page works on one order at a time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import images
from zoo.apps.serve.limits import Limits
from zoo.errors import ImageError, InputError
from zoo.images import Image
from zoo.stylizer import StyleCode, Stylizer

if TYPE_CHECKING:
    from zoo.video.clips import Clip


# Of 4K and a little more, whatever a picture may have; and the most bytes that FFmpeg takes at once, which hold such a
# frame of 16 bits. A file of a few hundred bytes may claim a billion frames, for each of which it makes an entry.
_PIXELS, _BYTES = 9_500_000, 64 << 20

_SLOWEST = Fraction(1, 4)  # frames a second, so that the sound of a film has an end


@functools.cache
def _bounded() -> None:
    """Bound FFmpeg's allocations, for the whole process, where it is the one that PyAV brings along."""
    import ctypes

    import av

    for folder in (Path(av.__file__).parent / ".dylibs", Path(av.__file__).parent.parent / "av.libs"):
        for library in folder.glob("*avutil*"):
            ctypes.CDLL(str(library)).av_max_alloc(ctypes.c_size_t(_BYTES))


def is_film(source: str | bytes) -> bool:
    """Return whether a file's bytes are a film that the page takes."""
    from zoo.video.clips import container_of

    return isinstance(source, bytes) and container_of(source) is not None


def opened(data: bytes, name: str, size: str, limits: Limits) -> Clip:
    """A film at ``size`` (a size policy's text); DataError where it cannot be read, InputError where it says that it is
    too long. One that says less than it holds is cut."""
    from zoo.video.clips import Clip, ClipOptions, Sent, require_av

    require_av()
    _bounded()
    clip = Clip(Sent(data, name, min(limits.pixels, _PIXELS), limits.frames), ClipOptions(size=size))
    if clip.count is not None and clip.count > limits.frames:
        raise InputError(
            f"'{name}' has {clip.count:,} frames, above the limit of {limits.frames} here: cut it shorter, or use "
            "'zoo video'."
        )
    if clip.rate < _SLOWEST:
        raise InputError(f"'{name}' has one frame in {float(1 / clip.rate):.3g} seconds: use 'zoo video'.")
    return clip


def first_frame(data: bytes, name: str, size: str, limits: Limits) -> Image:
    """A film's first frame; raises as :func:`opened` does."""
    clip = opened(data, name, "0", limits)
    with contextlib.closing(clip.frames()) as frames:
        pixels = images.resize(next(frames).pixels, size)
    return Image(pixels, None, Path(name).stem, hashlib.sha256(data).hexdigest(), clip.size)


def stylized(
    clip: Clip,
    place: Path,
    model: Stylizer,
    style: StyleCode,
    strength: float,
    seed: int,
    limits: Limits,
    told: Callable[[int, int], bool],
) -> tuple[int, bool]:
    """Write a clip in a style to ``place`` (.mp4): how many frames, and whether ``told`` (frames made, expected) ended
    it. ImageError where there is no room."""
    from zoo.controls.video import Video
    from zoo.video.film import Film
    from zoo.video.record import record

    try:
        place.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ImageError(f"The film cannot be kept ({error.strerror}).") from error
    film = Film(place, clip.size, clip.rate, sound=clip.audio)
    expected = min(clip.count or limits.frames, limits.frames)
    try:
        whole = record(
            clip,
            film,
            Video(model, "warp"),
            style,
            told=lambda done: told(done, expected),
            most=limits.frames,
            strength=strength,
            seed=seed,
        )
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(film.parts, ignore_errors=True)
    return film.done, not whole
