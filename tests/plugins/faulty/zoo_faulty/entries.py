"""Classes whose ENTRY is wrong, one way each, and one that is fine."""

from __future__ import annotations

from typing import Any, ClassVar

TITLE = "computed"


class NoEntry:
    pass


class UnknownKey:
    ENTRY: ClassVar[dict[str, Any]] = {
        "title": "T",
        "authors": "A",
        "year": 2020,
        "paper": "p",
        "bibtex": "b",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "x",
        "presets": {"x": {"summary": "s"}},
        "colour": "blue",
    }


class Computed:
    ENTRY: ClassVar[dict[str, Any]] = {"title": TITLE.upper()}


class BadDefault:
    ENTRY: ClassVar[dict[str, Any]] = {
        "title": "T",
        "authors": "A",
        "year": 2020,
        "paper": "p",
        "bibtex": "b",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "y",
        "presets": {"x": {"summary": "s"}},
    }


class AList:
    ENTRY: ClassVar[list[str]] = ["title"]


class Fine:
    ENTRY: ClassVar[dict[str, Any]] = {
        "title": "Fine",
        "authors": "A",
        "year": 2020,
        "paper": "p",
        "bibtex": "b",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "x",
        "presets": {"x": {"summary": "s"}},
    }
