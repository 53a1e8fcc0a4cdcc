"""Strengths, agreement and the tables of a study, against known judges and against the formulas of the papers."""

from __future__ import annotations

import contextlib
import csv
import importlib
import itertools
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from command import run as command
from hypothesis import given, settings
from hypothesis import strategies as st
from report_runs import METHODS
from study_runs import answer, by_strength, first_shown, make, panel, parsed

from zoo.apps.study import score_study, strengths
from zoo.apps.study.agreement import agree
from zoo.apps.study.answers import Key, read_answers
from zoo.apps.study.clusters import mean_half_width
from zoo.apps.study.strengths import Choices
from zoo.errors import NumericalError, StudyError
from zoo.report.statistics import Units

GATYS, ADAIN, WCT = METHODS
STRENGTH = {GATYS: 4.0, ADAIN: 1.0, WCT: 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def key(folder: Path) -> Key:
    return make(folder)


def draw_choices(
    theta: list[float], judgements: int, size: int, seed: int, judges: int = 20, items: int = 12
) -> Choices:
    """Judges who choose as the model says, every set as likely."""
    draw = random.Random(seed)
    methods = [f"m{i}" for i in range(len(theta))]
    strength = dict(zip(methods, map(math.exp, theta), strict=True))
    sets = [draw.sample(methods, size) for _ in range(judgements)]
    chosen = [draw.choices(one, [strength[method] for method in one])[0] for one in sets]
    names = [f"judge {i % judges}" for i in range(judgements)]
    shown = [draw.randrange(items) for _ in range(judgements)]
    return Choices.of(methods, [frozenset(one) for one in sets], chosen, names, shown)


# -- the model -------------------------------------------------------------------------------------------------------


def minorised(won: np.ndarray, shown: np.ndarray, sets: np.ndarray, prior: float, steps: int = 4000) -> np.ndarray:
    """Hunter 2004, equation (3) and section 5, word for word, with the pseudo-choices of the prior."""
    strength = np.ones(len(won))
    for _ in range(steps):
        rate = [
            sum(n / strength[own].sum() for n, own in zip(shown, sets, strict=True) if own[i])
            + 2 * prior / (strength[i] + 1)
            for i in range(len(won))
        ]
        strength = (won + prior) / np.array(rate)
    logs = np.log(strength)
    return logs - logs.mean()


@pytest.mark.parametrize(("size", "prior"), [(2, 0.0), (2, 0.1), (3, 0.0), (3, 1.0)])
def test_scores_are_the_maximum_that_hunters_iteration_finds(size: int, prior: float):
    choices = draw_choices([0.8, 0.0, -0.3, -0.5], 60, size, seed=2)
    won, shown = choices.tallies(np.ones(60))
    assert strengths.score(choices, prior) == pytest.approx(minorised(won, shown, choices.sets, prior), abs=1e-4)


@given(st.integers(1, 500), st.integers(1, 500))
def test_two_methods_have_the_log_odds_of_their_choices(wins: int, losses: int):
    sets = np.array([[True, True]])
    found = strengths.scores(np.array([wins, losses], float), np.array([wins + losses], float), sets, prior=0)
    assert found[0] - found[1] == pytest.approx(math.log(wins / losses), abs=1e-6)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=6), st.sampled_from([2, 3]), st.integers(0, 10**6))
def test_known_strengths_are_recovered(theta: list[float], size: int, seed: int):
    """Within five standard deviations of a log-odds from as many judgements as each method has at worst."""
    judgements = 1500
    found = strengths.score(draw_choices(theta, judgements, size, seed))
    centered = np.array(theta) - np.mean(theta)
    # The share of the weakest pair's rarer outcome bounds the variance from above.
    rare = 1 / (1 + math.exp(max(theta) - min(theta)))
    spread = 1 / math.sqrt(judgements * size / len(theta) * rare * (1 - rare) / size)
    assert found == pytest.approx(centered, abs=5 * spread)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/study_coverage.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("study_coverage")
    sys.modules.pop("study_coverage")


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_intervals_hold_the_truth_as_often_as_they_say(shared: float, simulated: ModuleType):
    """Of 1,000 intervals in 100 studies; the bootstrap that was here before held it in 99 to 100 of 100."""
    study = simulated.Study("", judgements=240, judges=12, pairs=8, by_pair=shared, by_judge=shared)
    share, width = simulated.coverage(study, 100, scores_alone=True)["scores"]
    assert 0.93 <= share <= 0.97
    assert 0.9 <= width <= 1.25


def test_intervals_of_independent_choices_are_those_of_the_binomial(simulated: ModuleType):
    """Two methods, every judge and every pair once: the variance of a log odds is 1/wins + 1/losses."""
    chosen = ["a"] * 60 + ["b"] * 40
    names = list(map(str, range(100)))
    choices = Choices.of(["a", "b"], [frozenset("ab")] * 100, chosen, names, names)
    center = strengths.score(choices, prior=0)
    (interval,) = strengths.intervals(choices, center, np.array([[1.0, -1.0]]), prior=0)
    assert interval is not None
    assert (interval.low + interval.high) / 2 == pytest.approx(math.log(1.5))
    # Student's t with 99 degrees of freedom, and a variance from the choices themselves (100/99).
    assert interval.half_width == pytest.approx(1.984 * math.sqrt(100 / 99 * (1 / 60 + 1 / 40)), rel=1e-3)


def test_judges_of_one_mind_count_once_each():
    """Answers repeated tenfold by each judge tell no more: the interval stays, where independent answers' would shrink
    by the root of ten."""
    draw = random.Random(4)
    first = [draw.choice("ab") for _ in range(40)]
    halves = []
    for times in (1, 10):
        judges = [str(j) for j in range(40) for _ in range(times)]
        choices = Choices.of(
            ["a", "b"], [frozenset("ab")] * len(judges), [first[int(j)] for j in judges], judges, judges
        )
        (interval,) = strengths.intervals(choices, strengths.score(choices, 0), np.array([[1.0, -1.0]]), 0)
        assert interval is not None
        halves.append(interval.half_width)
    assert halves[1] == pytest.approx(halves[0], rel=1e-3)


def test_a_method_that_never_wins_has_a_finite_score_by_the_prior_alone():
    sets = np.array([[True, True, False], [False, True, True], [True, False, True]])
    won, shown = np.array([20.0, 10.0, 0.0]), np.array([10.0, 10.0, 10.0])
    found = strengths.scores(won, shown, sets)
    assert found[0] > found[1] > found[2] > -8
    assert strengths.scores(won, shown, sets, prior=1.0)[2] > found[2], "a larger prior draws it nearer"
    with pytest.raises(NumericalError, match="prior above 0"):
        strengths.scores(won, shown, sets, prior=0.0)


def test_few_judges_or_pairs_have_no_interval():
    choices = draw_choices([0.5, 0.0, -0.5], 60, 2, seed=1, judges=2)
    assert strengths.intervals(choices, strengths.score(choices), np.eye(3)) == [None] * 3


def test_the_prior_keeps_the_interval_of_a_method_that_never_loses_wide():
    judges, items = [str(i % 9) for i in range(90)], [str(i % 10) for i in range(90)]
    choices = Choices.of(["a", "b"], [frozenset("ab")] * 90, ["a"] * 90, judges, items)
    (interval,) = strengths.intervals(choices, strengths.score(choices), np.array([[1.0, -1.0]]))
    assert interval is not None
    assert interval.half_width > 3, "no choice tells how much stronger it is"


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_mean_of_equal_values_is_not_certain(value: float):
    units = Units.of([i % 5 for i in range(40)], [i % 8 for i in range(40)])
    half = mean_half_width(np.full(40, value), units)
    assert half is not None
    assert 0.05 < half < 0.2


# -- agreement -------------------------------------------------------------------------------------------------------


def test_agreement_of_two_judges_is_bennetts_s():
    """Two judges agree on 7 of 10 pairs: S = (0.7 - 0.5) / 0.5."""
    comparisons = [*range(10), *range(10)]
    values = ["a"] * 10 + ["a"] * 7 + ["b"] * 3
    found = agree(comparisons, [c % 5 for c in comparisons], ["x"] * 10 + ["y"] * 10, values, 2)
    assert found is not None
    assert (found.observed, found.alpha) == (pytest.approx(0.7), pytest.approx(0.4))
    assert (found.comparisons, found.answers) == (10, 20)
    assert found.interval is not None
    assert found.interval.low <= found.alpha <= found.interval.high


def test_agreement_counts_pairs_of_answers_and_leaves_lonely_ones_out():
    # Three judges, two against one: 2 of 6 ordered pairs agree. A comparison with one answer says nothing.
    found = agree(["x", "x", "x", "y"], [0, 0, 0, 1], [1, 2, 3, 1], ["a", "a", "b", "a"], 3)
    assert found is not None
    assert found.observed == pytest.approx(1 / 3)
    assert found.alpha == pytest.approx(0.0)
    assert (found.comparisons, found.answers, found.interval) == (1, 3, None)
    assert agree(["x", "y"], [0, 1], [1, 1], ["a", "a"], 2) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab")), min_size=2, max_size=40), st.randoms())
def test_agreement_does_not_depend_on_order_or_on_what_pictures_are_called(answers, draw):
    def alpha(given: list[tuple[int, str]], names: dict[int, dict[str, str]]) -> float | None:
        found = agree(
            [c for c, _ in given], [c % 2 for c, _ in given], range(len(given)), [names[c][v] for c, v in given], 2
        )
        return found and found.alpha

    straight = {c: {"a": "a", "b": "b"} for c in range(6)}
    turned = {c: {"a": "b", "b": "a"} if draw.random() < 0.5 else straight[c] for c in range(6)}
    expected = alpha(answers, straight)
    found = alpha(draw.sample(answers, len(answers)), turned)
    assert found == (None if expected is None else pytest.approx(expected))


# -- whole studies ---------------------------------------------------------------------------------------------------


def test_judges_of_known_preferences_are_recovered(key: Key, folder: Path):
    scored = score_study(panel(key, by_strength(key, STRENGTH)), key, folder / "run")
    logs = np.log(list(STRENGTH.values()))
    truth = dict(zip(STRENGTH, logs - logs.mean(), strict=True))
    assert len(scored.kept) == 12
    held = []
    for outcome in scored.outcomes:
        assert outcome.judgements == 108
        for one in outcome.strengths:
            assert one.interval is not None
            held.append(not one.interval.excludes(truth[one.method]))
            assert (one.score, one.shown) == (pytest.approx(truth[one.method], abs=0.7), 72)
        first = next(one for one in outcome.couples if (one.first, one.second) == (GATYS, WCT))
        assert first.judgements == 36
        assert first.interval is not None
        assert first.interval.low > 0
    assert sum(held) >= 8, "of nine intervals at 95 %"


def test_order_of_judges_of_answers_and_of_sides_changes_nothing(key: Key):
    files = [answer(key, form, by_strength(key, STRENGTH, seed=form)) for form in range(len(key.forms))]
    expected = score_study([parsed(key, one) for one in files], key).outcomes
    draw = random.Random(5)
    for one in files:
        draw.shuffle(one["answers"])
    # The other side: every form once more with its pictures in the other order, which the key then tells as well.
    turned = json.loads(json.dumps(key.data))
    for form in turned["forms"]:
        for trial in form:
            trial["options"].reverse()
    other = Key(key.path, turned)
    for one in files:
        for answered in one["answers"]:
            answered["order"] = answered["order"][::-1]
    draw.shuffle(files)
    assert score_study([parsed(other, one) for one in files], other).outcomes == expected


def test_a_metric_that_agrees_with_the_judges_is_told_from_one_that_does_not(key: Key, folder: Path):
    """In the run, SSIM grows from Gatys to WCT and the Gram loss falls: both prefer WCT."""

    def like(best: tuple[str, ...]):
        def choose(trial, pictures, question):
            if trial["kind"] == "check":
                return trial["right"][question]
            return min(pictures, key=lambda picture: best.index(key.method(picture)))

        return choose

    for best, share in (((WCT, ADAIN, GATYS), 1.0), ((GATYS, ADAIN, WCT), 0.0)):
        scored = score_study(panel(key, like(best)), key, folder / "run")
        for outcome in scored.outcomes:
            found = {one.metric: one for one in outcome.metrics}
            assert set(found) == {"ssim", "cf", "gram_loss", "lp"}
            for one in found.values():
                assert (one.share, one.kendall, one.judgements) == (share, pytest.approx(2 * share - 1), 108)
                assert one.interval is not None
            assert outcome.agreement is not None
            assert outcome.agreement.alpha == 1.0


def test_who_fails_the_checks_does_not_count_unless_all_are_kept(key: Key):
    good = panel(key, by_strength(key, STRENGTH))
    careless = parsed(key, answer(key, 0, first_shown, judge=99))
    scored = score_study([*good, careless], key)
    record = scored.judges[-1]
    assert (record.checks, record.right, record.kept, record.first) == (8, 4, False, 1.0)
    assert record.same == 0, "the other side is another picture"
    assert scored.outcomes == score_study(good, key).outcomes
    everybody = score_study([*good, careless], key, keep_all=True)
    assert everybody.outcomes[0].judgements == scored.outcomes[0].judgements + 9
    assert score_study([*good, careless], key, min_right=0.5).outcomes == everybody.outcomes
    with pytest.raises(StudyError, match="No judge counts"):
        score_study([careless], key)


def test_who_stops_early_counts_with_what_he_answered(key: Key):
    good = panel(key, by_strength(key, STRENGTH))
    early = parsed(key, answer(key, 1, by_strength(key, STRENGTH), judge=99, keep=3))
    scored = score_study([*good, early], key)
    assert (scored.judges[-1].answered, scored.judges[-1].checks, scored.judges[-1].kept) == (3, 0, True)
    assert scored.outcomes[0].judgements == 109


def test_methods_that_no_judgement_joins_are_an_error(key: Key):
    alone = answer(key, 0, by_strength(key, STRENGTH))
    alone["answers"] = [
        one
        for one in alone["answers"]
        if key.trials[one["trial"]]["kind"] == "judgement"
        and {key.method(picture) for picture in one["order"]} == {GATYS, ADAIN}
    ]
    with pytest.raises(StudyError, match=r"cannot be compared: gatys.*adain\.zoo \| wct\.zoo"):
        score_study([parsed(key, alone)], key)


def test_the_choice_of_one_of_many_recovers_strengths_too(tmp_path: Path):
    many = make(tmp_path, choices=3, questions=("prefer",), checks=2)
    scored = score_study(panel(many, by_strength(many, STRENGTH)), many)
    (outcome,) = scored.outcomes
    assert {len(form) for form in many.forms} == {9 + 2 + 3}
    found = {one.method: one for one in outcome.strengths}
    assert found[GATYS].score > found[ADAIN].score > found[WCT].score
    assert found[GATYS].shown == outcome.judgements
    assert sum(one.chosen for one in outcome.strengths) == outcome.judgements
    # Checks of a study of preference alone ask which keeps the content.
    assert [one.checks for one in scored.judges] == [2] * 12


# -- files of answers ------------------------------------------------------------------------------------------------


def spoil(data: dict, **change) -> dict:
    data["answers"][0] |= change
    return data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d | {"study": "0" * 12}, "another study"),
        (lambda d: d | {"schema": 2}, "another version"),
        (lambda d: d | {"judge": "../../etc"}, "the judge's id"),
        (lambda d: d | {"form": 99}, "no such form"),
        (lambda d: d | {"form": True}, "no such form"),
        (lambda d: d | {"form": 1 - d["form"]}, "its form does not have"),
        (lambda d: d | {"name": "x" * 81}, "at most 80"),
        (lambda d: d | {"started": "yesterday"}, "a date"),
        (lambda d: d | {"answers": d["answers"][:1] * 2}, "answered twice"),
        (lambda d: d | {"answers": {}}, "no list"),
        (lambda d: [d], "not a file of answers"),
        (lambda d: spoil(d, choice="0" * 12), "not shown"),
        (lambda d: spoil(d, order=d["answers"][0]["order"][::-1]), "not in this order"),
        (lambda d: spoil(d, question="colour"), "was not asked"),
        (lambda d: spoil(d, seconds=-1), "a time"),
        (lambda d: spoil(d, seconds=float("inf")), "a time"),
        (lambda d: spoil(d, seconds=float("nan")), "a time"),
        (lambda d: spoil(d, seconds=10**400), "a time"),
        (lambda d: d | {"form": 10**400}, "no such form"),
        (lambda d: spoil(d, trial=["x"]), "a field is missing"),
        (lambda d: {name: value for name, value in d.items() if name != "ended"}, "a field is missing"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change, said: str, key: Key):
    with pytest.raises(StudyError, match=said):
        parsed(key, change(answer(key, 0, first_shown)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), JSON)
def test_no_value_in_any_place_of_a_file_is_more_than_a_refusal(key: Key, place: int, value: Any):
    file = answer(key, 0, first_shown, keep=1)
    one = file["answers"][0]
    holder, name = [*((file, name) for name in file), *((one, name) for name in one)][place]
    holder[name] = value
    with contextlib.suppress(StudyError):
        assert len(parsed(key, file).answers) <= 1


def test_of_several_files_of_a_judge_the_longest_counts(key: Key, tmp_path: Path):
    def write(name: str, data: dict) -> None:
        (tmp_path / name).write_text(json.dumps(data))

    choose = by_strength(key, STRENGTH)
    whole = answer(key, 0, choose)
    write("b.json", whole)
    write("a.json", {**whole, "answers": whole["answers"][:5], "ended": None})
    write("c.json", {**whole, "answers": whole["answers"][:9], "ended": None})
    (found,) = read_answers([tmp_path], key)
    assert len(found.answers) == len(whole["answers"])
    assert read_answers([tmp_path / "b.json", tmp_path], key) == [found]
    contrary = json.loads(json.dumps(whole))
    one = contrary["answers"][0]
    one["choice"] = next(picture for picture in one["order"] if picture != one["choice"])
    write("d.json", contrary)
    with pytest.raises(StudyError, match="of one judge and differ"):
        read_answers([tmp_path], key)
    write("other.json", answer(key, 1, choose))
    refused: list[str] = []
    (other,) = read_answers([tmp_path], key, refused)
    assert other.form == 1, "nothing of a judge whose files differ, all of the others"
    assert len(refused) == 1
    assert "d.json are of one judge and differ" in refused[0]
    (tmp_path / "other.json").unlink()
    with pytest.raises(StudyError, match="no answers"):
        read_answers([key.path], key)
    (tmp_path / "e.json").write_text("[" * 100_000)
    with pytest.raises(StudyError, match="not JSON"):
        read_answers([tmp_path / "e.json"], key)


# -- the command -----------------------------------------------------------------------------------------------------


def test_score_as_a_user_would(key: Key, folder: Path, tmp_path: Path, capsys):
    sent = tmp_path / "sent"
    sent.mkdir()
    choose = by_strength(key, STRENGTH)
    for form in range(len(key.forms)):
        (sent / f"{form}.json").write_text(json.dumps(answer(key, form, choose)))
    out = tmp_path / "scores"
    arguments = ["study", "score", str(sent), "--key", str(key.path), "--run", str(folder / "run"), "--out", str(out)]
    assert command(*arguments) == 0
    shown = capsys.readouterr()
    assert "12 of 12 judges" in shown.out
    assert "27 files in" in shown.err
    names = ("scores", "comparisons", "agreement", "metrics", "judges")
    expected = {f"study-{name}.{kind}" for name, kind in itertools.product(names, ("md", "csv", "tex", "json", "html"))}
    assert {path.name for path in out.iterdir()} == expected | {"study-scores.pdf", "study-scores.png"}
    scored = score_study(read_answers([sent], key), key, folder / "run")
    with (out / "study-scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected_rows = [(outcome.question, one) for outcome in scored.outcomes for one in outcome.strengths]
    for row, (question, one) in zip(rows, expected_rows, strict=True):
        assert (row["question"], row["method"], float(row["score"])) == (question, one.method, one.score)
        assert one.interval is not None
        assert (float(row["low"]), float(row["high"])) == (one.interval.low, one.interval.high)
    assert json.loads((out / "study-scores.json").read_text())["rows"][0]["score"] == expected_rows[0][1].score
    text = (out / "study-scores.md").read_text()
    assert f"| {GATYS} | **{expected_rows[0][1].score:.2f}**" in text
    assert "Ada" not in "".join((out / name).read_text() for name in expected), "names stay out of the tables"


def test_one_bad_file_does_not_stop_the_scoring_of_the_others(key: Key, tmp_path: Path, capsys):
    sent = tmp_path / "sent"
    sent.mkdir()
    for form in range(6):
        (sent / f"{form}.json").write_text(json.dumps(answer(key, form, by_strength(key, STRENGTH))))
    (sent / "6.json").write_text(json.dumps(spoil(answer(key, 6, first_shown), seconds=10**400)))
    (sent / "7.json").write_bytes(b"\xff{")
    arguments = ["study", "score", str(sent), "--key", str(key.path), "--out", str(tmp_path / "scores"), "-f", "csv"]
    assert command(*arguments) == 1
    shown = capsys.readouterr()
    assert "6 of 6 judges" in shown.out
    assert f"Left out: {sent / '6.json'} does not fit the study: a time is not a number of seconds." in shown.err
    assert f"Left out: {sent / '7.json'} is not JSON" in shown.err
    assert (tmp_path / "scores" / "study-scores.csv").exists()
    for form in range(6):
        (sent / f"{form}.json").unlink()
    assert command(*arguments) == 2
    assert "No file of answers can be used." in capsys.readouterr().err


def test_score_says_what_is_wrong(key: Key, folder: Path, tmp_path: Path, capsys):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(answer(key, 0, first_shown)))
    assert command("study", "score", str(file), "--key", str(tmp_path / "key.json")) == 2
    assert "is not there: give the key.json" in capsys.readouterr().err
    assert command("study", "score", str(file), "--key", str(key.path)) == 2
    assert "--keep-all counts them" in capsys.readouterr().err
    assert command("study", "score", str(file), "--key", str(file)) == 2
    assert "is not the key of a study" in capsys.readouterr().err
    other = tmp_path / "run"
    other.mkdir()
    data = json.loads((folder / "run" / "run.json").read_text())
    data["protocol"]["id"] = "other@ffffffffffff"
    (other / "run.json").write_text(json.dumps(data))
    assert command("study", "score", str(file), "--key", str(key.path), "--keep-all", "--run", str(other)) == 2
    assert "give the study's own run" in capsys.readouterr().err


def test_the_forms_of_a_study_count_its_judges(key: Key):
    assert len(key.forms) == 12
    assert key.data["round"] == 6
    kinds = Counter(trial["kind"] for trial in key.trials.values())
    assert kinds == {"judgement": 12 * 9, "check": 12 * 4, "repeat": 12 * 3}
