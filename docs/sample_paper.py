"""Write the sample paper of the documentation into ``docs/paper``: ``python docs/sample_paper.py results/standard``.

It is what ``zoo report RUN --paper`` writes into the run's own folder. RUN needs its pictures, and the PDF a TeX.
"""

from __future__ import annotations

import sys
from pathlib import Path

from zoo.report.paper import write_paper

PAPER = Path(__file__).resolve().parent / "paper"

if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("Name one results folder, such as results/standard.")
    written = write_paper(Path(sys.argv[1]), PAPER)
    for text in (*written.said, f"{written.pdf}: {written.pages} pages"):
        print(text)
