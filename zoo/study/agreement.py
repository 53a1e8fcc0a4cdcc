"""How far judges agree: observed agreement, and Krippendorff's alpha.

Alpha and not Fleiss' kappa, because kappa needs the same number of judges for every comparison, and here each judge
answers one form of many. Observed disagreement is Krippendorff's (Content Analysis, 4th edition 2018, chapter 12,
nominal values): of a comparison that m >= 2 judges answered, all ordered pairs of answers, over m - 1.

Expected disagreement is that of options without a name: ``1 - 1/n`` for n pictures. The pictures of one comparison are
not those of another, so there are no categories whose frequencies could be pooled over comparisons; "the first method"
would mean another thing in each. Entering every comparison under all orders of its pictures pools to equal frequencies,
which is this value (for two judges alpha then is Bennett's S; Brennan and Prediger, Educational and Psychological
Measurement 41, 1981, argue for it wherever nobody fixed the frequencies of the categories in advance). 1 is full
agreement, 0 what coins would give.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.report.statistics import Interval, Units, mean_intervals


@dataclass(frozen=True)
class Agreement:
    """``observed`` share of agreeing pairs of answers and ``alpha``, over ``comparisons`` that two or more judges
    answered, with ``answers`` of theirs. The interval of alpha is a bootstrap of the pairs of images; None under three.
    """

    observed: float
    alpha: float
    interval: Interval | None
    comparisons: int
    answers: int


def agree(
    comparisons: Sequence[Hashable], items: Sequence[Hashable], values: Sequence[str], choices: int
) -> Agreement | None:
    """Agreement of answers ``values`` to ``comparisons`` on ``items``; None where no comparison has two answers.

    All have the same number of ``choices``; a judge answers a comparison at most once.
    """
    counts: dict[Hashable, Counter[str]] = defaultdict(Counter)
    item_of: dict[Hashable, Hashable] = {}
    for comparison, item, value in zip(comparisons, items, values, strict=True):
        counts[comparison][value] += 1
        item_of[comparison] = item
    # Sums per pair of images: agreement weighted by answers, and answers.
    agreeing: dict[Hashable, float] = defaultdict(float)
    answers: dict[Hashable, int] = defaultdict(int)
    joined = 0
    for comparison, found in counts.items():
        m = found.total()
        if m < 2:
            continue
        joined += 1
        agreeing[item_of[comparison]] += sum(n * (n - 1) for n in found.values()) / (m - 1)
        answers[item_of[comparison]] += m
    if not joined:
        return None
    total = sum(answers.values())
    observed = sum(agreeing.values()) / total
    expected = 1 / choices
    return Agreement(
        observed,
        _alpha(observed, expected),
        _interval(agreeing, answers, expected),
        joined,
        total,
    )


def _alpha(observed: float, expected: float) -> float:
    return 1 - (1 - observed) / (1 - expected)


def _interval(agreeing: dict[Hashable, float], answers: dict[Hashable, int], expected: float) -> Interval | None:
    """Pairs of images as units; each counts by its answers, as in the total."""
    items = sorted(answers, key=str)
    size = np.array([answers[item] for item in items], dtype=np.float64)
    share = np.array([agreeing[item] for item in items]) / size
    # Linearised: the ratio of sums moves as the mean of these does (Taylor), and mean_intervals draws means.
    centre = float((share * size).sum() / size.sum())
    linear = centre + size / size.mean() * (share - centre)
    found = mean_intervals(linear, Units.of(items, [0] * len(items)))
    if found is None:
        return None
    return Interval(_alpha(max(0.0, found[0].low), expected), _alpha(min(1.0, found[0].high), expected))
