"""``zoo serve`` in a process of its own, which begins where importing torch ends; see :mod:`forked`."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

import forked

# A page that was left is kept ten seconds, which no test needs to wait for.
_SHORT_GRACE = """
from zoo.apps.serve import visits
visits.Visits.__init__.__defaults__ = (1.0,)
from zoo.cli import main
main()
"""
# Not a measure of speed: a machine that does much else is slow, not wrong.
PATIENCE = 180


class Server:
    """A running page at ``address``, whose temporary files lie in ``temporary``; ``lines`` are what it said."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        command = [sys.executable, "-c", _SHORT_GRACE, "serve", "--port", "0", "--no-open", "--device", "cpu", *options]
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        self.process = forked.Popen(command, stderr=forked.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        self.address = ""
        self._told = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._told.wait(PATIENCE), "the server did not begin"
        assert self.address, "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.match(r"(http://127\.0\.0\.1:\d+/)  \(Ctrl-C ends it\)", line):
                self.address = found[1]
                self._told.set()
        self._told.set()

    def files(self) -> list[Path]:
        """All files that the server keeps.

        Walked, not globbed: a folder that the server removes meanwhile ends a glob with an error.
        """
        return [Path(folder) / name for folder, _, names in os.walk(self.temporary) for name in names]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        """End it, however the tests went."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def check_end(self) -> None:
        """End it, and check that nothing is left behind and nothing but the address was ever said."""
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 128 + 15
        self._reader.join(PATIENCE)
        assert list(self.temporary.iterdir()) == []
        assert len(self.lines) == 1, "".join(self.lines)
