"""Who may import whom: no circle between modules, and no arrow that runs back up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

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


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "zoo").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, module: str, package: str, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the zoo that a file imports, wherever it does, but for those that only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *base.split(".")])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in known else base
        yield from imports(node, module, package, known)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    found = {}
    for name, path in known.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found[name] = {one for one in imports(tree, name, package, known) if one in known} - {name}
    return found


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


def top(module: str) -> str:
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[:1] == ["apps"] else parts[:1])


def test_no_two_modules_import_each_other(graph: dict[str, set[str]]) -> None:
    assert circles(graph) == []


def test_no_arrow_runs_back_up(graph: dict[str, set[str]]) -> None:
    breaches = {(a, b) for a, others in graph.items() for b in others if top(b) in FORBIDDEN.get(top(a), ())}
    assert breaches == KNOWN


def test_no_two_packages_import_each_other(graph: dict[str, set[str]]) -> None:
    packages: dict[str, set[str]] = {}
    for module, others in graph.items():
        packages.setdefault(top(module), set()).update({top(b) for b in others} - {top(module)})
    packages.pop("", None)
    for others in packages.values():
        others.discard("")
    assert circles(packages) == []
