"""Write the manifest of an image set from a folder of its files.

    python benchmarks/make_manifest.py FOLDER --name styleid --title "..." --source URL --commit SHA --base URL \
        --licence "..." --contents cnt --styles sty > benchmarks/sets/styleid.yaml

``--contents`` and ``--styles`` are the subfolders of the two kinds; ``--base`` is the URL that ``SUBFOLDER/FILE`` is
appended to, commit included. Titles and authors are added by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import yaml


def entries(root: Path, folder: str) -> list[str]:
    """A line of YAML per image of a subfolder, sorted by name."""
    lines = []
    for path in sorted((root / folder).iterdir()):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        lines.append(f"- {{file: {folder}/{path.name}, bytes: {len(data)}, sha256: {digest}}}")
    return lines


def main() -> None:
    """Print the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    for option in ("name", "title", "source", "commit", "base", "licence", "contents", "styles"):
        parser.add_argument(f"--{option}", required=True)
    given = parser.parse_args()
    head = {key: getattr(given, key) for key in ("name", "title", "source", "commit", "base", "licence")}
    lines = [yaml.safe_dump({"schema": 1, **head}, sort_keys=False, width=110).rstrip()]
    for role in ("contents", "styles"):
        lines += ["", f"{role}:", *entries(given.folder, getattr(given, role))]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
