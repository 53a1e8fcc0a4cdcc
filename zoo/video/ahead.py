"""One thread that works ahead of another: frames are decoded while the network runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

_AHEAD = 4  # frames in waiting: enough to even out key frames, little memory


T = TypeVar("T")


def ahead(items: Iterable[T], depth: int = _AHEAD) -> Iterator[T]:
    """Yield ``items``, made by a thread up to ``depth`` ahead; an exception in it is raised here.

    Closing the generator ends the thread.
    """
    waiting: queue.Queue[tuple[Any, BaseException | None, bool]] = queue.Queue(depth)
    closed = threading.Event()

    def put(entry: tuple[Any, BaseException | None, bool]) -> bool:
        while not closed.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
        except BaseException as error:
            put((None, error, False))
        else:
            put((None, None, True))

    thread = threading.Thread(target=work, daemon=True, name="zoo-frames")
    thread.start()
    try:
        while True:
            item, error, ended = waiting.get()
            if error is not None:
                raise error
            if ended:
                return
            yield item
    finally:
        closed.set()
        thread.join(timeout=5)


__all__ = ["ahead"]
