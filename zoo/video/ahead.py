"""Threads beside the network: ahead of it (decoding, motion), behind it (encoding), or several of it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

_AHEAD = 4  # frames in waiting: enough to even out key frames, little memory


T = TypeVar("T")
R = TypeVar("R")


class Ahead(Generic[T]):
    """``items``, made by a thread up to ``depth`` ahead; an exception in it is raised here.

    :meth:`close` ends it from any thread, also one that waits for the next item.
    """

    def __init__(self, items: Iterable[T], depth: int = _AHEAD) -> None:
        self._waiting: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
        self._closed = threading.Event()
        # Not told of this object, so that it ends when nobody holds this any more.
        given = items, self._waiting, self._closed
        self._thread = threading.Thread(target=_make, args=given, daemon=True, name="zoo-frames")
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._closed.is_set():
            raise StopIteration
        item, error = self._waiting.get()
        if error is not None:
            self._closed.set()
            raise error
        return item

    def close(self) -> None:
        """End the thread; who waits for the next item finds the end."""
        self._closed.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait((None, StopIteration()))
        self._thread.join(timeout=5)

    def __del__(self) -> None:
        self._closed.set()


def _make(
    items: Iterable[Any], waiting: queue.Queue[tuple[Any, BaseException | None]], closed: threading.Event
) -> None:
    def put(item: Any, error: BaseException | None = None) -> None:
        while not closed.is_set():
            try:
                waiting.put((item, error), timeout=0.1)
                return
            except queue.Full:
                continue

    try:
        for item in items:
            put(item)
            if closed.is_set():
                return
    except BaseException as error:
        put(None, error)
    else:
        put(None, StopIteration())


def together(work: Callable[[T], R], items: Iterable[T], count: int) -> Generator[R, None, None]:
    """Yield ``work`` of every item, in order, of ``count`` items at once in as many threads.

    Where an item cannot be had, those before it are yielded first.
    """
    with ThreadPoolExecutor(count, "zoo-together") as pool:
        begun: deque[Future[R]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(work, item))
                if len(begun) > count:  # one waits, so that no thread does
                    yield begun.popleft().result()
        except Exception:
            while begun:
                yield begun.popleft().result()
            raise
        while begun:
            yield begun.popleft().result()


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


__all__ = ["Ahead", "Behind", "together"]
