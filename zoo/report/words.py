"""The words of a paper of a run (:mod:`zoo.report.paper`): pieces of sentences, and the template around them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from zoo.bench.rows import Row
from zoo.report.forms import escape_tex
from zoo.words import counted


def epoch(rows: Iterable[Row]) -> int:
    """Return when the last row was written, in seconds."""
    return int(datetime.fromisoformat(max(row.utc for row in rows)).timestamp())


def dates(rows: Iterable[Row]) -> str:
    """Return the days on which rows were written: one, the first and the last, or nothing without rows."""
    days = sorted({row.utc[:10] for row in rows})
    return " to ".join(dict.fromkeys((*days[:1], *days[-1:])))


def pixels(size: int) -> str:
    """Return a size in words; 0 is the pictures' own."""
    return f"{size} pixels" if size else "their own size"


def sizes(resolved: Mapping[str, Any]) -> str:
    """Return the sizes of a protocol and what side they measure."""
    side = {"long": "of the longer side", "short": "of the shorter side"}.get(str(resolved.get("resize")), "square")
    sizes = [str(size) for size in resolved["sizes"] if size]
    parts = [f"at {' and '.join(sizes)} pixels {side}"] if sizes else []
    return " and ".join(parts + ["in their own size"] * (0 in resolved["sizes"]))


def varied(resolved: Mapping[str, Any]) -> str:
    """Return seeds and strengths where there are several of them."""
    parts = []
    for name in ("seeds", "strengths"):
        if len(resolved[name]) > 1:
            parts.append(f"{name} {', '.join(f'{value:g}' for value in resolved[name])}")
    return ", ".join(parts)


def timing(resolved: Mapping[str, Any]) -> dict[str, str]:
    """Return how often calls are timed, how many warm up, and what differs for optimisation methods."""
    timing = resolved.get("timing", {})
    optimisation = resolved.get("optimisation") or {}
    options = ", ".join(f"{key}={value}" for key, value in (optimisation.get("options") or {}).items())
    own = optimisation.get("timing") or {}
    said = []
    if options:
        said.append(f"with {options}")
    if own:
        said.append(f"timed {'once' if own.get('repeats') == 1 else 'up to ' + counted(own['repeats'], 'time')}")
    budget = f" within {timing['budget']:g} s" if timing.get("budget") else ""
    return {
        "repeats": f"up to {counted(timing.get('repeats', 1), 'call')}{budget}",
        "warmup": counted(timing.get("warmup", 0), "warm-up call"),
        "optimisation": f" (optimisation methods {' and '.join(said)})" if said else "",
    }


def reasons(notes: Sequence[str]) -> str:
    """Return the first three notes in one clause, and how many there are beside."""
    texts = [note.rstrip(".") for note in notes[:3]]
    rest = len(notes) - len(texts)
    return "; ".join(texts) + (f"; and {counted(rest, 'further reason')}" if rest else "")


def authors(text: str) -> str:
    """Return one or two names, or the first of more."""
    names = [name.strip() for name in text.split(",")]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} et al."


def image_set(name: str) -> str:
    """Return what a set of images is called."""
    return "the photographs and styles that ship with the zoo" if name == "builtin" else f"of the set {code(name)}"


def code(text: str) -> str:
    """Return a label as code in LaTeX."""
    return rf"\code{{{breakable(text)}}}"


def breakable(text: str) -> str:
    """Return text escaped, and free to break after the marks inside a label."""
    return re.sub(r"(\\_|[.,=@/+\]])(?=.)", r"\1\\allowbreak{}", escape_tex(text))


def render(values: Mapping[str, Any]) -> str:
    """Return the paper's text with the values in their places."""
    text = template().render(**values)
    return re.sub(r"[ \t]+$", "", re.sub(r"\n{3,}", "\n\n", text), flags=re.MULTILINE)


@functools.cache
def template() -> Any:
    """The words; values stand between << and >>, conditions between <% and %>, as braces are LaTeX's."""
    import jinja2

    environment = jinja2.Environment(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # LaTeX, escaped by the filters
    )
    environment.filters["tex"] = lambda value: escape_tex(str(value))
    environment.filters["code"] = breakable
    return environment.from_string(Path(__file__).with_name("paper_template.tex").read_text(encoding="utf-8"))
