"""Strengths of methods from choices, after Bradley and Terry, and of sets after Luce. Plain arrays.

The chance that method i is chosen of a set S is ``s_i / sum of s_j over S`` (two methods: Bradley and Terry, Biometrika
39, 1952; more, where only the first choice is asked: Luce 1959, Plackett 1975). The strengths are those of greatest
likelihood (Hunter, "MM algorithms for generalized Bradley-Terry models", Annals of Statistics 32, 2004, sections 2 and
5). The log likelihood is concave in the logs, so Newton's method finds the same maximum as Hunter's iteration, in tens
of steps where that one takes thousands (resamples in which few judgements join two methods).

A score is ``log s_i``, centred so that the scores of all methods have mean 0: a method whose score is larger by 1 is
chosen of the two e = 2.7 times as often.

A method that never wins, or always, has no finite score (Ford, American Mathematical Monthly 64, 1957). So each method
is given ``PRIOR`` choices won and as many lost against an imagined method of strength 1, which is the mode after a
symmetric prior on the score (Caron and Doucet, JCGS 21, 2012, regularise by pseudo-choices likewise). At 0.1 it moves
the score of a method with a hundred judgements by some hundredths at most; ``prior=0`` is plain maximum likelihood.

No ties are offered, so none need a model (Davidson 1970): a judge who sees no difference chooses at random, and the
strengths come out equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.apps.study.clusters import half_widths
from zoo.errors import InputError, NumericalError
from zoo.report.statistics import LEVEL, Floats, Interval, Units

PRIOR = 0.1
_TOLERANCE, _LARGEST_STEP, _STEPS = 1e-8, 2.0, 200


@dataclass(frozen=True)
class Choices:
    """T choices among K methods: ``sets`` (S, K) says which methods each distinct set holds, ``shown`` (T,) which set
    was shown, ``chosen`` (T,) which method was taken of it; ``units`` are the judge and the pair of images of each."""

    sets: NDArray[np.bool_]
    shown: NDArray[np.intp]
    chosen: NDArray[np.intp]
    units: Units

    @classmethod
    def of(
        cls,
        methods: Sequence[str],
        sets: Sequence[frozenset[str]],
        chosen: Sequence[str],
        judges: Sequence[str],
        items: Sequence[object],
    ) -> Choices:
        """From names; InputError where the lists differ in length or are empty."""
        if not len(sets) == len(chosen) == len(judges) == len(items):
            raise InputError("Every choice has a set, a method that was chosen, a judge and a pair of images.")
        # In sorted order, so that neither the order of the answers nor that of the sides changes a bit of the result.
        distinct = sorted(set(sets), key=sorted)
        number = {one: i for i, one in enumerate(distinct)}
        place = {method: i for i, method in enumerate(methods)}
        member = np.array([[method in one for method in methods] for one in distinct], dtype=bool)
        shown = np.array([number[one] for one in sets], dtype=np.intp)
        taken = np.array([place[method] for method in chosen], dtype=np.intp)
        return cls(member, shown, taken, Units.of(judges, items))

    def tallies(self, weights: Floats) -> tuple[Floats, Floats]:
        """Choices won by each method, (..., K), how often each set was shown (..., S), by ``weights`` (..., T)."""
        won = np.eye(self.sets.shape[1])[self.chosen]
        shown = np.eye(len(self.sets))[self.shown]
        return weights @ won, weights @ shown


def scores(won: Floats, shown: Floats, sets: NDArray[np.bool_], prior: float = PRIOR) -> Floats:
    """Centred log strengths (..., K) from ``won`` (..., K) and ``shown`` (..., S); see the module's head.

    Raises NumericalError where ``prior`` is 0 and some score is not finite.
    """
    theta = np.zeros_like(won)
    for _ in range(_STEPS):
        expected, curvature = _model(theta, shown, sets, prior)
        against = np.exp(theta) / (np.exp(theta) + 1)
        gradient = won - expected + prior * (1 - 2 * against)
        try:
            step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        except np.linalg.LinAlgError:
            break
        # Far from the maximum the curvature is next to nothing, and a full step would go too far.
        theta = theta + step / np.maximum(1, np.abs(step).max(axis=-1, keepdims=True) / _LARGEST_STEP)
        if float(np.abs(step).max()) < _TOLERANCE:
            return theta - theta.mean(axis=-1, keepdims=True)
    raise NumericalError("A method that never or always wins has no finite score: give a prior above 0.")


def _model(theta: Floats, shown: Floats, sets: NDArray[np.bool_], prior: float) -> tuple[Floats, Floats]:
    """Return how often each method is expected to be chosen, (..., K), and the curvature of minus the log likelihood
    with its prior, (..., K, K), at the log strengths ``theta`` (..., K)."""
    member = sets.astype(np.float64)
    count = member.shape[1]
    # Which two methods stand together in each set, (S, K * K).
    both = (member[:, :, None] * member[:, None, :]).reshape(len(member), -1)
    # Without a prior the mean of the scores is free: any curvature along it holds them centred.
    held = np.zeros((count, count)) if prior else np.full((count, count), 1 / count)
    strength = np.exp(theta)
    total = strength @ member.T
    expected = strength * ((shown / total) @ member)
    against = strength / (strength + 1)
    joint = ((shown / total**2) @ both).reshape(*theta.shape, count)
    curvature = held - joint * strength[..., :, None] * strength[..., None, :]
    diagonal = np.arange(count)
    curvature[..., diagonal, diagonal] += expected + 2 * prior * against * (1 - against)
    return expected, curvature


def score(choices: Choices, prior: float = PRIOR) -> Floats:
    """Scores (K,) of all methods."""
    return scores(*choices.tallies(np.ones(len(choices.chosen))), choices.sets, prior)


def intervals(
    choices: Choices, center: Floats, contrasts: Floats, prior: float = PRIOR, level: float = LEVEL
) -> list[Interval | None]:
    """Intervals of ``contrasts`` (C, K) of the scores ``center`` (K,), each with its contrast in the middle; all None
    under three judges or pairs of images. A row that does not sum to 0 is of the centred scores.

    The influence of a choice is its part in the gradient of the log likelihood times the inverse of the curvature,
    which for independent choices is the covariance of the scores; the rest is in :mod:`zoo.apps.study.clusters`.
    """
    shown = np.bincount(choices.shown, minlength=len(choices.sets)).astype(np.float64)
    _, curvature = _model(center, shown, choices.sets, prior)
    mean_free = np.eye(len(center)) - 1 / len(center)
    inverse = np.linalg.inv(curvature) @ mean_free
    strength = np.exp(center) * choices.sets[choices.shown]
    gradient = np.eye(len(center))[choices.chosen] - strength / strength.sum(axis=1, keepdims=True)
    found = half_widths(gradient @ inverse, mean_free @ inverse, contrasts, choices.units, level)
    if found is None:
        return [None] * len(contrasts)
    middle = contrasts @ center
    return [Interval(float(m - half), float(m + half)) for m, half in zip(middle, found, strict=True)]


def parts(sets: NDArray[np.bool_]) -> list[list[int]]:
    """The methods, by number, in groups that no choice joins; one group where all can be compared."""
    groups: list[set[int]] = [{i} for i in range(sets.shape[1])]
    for row in sets:
        members = set(np.flatnonzero(row).tolist())
        touched = [group for group in groups if group & members]
        groups = [group for group in groups if not group & members] + [set().union(*touched)]
    return sorted(sorted(group) for group in groups)
