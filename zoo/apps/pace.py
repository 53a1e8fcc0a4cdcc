"""How slow the visitors of a page's server may be: whoever sends or reads a byte now and then holds a place that others
could have."""

from __future__ import annotations

# Until a request's headers are here, and what a body and an answer have beside their bytes' own time.
SECONDS = 30.0
# Bytes a second that a body must reach, and an answer: 20 MB have seven minutes.
SLOWEST = 50_000


def seconds(length: int) -> float:
    """Return how long ``length`` bytes may take, in seconds."""
    return SECONDS + length / SLOWEST


__all__ = ["SECONDS", "SLOWEST", "seconds"]
