"""Where a run's time went: what was measured, what is itemised beside it, and what nothing explains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.bench.rows import Row

# The row whose samples are the timed calls.
_TIMED = "seconds.whole"
# Rows whose value is such a stretch: what a worker does beside the timed calls.
_ITEMS = ("seconds.import", "seconds.load", "seconds.warmup", "seconds.extra", "seconds.files")


@dataclass(frozen=True)
class Account:
    """Seconds of a run: its ``wall`` time, and by name what its rows explain."""

    wall: float
    items: Mapping[str, float]

    @property
    def explained(self) -> float:
        """The share of the wall time that the items make up."""
        return sum(self.items.values()) / self.wall


def account(rows: Iterable[Row], entry: Mapping[str, Any]) -> Account:
    """The account of one run; ``entry`` is its entry in run.json (``run_id`` and ``seconds``).

    Scoring and reports are not itemised: this is for runs that only measure.
    """
    items: dict[str, float] = dict.fromkeys(("measured", *_ITEMS), 0.0)
    for row in rows:
        if row.run_id != entry["run_id"] or row.value is None:
            continue
        if row.metric == _TIMED:
            items["measured"] += sum(row.samples)
        elif row.metric in _ITEMS:
            items[row.metric] += row.value
    return Account(entry["seconds"], items)
