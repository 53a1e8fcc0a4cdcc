"""From a film to its stylized film, with reading, motion and encoding in threads beside the method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.controls.video import Video
from zoo.stylizer import Mix, StyleCode
from zoo.video.ahead import Ahead, Behind
from zoo.video.clips import Clip
from zoo.video.film import Film


def record(
    clip: Clip,
    film: Film,
    stream: Video,
    style: StyleCode | Mix,
    *,
    told: Callable[[int], bool],
    most: int | None = None,
    **options: Any,
) -> bool:
    """Write what ``stream`` makes of a clip's frames into ``film``, after those it has already, and close it.

    ``told`` is called after each frame with how many are made, and returns True to stop there; the film then plays to
    where it came. ``most`` frames are made at most. ``options`` go to the method. Return whether the end was reached;
    ``clip.damage`` tells what of the film could not be read.
    """
    done, whole = film.done, False
    contents = Ahead(frame.pixels for frame in clip.frames(skip=done))
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
