"""Words around numbers, and names as they may be shown."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

_SHOWN = 40  # characters of a value that is refused


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return ``1 core`` or ``1,200 cores``; ``plural`` where that is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def visible(text: str, keep: str = "") -> str:
    """Return text with its control characters, which break lines or move a terminal's cursor, as their escapes.

    So are bytes of a file's name that are no text (``\\xe9``), which stand in Python's strings as lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c in keep or unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") else _escape(c) for c in text
    )


def shown(value: Any) -> str:
    """Return a refused value as a message shows it: cut where it is long, a huge number told by its digits."""
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        digits = round(math.log10(abs(value)))
        return f"a number of {digits + (abs(value) >= 10**digits)} digits"
    text = repr(value)
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()
