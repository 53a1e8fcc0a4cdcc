"""From a film to its stylized film, with reading, motion and encoding in threads beside the method."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from zoo.video.ahead import Ahead, Behind
from zoo.video.clips import Clip
from zoo.video.film import Film


class Stream(Protocol):
    """What makes a film's frames: :class:`zoo.controls.video.Video`, or :class:`zoo.exported.Frames` without torch."""

    @property
    def state(self) -> Mapping[str, Any]:
        """What the next frame depends on."""
        ...

    def frames(self, contents: Iterable[np.ndarray], style: Any, **options: Any) -> Generator[Any, None, None]:
        """Yield for each content, (1, 3, H, W) in [0, 1], what has the stylized one as its ``image``."""
        ...


def record(
    clip: Clip,
    film: Film,
    stream: Stream,
    style: Any,
    *,
    told: Callable[[int], bool],
    most: int | None = None,
    **options: Any,
) -> bool:
    """Write what ``stream`` makes of a clip's frames into ``film``, after those it has already, and close it.

    ``told`` is called after each frame with how many are made, and returns True to stop there; the film then plays to
    where it came. ``most`` frames are made at most. ``style`` and ``options`` go to the stream. Return
    whether the end was reached; ``clip.damage`` tells what of the film could not be read.
    """
    done, whole = film.done, False
    contents = Ahead(frame.array for frame in clip.frames(skip=done))
    made = stream.frames(contents, style, **options)
    try:
        with Behind[tuple[Any, Any]](lambda one: film.add(*one)) as writer:
            stopped = False
            for frame in made:
                writer.put((frame.image, stream.state))
                done += 1
                stopped = told(done)
                if stopped or done == most:
                    break
        whole = not stopped
    finally:
        contents.close()  # first what the thread of the motion may wait for
        made.close()
        film.close(finished=whole)
    return whole
