"""What the page says: captions, the table of figures, and sentences, as HTML with everything of the user's escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from zoo.apps.serve.work import Result
from zoo.words import counted

MIB = 2**20
# A folder on this machine before a file's name: visitors have no business with it. Addresses (https://...) stay.
_QUOTED = r"(?<=')(?:[A-Za-z]:)?[\\/][^']*[\\/](?=[^'\\/]*')"
_BARE = r"(?<![\w:/\\.])(?:[A-Za-z]:)?[\\/](?:[^\s'\\/]+[\\/])+"
_FOLDERS = re.compile(f"{_QUOTED}|{_BARE}")

_HEADINGS = ("method", "style", "time (s)", "of which style (s)", "loading (s)", "memory (MiB)", "steps", "where")
UNEXPECTED = "It failed unexpectedly; the terminal of 'zoo serve' says why."
FOOTNOTE = (
    "Time: one call, as waited for, the style's encoding included and loading not; a method's first call also warms "
    "libraries up. Memory: peak during the call above what the process held before it, so without the weights. To "
    "compare methods, use <code>zoo bench</code>: repeated, each in a process of its own."
)


def seconds(value: float) -> str:
    """Seconds with three digits: 0.0123, 1.23, 123; what rounds to less than a millisecond as that."""
    if value < 0.001:
        return "<0.001"
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}" if value >= 1 else f"{value:.3g}"


def memory(result: Result) -> str:
    """MiB, or a dash; the reason of a dash is in the cell's title."""
    return "–" if result.memory is None else f"{result.memory / MIB:.0f}"


def caption(result: Result) -> str:
    """Return what stands under a picture."""
    weight = "" if result.memory is None else f", {memory(result)} MiB"
    made = f", {counted(result.frames, 'frame')}" if result.frames else ""
    ended = f", stopped after {counted(result.steps, 'step')}" if result.stopped and not made else ""
    return f"{result.method}: {seconds(result.seconds)} s{weight}{made}{ended}"


def table(results: Sequence[Result]) -> str:
    """One line per method: its figures, or why it has none."""
    if not results:
        return ""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in _HEADINGS)
    lines = "".join(_line(result) for result in results)
    return (
        f'<table class="figures"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
        f'<p class="footnote">{FOOTNOTE}</p>'
    )


def _line(result: Result) -> str:
    name = f'<th scope="row">{escape(result.method)}</th>'
    if result.said:
        reason = escape(without_folders(result.said))
        return f'<tr class="failed">{name}<td colspan="{len(_HEADINGS) - 1}">{reason}</td></tr>'
    steps = str(result.steps) + (" (stopped)" if result.stopped else "") if result.steps > 1 else ""
    loading = seconds(result.seconds_load) if result.seconds_load else "held"
    cells = [
        escape(result.style),
        escape(seconds(result.seconds)),
        escape(seconds(result.seconds_style)),
        escape(loading),
        memory(result),
        steps,
        escape(result.where),
    ]
    said = [f' title="{escape(result.memory_said)}"' if k == 4 and result.memory_said else "" for k in range(7)]
    return f"<tr>{name}" + "".join(f"<td{t}>{c}</td>" for t, c in zip(said, cells, strict=True)) + "</tr>"


def without_folders(text: str) -> str:
    """A sentence with the file's name alone in place of every absolute path."""
    return _FOLDERS.sub("", text)


def note(text: str) -> str:
    """A sentence of the page itself."""
    return f'<p class="note" role="status">{escape(text)}</p>' if text else ""


def fault(text: str) -> str:
    """A sentence about a mistake, told to screen readers at once."""
    return f'<p class="fault" role="alert">{escape(without_folders(text))}</p>'


def working(method: str, step: int, total: int) -> str:
    """Say how far the work is: the method, and its steps where it has several."""
    if not method:
        return note("Working ...")
    if total < 2:
        return note(f"Working: {method} ...")
    bar = f'<progress max="{total}" value="{step}"></progress>'
    return f'<p class="note" role="status">{escape(method)}: {step}/{total} {bar}</p>'


def done(results: Sequence[Result]) -> str:
    """Say how an order ended."""
    failed = sum(bool(result.said) for result in results)
    made = len(results) - failed
    kind = "film" if any(result.frames for result in results) else "picture"
    text = f"{counted(made, kind)} made"
    return text + (f", {failed} not: the table says why." if failed else ".")
