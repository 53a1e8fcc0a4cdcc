"""A worker process seen from its parent: its events, its limits and, when it dies, the reason."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import psutil

from zoo.bench.rows import LIMITS, Cause

# What the supervisor does while it waits is taken from what is being timed.
_POLL_SECONDS = 0.1
# To find a process's children is to read the whole of /proc, a few milliseconds.
_FAMILY_SECONDS = 2.0
_STDERR_LINES = 40
# How long a worker that closed its output, and the pipes of one that ended, may take to go.
_EXIT_SECONDS = 5.0
_VMSTAT = Path("/proc/vmstat")


def kernel_kills() -> int | None:
    """How many processes the machine's kernel has ended for want of memory so far; None where it does not say.

    Those that met the limit of a control group (a container's, a cluster job's) are counted too.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in _VMSTAT.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


class WorkerError(Exception):
    """The worker ended before its job did; ``str`` is the reason. ``outside``: a signal of somebody else's ended it,
    the kernel out of memory or a person."""

    def __init__(self, reason: str, cause: Cause = "crash", *, outside: bool = False) -> None:
        super().__init__(reason)
        self.cause: Cause = cause
        self.outside = outside

    @property
    def limit(self) -> bool:
        """Whether a limit of time or memory ended it, the machine's too."""
        return self.cause in LIMITS


class Terminated(KeyboardInterrupt):
    """This process was asked to end, by the signal ``number``."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated in the block where SIGTERM, or SIGHUP of a terminal that closes, would end the process on the
    spot: what stands in ``finally`` is then done. A handler that is set already stays (of submitit, say; nohup's too).
    """
    numbers = [n for n in (signal.SIGTERM, getattr(signal, "SIGHUP", None)) if n and _untouched(n)]

    def end(number: int, frame: object) -> None:
        # Once is enough: a second one must not break off what the first began.
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise Terminated(number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _untouched(number: int) -> bool:
    # Only the main thread may set handlers, and only it runs them.
    return threading.current_thread() is threading.main_thread() and signal.getsignal(number) == signal.SIG_DFL


class Worker:
    """``python -m MODULE`` with a job, in a process group of its own, ended at its limits.

    ``seconds`` bounds the time between two events, ``memory`` the resident bytes of the process and its children. The
    job is told both as ``limits``, and when it was started as ``spawned``.
    """

    def __init__(
        self, module: str, job: Mapping[str, Any], *, threads: int | None, seconds: float, memory: int
    ) -> None:
        self.seconds, self.memory = seconds, memory
        # The same import path as here, so that a plugin found by the parent is found by the worker.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        if threads is not None:
            environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        job = {**job, "spawned": time.monotonic(), "limits": {"seconds": seconds, "memory": memory}}
        self._kills, self._used = kernel_kills(), 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._watched = psutil.Process(self._process.pid)
        self._family = [self._watched]
        self._counted = -math.inf
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._readers = [
            threading.Thread(target=self._read_events, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # died at once; events() says why
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read_events(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        with pipe:
            for line in pipe:
                self._lines.put(line)
        self._lines.put(None)

    def _read_errors(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        with pipe:
            for line in pipe:
                self._stderr.append(line.decode(errors="replace").rstrip())

    def events(self) -> Iterator[dict[str, Any]]:
        """Events as they come, until the worker says ``done``. Raises WorkerError."""
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                line = self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                # Not only the end of its output tells of its end: a child of its own may hold that open.
                if not self._exited():
                    self._check_limits(deadline)
                    continue
                line = None if self._lines.empty() else self._lines.get()
            if line is None or not line.endswith(b"\n"):  # killed inside a line
                raise self._death()
            event = json.loads(line)
            if event["event"] == "done":
                return
            yield event
            deadline = time.monotonic() + self.seconds

    def _exited(self) -> bool:
        """Whether the process has ended; it is not reaped by this, so its group can still be ended by its number."""
        try:
            return self._watched.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def _check_limits(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            self.kill()
            raise WorkerError(f"took longer than the limit of {self.seconds:g} s", "time")
        self._used = used = self._resident()
        if used > self.memory:
            self.kill()
            raise WorkerError(
                f"out of memory: {used / 2**20:.0f} MiB resident, the limit is {self.memory / 2**20:.0f} MiB",
                "memory",
            )

    def _resident(self) -> int:
        """Bytes of the process and its children, who are looked for every two seconds."""
        now = time.monotonic()
        if now - self._counted > _FAMILY_SECONDS:
            self._counted = now
            with contextlib.suppress(psutil.Error):
                self._family = [self._watched, *self._watched.children(recursive=True)]
        total = 0
        for one in self._family:
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
        return total

    def _death(self) -> WorkerError:
        end = time.monotonic() + _EXIT_SECONDS
        while not (ended := self._exited()) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        self.kill()
        code = self._process.returncode
        said = next((line for line in reversed(self._stderr) if line.strip()), "")
        if ended and code == -signal.SIGKILL:
            return self._killed()
        if -code in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):
            return WorkerError(f"the process was ended from outside ({signal.Signals(-code).name})", outside=True)
        if not ended:
            how = f"the process closed its output and did not end within {_EXIT_SECONDS:g} s"
        elif code < 0:
            how = f"the process crashed ({signal.Signals(-code).name})"
        else:
            how = f"the process ended with exit code {code}"
        return WorkerError(f"{how}: {said}" if said else how)

    def _killed(self) -> WorkerError:
        """The reason of a death by SIGKILL, which comes from a kernel out of memory or from a person."""
        now = kernel_kills()
        if self._kills is None or now is None:
            reason = "the process was killed from outside; the machine may have run out of memory"
            return WorkerError(reason, "memory", outside=True)
        if now == self._kills:
            return WorkerError("the process was killed from outside", outside=True)
        seen = f", which had {self._used / 2**20:.0f} MiB resident when last seen" if self._used else ""
        return WorkerError(f"out of memory: the kernel ended the process{seen}", "memory", outside=True)

    def kill(self) -> None:
        """End the worker and everything it started, and wait for it. Does nothing when it has ended."""
        if self._process.returncode is None:  # not yet reaped, so the number still means this process
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        for reader in self._readers:
            reader.join(timeout=_EXIT_SECONDS)
