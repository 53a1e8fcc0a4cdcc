"""The design of a study: balance in every respect that is promised, for any number of methods, pairs and choices."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zoo.apps.study.design import PHOTOGRAPH, STYLE, Trial, make_design
from zoo.errors import ConfigError

shapes = st.integers(2, 7).flatmap(
    lambda methods: st.fixed_dictionaries(
        {
            "methods": st.just(methods),
            "items": st.integers(1, 7),
            "choices": st.integers(2, min(4, methods)),
            "per_judge": st.integers(1, 40),
            "judges": st.integers(1, 12),
            "checks": st.integers(0, 5),
            "repeats": st.integers(0, 4),
            "seed": st.integers(0, 2**32),
        }
    )
)


def judged(form: tuple[Trial, ...]) -> list[Trial]:
    return [trial for trial in form if trial.kind == "judgement"]


# Seven methods by three: a drawn order is balanced after seven sets, or after more.
SEVEN = {"methods": 7, "items": 1, "choices": 3, "per_judge": 28, "judges": 4, "checks": 0, "repeats": 0, "seed": 14502}


@settings(max_examples=60, deadline=None)
@given(shapes)
@example(SEVEN)
def test_every_round_is_balanced_exactly(shape):
    design = make_design(**shape)
    methods, items, choices = shape["methods"], shape["items"], shape["choices"]
    assert len(design.forms) >= shape["judges"]
    assert len(design.forms) % design.round_length == 0
    for start in range(0, len(design.forms), design.round_length):
        trials = [trial for form in design.forms[start : start + design.round_length] for trial in judged(form)]
        met = Counter(pair for trial in trials for pair in itertools.combinations(sorted(trial.options), 2))
        assert len(met) == methods * (methods - 1) // 2
        assert len(set(met.values())) == 1, "every two methods meet equally often"
        per_item = Counter(trial.item for trial in trials)
        assert len(per_item) == items
        assert len(set(per_item.values())) == 1, "every pair of images is shown equally often"
        shown = Counter((trial.item, tuple(sorted(trial.options))) for trial in trials)
        assert set(shown.values()) == {choices}, "every set on every pair as often as it has places"
        places = Counter(
            (tuple(sorted(trial.options)), trial.item, method, place)
            for trial in trials
            for place, method in enumerate(trial.options)
        )
        assert set(places.values()) == {1}, "every method of a set once in every place"


@settings(max_examples=60, deadline=None)
@given(shapes)
def test_every_form_is_balanced_nearly(shape):
    design = make_design(**shape)
    sizes = [len(judged(form)) for form in design.forms]
    assert max(sizes) <= shape["per_judge"]
    assert max(sizes) - min(sizes) <= 1
    for form in design.forms:
        trials = judged(form)
        assert len({(trial.item, frozenset(trial.options)) for trial in trials}) == len(trials), "nothing twice"
        if shape["choices"] == 2:
            left, right = (Counter(trial.options[place] for trial in trials) for place in (0, 1))
            assert all(abs(left[method] - right[method]) <= 1 for method in range(shape["methods"]))
            seen = Counter(method for trial in trials for method in trial.options)
            if len(trials) >= shape["methods"]:
                assert max(seen.values()) - min(seen[method] for method in range(shape["methods"])) <= 3


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_checks_and_repeats_stand_where_they_should(shape):
    for form in make_design(**shape).forms:
        trials = judged(form)
        checks = [trial for trial in form if trial.kind == "check"]
        assert len(checks) == shape["checks"]
        assert all(sorted(trial.options) == [STYLE, PHOTOGRAPH] for trial in checks)
        first = Counter(trial.options[0] for trial in checks)
        assert abs(first[PHOTOGRAPH] - first[STYLE]) <= 1
        assert form[0].kind == "judgement"
        repeats = [(place, trial) for place, trial in enumerate(form) if trial.kind == "repeat"]
        assert len(repeats) == min(shape["repeats"], max(1, len(trials) // 2))
        for place, trial in repeats:
            assert trial.source is not None
            source = form[trial.source]
            assert trial.source < place
            assert (source.kind, source.item, source.options) == ("judgement", trial.item, trial.options[::-1])


def test_a_seed_gives_one_design_and_another_seed_another():
    shape = {"methods": 5, "items": 4, "judges": 4}
    assert make_design(**shape, seed=3) == make_design(**shape, seed=3)
    assert make_design(**shape, seed=3) != make_design(**shape, seed=4)


def test_the_rounds_differ_so_that_many_judges_see_many_orders():
    design = make_design(3, 2, judges=8, seed=0)
    assert design.round_length == 2
    assert len(set(design.forms)) == len(design.forms) == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"methods": 1, "items": 3}, "here are 1"),
        ({"methods": 3, "items": 3, "choices": 4}, "A comparison of 4 pictures"),
        ({"methods": 3, "items": 0}, "needs a pair of images"),
        ({"methods": 20, "items": 3, "choices": 5}, "name fewer methods"),
    ],
)
def test_what_cannot_be_designed_is_said(arguments, said):
    with pytest.raises(ConfigError, match=said):
        make_design(**arguments)
