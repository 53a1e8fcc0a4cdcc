"""What keeps the package readable: short files, short functions, few parameters, nothing written twice."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from pathlib import Path

ZOO = Path(__file__).parents[2] / "zoo"
MOST_LINES, MOST_IN_A_FUNCTION, MOST_PARAMETERS = 500, 80, 12
# Statements of a function, docstring aside, that stand again elsewhere are logic in two places from this size up, in
# characters of their parsed form; shorter ones are calls of the logic.
SMALLEST = 250
# Bodies that do stand twice: (function, file, other file). One that was mended must leave the list.
KNOWN = {
    ("_build", "methods/nnst.py", "methods/strotss.py"),
    ("_encode_style", "methods/nnst.py", "methods/strotss.py"),
    ("_made_with", "controls/instance.py", "controls/tiles.py"),
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def functions() -> list[tuple[Path, Function]]:
    parsed = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(ZOO.rglob("*.py")))
    return [
        (path.relative_to(ZOO), node) for path, tree in parsed for node in ast.walk(tree) if isinstance(node, Function)
    ]


def test_no_file_is_too_long() -> None:
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in ZOO.rglob("*.py")}
    assert len(lengths) > 200
    assert {str(path): length for path, length in lengths.items() if length > MOST_LINES} == {}


def test_no_function_is_too_long_or_takes_too_much() -> None:
    found = {}
    for path, node in functions():
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        parameters = sum(argument is not None for argument in every)
        lines = (node.end_lineno or 0) - node.lineno + 1
        # What a notebook calls may take an option more.
        most = MOST_PARAMETERS if path.name != "front.py" else MOST_PARAMETERS + 1
        if parameters > most or lines > MOST_IN_A_FUNCTION:
            found[f"{path}:{node.name}"] = (parameters, lines)
    assert found == {}


def test_no_logic_stands_twice() -> None:
    places: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for path, node in functions():
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        text = "".join(map(ast.dump, body))
        if len(text) >= SMALLEST:
            places[text].add((str(path), node.name))
    twice = [sorted(found) for found in places.values() if len(found) > 1]
    assert {(found[0][1], *(path for path, _ in found)) for found in twice} == KNOWN
