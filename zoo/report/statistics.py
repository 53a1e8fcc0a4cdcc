"""Uncertainty, comparisons, ranks and correlations of scores that share contents and styles. Plain arrays, no rows.

Scores of pairs are not independent: pairs of one content, or of one style, are easy or hard together. So

* the interval of a mean is a **two-way bootstrap**: contents and styles are drawn with replacement, each on its own,
  and a pair counts as often as its content was drawn times as often as its style was (McCullagh, "Resampling and
  exchangeable arrays", Bernoulli 6, 2000; Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007, who
  shows that it errs on the wide side, at worst by the square root of 3 where pairs have nothing in common). What is
  taken of it is the standard error, made larger by what a bootstrap of n things lacks, sqrt(n / (n - 1)), and
  multiplied by Student's t with Satterthwaite's degrees of freedom (Hesterberg, "What teachers should know about the
  bootstrap", The American Statistician 69, 2015, "t interval with bootstrap standard error"). Percentiles would not do:
  with three styles none of them can lie outside the three scores, and the truth does in a quarter of all cases;
* two methods are compared by the mean of their differences over pairs against the sum of its variances over contents
  and over styles: **min F'** of Clark, "The language-as-fixed-effect fallacy", Journal of Verbal Learning and Verbal
  Behavior 12, 1973, here as t with F' = t^2. In an incomplete grid the variances are those of cluster sums (Cameron,
  Gelbach and Miller, "Robust inference with multiway clustering", JBES 29, 2011, without their third term, which can
  only narrow). With one style it is the paired t test. Many comparisons are corrected after **Holm** (Scandinavian
  Journal of Statistics 6, 1979);
* effect sizes are Cohen's **d_z**, the mean difference by its standard deviation over pairs (Lakens, Frontiers in
  Psychology 4, 2013), and the share of pairs **won**, ties counting half;
* **average ranks** are compared after Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7,
  2006: Friedman's test and Nemenyi's critical difference. His data sets are here the contents, or the styles where
  there are fewer of them, because pairs would claim more independent evidence than there is.

A factor with a single level cannot be drawn: the result then speaks of that content (or style) only. Where no content
and no style occurs twice, pairs are independent and are drawn themselves. Everything is seeded and deterministic.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from zoo.errors import InputError

Floats = NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
ALPHA = 0.05
# Two contents say next to nothing about a third: their bootstrap covers the truth in about half of all cases.
MIN_LEVELS = 3
# A median of fewer timings has no interval worth the name: the extremes of five cover it in 94 % of cases.
MIN_TIMINGS = 5
# Share of the largest score below which a difference is rounding: means of float64 numbers taken in another order
# differ by 1e-16 times their count. Without it two equal methods would be told apart, and with certainty.
ROUNDING = 1e-12
# Pair weights held at once: 32 MiB of float64.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Units:
    """Which content and which style each of P scores belongs to, as numbers from 0; scores of other seeds of a pair
    are further units of the same pair."""

    contents: NDArray[np.intp]
    styles: NDArray[np.intp]

    @classmethod
    def of(cls, contents: Sequence[object], styles: Sequence[object]) -> Units:
        """From names (or anything hashable); InputError where the two differ in length or are empty."""
        if len(contents) != len(styles) or not contents:
            raise InputError(
                f"There are {len(contents)} contents and {len(styles)} styles: every score has one of each."
            )
        return cls(numbered(contents), numbered(styles))

    @property
    def factors(self) -> tuple[NDArray[np.intp], ...]:
        """What is drawn: contents and styles, the one of them that varies, or the pairs where none occurs twice."""
        varying = [factor for factor in (self.contents, self.styles) if factor.max() > 0]
        if len(varying) == 2:
            pairs = numbered(list(zip(self.contents.tolist(), self.styles.tolist(), strict=True)))
            if pairs.max() == self.contents.max() == self.styles.max():
                return (pairs,)
        return tuple(varying)

    @property
    def levels(self) -> int:
        """The smallest number of levels among what is drawn; 1 where nothing can be."""
        return min((int(factor.max()) + 1 for factor in self.factors), default=1)

    @property
    def blocks(self) -> NDArray[np.intp]:
        """The factor with fewer levels of those drawn, what ranks are averaged over; all zero where there is none."""
        factors = self.factors
        return min(factors, key=lambda factor: int(factor.max())) if factors else np.zeros_like(self.contents)

    def take(self, kept: NDArray[np.bool_]) -> Units:
        """The units where ``kept`` is true, numbered anew."""
        return Units.of(self.contents[kept].tolist(), self.styles[kept].tolist())


def numbered(names: Sequence[object]) -> NDArray[np.intp]:
    """Return the number of each name, in the order in which they first stand, (N,)."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.intp)


@dataclass(frozen=True)
class Interval:
    """Bounds of a number, ``low`` <= ``high``."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the distance of the bounds: what stands after ±."""
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Whether a value lies outside."""
        return not self.low <= value <= self.high


def bounds(interval: Interval | None) -> dict[str, float | None]:
    """Return ``low`` and ``high`` as records hold them, None where there is no interval."""
    return {"low": None, "high": None} if interval is None else {"low": interval.low, "high": interval.high}


# -- intervals -----------------------------------------------------------------------------------------------------


def resampled_means(scores: ArrayLike, units: Units, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Means of ``scores`` (P,) or (P, K) in each of ``resamples`` two-way resamples: (resamples,) or (resamples, K).

    All K columns are resampled alike, so that differences of columns are paired. Where the grid has holes a resample
    averages the pairs it drew that exist, and one that drew none is drawn again. InputError where nothing varies.
    """
    values = _scores(scores, units)
    factors = units.factors
    if not factors:
        raise InputError("One content and one style cannot be resampled.")
    random = np.random.default_rng(seed)
    found = []
    missing = resamples
    while missing:
        step = min(missing, max(1, _CHUNK // len(values)))
        weights = np.ones((step, len(values)))
        for factor in factors:
            levels = int(factor.max()) + 1
            weights *= random.multinomial(levels, np.full(levels, 1 / levels), size=step)[:, factor]
        totals = weights.sum(axis=1)
        kept = totals > 0
        found.append((weights[kept] @ values) / totals[kept].reshape(-1, *[1] * (values.ndim - 1)))
        missing -= len(found[-1])
    return np.concatenate(found)


def mean_intervals(
    scores: ArrayLike, units: Units, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval] | None:
    """Two-way bootstrap intervals of the means of the K columns of ``scores`` (P, K) (one for (P,)).

    None where fewer than three contents, styles or pairs can be drawn. The mean is in the middle of its interval.
    """
    values = _scores(scores, units)
    if units.levels < MIN_LEVELS:
        return None
    columns = values.reshape(len(values), -1)
    means = resampled_means(columns, units, resamples=resamples, seed=seed)
    found = []
    for column, deviation in zip(columns.T, means.std(axis=0, ddof=1), strict=True):
        factor, freedom = _correction(column, units)
        half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * factor * float(deviation)
        center = float(column.mean())
        found.append(Interval(center - half, center + half))
    return found


def _correction(scores: Floats, units: Units) -> tuple[float, float]:
    """What the standard error of a bootstrap is multiplied by, and the degrees of freedom of the product.

    The bootstrap's variance is the sum over the factors of (n - 1) / n times the variance of the mean that the factor
    accounts for; Satterthwaite's degrees of freedom are those of the sum of the variances.
    """
    variances = _variances(scores, units)
    total = sum(variance for variance, _ in variances)
    if total <= (ROUNDING * _size(scores)) ** 2:
        # All levels have the same mean: what is left varies with content and style together.
        freedom = min(freedom for _, freedom in variances)
        return math.sqrt((freedom + 1) / freedom), freedom
    kept = sum(variance / total * freedom / (freedom + 1) for variance, freedom in variances)
    return 1 / math.sqrt(kept), _satterthwaite(variances)


def _variances(scores: Floats, units: Units) -> list[tuple[float, int]]:
    """Variance of the mean that each factor accounts for, by its cluster sums, with its degrees of freedom."""
    centered = scores - scores.mean()
    found = []
    for factor in units.factors:
        levels = int(factor.max()) + 1
        sums = np.bincount(factor, weights=centered, minlength=levels)
        found.append((levels / (levels - 1) * float(np.square(sums).sum()) / len(scores) ** 2, levels - 1))
    return found


def _satterthwaite(variances: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of variances, not all zero, with their own."""
    total = sum(variance for variance, _ in variances)
    # Shares, for the square of a tiny variance would be zero.
    return 1 / sum((variance / total) ** 2 / freedom for variance, freedom in variances)


def timing_interval(
    samples: Sequence[Sequence[float]], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Interval of the mean of medians, one median per cell, from each cell's repeated timings.

    Timings are drawn with replacement inside their cell: the interval says how sure the median of that one process is.
    Another process may differ by more (memory laid out otherwise, a machine in another state), and other pairs do. None
    where a cell has fewer than five timings.
    """
    if not samples or min(map(len, samples)) < MIN_TIMINGS:
        return None
    medians = resampled_medians(samples, resamples=resamples, seed=seed)
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    center = float(np.mean([np.median(cell) for cell in samples]))
    return Interval(float(min(low, center)), float(max(high, center)))


def resampled_medians(samples: Sequence[Sequence[float]], *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """The mean over cells of each cell's median in ``resamples`` resamples of its timings: (resamples,)."""
    random = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for cell in samples:
        values = np.asarray(cell, dtype=np.float64)
        total += np.median(values[random.integers(len(values), size=(resamples, len(values)))], axis=1)
    return total / len(samples)


# -- comparisons ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two methods over the same pairs: mean difference (first minus second), t of min F' with its degrees of freedom,
    p of two sides, d_z (None where the differences do not vary) and the share of pairs where the first is better.

    ``t``, ``df`` and ``p`` are None where neither contents nor styles vary, or where what differs between pairs cancels
    in the sum over every content and every style, so that nothing is left to test against.
    """

    difference: float
    t: float | None
    df: float | None
    p: float | None
    d_z: float | None
    won: float


def compare(first: ArrayLike, second: ArrayLike, units: Units, *, higher_is_better: bool = True) -> Comparison:
    """Compare the scores of two methods, each (P,), over the same ``units``."""
    ours, theirs = _scores(first, units), _scores(second, units)
    rounding = ROUNDING * (_size(ours) + _size(theirs))
    differences = ours - theirs
    differences[np.abs(differences) <= rounding] = 0
    mean = float(differences.mean())
    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    # Differences that agree to rounding do not vary.
    constant = deviation <= rounding
    better = differences if higher_is_better else -differences
    won = float(np.mean((better > 0) + 0.5 * (better == 0)))
    t, df, p = _min_f(differences, units, constant, rounding)
    return Comparison(mean, t, df, p, None if constant else mean / deviation, won)


def _min_f(
    differences: Floats, units: Units, constant: bool, rounding: float
) -> tuple[float | None, float | None, float | None]:
    variances = _variances(differences, units)
    total = sum(variance for variance, _ in variances)
    if not variances:
        return None, None, None
    mean = float(differences.mean())
    if constant:
        return (0.0, None, 1.0) if mean == 0 else (math.copysign(math.inf, mean), None, 0.0)
    if total <= rounding**2:
        return None, None, None
    t = mean / math.sqrt(total)
    df = _satterthwaite(variances)
    return t, df, float(2 * stats.t.sf(abs(t), df))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: rejecting those up to alpha keeps the family's error there.

    The i-th smallest of m is multiplied by m - i + 1, made monotone, and cut at 1.
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p, dtype=np.float64)[order] * factors), 1.0)
    found = np.empty(len(p))
    found[order] = adjusted
    return found.tolist()


# -- ranks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """Average ranks of K methods (1 is best) over ``blocks`` contents, styles or pairs.

    ``p`` is Friedman's (None for fewer than three methods), ``critical`` Nemenyi's critical difference at 0.05; average
    ranks closer than that do not differ significantly. ``groups`` are the largest sets of such methods, as positions.
    """

    ranks: tuple[float, ...]
    blocks: int
    p: float | None
    critical: float
    groups: tuple[tuple[int, ...], ...]


@functools.cache
def critical_difference(methods: int, blocks: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of average ranks: q sqrt(k (k + 1) / (6 N)) (Demšar 2006, section 3.2.2).

    q is the studentized range of k methods with infinite degrees of freedom, divided by sqrt(2).
    """
    q = float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))


def rank(scores: ArrayLike, units: Units, *, higher_is_better: bool = True) -> Ranking | None:
    """Rank the K >= 2 methods of ``scores`` (P, K) in every block, scores averaged inside the block first.

    Ties share the mean of their ranks. None where there are fewer than two blocks or methods.
    """
    values = _scores(scores, units)
    blocks = units.blocks
    count = int(blocks.max()) + 1
    if values.ndim != 2 or values.shape[1] < 2 or count < 2:
        return None
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, blocks, values)
    means = _levelled(sums / np.bincount(blocks)[:, None])
    ranks = stats.rankdata(-means if higher_is_better else means, axis=1)
    average = ranks.mean(axis=0)
    tied = bool((ranks == ranks[:, :1]).all())
    p = None if values.shape[1] < 3 else 1.0 if tied else float(stats.friedmanchisquare(*means.T).pvalue)
    critical = critical_difference(values.shape[1], count)
    return Ranking(tuple(average.tolist()), count, p, critical, _groups(average, critical))


def _groups(average: Floats, critical: float) -> tuple[tuple[int, ...], ...]:
    """Maximal runs of methods, best first, whose extremes are closer than ``critical``; a method alone is no group."""
    order = [int(i) for i in np.argsort(average, kind="stable")]
    found: list[tuple[int, ...]] = []
    end_before = 0
    for start in range(len(order)):
        end = start
        while end < len(order) and average[order[end]] - average[order[start]] < critical:
            end += 1
        if end - start > 1 and end > end_before:
            found.append(tuple(order[start:end]))
            end_before = end
    return tuple(found)


# -- correlation of metrics ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correlation:
    """Rank correlations of two metrics: over all pictures together, and inside pairs, where methods alone differ.

    ``spearman_within`` and ``kendall_within`` are means over ``pairs`` pairs; None where a metric does not vary
    (inside: in no pair of at least three pictures).
    """

    spearman: float | None
    kendall: float | None
    spearman_within: float | None
    kendall_within: float | None
    pictures: int
    pairs: int


def correlate(first: ArrayLike, second: ArrayLike, groups: ArrayLike) -> Correlation:
    """Correlate two metrics, each (N,), of the same N pictures; ``groups`` (N,) numbers the pair of each from 0."""
    a, b, pair = _levelled(np.asarray(first, float)), _levelled(np.asarray(second, float)), np.asarray(groups)
    inside = [
        (_spearman(a[own], b[own]), _kendall(a[own], b[own]))
        for own in (pair == i for i in np.unique(pair))
        if own.sum() > 2
    ]
    known = [(rho, tau) for rho, tau in inside if rho is not None and tau is not None]
    within = (
        (float(np.mean([rho for rho, _ in known])), float(np.mean([tau for _, tau in known])))
        if known
        else (None, None)
    )
    return Correlation(_spearman(a, b), _kendall(a, b), *within, len(a), len(known))


def _varies(*values: Floats) -> bool:
    return all(len(v) > 1 and float(np.ptp(v)) > 0 for v in values)


# scipy's coefficients come with p values and their checks, which here cost fifty times the coefficient: a run has
# thousands of pairs of pictures. Above so many pictures its sorting beats a comparison of every two.
_COMPARED = 1000


def _spearman(a: Floats, b: Floats) -> float | None:
    """Pearson's correlation of the ranks, ties sharing their mean."""
    if not _varies(a, b):
        return None
    x, y = (ranks - ranks.mean() for ranks in (stats.rankdata(a), stats.rankdata(b)))
    return float(x @ y / math.sqrt((x @ x) * (y @ y)))


def _kendall(a: Floats, b: Floats) -> float | None:
    """tau-b (Kendall 1945): agreements minus disagreements by the geometric mean of the couples untied in each."""
    if not _varies(a, b):
        return None
    if len(a) > _COMPARED:
        result: Any = stats.kendalltau(a, b)
        return float(result.statistic)
    x, y = (np.sign(np.subtract.outer(v, v)) for v in (a, b))
    return float((x * y).sum() / math.sqrt(float((x * x).sum()) * float((y * y).sum())))


def _size(values: Floats) -> float:
    return float(np.abs(values).max())


def _levelled(values: Floats) -> Floats:
    """The values, with those made equal that only rounding tells apart."""
    order = np.argsort(values, axis=None, kind="stable")
    ascending = values.flat[order]
    new = np.diff(ascending, prepend=ascending[:1]) > ROUNDING * _size(values)
    # The first of each run of neighbours stands for all.
    starts = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
    found = np.empty_like(values)
    found.flat[order] = ascending[starts]
    return found


def _scores(scores: ArrayLike, units: Units) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim not in (1, 2) or len(values) != len(units.contents):
        raise InputError(f"{len(units.contents)} units need as many scores, got an array of shape {values.shape}.")
    if not np.isfinite(values).all():
        raise InputError("Scores must be finite: leave out units that a method lacks.")
    return values
