"""The line before the one worker: orders are carried out one after the other, in a thread of their own.

An order's place is its own: it depends on no request that is open, and is given up when the work has ended, whatever
came of it, or when its page has left.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.apps.serve import words
from zoo.apps.serve.work import Order, Result, Workshop
from zoo.errors import InputError, ZooError
from zoo.words import counted

_log = logging.getLogger("zoo.apps.serve")


class Job:
    """An order on its way, and what has come of it so far; the line's thread writes it, any thread may read it.

    ``keep`` writes a result's picture and returns its address; films are made in ``folder`` and kept from there;
    ``ended`` is called when nothing more is written. ``results`` are without their images, which lie on disk;
    ``pictures`` are addresses with captions. ``fault`` is why nothing more came of it.
    """

    def __init__(
        self, order: Order, folder: Path, keep: Callable[[Result], str], ended: Callable[[], object] = lambda: None
    ) -> None:
        self.order, self.folder, self.keep, self.ended = order, folder, keep, ended
        self.stop = threading.Event()
        self.results: list[Result] = []
        self.pictures: list[tuple[str, str]] = []
        self.progress = ("", 0, 0)
        self.fault = ""
        self.done = False

    def report(self, method: str) -> Any:
        """The progress callback of a method."""
        self.progress = (method, 0, 0)

        def tell(step: int, total: int, losses: Mapping[str, float], image: Any, /) -> None:
            self.progress = (method, step, total)

        return tell


class Line:
    """Takes jobs in and works on the first; every call is safe from several threads. ``close`` ends its thread."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop, self.limit = workshop, workshop.limits.waiting
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="zoo-serve-line")
        self._thread.start()

    def join(self, job: Job) -> None:
        """Give a job the last place; InputError where the line is full."""
        with self._changed:
            if len(self._jobs) >= self.limit:
                most = counted(self.limit, "order")
                raise InputError(f"No more than {most} can be in work or waiting: try again in a minute.")
            self._jobs.append(job)
            self._changed.notify_all()

    def before(self, job: Job) -> int:
        """Return how many orders are before this one; 0 for the one in work, and for one that is done."""
        with self._changed:
            return self._jobs.index(job) if job in self._jobs else 0

    def stop(self, job: Job) -> None:
        """End a job: at its next step where it is in work, at once where it waits."""
        job.stop.set()
        with self._changed:
            if job in self._jobs[1:]:
                self._jobs.remove(job)
                job.fault, job.done = "Stopped before it began.", True

    def close(self) -> None:
        """Stop all and wait for the thread."""
        with self._changed:
            self._closed = True
            for job in list(self._jobs):
                self.stop(job)
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs[0]
            try:
                self._carry_out(job)
            except ZooError as error:
                job.fault = str(error)
            except Exception:
                _log.exception("an order failed")
                job.fault = words.UNEXPECTED
            finally:
                job.ended()
                with self._changed:
                    self._jobs.remove(job)
                    job.done = True

    def _carry_out(self, job: Job) -> None:
        for result in self.workshop.run(job.order, job.folder, job.report, job.stop.is_set):
            if result.image is not None or result.film is not None:
                job.pictures.append((job.keep(result), words.caption(result)))
            job.results.append(replace(result, image=None, film=None))
