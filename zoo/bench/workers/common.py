"""What workers share, and how they talk with their parent: a JSON job on standard input, JSON lines on standard output.

Nothing else reaches that pipe: whatever a method prints goes to standard error. The parent holds the input open for
the worker's whole life, so its end means that the parent is gone, and the worker ends too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.errors import (
    ConfigError,
    DownloadRequiredError,
    ImageError,
    InputError,
    MemoryLimitError,
    NumericalError,
    UnsupportedError,
    WeightsError,
    out_of_memory,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from zoo.bench.rows import Cause
    from zoo.stylizer import StyleCode, Stylizer

REFUSALS = (UnsupportedError, DownloadRequiredError)


class Channel:
    """The worker's end. Made once, first thing in the process."""

    def __init__(self) -> None:
        # The terminal's Ctrl-C is the parent's business: it ends its workers itself.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        # The same for print, which writes whole lines there: the last one before a crash is the reason that is given.
        sys.stdout = sys.stderr
        self.job: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
        threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(self, event: str, **fields: Any) -> None:
        """One event to the parent."""
        self._out.write(json.dumps({"event": event, **fields}, allow_nan=False) + "\n")
        self._out.flush()


def _end_with_parent() -> None:
    # Not through sys.stdin: a thread that waits inside it aborts the interpreter's own exit.
    while os.read(0, 4096):
        pass
    if os.getpgrp() == os.getpid():  # its own group, so what it started goes too
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def prepare(job: Mapping[str, Any]) -> tuple[float, int]:
    """Import what every method needs, on as many threads as the job says, and read a picture.

    Returns the seconds that the imports took since the process was asked for, and the bytes resident before a method is
    built: decoding a picture loads libraries of the harness's own, which are no part of the method's memory.
    """
    import torch

    import zoo.registry  # noqa: F401  # its time is that of importing, not of loading
    from zoo import images
    from zoo.bench import memory

    if job["threads"] is not None:
        torch.set_num_threads(job["threads"])
    seconds = started(job)
    images.read(job["cells"][0]["content"])
    return seconds, memory.resident()


def build(channel: Channel) -> Stylizer | None:
    """The method of the job; None where it refused or failed, which is then said of all its cells."""
    from zoo.loading import load

    job = channel.job
    try:
        return load(job["name"], device=job["device"], precision=job["precision"], **job["options"])
    except REFUSALS as error:
        channel.send("refused", cell=None, **why(error))
    except Exception as error:
        channel.send("failed", cell=None, **why(error))
    return None


def work(channel: Channel, session: Callable[[Mapping[str, Any], Stylizer, int], Any]) -> None:
    """Build the method of the job, say what that cost, and ``measure`` every cell by a session of the job.

    A session is made of the job, the method and the bytes resident before that was built.
    """
    import_seconds, idle = prepare(channel.job)
    from zoo.bench.memory import MIB

    begun = time.perf_counter()
    model = build(channel)
    if model is not None:
        numbers = [
            measurement("seconds.import", import_seconds, "s"),
            measurement("seconds.load", time.perf_counter() - begun, "s"),
            measurement("memory.idle", idle / MIB, "MiB"),
        ]
        channel.send("loaded", precision=model.precision, measured=numbers)
        run_cells(channel, model.device, session(channel.job, model, idle).measure)
    channel.send("done")


def warm_up(model: Stylizer, content: Tensor, code: StyleCode, cell: Mapping[str, Any], calls: int) -> None:
    """Calls before the clock counts; of a method that optimises, each is stopped after its first step."""
    from zoo.bench.timing import StepClock

    for _ in range(calls):
        watch = StepClock(model.device, stop_after=1) if model.traits.iterative else None
        model.stylize(content, code, strength=cell["strength"], seed=cell["seed"], progress=watch)


def run_cells(
    channel: Channel, device: torch.device, measure: Callable[[dict[str, Any]], list[dict[str, Any]]]
) -> None:
    """``measure`` every cell of the job and say what came of it; a failure leaves room for the next one."""
    import torch

    for number, cell in enumerate(channel.job["cells"]):
        channel.send("start", cell=number)
        try:
            measured = measure(cell)
        except UnwritableError as error:
            channel.send("unwritable", cell=number, reason=str(error))
            return
        except REFUSALS as error:
            channel.send("refused", cell=number, **why(error))
        except Exception as error:
            channel.send("failed", cell=number, **why(error))
            if device.type == "cuda":
                torch.cuda.empty_cache()
        else:
            channel.send("measured", cell=number, measured=measured)


def started(job: Mapping[str, Any]) -> float:
    """Seconds since this process was asked for; the monotonic clock is one for all processes of a machine."""
    return time.monotonic() - job["spawned"]


def measurement(
    metric: str, value: float, unit: str, samples: Sequence[float] = (), reason: str = ""
) -> dict[str, Any]:
    """One number as an event carries it; times are kept to a tenth of a microsecond. ``reason``: what to say beside."""
    return {
        "metric": metric,
        "value": round(value, 7),
        "unit": unit,
        "samples": [round(s, 7) for s in samples],
        "reason": reason,
    }


def why(error: BaseException) -> dict[str, str]:
    """Return ``reason`` and ``cause`` of an exception as an event carries them: one line, and a word to decide by."""
    cause = _cause(error)
    if isinstance(error, REFUSALS):
        return {"reason": str(error), "cause": cause}
    text = " ".join(str(error).split()) or type(error).__name__
    kind = "out of memory" if cause == "memory" else type(error).__name__
    return {"reason": f"{kind}: {text}"[:500], "cause": cause}


def _cause(error: BaseException) -> Cause:
    if isinstance(error, MemoryLimitError) or out_of_memory(error):
        return "memory"
    if isinstance(error, UnsupportedError | WeightsError):
        return "lacking"
    if isinstance(error, NumericalError | ArithmeticError):
        return "numerical"
    return "input" if isinstance(error, InputError | ImageError | ConfigError) else "crash"


class UnwritableError(Exception):
    """A picture cannot be written: nothing is wrong with the method, and the next picture would fare no better."""
