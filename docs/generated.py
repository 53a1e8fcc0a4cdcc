"""What the scripts that write pages share: docstrings as Markdown, tables, and writing or checking the files."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent


def prose(docstring: str) -> str:
    """A docstring as Markdown: no Sphinx roles, one backtick for two, blocks after ``::`` fenced."""
    text = re.sub(r"::\n\n((?: {4}.*\n|\n)+)", _fenced, docstring.strip() + "\n")
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    # Not the three of a fence.
    return re.sub(r"(?<!`)``([^`]+)``(?!`)", r"`\1`", text).strip()


def _fenced(match: re.Match[str]) -> str:
    code = "\n".join(line[4:] for line in match[1].rstrip().split("\n"))
    return f":\n\n```text\n{code}\n```\n\n"


def docstring(source: str, class_name: str | None = None) -> str:
    """The docstring of a module, or of a class in it, as Markdown; empty where there is none."""
    tree = ast.parse(source)
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name), None)
    return prose(ast.get_docstring(tree if class_name is None or node is None else node) or "")


def plain(value: object) -> str:
    """A value of an option as it is typed on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(plain, value)) if isinstance(value, list | tuple) else str(value)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    cells = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in cells)


def write_pages(pages: Mapping[Path, str], script: str, description: str | None) -> int:
    """Write what differs; with --check write nothing and give exit code 1 where something would."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if something would change")
    check = parser.parse_args().check
    stale = 0
    for path, text in pages.items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        name = path.relative_to(DOCS.parent)
        print(f"{name}: {f'is stale: run python docs/{script}' if check else 'updated'}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0
