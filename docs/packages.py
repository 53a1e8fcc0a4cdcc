"""Draw who imports whom into CONTRIBUTING.md: ``python docs/packages.py``.

With --check nothing is written and the exit code is 1 where the picture is out of date. tests/core/test_imports.py
holds the same graph to its rules.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- packages: python docs/packages.py -->\n", "<!-- end of packages -->"


def modules() -> dict[str, Path]:
    """The file of every module of the zoo, by name."""
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


def graph() -> dict[str, set[str]]:
    """The modules of the zoo that each of them imports."""
    known = modules()
    found = {}
    for name, path in known.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found[name] = {one for one in imports(tree, name, package, known) if one in known} - {name}
    return found


def top(module: str) -> str:
    """The package of a module, or the module itself where it lies in none; of apps, the app."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[:1] == ["apps"] else parts[:1])


def packages(found: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """What each package, and each module outside of one, imports of the others."""
    units: dict[str, set[str]] = {}
    for module, others in found.items():
        units.setdefault(top(module), set()).update({top(other) for other in others} - {top(module)})
    units.pop("", None)
    for others in units.values():
        others.discard("")
    return units


def levels(units: Mapping[str, set[str]]) -> dict[str, int]:
    """How many imports lie between each unit and one that imports nothing, by the longest way."""
    found: dict[str, int] = {}

    def level(unit: str) -> int:
        if unit not in found:
            found[unit] = 1 + max(map(level, units[unit]), default=-1)
        return found[unit]

    for unit in units:
        level(unit)
    return found


def picture(units: Mapping[str, set[str]]) -> str:
    """The folders of the zoo, those that are imported below those that import them."""
    folders = {unit for unit in units if unit != "apps" and (ROOT / "zoo" / Path(*unit.split("."))).is_dir()}

    def below(unit: str, seen: set[str]) -> set[str]:
        """Folders that a unit imports, itself or through modules that lie in none."""
        for other in units[unit] - seen:
            seen.add(other)
            if other not in folders:
                below(other, seen)
        return seen & folders

    own = {folder: below(folder, set()) - {folder} for folder in folders}
    rank = levels(own)
    lines = [
        f"{folder:<13} {', '.join(sorted(own[folder], key=lambda one: (-rank[one], one)))}".rstrip()
        for folder in sorted(folders, key=lambda one: (-rank[one], one))
    ]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def main(check: bool) -> int:
    path = ROOT / "CONTRIBUTING.md"
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    fresh = head + BEGIN + picture(packages(graph())) + END + rest.partition(END)[2]
    if fresh == text:
        return 0
    if check:
        print("CONTRIBUTING.md: is stale: run python docs/packages.py")
        return 1
    path.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
