"""Intervals from answers that share judges and pairs of images. Plain arrays.

Answers of one judge are not independent, nor are those about one pair of images. So variances are a **sandwich**: the
influence of every answer on an estimate, summed over each judge and each pair of images, squared, and summed; what both
count, the answers of one judge about one pair, is taken off once (Cameron, Gelbach and Miller, "Robust inference with
multiway clustering", Journal of Business and Economic Statistics 29, 2011, equations 2.4 and 2.7), each with their
correction G / (G - 1) for G clusters. A half width is Student's t times the root of it, with Satterthwaite's degrees of
freedom and no fewer than the smaller factor has.

With a dozen judges such a variance is uncertain itself, so two things hold it. It is never below the variance that
independent answers would have. And where the answers give no sign of sharing anything, which is asked of all directions
of the estimate together (their mean design effect, Rao and Scott, Annals of Statistics 12, 1984, is 1 or less), the
variance of independent answers is taken as it is. In the simulated studies of ``benchmarks/study_coverage.py`` the
intervals of scores hold the truth 94 to 97 % of the time, those of alpha and of agreement with metrics 92 to 97 %. The
pigeonhole bootstrap of :mod:`zoo.report.statistics` would be up to sqrt(3) too wide here, where most of what varies is
the single answer.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from zoo.report.statistics import LEVEL, MIN_LEVELS, Floats, Units


def variances(influence: Floats, clusters: NDArray[np.intp]) -> tuple[Floats, int]:
    """Variances (C,) of the sums of the columns of ``influence`` (T, C), each in independent ``clusters`` (T,) numbered
    from 0; and their degrees of freedom."""
    levels = int(clusters.max()) + 1
    sums = np.zeros((levels, influence.shape[1]))
    np.add.at(sums, clusters, influence)
    return levels / (levels - 1) * np.square(sums).sum(axis=0), levels - 1


def crossed(first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
    """The cells (T,) that two factors make together, numbered from 0."""
    return np.unique(first * (int(second.max()) + 1) + second, return_inverse=True)[1]


def quantile(freedom: Floats | float, level: float = LEVEL) -> Floats:
    """Return how many standard errors half an interval is wide."""
    return stats.t.ppf((1 + level) / 2, freedom)


def half_widths(
    influence: Floats, covariance: Floats, contrasts: Floats, units: Units, level: float = LEVEL
) -> Floats | None:
    """Half widths (C,) of intervals of ``contrasts`` (C, K) of K estimates.

    ``influence`` (T, K) is what each of T answers adds to the estimates, ``covariance`` (K, K) what theirs is where
    answers are independent, ``units`` the judge and the pair of images of each. None under three judges or pairs.
    """
    if units.levels < MIN_LEVELS:
        return None
    # Directions in which independent answers have variance 1: there a variance is a design effect.
    size, axes = np.linalg.eigh(covariance)
    kept = size > 1e-9 * size.max()
    effects = influence @ (axes[:, kept] / np.sqrt(size[kept]))
    independent = np.einsum("ck,kl,cl->c", contrasts, covariance, contrasts)
    columns = np.concatenate([influence @ contrasts.T, effects], axis=1)
    parts = [variances(columns, factor) for factor in units.factors]
    fewest = min(freedom for _, freedom in parts)
    found = np.sum([variance for variance, _ in parts], axis=0)
    if len(parts) == 2:
        parts.append(variances(columns, crossed(*units.factors)))
        found = found - parts[-1][0]
    count = len(contrasts)
    own = np.where(found[count:].mean() > 1, found[:count], 0) if kept.any() else np.zeros(count)
    clustered = own > independent
    variance = np.where(clustered, own, independent)
    squares = np.sum([np.square(part[:count]) / freedom for part, freedom in parts], axis=0)
    freedom = np.full(count, float(max(1, len(influence) - 1)))
    freedom[clustered] = np.maximum(fewest, np.square(own[clustered]) / squares[clustered])
    return quantile(freedom, level) * np.sqrt(variance)


def constant_variance(share: float, count: int) -> float:
    """Variance of the mean of ``count`` values in [0, 1] that are all ``share``, which themselves do not tell how far
    they would vary: with two more of 0 and two of 1 (Agresti and Coull, The American Statistician 52, 1998)."""
    moved = (share * count + 2) / (count + 4)
    return moved * (1 - moved) / (count + 4)


def mean_half_width(values: Floats, units: Units, level: float = LEVEL) -> float | None:
    """Half the width of the interval of the mean of ``values`` (T,) in [0, 1]; None under three judges or pairs."""
    count, mean = len(values), float(values.mean())
    if np.ptp(values) == 0:
        variance = constant_variance(mean, count)
    else:
        variance = float(values.var(ddof=1)) / count
    influence = (values - mean)[:, None] / count
    found = half_widths(influence, np.array([[variance]]), np.ones((1, 1)), units, level)
    return None if found is None else float(found[0])


def with_judges(
    alike: Floats, items: NDArray[np.intp], judges: NDArray[np.intp], comparisons: int, level: float = LEVEL
) -> float | None:
    """Half the width of the interval of the mean of ``alike`` (T,): of each answer to one of ``comparisons``, the share
    of the other answers to it that agree.

    ``items`` (T,) are the pairs of images, which are the clusters; what the answers of one of the ``judges`` (T,) share
    is added. A judge's answers stand in pairs with those of others, which doubles their influence (Hoeffding's
    projection of a U-statistic). None under three pairs of images; of two judges nothing is added.
    """
    freedom = int(items.max())
    if freedom + 1 < MIN_LEVELS:
        return None
    if np.ptp(alike) == 0:
        return float(quantile(freedom, level)) * math.sqrt(constant_variance(float(alike[0]), comparisons))
    column = ((alike - alike.mean()) / len(alike))[:, None]
    (own,), freedom = variances(column, items)
    parts = [(float(own), freedom)]
    if int(judges.max()) + 1 >= MIN_LEVELS:
        (shared,), freedom = variances(2 * column, judges)
        (cells,), _ = variances(2 * column, crossed(judges, items))
        parts.append((max(0.0, float(shared - cells)), freedom))
    total = sum(variance for variance, _ in parts)
    satterthwaite = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
    return float(quantile(satterthwaite, level)) * math.sqrt(total)
