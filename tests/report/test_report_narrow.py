"""The tables that are read: which size and columns they take, what is said below, and comparisons with the best."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from grid_runs import CONTENTS, METHODS, STYLES, row, rows, run_file

from zoo.bench.rows import Row
from zoo.errors import ConfigError, UnknownNameError
from zoo.registry import load_registry
from zoo.report.forms import Form
from zoo.report.layout import Layout
from zoo.report.narrow import REMARKS, choose, forms
from zoo.report.summary import sheets

REGISTRY = load_registry()


def larger(lost: str = "") -> list[Row]:
    """The run at twice the size too, which one method did not manage."""
    second = [dataclasses.replace(one, size=128) for one in rows() if one.method != lost]
    for content in CONTENTS if lost else ():
        failed = row(lost, content, STYLES[0], "seconds.stylize", None)
        second.append(dataclasses.replace(failed, size=128, reason="out of memory.", cause="memory"))
    return [*rows(), *second]


def made(found: list[Row], **layout: Any) -> dict[str, Form]:
    return {form.name: form for form in forms(found, run_file(), REGISTRY, Layout.make(**layout))}


def heads(form: Form) -> list[str]:
    return [heading.text for heading in form.headings]


def test_cost_and_quality_stand_apart_at_one_size_without_empty_columns():
    lost = [row(method, c, s, "lpips", None) for method in METHODS for c in CONTENTS for s in STYLES]
    found = made([*larger(), *lost])
    assert heads(found["cost"]) == ["method", "stylize (s) ↓", "peak memory (MiB) ↓"]
    assert heads(found["quality"]) == ["method", "SSIM ↑", "LP ↑", "gram loss (1e9) ↓"]
    for form in found.values():
        lines = [line[0] for group in form.groups for line in group.rows]
        assert len(lines) == len({line.text for line in lines}), "one size"
        assert not any(line.notes for line in lines), "what all lack is no footnote of each"
        assert " at 128 pixels" in form.caption
        assert len(form.said) <= REMARKS
    assert (
        made([*larger(), *(dataclasses.replace(one, size=128) for one in lost)])["quality"]
        .said[-1]
        .startswith("Without numbers: LPIPS")
    )


def test_the_size_is_the_largest_that_most_methods_did_or_the_one_asked_for():
    run = larger(lost=METHODS[1])
    assert choose(run, run_file(), REGISTRY, Layout()).size == 64
    cost = made(run, size=128)["cost"]
    (line,) = [line for group in cost.groups for line in group.rows if line[0].text == METHODS[1]]
    assert line[0].notes == (1,)
    assert cost.foot == ["failed on 4 pairs: out of memory."]
    with pytest.raises(ConfigError, match="no size 99: choose from 64, 128"):
        made(run, size=99)


def test_columns_are_shared_out_and_what_no_run_has_is_refused():
    found = made(rows(), source="lp,memory.resident,cfsd", sort="lp")
    assert heads(found["cost"]) == ["method", "peak memory (MiB) ↓"]
    assert heads(found["quality"]) == ["method", "LP ↑"]
    assert found["quality"].groups[0].rows[0][0].text == METHODS[2]
    with pytest.raises(ConfigError, match="has none of the columns cfsd"):
        made(rows(), source="cfsd")
    with pytest.raises(UnknownNameError, match="did you mean ssim"):
        made(rows(), source="ssin")
    with pytest.raises(UnknownNameError, match="order"):
        made(rows(), sort="nothing")
    with pytest.raises(ConfigError, match="no column ssim to be sorted by: add it to --columns"):
        made(rows(), source="lp", sort="ssim")


def test_a_footnote_that_every_line_would_bear_is_said_once():
    broken = [row(method, CONTENTS[0], STYLES[0], "ssim", None) for method in METHODS]
    kept = [one for one in rows() if one.key not in {other.key for other in broken}]
    quality = made([*kept, *broken])["quality"]
    assert quality.foot == []
    assert any("ssim failed on 1 pair" in text for text in quality.said)


def test_methods_are_compared_with_the_best_and_with_the_one_that_was_named():
    choice = choose(rows(), run_file(), REGISTRY, Layout())
    (form,) = sheets(rows(), run_file(), REGISTRY, choice, against="wct.zoo")["comparisons"].forms
    titles = [group.title for group in form.groups]
    assert titles[:2] == [f"SSIM, beside {METHODS[0]}, the best", "SSIM, beside wct.zoo"]
    first = form.groups[0].rows
    assert {line[0].text for line in first} == set(METHODS[1:])
    assert all(line[1].text.startswith("-") for line in first), "less than the best"
    assert all(line[3].text == "0.00" for line in first)


def test_ranks_stay_in_families_where_methods_can_be_told_apart():
    choice = choose(rows(), run_file(), REGISTRY, Layout())
    ranks = sheets(rows(), run_file(), REGISTRY, choice)["ranks"]
    assert ranks.forms == []
    assert "critical difference" in ranks.omitted
    # A third method of the family, worse in everything: the first and the last of three differ by two ranks.
    worse = [
        dataclasses.replace(one, method="style-swap.zoo", value=one.value * (2 if one.metric == "gram_loss" else 0.5))
        for one in rows()
        if one.method == "wct.zoo" and one.value is not None
    ]
    ranks = sheets([*rows(), *worse], run_file(), REGISTRY, choice)["ranks"]
    (form,) = ranks.forms
    (group,) = form.groups
    assert group.title.startswith("networks of any style (critical difference 1.91 over 3 blocks)")
    assert {line[0].text for line in group.rows} == {"adain.zoo", "wct.zoo", "style-swap.zoo"}
    assert f",,{METHODS[0]},1.0," in ranks.csv, "the data hold the ranks of all methods too"
