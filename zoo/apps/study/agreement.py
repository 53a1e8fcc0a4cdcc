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

from zoo.apps.study.clusters import with_judges
from zoo.report.statistics import Interval, numbered


@dataclass(frozen=True)
class Agreement:
    """``observed`` share of agreeing pairs of answers and ``alpha``, over ``comparisons`` that two or more judges
    answered, with ``answers`` of theirs. The interval of alpha is over pairs of images and judges; None under three
    pairs.
    """

    observed: float
    alpha: float
    interval: Interval | None
    comparisons: int
    answers: int


def agree(
    comparisons: Sequence[Hashable],
    items: Sequence[Hashable],
    judges: Sequence[Hashable],
    values: Sequence[str],
    choices: int,
) -> Agreement | None:
    """Agreement of answers ``values`` of ``judges`` to ``comparisons`` on ``items``; None where no comparison has two.

    All have the same number of ``choices``; a judge answers a comparison at most once.
    """
    counts: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for comparison, value in zip(comparisons, values, strict=True):
        counts[comparison][value] += 1
    joined = [i for i, comparison in enumerate(comparisons) if counts[comparison].total() > 1]
    if not joined:
        return None
    # Of each answer, the share of the other answers to its comparison that are the same.
    alike = np.array([(counts[comparisons[i]][values[i]] - 1) / (counts[comparisons[i]].total() - 1) for i in joined])
    observed, expected = float(alike.mean()), 1 / choices
    count = len({comparisons[i] for i in joined})
    half = with_judges(alike, numbered([items[i] for i in joined]), numbered([judges[i] for i in joined]), count)
    interval = None
    if half is not None:
        low, high = max(0.0, observed - half), min(1.0, observed + half)
        interval = Interval(_alpha(low, expected), _alpha(high, expected))
    return Agreement(observed, _alpha(observed, expected), interval, count, len(joined))


def _alpha(observed: float, expected: float) -> float:
    return 1 - (1 - observed) / (1 - expected)
