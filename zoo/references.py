"""The literature in references.bib, one entry a work, read without any BibTeX package."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("references.bib")
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "v": "\u030c", "c": "\u0327"}
_ACCENTED = re.compile(r"\\(['`^\"~]|[vc](?=\{))\{?([A-Za-z])\}?")
_ENTRY = re.compile(r"^@\w+\{([^,\s]+),.*?^\}", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """An entry: its key, what it is the reference of (``metric:ssim``), and its text without those keywords."""

    key: str
    of: frozenset[str]
    text: str

    def field(self, name: str) -> str:
        """Return a field as people read it, without braces and with its letters' accents; empty where the entry has
        none: ``title``, ``author``, ``year``."""
        found = re.search(rf"\b{name}\s*=\s*\{{(.*?)\}},?\s*\n", self.text, re.DOTALL)
        text = found[1].replace(r"{\l}", "ł") if found else ""
        text = _ACCENTED.sub(lambda one: unicodedata.normalize("NFC", one[2] + _ACCENTS[one[1]]), text)
        return re.sub(r"[{}]", "", text)

    def facts(self) -> dict[str, Any]:
        """Return what a method's entry takes from here: title, authors (family names), year and the BibTeX itself."""
        names = [name.partition(",")[0].strip() for name in re.split(r"\s+and\s+", self.field("author"))]
        return {
            "title": self.field("title"),
            "authors": ", ".join(names),
            "year": int(self.field("year")),
            "bibtex": self.text + "\n",
        }


@functools.cache
def references() -> dict[str, Reference]:
    """Return all entries by key, in the order of the file."""
    found = {}
    for match in _ENTRY.finditer(_FILE.read_text(encoding="utf-8")):
        keywords = re.search(r",\n *keywords *= \{([^}]*)\}", match[0])
        of = frozenset(keywords[1].split(", ")) if keywords else frozenset()
        text = match[0].replace(keywords[0], "") if keywords else match[0]
        found[match[1]] = Reference(match[1], of, text)
    return found


__all__ = ["Reference", "references"]
