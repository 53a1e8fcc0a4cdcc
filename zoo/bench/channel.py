"""How a worker process talks with its parent: a JSON job on standard input, JSON lines on standard output.

Nothing else reaches that pipe: whatever a method prints goes to standard error. The parent holds the input open for
the worker's whole life, so its end means that the parent is gone, and the worker ends too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any


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
