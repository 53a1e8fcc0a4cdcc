"""From answers to numbers: which judges count, strengths of the methods, agreement, and how metrics choose.

A judge counts unless he answered fewer than ``MIN_RIGHT`` of the attention checks that he was shown right; one who was
shown none (he stopped early) counts. With the four checks and two questions that are usual, seven of eight must be
right: one slip is forgiven, and a judge who guesses passes with a chance of 9/256. Repeats exclude nobody: where two
results are alike, a careful judge may well choose differently the second time.

Repeated judgements are not counted twice; checks are no judgements. Of a set of more than two pictures the choice is
the first place of a Plackett-Luce ranking (:mod:`zoo.apps.study.strengths`).
"""

from __future__ import annotations

import itertools
import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.apps.study import strengths
from zoo.apps.study.agreement import Agreement, agree
from zoo.apps.study.answers import Answers, Key
from zoo.apps.study.clusters import mean_half_width
from zoo.apps.study.strengths import Choices
from zoo.bench.folder import Folder
from zoo.bench.rows import read_rows
from zoo.errors import ProtocolError, StudyError
from zoo.report import summary
from zoo.report.statistics import Floats, Interval, Units, correlate

MIN_RIGHT = 0.8


@dataclass(frozen=True)
class Judge:
    """A judge's answers: ``answered`` of ``asked`` questions, attention checks answered ``right`` of ``checks``,
    repeats answered the ``same`` of ``repeats``, the share of judgements in which the first place was taken (None
    without any), the median of the seconds an answer took, and whether he counts."""

    judge: str
    form: int
    answered: int
    asked: int
    checks: int
    right: int
    repeats: int
    same: int
    first: float | None
    seconds: float | None
    kept: bool


@dataclass(frozen=True)
class Judgement:
    """One choice that counts: of the methods ``options``, in sorted order, ``chosen``."""

    judge: str
    content: str
    style: str
    options: tuple[str, ...]
    chosen: str

    @property
    def item(self) -> tuple[str, str]:
        """The pair of images."""
        return self.content, self.style


@dataclass(frozen=True)
class Strength:
    """A method's score (log strength, mean 0 over methods) and how often it was chosen of how often it was shown."""

    method: str
    score: float
    interval: Interval | None
    chosen: int
    shown: int


@dataclass(frozen=True)
class Couple:
    """Two methods: judgements that showed both and chose one of them, how many chose the first, the difference of
    their scores, first minus second, and its interval."""

    first: str
    second: str
    judgements: int
    won: int
    difference: float
    interval: Interval | None


@dataclass(frozen=True)
class MetricChoice:
    """Agreement of a metric of the run with the judges. ``kendall`` and ``spearman`` are over the methods' means and
    scores (positive: it prefers what people prefer; None for fewer than three methods); ``share`` is that of the
    judgements in which the metric, too, puts the chosen picture before the others shown, ties half: 0.5 is chance."""

    metric: str
    kendall: float | None
    spearman: float | None
    share: float
    interval: Interval | None
    judgements: int


@dataclass(frozen=True)
class Outcome:
    """The answer of the judges who count to one question."""

    question: str
    judgements: int
    strengths: tuple[Strength, ...]
    couples: tuple[Couple, ...]
    agreement: Agreement | None
    metrics: tuple[MetricChoice, ...]


@dataclass(frozen=True)
class Scored:
    """A study's results: every judge, and every question."""

    key: Key
    judges: tuple[Judge, ...]
    outcomes: tuple[Outcome, ...]
    days: tuple[str, ...]
    keep_all: bool
    min_right: float

    @property
    def kept(self) -> list[Judge]:
        """The judges who count."""
        return [judge for judge in self.judges if judge.kept]


def score_study(
    answers: Sequence[Answers],
    key: Key,
    run: Path | None = None,
    *,
    min_right: float = MIN_RIGHT,
    keep_all: bool = False,
    prior: float = strengths.PRIOR,
) -> Scored:
    """Score the answers of a study; with the results folder ``run`` that it was made of, its metrics too.

    Raises StudyError where no judge counts or the judgements do not join all methods, ProtocolError where ``run`` is
    another run than the study's.
    """
    judges = [_judge(one, key, min_right, keep_all) for one in answers]
    kept = [one for one, judge in zip(answers, judges, strict=True) if judge.kept]
    if not kept:
        raise StudyError(
            f"No judge counts: all {len(judges)} answered too few attention checks right. --keep-all counts them."
        )
    values = _metric_values(run, key) if run is not None else {}
    outcomes = []
    for question in key.data["questions"]:
        judgements = _judgements(kept, key, question)
        outcomes.append(_outcome(question, judgements, key, values, prior))
    days = sorted({one.started[:10] for one in answers})
    return Scored(key, tuple(judges), tuple(outcomes), tuple(days), keep_all, min_right)


def _judge(one: Answers, key: Key, min_right: float, keep_all: bool) -> Judge:
    first = {(answer.trial, answer.question): answer for answer in one.answers}
    kinds: dict[str, list[Any]] = {"judgement": [], "check": [], "repeat": []}
    for answer in one.answers:
        kinds[key.trials[answer.trial]["kind"]].append(answer)
    right = sum(answer.choice == key.trials[answer.trial]["right"][answer.question] for answer in kinds["check"])
    again = [(first.get((key.trials[a.trial]["of"], a.question)), a) for a in kinds["repeat"]]
    pairs = [(before, answer) for before, answer in again if before is not None]
    checks = len(kinds["check"])
    return Judge(
        judge=one.judge,
        form=one.form,
        answered=len(one.answers),
        asked=sum(len(key.trials[trial]["questions"]) for trial in key.forms[one.form]),
        checks=checks,
        right=right,
        repeats=len(pairs),
        same=sum(before.choice == answer.choice for before, answer in pairs),
        first=plain.mean([a.choice == a.order[0] for a in kinds["judgement"]]) if kinds["judgement"] else None,
        seconds=plain.median([answer.seconds for answer in one.answers]) if one.answers else None,
        kept=keep_all or not checks or right / checks >= min_right,
    )


def _judgements(answers: Sequence[Answers], key: Key, question: str) -> list[Judgement]:
    found = []
    for one in answers:
        for answer in one.answers:
            trial = key.trials[answer.trial]
            if trial["kind"] == "judgement" and answer.question == question:
                options = tuple(sorted(map(key.method, answer.order)))
                chosen = key.method(answer.choice)
                found.append(Judgement(one.judge, trial["content"], trial["style"], options, chosen))
    return sorted(found, key=lambda j: (j.judge, j.content, j.style, j.options))


def _outcome(
    question: str,
    judgements: Sequence[Judgement],
    key: Key,
    values: Mapping[str, Mapping[tuple[str, str, str], float]],
    prior: float,
) -> Outcome:
    if not judgements:
        raise StudyError(f"No judge who counts answered the question '{question}': there is nothing to score.")
    methods: list[str] = key.data["methods"]
    choices = Choices.of(
        methods,
        [frozenset(one.options) for one in judgements],
        [one.chosen for one in judgements],
        [one.judge for one in judgements],
        [one.item for one in judgements],
    )
    apart = strengths.parts(choices.sets)
    if len(apart) > 1:
        groups = " | ".join(", ".join(methods[i] for i in group) for group in apart)
        raise StudyError(
            f"No judgement of the question '{question}' joins these groups of methods, so that they cannot be "
            f"compared: {groups}. More judges, or other forms, are needed."
        )
    center = strengths.score(choices, prior)
    spreads = strengths.intervals(choices, center, np.eye(len(methods)), prior)
    found = [
        Strength(
            method,
            float(center[i]),
            spreads[i],
            sum(one.chosen == method for one in judgements),
            sum(method in one.options for one in judgements),
        )
        for i, method in enumerate(methods)
    ]
    agreement = agree(
        [(one.item, one.options) for one in judgements],
        [one.item for one in judgements],
        [one.judge for one in judgements],
        [one.chosen for one in judgements],
        key.data["choices"],
    )
    return Outcome(
        question,
        len(judgements),
        tuple(found),
        tuple(_couples(judgements, choices, methods, center, prior)),
        agreement,
        tuple(_metric_choices(methods, judgements, center, values)),
    )


def _couples(
    judgements: Sequence[Judgement], choices: Choices, methods: Sequence[str], center: Floats, prior: float
) -> list[Couple]:
    numbers = list(itertools.combinations(range(len(methods)), 2))
    contrasts = np.array([np.eye(len(methods))[a] - np.eye(len(methods))[b] for a, b in numbers])
    found = []
    intervals = strengths.intervals(choices, center, contrasts, prior)
    for (a, b), interval in zip(numbers, intervals, strict=True):
        first, second = methods[a], methods[b]
        own = [one.chosen for one in judgements if first in one.options and second in one.options]
        won, lost = own.count(first), own.count(second)
        found.append(Couple(first, second, won + lost, won, float(center[a] - center[b]), interval))
    return found


# -- metrics ---------------------------------------------------------------------------------------------------------


def _metric_values(path: Path, key: Key) -> dict[str, dict[tuple[str, str, str], float]]:
    """By metric, then method, content and style: values of the study's pictures, signed so that more is better."""
    run_file = Folder(path).read_run()
    if run_file is None:
        raise ProtocolError(f"{path} holds no results: give the run that the study was made of with --run.")
    if run_file["protocol"]["id"] != key.data["protocol"]:
        raise ProtocolError(
            f"{path} holds results of protocol {run_file['protocol']['id']}, and the study was made of "
            f"{key.data['protocol']}: give the study's own run with --run."
        )
    run = summary.Run(read_rows(Folder(path).rows), run_file)
    place = (key.data["size"], key.data["strength"], key.data["run_seed"])
    found: dict[str, dict[tuple[str, str, str], float]] = {metric: {} for metric in run.metrics}
    for row in run.rows:
        if row.metric in found and row.value is not None and (row.size, row.strength, row.seed) == place:
            value = row.value if run.higher(row.metric) else -row.value
            found[row.metric][row.method, row.content or "", row.style or ""] = value
    return {metric: values for metric, values in found.items() if values}


def _metric_choices(
    methods: Sequence[str],
    judgements: Sequence[Judgement],
    center: Floats,
    values: Mapping[str, Mapping[tuple[str, str, str], float]],
) -> list[MetricChoice]:
    found = []
    for metric, own in values.items():
        shares, judges, items = [], [], []
        for one in judgements:
            known = {method: own.get((method, *one.item)) for method in one.options}
            chosen = known.pop(one.chosen)
            others = [value for value in known.values() if value is not None]
            if chosen is None or len(others) < len(known):
                continue
            shares.append(float(np.mean([(chosen > value) + 0.5 * (chosen == value) for value in others])))
            judges.append(one.judge)
            items.append(one.item)
        if not shares:
            continue
        share = float(np.mean(shares))
        half = mean_half_width(np.array(shares), Units.of(judges, items))
        kendall, spearman = _over_methods(methods, center, own, dict.fromkeys(one.item for one in judgements))
        found.append(
            MetricChoice(
                metric,
                kendall,
                spearman,
                share,
                None if half is None else Interval(max(0.0, share - half), min(1.0, share + half)),
                len(shares),
            )
        )
    return found


def _over_methods(
    methods: Sequence[str],
    center: Floats,
    values: Mapping[tuple[str, str, str], float],
    items: Mapping[tuple[str, str], None],
) -> tuple[float | None, float | None]:
    """Rank correlations of the scores with the metric's means over the judged pairs that every method has."""
    common = [item for item in items if all((method, *item) in values for method in methods)]
    if len(methods) < 3 or not common:
        return None, None
    means = [float(np.mean([values[method, *item] for item in common])) for method in methods]
    result = correlate(means, center, np.zeros(len(methods)))
    return result.kendall, result.spearman


def order(scored: Scored) -> list[str]:
    """Methods by their mean score over the questions, best first."""
    total: dict[str, float] = dict.fromkeys(scored.key.data["methods"], 0.0)
    for outcome in scored.outcomes:
        for one in outcome.strengths:
            total[one.method] += one.score
    return sorted(total, key=lambda method: (-total[method], method))
