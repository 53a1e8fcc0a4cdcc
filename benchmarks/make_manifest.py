"""Write the manifest of an image set from a folder of its files.

    python benchmarks/make_manifest.py FOLDER --name styleid --title "..." --source URL --commit SHA --base URL \
        --license "..." --contents cnt --styles sty > benchmarks/sets/styleid.yaml

``--contents`` and ``--styles`` are a subfolder, or files separated by commas where both kinds lie together; ``--base``
is the URL that their paths below FOLDER are appended to, commit included. Titles and authors are added by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml


def entries(root: Path, chosen: str) -> Iterator[str]:
    """A line of YAML per image of a subfolder, or of those that are listed, sorted by name."""
    folder = root / chosen
    files = folder.iterdir() if folder.is_dir() else [root / name for name in chosen.split(",")]
    for path in sorted(files):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        yield f"- {{file: {path.relative_to(root).as_posix()}, bytes: {len(data)}, sha256: {digest}}}"


def main() -> None:
    """Print the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    for option in ("name", "title", "source", "commit", "base", "license", "contents", "styles"):
        parser.add_argument(f"--{option}", required=True)
    given = parser.parse_args()
    head = {key: getattr(given, key) for key in ("name", "title", "source", "commit", "base", "license")}
    lines = [yaml.safe_dump({"schema": 1, **head}, sort_keys=False, width=110).rstrip()]
    for role in ("contents", "styles"):
        lines += ["", f"{role}:", *entries(given.folder, getattr(given, role))]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
