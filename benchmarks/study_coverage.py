"""Simulate blind studies, and count how often their intervals at 95 % hold the truth.

    python benchmarks/study_coverage.py [--studies 1000]

Judges choose as Bradley and Terry (of more pictures: Luce) say. In some studies the log strength of every method varies
from one pair of images to the next, or from judge to judge, as normal numbers; the truth is then the scores of endless
judgements about endless pairs by endless judges. Beside each share, how wide the intervals are by those which the
estimates' own standard deviation over the studies would have: 1 is exact, above it they are too wide.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.apps.study import strengths
from zoo.apps.study.agreement import agree
from zoo.apps.study.clusters import mean_half_width
from zoo.apps.study.strengths import Choices
from zoo.report.statistics import Floats, Interval, Units

_FOUR = (1.0, 0.2, -0.3, -0.9)


@dataclass(frozen=True)
class Study:
    """Log ``strengths`` of the methods, how many judgements of ``size`` pictures there are by how many judges about how
    many pairs of images, and by how much strengths vary from pair to pair and from judge to judge."""

    name: str
    strengths: tuple[float, ...] = _FOUR
    judgements: int = 600
    judges: int = 20
    pairs: int = 12
    by_pair: float = 0.0
    by_judge: float = 0.0
    size: int = 2


STUDIES = (
    Study("nothing shared"),
    Study("nothing shared, 12 judges, 8 pairs", judgements=240, judges=12, pairs=8),
    Study("far apart", strengths=(2.5, 0.5, -0.5, -2.5)),
    Study("pairs differ", by_pair=0.7),
    Study("judges differ", by_judge=0.7),
    Study("both differ", by_pair=0.5, by_judge=0.5),
    Study("both differ, 12 judges, 8 pairs", judgements=240, judges=12, pairs=8, by_pair=0.5, by_judge=0.5),
    Study("both differ, 50 judges, 40 pairs", judgements=1500, judges=50, pairs=40, by_pair=0.4, by_judge=0.4),
    Study("two methods", strengths=(0.5, -0.5), judgements=200, pairs=10, by_pair=0.3, by_judge=0.3),
    Study("eight methods", strengths=tuple(np.linspace(1.2, -1.2, 8)), pairs=16, by_pair=0.4, by_judge=0.2),
    Study("best of three", judgements=300, by_pair=0.4, by_judge=0.4, size=3),
    Study("5 judges, 4 pairs, nothing shared", (0.5, 0.0, -0.5), 60, 5, 4),
    Study("5 judges, 4 pairs, both differ", (0.5, 0.0, -0.5), 60, 5, 4, 0.5, 0.5),
)


def sets_of(study: Study) -> NDArray[np.bool_]:
    """The sets of methods that are shown, (S, K)."""
    methods = range(len(study.strengths))
    return np.array([[method in one for method in methods] for one in itertools.combinations(methods, study.size)])


def truth(study: Study, draws: int = 200_000) -> Floats:
    """The scores (K,) that endless judgements would have."""
    sets, spread = sets_of(study), np.hypot(study.by_pair, study.by_judge)
    theta = study.strengths + spread * np.random.default_rng(0).normal(size=(draws if spread else 1, len(sets[0])))
    won = sum((chances(theta, one)).mean(axis=0) for one in sets)
    return strengths.scores(np.asarray(won), np.ones(len(sets)), sets, prior=0)


def chances(theta: Floats, sets: NDArray[np.bool_]) -> Floats:
    """The chance of each method (..., K) to be chosen of its set."""
    strength = np.exp(theta) * sets
    return strength / strength.sum(axis=-1, keepdims=True)


def simulate(study: Study, draw: np.random.Generator) -> Choices:
    """The choices of one study; judges in turn, sets and pairs of images as they come."""
    sets, count = sets_of(study), len(study.strengths)
    shown = draw.integers(len(sets), size=study.judgements)
    pairs = draw.integers(study.pairs, size=study.judgements)
    judges = np.arange(study.judgements) % study.judges
    theta = np.asarray(study.strengths) + (study.by_pair * draw.normal(size=(study.pairs, count)))[pairs]
    theta = theta + (study.by_judge * draw.normal(size=(study.judges, count)))[judges]
    below = chances(theta, sets[shown]).cumsum(axis=1)
    chosen = (below > draw.random((study.judgements, 1)) * below[:, -1:]).argmax(axis=1)
    return Choices(sets, shown, chosen, Units.of(judges.tolist(), pairs.tolist()))


def score_intervals(study: Study, choices: Choices) -> tuple[Floats, list[Interval | None]]:
    """All scores and all their differences, with their intervals."""
    count = len(study.strengths)
    rows = [np.eye(count)[a] - np.eye(count)[b] for a, b in itertools.combinations(range(count), 2)]
    contrasts = np.concatenate([np.eye(count), np.array(rows)])
    center = strengths.score(choices)
    return contrasts @ center, strengths.intervals(choices, center, contrasts)


def share_interval(study: Study, choices: Choices, draw: np.random.Generator) -> tuple[float, Interval | None]:
    """How often a metric sides with the judges that grows with the strengths, and its interval."""
    pairs = choices.units.styles
    values = draw.normal(size=(study.pairs, len(study.strengths))) + 0.5 * np.asarray(study.strengths)
    own = np.take_along_axis(values[pairs], choices.chosen[:, None], axis=1)
    member = choices.sets[choices.shown]
    shares = ((values[pairs] < own) & member).sum(axis=1) / (study.size - 1)
    half, mean = mean_half_width(shares, choices.units), float(shares.mean())
    return mean, None if half is None else Interval(mean - half, mean + half)


def agreement_interval(study: Study, choices: Choices) -> tuple[float, Interval | None]:
    """Krippendorff's alpha and its interval."""
    judges, pairs = choices.units.contents.tolist(), choices.units.styles.tolist()
    comparisons = list(zip(pairs, choices.shown.tolist(), strict=True))
    found = agree(comparisons, pairs, judges, list(map(str, choices.chosen)), study.size)
    assert found is not None
    return found.alpha, found.interval


def held(estimates: Floats, intervals: list[list[Interval | None]], true: Floats) -> tuple[float, float]:
    """The share of intervals (R, C) that hold the truth, and how wide they are by what their spread would make them."""
    inside = [[one is not None and not one.excludes(t) for one, t in zip(row, true, strict=True)] for row in intervals]
    half = np.array([[np.nan if one is None else one.half_width for one in row] for row in intervals])
    return float(np.mean(inside)), float(np.mean(np.nanmean(half, axis=0) / (1.96 * estimates.std(axis=0))))


def coverage(study: Study, studies: int, *, scores_alone: bool = False) -> dict[str, tuple[float, float]]:
    """For scores with their differences, agreement with a metric, and alpha: coverage and relative width."""
    draw = np.random.default_rng(1)
    drawn = [simulate(study, draw) for _ in range(studies)]
    true, count = truth(study), len(study.strengths)
    rows = [true[a] - true[b] for a, b in itertools.combinations(range(count), 2)]
    found = [score_intervals(study, one) for one in drawn]
    results = {
        "scores": held(np.array([e for e, _ in found]), [i for _, i in found], np.concatenate([true, rows])),
    }
    if scores_alone:
        return results
    for name, pairs in (
        ("a metric agrees", [share_interval(study, one, draw) for one in drawn]),
        ("alpha", [agreement_interval(study, one) for one in drawn]),
    ):
        estimates = np.array([[estimate] for estimate, _ in pairs])
        results[name] = held(estimates, [[interval] for _, interval in pairs], estimates.mean(axis=0))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="how many of each kind (default: %(default)s)")
    count = parser.parse_args().studies
    names = ("scores", "a metric agrees", "alpha")
    print(f"| study ({count} simulated) | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for study in STUDIES:
        found = coverage(study, count)
        cells = [f"{100 * found[name][0]:.1f} % ({found[name][1]:.2f})" for name in names]
        print(f"| {study.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
