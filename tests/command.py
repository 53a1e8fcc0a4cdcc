"""The command line, run in the tests' own process."""

from __future__ import annotations

from zoo.cli import main


def run(*arguments: str) -> int:
    """Exit code of the command, run in this process."""
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
