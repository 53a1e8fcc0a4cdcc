"""Bring the tables of documents and checkpoint cards up to date with results/: ``python docs/update.py [--check]``.

A block ``<!-- include: results/... -->`` ... ``<!-- end -->`` is replaced by that file, so that no figure is typed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- include: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """``text`` with every block replaced by the file it names."""

    def replace(match: re.Match[str]) -> str:
        return match[1] + (ROOT / match[2]).read_text(encoding="utf-8").strip() + "\n" + match[3]

    return BLOCK.sub(replace, text)


def main() -> int:
    """Exit code 1 with --check when a document differs from the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if something would change")
    check = parser.parse_args().check
    stale = 0
    cards = sorted((ROOT / "zoo" / "checkpoints").glob("*.md"))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *cards]:
        before = path.read_text(encoding="utf-8")
        after = refreshed(before)
        if after == before:
            continue
        stale += 1
        print(f"{path.relative_to(ROOT)}: {'is stale' if check else 'updated'}")
        if not check:
            path.write_text(after, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
