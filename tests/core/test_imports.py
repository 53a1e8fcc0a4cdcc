"""Who may import whom: no circle between modules, and no arrow that runs back up."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PICTURE = runpy.run_path(str(ROOT / "docs" / "packages.py"))
TOP = PICTURE["top"]

# A package, and what it must never import, directly or inside a function.
FORBIDDEN = {
    "nn": ("encoders", "training", "methods", "metrics", "bench", "report", "apps", "cli"),
    "images": ("methods", "nn", "encoders", "metrics", "training", "bench", "report", "apps", "cli"),
    "encoders": ("methods", "metrics", "training", "bench", "report", "apps", "cli"),
    "methods": ("metrics", "bench", "report", "apps", "cli"),
    "metrics": ("methods", "training", "bench", "report", "apps", "cli"),
    "training": ("bench", "report", "apps", "cli"),
    "styles": ("training", "bench", "report", "apps", "cli"),
    "bench": ("report", "apps", "cli"),
    "report": ("apps", "cli"),
    "apps": ("cli",),
}
# Breaches that stand today: (importer, imported). One that was mended must leave the list.
KNOWN: set[tuple[str, str]] = set()


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return PICTURE["graph"]()


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one member (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_no_two_modules_import_each_other(graph: dict[str, set[str]]) -> None:
    assert circles(graph) == []


def test_no_arrow_runs_back_up(graph: dict[str, set[str]]) -> None:
    breaches = {(a, b) for a, others in graph.items() for b in others if TOP(b) in FORBIDDEN.get(TOP(a), ())}
    assert breaches == KNOWN


def test_no_two_packages_import_each_other(graph: dict[str, set[str]]) -> None:
    assert circles(PICTURE["packages"](graph)) == []


def test_the_picture_of_the_packages_is_up_to_date() -> None:
    assert PICTURE["main"](check=True) == 0
