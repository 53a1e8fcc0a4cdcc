"""Style-swap's shortlist beside the exact search: ``python benchmarks/shortlist.py``; results/networks/shortlist.md.

Both look for patches of a photograph in paintings that ship, on the same lines of the photograph in turns. Seconds are
told as a share of the exact search's, correlations too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import zoo
from zoo.nn.fast import Matches
from zoo.nn.patches import PatchBank, match
from zoo.nn.shortlist import Shortlist, likely_match

TABLE = Path(__file__).resolve().parent.parent / "results" / "networks" / "shortlist.md"
STYLES, SIDES = ("swirls", "mosaic", "woodblock"), (1024, 2048)
LINES = 12  # of the photograph's features


def timed(search: Callable[[], Matches]) -> tuple[float, float]:
    """Seconds, and the mean correlation found."""
    begun = time.perf_counter()
    found = search()
    return time.perf_counter() - begun, float(found.score.mean())


@torch.no_grad()
def compare(side: int, style: str) -> tuple[int, list[float], float]:
    """Patches of the style, shares of the seconds by turn, share of the correlation."""
    model = zoo.load("style-swap", device="cpu", search="exact")
    bank = model._bank(model.encode_style(zoo.read(f"builtin:{style}", size=f"exact:{side}x{side}").pixels))
    features = model._features(zoo.read("builtin:astronaut", size=f"exact:{side}x{side}").pixels)
    top = features.shape[-2] // 2
    query = PatchBank.of([features[..., top : top + LINES, :]], 3, 1)
    shortlist = Shortlist.of(bank)
    shares = []
    for _ in range(3):
        short, found = timed(lambda: likely_match(query, bank, shortlist))
        whole, exact = timed(lambda: match(query, bank))
        shares.append(short / whole)
    return len(bank), shares, found / exact


def main() -> None:
    rows = ["| pixels | painting | patches of it | seconds, share of the exact search's | correlation, share |"]
    rows.append("|---|---|---|---|---|")
    for side in SIDES:
        for style in STYLES:
            patches, shares, correlation = compare(side, style)
            rows.append(f"| {side} | {style} | {patches:,} | {statistics.median(shares):.3f} | {correlation:.3f} |")
            print(rows[-1], flush=True)
    TABLE.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
