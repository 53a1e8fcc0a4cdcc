"""Threads beside the network: one works ahead of it (decoding, motion), one behind it (encoding)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

_AHEAD = 4  # frames in waiting: enough to even out key frames, little memory


T = TypeVar("T")


def ahead(items: Iterable[T], depth: int = _AHEAD) -> Generator[T, None, None]:
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


class Behind(Generic[T]):
    """A thread that calls ``work`` with every item that is :meth:`put`, in order, at most ``depth`` behind.

    An exception in ``work`` is raised by the next :meth:`put` or at the end of the ``with`` block, which waits for all
    items unless another exception ends it.
    """

    def __init__(self, work: Callable[[T], None], depth: int = _AHEAD) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._waiting: queue.Queue[tuple[T] | None] = queue.Queue(depth)
        self._thread = threading.Thread(target=self._run, daemon=True, name="zoo-film")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def put(self, item: T) -> None:
        """Hand ``item`` over; waits while ``depth`` items wait already."""
        self._raise()
        self._waiting.put((item,))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def _run(self) -> None:
        while (entry := self._waiting.get()) is not None:
            if self._error is None:  # else what comes is thrown away, so that nobody waits to put it
                try:
                    self._work(entry[0])
                except BaseException as error:
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


__all__ = ["Behind", "ahead"]
