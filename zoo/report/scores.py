"""From rows to arrays: the values of a metric on the pictures that every method has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.bench.rows import Row
from zoo.report.statistics import Floats, Units

# Content, style and seed of a row; the first two are None for what has no picture of its own.
Unit = tuple[str | None, str | None, int]


@dataclass(frozen=True)
class Scores:
    """One metric of several methods: ``values`` (P, K) over the ``units`` that every one of the K ``methods`` covers.

    A method without any value is not among them. ``samples[k][p]`` holds the single timings behind a value, if there
    are any; ``missing`` are the units that some methods cover and others do not.
    """

    methods: tuple[str, ...]
    units: tuple[Unit, ...]
    values: Floats
    samples: tuple[tuple[tuple[float, ...], ...], ...]
    missing: tuple[Unit, ...]

    @property
    def pairs(self) -> Units | None:
        """Contents and styles of the units; None where they belong to no picture, or there are none."""
        if not self.units or any(content is None or style is None for content, style, _ in self.units):
            return None
        return Units.of([content for content, _, _ in self.units], [style for _, style, _ in self.units])

    def of(self, method: str) -> Floats:
        """The values of a method, (P,); empty where it has none."""
        return self.values[:, self.methods.index(method)] if method in self.methods else np.empty(0)


def gather(rows: Mapping[str, Iterable[Row]], metric: str) -> Scores:
    """The scores of ``metric`` from the rows of each method, units in sorted order."""
    found = {method: _by_unit(own, metric) for method, own in rows.items()}
    found = {method: values for method, values in found.items() if values}
    covered = [set(values) for values in found.values()]
    common = sorted(set.intersection(*covered), key=_order) if covered else []
    everything: set[Unit] = set().union(*covered)
    missing = tuple(sorted(everything.difference(common), key=_order))
    values = np.array([[found[method][unit][0] for method in found] for unit in common], dtype=np.float64)
    samples = tuple(tuple(found[method][unit][1] for unit in common) for method in found)
    return Scores(tuple(found), tuple(common), values.reshape(len(common), len(found)), samples, missing)


def by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by their method, in the order of first appearance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.method, []).append(row)
    return found


def _by_unit(rows: Iterable[Row], metric: str) -> dict[Unit, tuple[float, tuple[float, ...]]]:
    return {
        (row.content, row.style, row.seed): (row.value, row.samples)
        for row in rows
        if row.metric == metric and row.status == "ok" and row.value is not None
    }


def _order(unit: Unit) -> tuple[str, str, int]:
    return (unit[0] or "", unit[1] or "", unit[2])


def names_of(units: Sequence[Unit]) -> list[str]:
    """Units as a reader knows them: ``astronaut x swirls (seed 1)``."""
    return [
        (f"{content} x {style}" if content else "all pictures") + (f" (seed {seed})" if seed else "")
        for content, style, seed in units
    ]
