"""Ranks, paired comparisons and correlations of a run, from its rows: what a table of means cannot say.

Methods alone take part, sanity rows do not. Only metrics of single pictures can be compared over pairs. Every
comparison at one size and strength joins the pairs that all its methods cover. The statistics and their sources:
:mod:`zoo.report.statistics`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zoo.bench.measures import MEASURES
from zoo.bench.rows import Row, latest
from zoo.registry import Registry, load_registry
from zoo.report import statistics
from zoo.report.forms import MISSING, Entry, Form, Group, Heading
from zoo.report.present import number
from zoo.report.scores import Scores, Unit, by_method, gather
from zoo.report.statistics import Comparison, Correlation, Interval, Ranking


@dataclass(frozen=True)
class Ranks:
    """Average ranks of ``methods`` in one metric at one size and strength."""

    metric: str
    size: int
    strength: float
    methods: tuple[str, ...]
    ranking: Ranking


@dataclass(frozen=True)
class Contest:
    """Two methods compared in one metric over ``pairs`` pictures; ``p_holm`` is p corrected for all contests of the
    metric at that size and strength, ``interval`` that of the mean difference."""

    metric: str
    size: int
    strength: float
    first: str
    second: str
    pairs: int
    result: Comparison
    interval: Interval | None
    p_holm: float | None


@dataclass(frozen=True)
class Agreement:
    """How far two metrics agree at one size; a positive correlation means that they prefer the same pictures."""

    first: str
    second: str
    size: int
    result: Correlation


class Run:
    """The rows of a run that comparisons are made of: metrics of single pictures, methods only."""

    def __init__(self, rows: Iterable[Row], run_file: dict[str, Any], registry: Registry | None = None) -> None:
        self.registry = registry or load_registry()
        baselines = set(run_file["protocol"]["resolved"]["baselines"])
        self.rows = [row for row in latest(rows) if row.method not in baselines and row.metric not in MEASURES]
        self.metrics = [
            name
            for name in dict.fromkeys(row.metric for row in self.rows)
            if self.registry.metric(name.partition("[")[0]).scope == "pair"
        ]
        self.places = sorted(
            {(row.size, row.strength) for row in self.rows}, key=lambda at: (at[0] == 0, at[0], -at[1])
        )

    def higher(self, metric: str) -> bool:
        """Whether more is better."""
        return self.registry.metric(metric.partition("[")[0]).direction == "higher"

    def scores(self, metric: str, size: int, strength: float) -> Scores:
        """A metric of all methods at one size and strength."""
        return gather(by_method(row for row in self.rows if (row.size, row.strength) == (size, strength)), metric)

    def ranks(self) -> list[Ranks]:
        """Average ranks wherever two methods share pictures of two contents or styles."""
        found = []
        for (size, strength), metric in itertools.product(self.places, self.metrics):
            scores = self.scores(metric, size, strength)
            ranking = None
            if scores.pairs is not None:
                ranking = statistics.rank(scores.values, scores.pairs, higher_is_better=self.higher(metric))
            if ranking is not None:
                found.append(Ranks(metric, size, strength, scores.methods, ranking))
        return found

    def contests(self) -> list[Contest]:
        """Every two methods in every metric, at every size and strength."""
        found: list[Contest] = []
        for (size, strength), metric in itertools.product(self.places, self.metrics):
            scores = self.scores(metric, size, strength)
            pairs = scores.pairs
            couples = list(itertools.combinations(range(len(scores.methods)), 2))
            if pairs is None or not couples:
                continue
            results = [
                statistics.compare(
                    scores.values[:, a], scores.values[:, b], pairs, higher_is_better=self.higher(metric)
                )
                for a, b in couples
            ]
            differences = np.stack([scores.values[:, a] - scores.values[:, b] for a, b in couples], axis=1)
            intervals = statistics.mean_intervals(differences, pairs) or [None] * len(couples)
            adjusted = iter(statistics.holm([result.p for result in results if result.p is not None]))
            for (a, b), result, interval in zip(couples, results, intervals, strict=True):
                p = None if result.p is None else next(adjusted)
                names = scores.methods[a], scores.methods[b]
                found.append(Contest(metric, size, strength, *names, len(scores.units), result, interval, p))
        return found

    def agreements(self) -> list[Agreement]:
        """Every two metrics at every size, over all methods, strengths, pairs and seeds that have both."""
        found = []
        for size in dict.fromkeys(size for size, _ in self.places):
            values: dict[str, dict[tuple[Any, ...], float]] = {metric: {} for metric in self.metrics}
            for row in self.rows:
                if row.size == size and row.metric in values and row.value is not None:
                    sign = 1 if self.higher(row.metric) else -1
                    values[row.metric][row.method, row.strength, row.content, row.style, row.seed] = sign * row.value
            for first, second in itertools.combinations(self.metrics, 2):
                shared = [key for key in values[first] if key in values[second]]
                if len(shared) < 2:
                    continue
                pairs: dict[Unit, int] = {}
                groups = [pairs.setdefault((key[2], key[3], key[4]), len(pairs)) for key in shared]
                result = statistics.correlate(
                    [values[first][key] for key in shared], [values[second][key] for key in shared], groups
                )
                found.append(Agreement(first, second, size, result))
        return found


# -- as tables -----------------------------------------------------------------------------------------------------


def _called(metric: str) -> str:
    """A metric's name in tables: on another network than the published one's it has a name of its own."""
    entry = load_registry().metrics.get(metric)
    return metric if entry is None or entry.heading is None else entry.heading


def ranks_form(ranks: Sequence[Ranks], caption: str) -> Form:
    """Methods down, metrics across; below them the critical difference and Friedman's p."""
    metrics = list(dict.fromkeys(one.metric for one in ranks))
    places = list(dict.fromkeys((one.size, one.strength) for one in ranks))
    groups = []
    for size, strength in places:
        own = {one.metric: one for one in ranks if (one.size, one.strength) == (size, strength)}
        average = {
            metric: dict(zip(own[metric].methods, own[metric].ranking.ranks, strict=True))
            for metric in metrics
            if metric in own
        }
        methods = list(dict.fromkeys(method for one in own.values() for method in one.methods))
        rows = []
        for method in methods:
            cells = [average.get(metric, {}).get(method) for metric in metrics]
            rows.append(
                [
                    Entry(method),
                    *(
                        Entry(MISSING) if cell is None else Entry(f"{cell:.2f}", mark=_first(cell, average[metric]))
                        for metric, cell in zip(metrics, cells, strict=True)
                    ),
                ]
            )
        groups.append(Group(_at(size, strength, len(places) > 1), rows))
        foot = [("critical difference", [_text(own, metric, lambda r: f"{r.critical:.2f}") for metric in metrics])]
        foot += [("Friedman p", [_text(own, metric, lambda r: _p(r.p)) for metric in metrics])]
        foot += [("blocks", [_text(own, metric, lambda r: str(r.blocks)) for metric in metrics])]
        groups.append(Group("", [[Entry(name), *map(Entry, texts)] for name, texts in foot], aside=True))
    said = [
        "Average ranks, 1 is best. Methods whose ranks differ by less than the critical difference (Nemenyi, 0.05) "
        "cannot be told apart; blocks are the contents, or the styles where there are fewer of them (Demšar 2006)."
    ]
    headings = [Heading("method", False), *(Heading(_called(metric)) for metric in metrics)]
    return Form("ranks", caption, headings, groups, (), said)


def _text(own: dict[str, Ranks], metric: str, text: Any) -> str:
    return text(own[metric].ranking) if metric in own else MISSING


def _first(value: float, ranks: dict[str, float]) -> Any:
    return "best" if len(ranks) > 1 and value == min(ranks.values()) else ""


def _at(size: int, strength: float, shown: bool) -> str:
    return f"size {size}, strength {strength:g}" if shown else ""


def _p(p: float | None) -> str:
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def ranks_records(ranks: Sequence[Ranks]) -> list[dict[str, Any]]:
    """One record per metric and method."""
    return [
        {
            "metric": one.metric,
            "size": one.size,
            "strength": one.strength,
            "method": method,
            "rank": rank,
            "critical_difference": one.ranking.critical,
            "friedman_p": one.ranking.p,
            "blocks": one.ranking.blocks,
        }
        for one in ranks
        for method, rank in zip(one.methods, one.ranking.ranks, strict=True)
    ]


def contests_form(contests: Sequence[Contest], caption: str) -> Form:
    """A row per contest; a difference that holds after Holm's correction at 0.05 is bold."""
    groups = []
    for metric, size, strength in dict.fromkeys((one.metric, one.size, one.strength) for one in contests):
        own = [one for one in contests if (one.metric, one.size, one.strength) == (metric, size, strength)]
        places = {(one.size, one.strength) for one in contests}
        title = f"{_called(metric)}{', ' if len(places) > 1 else ''}{_at(size, strength, len(places) > 1)}"
        groups.append(Group(title, [_contest_row(one) for one in own]))
    headings = [Heading("first", False), Heading("second", False), Heading("difference")]
    headings += [Heading("t"), Heading("p"), Heading("p (Holm)"), Heading("d_z"), Heading("won")]
    said = [
        "Mean difference, first minus second, and the bounds of its interval (two-way bootstrap). t and p are of min "
        "F' (Clark 1973) over contents and styles, corrected after Holm within a metric at one size and "
        "strength; d_z is the difference by its "
        "standard deviation over pairs, won the share of pairs in which the first is better. Bold: p (Holm) below 0.05."
    ]
    return Form("comparisons", caption, headings, groups, (), said)


def _contest_row(one: Contest) -> list[Entry]:
    result = one.result
    bounds = "" if one.interval is None else f"[{number(one.interval.low)}, {number(one.interval.high)}]"
    certain = one.p_holm is not None and one.p_holm < statistics.ALPHA
    return [
        Entry(one.first),
        Entry(one.second),
        Entry(number(result.difference), bounds, "best" if certain else ""),
        Entry(MISSING if result.t is None else f"{result.t:.2f}"),
        Entry(_p(result.p)),
        Entry(_p(one.p_holm)),
        Entry(MISSING if result.d_z is None else f"{result.d_z:.2f}"),
        Entry(f"{result.won:.2f}"),
    ]


def contests_records(contests: Sequence[Contest]) -> list[dict[str, Any]]:
    """One record per contest."""
    return [
        {
            "metric": one.metric,
            "size": one.size,
            "strength": one.strength,
            "first": one.first,
            "second": one.second,
            "pairs": one.pairs,
            "low": None if one.interval is None else one.interval.low,
            "high": None if one.interval is None else one.interval.high,
            **asdict(one.result),
            "p_holm": one.p_holm,
        }
        for one in contests
    ]


def agreements_form(agreements: Sequence[Agreement], caption: str) -> Form:
    """A row per two metrics."""
    sizes = list(dict.fromkeys(one.size for one in agreements))
    groups = []
    for size in sizes:
        rows = []
        for one in agreements:
            if one.size == size:
                r = one.result
                values = [r.spearman, r.kendall, r.spearman_within, r.kendall_within]
                rows.append(
                    [
                        Entry(_called(one.first)),
                        Entry(_called(one.second)),
                        *(Entry(MISSING if value is None else f"{value:.2f}") for value in values),
                        Entry(str(r.pictures)),
                        Entry(str(r.pairs)),
                    ]
                )
        groups.append(Group(f"size {size}" if len(sizes) > 1 else "", rows))
    headings = [Heading("metric", False), Heading("metric", False), Heading("Spearman"), Heading("Kendall")]
    headings += [Heading("Spearman in pairs"), Heading("Kendall in pairs"), Heading("pictures"), Heading("pairs")]
    said = [
        "Rank correlations over all pictures, and inside pairs (the mean over pairs of three pictures or more), where "
        "methods and strengths alone differ. Positive: the metrics prefer the same pictures, whatever their direction."
    ]
    return Form("correlations", caption, headings, groups, (), said)


def agreements_records(agreements: Sequence[Agreement]) -> list[dict[str, Any]]:
    """One record per two metrics."""
    return [{"first": a.first, "second": a.second, "size": a.size, **asdict(a.result)} for a in agreements]
