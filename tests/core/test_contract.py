"""Every registered method keeps the contract, and every contract check can fail."""

from __future__ import annotations

import functools

import pytest
from plugins.broken import BROKEN, GOOD, Plain

from zoo.checks import CHECKS, Subject, process, run_check, run_checks
from zoo.errors import UnknownNameError
from zoo.registry import load_registry

METHODS = sorted(load_registry().methods)


@functools.lru_cache(maxsize=1)
def _subject(name: str) -> Subject:
    return Subject(name)


def test_the_first_two_methods_are_there() -> None:
    assert {"gatys", "cnnmrf"} <= set(METHODS)


@pytest.mark.parametrize("check", list(CHECKS))
@pytest.mark.parametrize("method", METHODS)
def test_method_keeps_the_contract(method: str, check: str) -> None:
    result = run_check(CHECKS[check], _subject(method))
    if result.status == "skipped":
        pytest.skip(result.reason)
    assert result.status == "passed", result.reason


@pytest.mark.parametrize("method", METHODS)
def test_traits_agree_with_the_taxonomy(method: str) -> None:
    optimizes = load_registry().methods[method].taxonomy.optimizes
    assert optimizes == ("image" if _subject(method).traits.iterative else "model")


@pytest.mark.parametrize("method", GOOD, ids=[cls.__name__ for cls in GOOD])
def test_good_method_passes_every_check(method: type) -> None:
    results = run_checks(method)
    assert [r.name for r in results] == list(CHECKS)
    # A class derived from another file's declares no options of its own; that check is for the file's author.
    failed = {r.name: r.reason for r in results if r.status == "failed" and r.name != "config-source"}
    assert not failed


def test_every_check_is_passed_by_a_good_method() -> None:
    passed = {r.name for method in GOOD for r in run_checks(method) if r.status == "passed"}
    assert passed == set(CHECKS)


@pytest.mark.parametrize("check", list(CHECKS))
def test_every_check_has_a_culprit(check: str) -> None:
    assert check in dict(BROKEN)


@pytest.mark.parametrize(("check", "culprit"), BROKEN, ids=[f"{name}-{cls.__name__}" for name, cls in BROKEN])
def test_check_catches_its_culprit(check: str, culprit: type) -> None:
    before = process.read()
    (result,) = run_checks(culprit, only=[check])
    assert result.status == "failed"
    assert result.reason
    assert process.read() == before, "the fault outlives the check"


def test_result_says_why_a_check_was_skipped() -> None:
    (result,) = run_checks(Plain, only=["strength-half"])
    assert (result.status, result.reason) == ("skipped", "only for methods with the trait 'strength'")


def test_only_takes_wildcards_and_refuses_unknown_names() -> None:
    assert [r.name for r in run_checks(Plain, only=["texture*", "sizes"])] == [
        name for name in CHECKS if name.startswith("texture") or name == "sizes"
    ]
    with pytest.raises(UnknownNameError, match="did you mean strength-half"):
        run_checks(Plain, only=["strength-hafl"])


def test_checks_leave_the_callers_random_state_alone() -> None:
    before = process.read()
    run_checks(Plain)
    assert process.read() == before
