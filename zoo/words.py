"""Words around numbers, and names as they may be shown."""

from __future__ import annotations

import unicodedata


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return ``1 core`` or ``2 cores``; ``plural`` where that is not the noun with an s."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def visible(text: str, keep: str = "") -> str:
    """Return text with its control characters, which break lines or move a terminal's cursor, as their escapes."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if character not in keep and unicodedata.category(character) in ("Cc", "Zl", "Zp")
        else character
        for character in text
    )
