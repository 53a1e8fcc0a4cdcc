"""One loop for everything that worker processes do: a pass says what is left and writes down what came of it.

Measuring is one process at a time, always: two at once would share caches, memory and the device, and time each other.
A worker that dies costs the item it was at, or those it was loading for; where somebody else ended it, these are tried
once more.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.bench.folder import Folder
from zoo.bench.ledger import Ledger, Loss, Stage
from zoo.bench.plan import Plan, Scored, SetCell
from zoo.bench.protocol import Limits
from zoo.bench.supervise import Worker, WorkerError
from zoo.errors import ProtocolError
from zoo.memory import machine_memory


@dataclass(frozen=True)
class Setting:
    """Where and how workers run."""

    folder: Folder
    device: str
    precision: str
    threads: int
    limits: Limits

    def worker(self, module: str, job: Mapping[str, Any]) -> Worker:
        """Start a worker with this setting's limits."""
        memory = int(self.limits.memory * machine_memory())
        job = {"device": self.device, "precision": self.precision, "threads": self.threads, **job}
        name = f"zoo.bench.workers.{module}"
        return Worker(name, job, threads=self.threads, seconds=self.limits.seconds, memory=memory)

    def files(self, cell: Scored) -> dict[str, Any]:
        """The paths of a cell's content, style and output; of a set those of its ``members``."""
        if isinstance(cell, SetCell):
            return {"members": [self.files(member) for member in cell.members]}
        return {
            "content": str(self.folder.input("content", cell.content, cell.size)),
            "style": str(self.folder.input("style", cell.style, cell.size)),
            "output": str(self.folder.output(cell)),
        }


@dataclass(frozen=True)
class Report:
    """What is known of an item: the worker's event, and the loss where there is no number.

    ``error`` is the worker's end where that was the loss, ``loading`` whether it had not begun the item by then.
    """

    item: Any
    event: Mapping[str, Any] | None = None
    loss: Loss | None = None
    error: WorkerError | None = None
    loading: bool = False
    precision: str | None = None


class Pass:
    """One kind of work: :meth:`todo` says what is left, :meth:`done` writes down what came of an item."""

    stage: Stage = "measure"
    # The module of its workers.
    module = ""
    # Whether its items count in the progress that is shown.
    counted = False
    # Whether an item is tried once more unless its worker met a limit of its own, and not only after a stranger's kill.
    patient = False

    def __init__(self, setting: Setting, ledger: Ledger, plan: Plan) -> None:
        self.setting, self.ledger, self.plan = setting, ledger, plan

    def todo(self, rows: Ledger, plan: Plan) -> list[list[Any]]:
        """Items without an answer in the rows, in groups of which each has its own workers."""
        raise NotImplementedError

    def job(self, items: Sequence[Any]) -> dict[str, Any]:
        """What a worker is told of the items."""
        raise NotImplementedError

    def worker(self, items: Sequence[Any]) -> str:
        """The module that works on the items."""
        return self.module

    def done(self, report: Report) -> None:
        """Write down what came of an item."""
        raise NotImplementedError

    def loaded(self, report: Report) -> None:
        """Write down what loading cost, said of the first item."""

    def named(self, item: Any) -> str:
        """What is shown while an item is at work."""
        return str(item)

    def take(self, report: Report) -> None:
        """Pass a report on to where it belongs."""
        kind = report.event["event"] if report.event and not report.loss else ""
        if kind == "start":
            self.ledger.tell(self.named(report.item))
        elif kind == "loaded":
            self.loaded(report)
        else:
            self.done(report)

    def about(self, event: Mapping[str, Any], items: Sequence[Any]) -> list[Any]:
        """The items of a job that an event is about."""
        number = event.get("cell")
        return list(items) if number is None else [items[number]]

    def forgone(self, items: Sequence[Any]) -> Loss | None:
        """Why these items need not be tried, if they need not."""
        return None

    def pending(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.todo(self.ledger, self.plan))

    def run(self) -> None:
        """Do what is left."""
        groups = self.todo(self.ledger, self.plan)
        if self.counted:
            self.ledger.begin(self.stage, sum(map(len, groups)))
        for group in groups:
            self.ledger.tell(str(group[0]))
            with contextlib.closing(drive(self.setting, self, group)) as reports:
                for report in reports:
                    self.take(report)


class Crew:
    """The workers at work now, so that all can be ended at once."""

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()

    @contextlib.contextmanager
    def member(self, worker: Worker) -> Iterator[Worker]:
        """A worker for the time of the block."""
        with worker:
            with self._lock:
                self._workers.add(worker)
                if self.ended:  # begun while the others were ended
                    worker.kill()
            try:
                yield worker
            finally:
                with self._lock:
                    self._workers.discard(worker)

    def end(self) -> None:
        """Kill all of them; no other is started after this."""
        with self._lock:
            self.ended = True
            for worker in self._workers:
                worker.kill()


def drive(setting: Setting, one: Pass, items: Sequence[Any], crew: Crew | None = None) -> Generator[Report]:
    """Yield what becomes of every item, from one worker after another until each has an answer.

    Raises ProtocolError where a worker cannot write: that is nothing a row should hold.
    """
    crew = crew or Crew()
    tried: set[tuple[Any, bool]] = set()
    left = list(items)
    while left and not crew.ended:
        if (loss := one.forgone(left)) is not None:
            yield from (Report(item, loss=loss) for item in left)
            return
        rest, busy, loading, precision = dict.fromkeys(left), None, left, None
        try:
            with crew.member(setting.worker(one.worker(left), one.job(left))) as worker:
                for event in worker.events():
                    kind, about = event["event"], one.about(event, left)
                    if kind == "unwritable":
                        raise no_room(event["reason"])
                    if kind == "load":
                        loading = about
                    elif kind == "loaded":
                        precision = event["precision"]
                        yield Report(left[0], event, precision=precision)
                    elif kind == "start":
                        busy, loading = about[0], []
                        yield Report(busy, event)
                    else:
                        loss, busy = Loss.of(event) if kind in ("refused", "failed") else None, None
                        for item in [item for item in about if item in rest]:
                            del rest[item]
                            yield Report(item, event, loss, precision=precision)
            return
        except WorkerError as error:
            if crew.ended:
                return
            # Between two items nothing is lost: the next worker goes on from there.
            for item in [busy] if busy is not None else [item for item in loading if item in rest]:
                again = (error.outside or not error.limit) if one.patient else (error.outside and not error.limit)
                if again and (item, busy is None) not in tried:
                    tried.add((item, busy is None))
                    continue
                del rest[item]
                reason = f"while loading: {error}" if busy is None else str(error)
                loss = Loss("failed", reason, error.cause)
                yield Report(item, None, loss, error, busy is None, precision)
            left = list(rest)


def drive_at_once(parts: Sequence[tuple[Setting, Pass, Sequence[Any]]]) -> Generator[Report]:
    """The reports of all parts as they come, each part in a thread with workers of its own."""
    if len(parts) == 1:
        yield from drive(*parts[0])
        return
    crew = Crew()
    reports: queue.Queue[Report | BaseException | None] = queue.Queue()

    def work(setting: Setting, one: Pass, items: Sequence[Any]) -> None:
        try:
            for report in drive(setting, one, items, crew):
                reports.put(report)
        except BaseException as error:
            reports.put(error)
        finally:
            reports.put(None)

    threads = [threading.Thread(target=work, args=part, daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    try:
        left = len(threads)
        while left:
            report = reports.get()
            if isinstance(report, BaseException):
                raise report
            if report is None:
                left -= 1
            else:
                yield report
    finally:
        crew.end()
        for thread in threads:
            thread.join()


def no_room(reason: str) -> ProtocolError:
    """A full disk, say: nothing that a row should hold, so the run ends and goes on once there is room."""
    return ProtocolError(f"{reason.rstrip('.')}. Earlier rows are intact; make room, then run it again.")
