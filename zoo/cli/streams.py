"""Standard output and error as a command finds them: of any encoding, closed, a broken pipe, on a full disk.

Everything that the command line prints goes through ``out`` (results) and ``console`` (what is said about them), whose
texts are never markup: names of files may hold ``[bold]``, ``:smile:`` or the codes that move a terminal's cursor.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Callable
from typing import Any, BinaryIO

from rich.console import Console, RenderableType
from rich.text import Text

from zoo.errors import InputError
from zoo.words import visible

# A pipe has no width of its own; 80 columns would break names in two. A terminal may be told a smaller one (COLUMNS).
PIPE_WIDTH = 140
_NARROWEST = 80
_ERRORS = "zoo.plain"
_PLAIN = dict(zip("↑↓→←–—−×±…·≥≤≈‘’“”µμßøØłŁ", "^v><---x~..><~''\"\"uusoOlL", strict=True))
_closed: set[str] = set()


def _plain(error: UnicodeError) -> tuple[str, int]:
    """One plain character in place of one that the encoding lacks, so that columns stay aligned."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, after = error.object[error.start], error.start + 1
    if unicodedata.combining(character):
        return "", after
    folded = unicodedata.normalize("NFKD", character)[:1]
    text = _PLAIN.get(character) or (folded if folded.isascii() else "?")
    return text * (2 if unicodedata.east_asian_width(character) in "WF" and text == "?" else 1), after


codecs.register_error(_ERRORS, _plain)


def prepare() -> None:
    """Make every stream one that can be written to: a symbol that its encoding lacks is replaced, a closed one is void.

    A closed descriptor would be given to the next file that is opened, and what libraries print would go into it.
    """
    for name in ("COLUMNS", "LINES"):  # what no terminal has breaks whoever believes it
        if not 0 < len(os.environ.get(name, "").strip()) < 6:
            os.environ.pop(name, None)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            _closed.add(name)
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def binary_input() -> BinaryIO:
    """Return standard input as bytes; InputError where it is closed or typed by hand."""
    if "stdin" in _closed:
        raise InputError("Standard input is closed: give a file in place of '-'.")
    if sys.stdin.isatty():
        raise InputError("Standard input is the terminal: pipe a picture into it, or give a file in place of '-'.")
    return sys.stdin.buffer


def binary_output() -> BinaryIO:
    """Return standard output as bytes; InputError where it is closed."""
    if "stdout" in _closed:
        raise InputError("Standard output is closed: give -o a file in place of '-'.")
    return sys.stdout.buffer


def silence(stream: Any) -> None:
    """Send whatever is still written to a stream nowhere, its buffer at the end of the process too."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        void = os.open(os.devnull, os.O_WRONLY)
        os.dup2(void, stream.fileno())
        os.close(void)


def complain(text: str) -> None:
    """Say on standard error, in one line, what was wrong; where nobody can hear it, nothing."""
    print(f"zoo: {visible(text)}", file=_Unheard(sys.stderr), flush=True)


class _Unheard:
    """A stream of messages: where nobody can hear them any more (a closed pipe, a lost terminal), the work goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        self._try(self._stream.write, text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[..., object], *arguments: str) -> None:
        try:
            call(*arguments)
        except (OSError, ValueError):
            silence(self._stream)


class _Console(Console):
    """A console whose texts are no markup, and whose messages are not folded where nobody asked."""

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    @property
    def encoding(self) -> str:
        # Of the stream as it is now: rich draws lines that another encoding than UTF-8 lacks with + and -.
        return (getattr(self.file, "encoding", None) or "utf-8").lower()

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text, "\n\t"), **options)

    @property
    def file(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # never set
        return _Unheard(super().file) if self.stderr else super().file

    def on_broken_pipe(self) -> None:
        silence(sys.stdout)
        raise SystemExit(1)

    def say(self, text: str, style: str | None = None) -> None:
        """Print a text as one line, not folded."""
        self.print(visible(text), style=style, soft_wrap=True)

    def show(self, table: RenderableType, width: int = PIPE_WIDTH) -> None:
        """Print a table as wide as the terminal; elsewhere, or where that is too narrow for names, ``width`` wide."""
        self.width = max(self.width, _NARROWEST) if self.is_terminal else width
        try:
            self.print(table)
        finally:
            self._width = None


# Results go to stdout, everything said about them to stderr, so that a pipe carries only the result.
console, out = _Console(stderr=True), _Console(stderr=False)
