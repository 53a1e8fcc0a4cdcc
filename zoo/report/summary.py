"""Ranks, paired comparisons and correlations of a run, from its rows: what a table of means cannot say.

Methods alone take part, sanity rows do not. Only metrics of single pictures can be compared over pairs. Every
comparison at one size and strength joins the pairs that all its methods cover. The statistics and their sources:
:mod:`zoo.report.statistics`. CSV and JSON hold every two methods, all ranks and all sizes; what is read keeps to the
size and the metrics of the table, to comparisons with the best (and a method that was named), and to ranks in families.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from zoo.bench.measures import MEASURES
from zoo.bench.plan import at_last_step
from zoo.bench.rows import Row, latest
from zoo.errors import UnknownNameError
from zoo.registry import Registry, load_registry
from zoo.report import statistics
from zoo.report.families import FAMILIES, family
from zoo.report.forms import MISSING, Entry, Form, Group, Heading
from zoo.report.narrow import Choice
from zoo.report.present import Sheet, number
from zoo.report.scores import Scores, Unit, by_method, gather
from zoo.report.statistics import Comparison, Correlation, Interval, Ranking
from zoo.report.tables import metric_title


@dataclass(frozen=True)
class Ranks:
    """Average ranks of ``methods`` in one metric at one size and strength: of all, or of one ``family``."""

    metric: str
    size: int
    strength: float
    methods: tuple[str, ...]
    ranking: Ranking
    family: str = ""

    @property
    def tells(self) -> bool:
        """Whether two of the methods differ by the critical difference at least."""
        return max(self.ranking.ranks) - min(self.ranking.ranks) >= self.ranking.critical


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

    def beside(self, method: str) -> Contest | None:
        """The same with ``method`` as the second; None where it takes no part."""
        if method not in (self.first, self.second):
            return None
        if method == self.second:
            return self
        turned = replace(self.result, difference=-self.result.difference, won=1 - self.result.won)
        interval = None if self.interval is None else Interval(-self.interval.high, -self.interval.low)
        return replace(self, first=self.second, second=self.first, result=turned, interval=interval)


@dataclass(frozen=True)
class Agreement:
    """How far two metrics agree at one size; a positive correlation means that they prefer the same pictures."""

    first: str
    second: str
    size: int
    result: Correlation


class Run:
    """The rows of a run that comparisons are made of: metrics of single pictures, methods only, at their last step."""

    def __init__(self, rows: Iterable[Row], run_file: dict[str, Any], registry: Registry | None = None) -> None:
        self.registry = registry or load_registry()
        baselines = set(run_file["protocol"]["resolved"]["baselines"])
        scored = [row for row in latest(rows) if row.method not in baselines and row.metric not in MEASURES]
        self.rows = at_last_step(scored)
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
        return _scores(self.rows, metric, size, strength)

    def ranks(self) -> list[Ranks]:
        """Average ranks wherever two methods share pictures of two contents or styles: of all, then in families."""
        families = {row.method: family(row.method, self.registry) for row in self.rows}
        found = []
        for name in ("", *dict.fromkeys(families.values())):
            rows = [row for row in self.rows if name in ("", families[row.method])]
            for (size, strength), metric in itertools.product(self.places, self.metrics):
                scores = _scores(rows, metric, size, strength)
                if scores.pairs is None:
                    continue
                ranking = statistics.rank(scores.values, scores.pairs, higher_is_better=self.higher(metric))
                if ranking is not None:
                    found.append(Ranks(metric, size, strength, scores.methods, ranking, name))
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


def _scores(rows: Iterable[Row], metric: str, size: int, strength: float) -> Scores:
    return gather(by_method(row for row in rows if (row.size, row.strength) == (size, strength)), metric)


# -- as tables -----------------------------------------------------------------------------------------------------


def sheets(
    rows: Iterable[Row], run_file: dict[str, Any], registry: Registry, choice: Choice, against: str | None = None
) -> dict[str, Sheet]:
    """The tables ``ranks``, ``comparisons`` and ``correlations``; ``against`` names a method beside the best.

    UnknownNameError where the run has no such method.
    """
    run = Run(rows, run_file, registry)
    known = dict.fromkeys(row.method for row in run.rows)
    if against is not None and against not in known:
        raise UnknownNameError("method of this run", against, known)
    ranks, contests, agreements = run.ranks(), run.contests(), run.agreements()
    caption = f"Protocol {run_file['protocol']['id']}, {choice.at}"
    return {
        "ranks": _ranks_sheet(run, ranks, choice, caption)
        if ranks
        else Sheet([], omitted="ranks need two methods and two contents or styles"),
        "comparisons": Sheet.of(_contests_form(run, contests, choice, against, caption), _contests_records(contests))
        if contests
        else Sheet([], omitted="comparisons need two methods with a metric of single pictures"),
        "correlations": Sheet.of(_agreements_form(run, agreements, choice, caption), _agreements_records(agreements))
        if agreements
        else Sheet([], omitted="correlations need two metrics of single pictures"),
    }


def _ranks_sheet(run: Run, ranks: Sequence[Ranks], choice: Choice, caption: str) -> Sheet:
    """Methods down, metrics across, a group per family in which any two methods can be told apart."""
    here = [one for one in ranks if one.family and (one.size, one.strength) == (choice.size, choice.strength)]
    told = [one for one in here if one.tells]
    records = _ranks_records(ranks)
    if not told:
        whole = Sheet.of(Form("ranks", f"Average ranks. {caption}", [], []), records)
        reason = f"no two methods of a family differ by the critical difference {choice.at}; ranks.csv has all ranks"
        return replace(whole, forms=[], omitted=reason)
    metrics = [metric for metric in dict.fromkeys(one.metric for one in here) if any(metric == o.metric for o in told)]
    groups = []
    for name in sorted({one.family for one in told}, key=FAMILIES.index):
        own = {one.metric: one for one in told if one.family == name}
        rows = []
        for method in dict.fromkeys(method for one in own.values() for method in one.methods):
            rows.append([Entry(method), *(_rank(own.get(metric), method) for metric in metrics)])
        limits = sorted({(round(one.ranking.critical, 2), one.ranking.blocks) for one in own.values()})
        said = " or ".join(f"{limit:.2f} over {blocks} blocks" for limit, blocks in limits)
        groups.append(Group(f"{name} (critical difference {said})", rows))
    said = [
        "Average ranks in each family, 1 is best, where methods can be told apart: those whose ranks differ by less "
        "than the critical difference (Nemenyi, 0.05) cannot. Blocks are the contents, or the styles where there are "
        "fewer of them (Demšar 2006)."
    ]
    headings = [Heading("method", False), *(Heading(metric_title(metric, run.registry)) for metric in metrics)]
    return Sheet.of(Form("ranks", f"Average ranks. {caption}", headings, groups, (), said), records)


def _rank(ranks: Ranks | None, method: str) -> Entry:
    if ranks is None or method not in ranks.methods:
        return Entry(MISSING)
    found = ranks.ranking.ranks
    rank = found[ranks.methods.index(method)]
    return Entry(f"{rank:.2f}", mark="best" if rank == min(found) else "")


def _p(p: float | None) -> str:
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _ranks_records(ranks: Sequence[Ranks]) -> list[dict[str, Any]]:
    """One record per metric and method, of all methods and of those of a family."""
    names = ("metric", "size", "strength", "family")
    return [
        {name: getattr(one, name) for name in names}
        | {"method": method, "rank": rank, "critical_difference": one.ranking.critical}
        | {"friedman_p": one.ranking.p, "blocks": one.ranking.blocks}
        for one in ranks
        for method, rank in zip(one.methods, one.ranking.ranks, strict=True)
    ]


def _contests_form(run: Run, contests: Sequence[Contest], choice: Choice, against: str | None, caption: str) -> Form:
    """A group per metric and method that others are compared with; a difference that holds after Holm is bold."""
    groups = []
    for metric in choice.metrics:
        own = [c for c in contests if (c.metric, c.size, c.strength) == (metric, choice.size, choice.strength)]
        if not own:
            continue
        scores = run.scores(metric, choice.size, choice.strength)
        means = dict(zip(scores.methods, scores.values.mean(axis=0).tolist(), strict=True))
        best = (max if run.higher(metric) else min)(means, key=means.__getitem__)
        for method in dict.fromkeys((best, against or best)):
            lines = [turned for one in own if (turned := one.beside(method)) is not None]
            if lines:
                title = f"{metric_title(metric, run.registry)}, beside {method}{', the best' if method == best else ''}"
                groups.append(Group(title, [_contest_row(one) for one in lines]))
    headings = [Heading("method", False), Heading("difference"), Heading("p (Holm)"), Heading("won")]
    said = [
        "Mean difference from the method named, with the bounds of its interval (two-way bootstrap). p is of min F' "
        "(Clark 1973) over contents and styles, corrected after Holm over every two methods in the metric; won is the "
        "share of pairs in which the line's method is better. Bold: p below 0.05. comparisons.csv has all of them."
    ]
    return Form("comparisons", f"Comparisons with the best. {caption}", headings, groups, (), said)


def _contest_row(one: Contest) -> list[Entry]:
    bounds = "" if one.interval is None else f"[{number(one.interval.low)}, {number(one.interval.high)}]"
    certain = one.p_holm is not None and one.p_holm < statistics.ALPHA
    difference = Entry(number(one.result.difference), bounds, "best" if certain else "")
    return [Entry(one.first), difference, Entry(_p(one.p_holm)), Entry(f"{one.result.won:.2f}")]


def _contests_records(contests: Sequence[Contest]) -> list[dict[str, Any]]:
    """One record per contest."""
    names = ("metric", "size", "strength", "first", "second", "pairs")
    return [
        {name: getattr(one, name) for name in names}
        | statistics.bounds(one.interval)
        | asdict(one.result)
        | {"p_holm": one.p_holm}
        for one in contests
    ]


def _agreements_form(run: Run, agreements: Sequence[Agreement], choice: Choice, caption: str) -> Form:
    """A row per two metrics at the size chosen."""
    own = [one for one in agreements if one.size == choice.size]
    rows = [
        [
            Entry(metric_title(one.first, run.registry)),
            Entry(metric_title(one.second, run.registry)),
            *(
                Entry(MISSING if value is None else f"{value:.2f}")
                for value in (one.result.spearman, one.result.spearman_within)
            ),
        ]
        for one in own
    ]
    headings = [Heading("metric", False), Heading("metric", False), Heading("all pictures"), Heading("in pairs")]
    said = [
        "Spearman's rank correlation over all pictures, and inside pairs (the mean over pairs of three pictures or "
        "more), where methods and strengths alone differ. Positive: the metrics prefer the same pictures, whatever "
        "their direction. correlations.csv has Kendall's and the other sizes."
    ]
    return Form("correlations", f"Correlations of metrics. {caption}", headings, [Group("", rows)], (), said)


def _agreements_records(agreements: Sequence[Agreement]) -> list[dict[str, Any]]:
    """One record per two metrics."""
    return [{"first": a.first, "second": a.second, "size": a.size, **asdict(a.result)} for a in agreements]
