"""Statistics of scores that share contents and styles: closed forms, coverage, agreement with scipy, properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from zoo.errors import InputError
from zoo.report.statistics import (
    Units,
    compare,
    correlate,
    critical_difference,
    holm,
    mean_intervals,
    rank,
    resampled_means,
    timing_interval,
)


def grid(contents: int, styles: int) -> Units:
    return Units.of(*zip(*((c, s) for c in range(contents) for s in range(styles)), strict=True))


def crossed(random: np.random.Generator, contents: int, styles: int, content_sd: float, style_sd: float) -> np.ndarray:
    """Scores around 0 of a full grid: an effect per content, one per style, noise of deviation 1."""
    effects = content_sd * random.standard_normal((contents, 1)) + style_sd * random.standard_normal((1, styles))
    return (effects + random.standard_normal((contents, styles))).ravel()


# -- what is drawn -------------------------------------------------------------------------------------------------


def test_contents_and_styles_are_drawn_unless_one_does_not_vary_or_pairs_share_nothing():
    assert [f.max() + 1 for f in grid(3, 4).factors] == [3, 4]
    assert [f.max() + 1 for f in grid(3, 1).factors] == [3]
    assert grid(1, 1).factors == ()
    zipped = Units.of("abcd", "wxyz")
    assert len(zipped.factors) == 1
    assert zipped.levels == 4
    # Two seeds of the same pairs are still the same pairs.
    twice = Units.of("abcdabcd", "wxyzwxyz")
    assert len(twice.factors) == 1
    assert twice.levels == 4
    assert grid(3, 4).blocks.max() + 1 == 3
    assert grid(5, 4).blocks.max() + 1 == 4


def test_units_need_a_content_and_a_style_each():
    with pytest.raises(InputError, match="2 contents and 1 styles"):
        Units.of("ab", "x")
    with pytest.raises(InputError, match="shape"):
        resampled_means([1.0], grid(2, 2))
    with pytest.raises(InputError, match="finite"):
        resampled_means([1.0, math.nan, 0, 0], grid(2, 2))
    with pytest.raises(InputError, match="cannot be resampled"):
        resampled_means([1.0], grid(1, 1))


# -- intervals -----------------------------------------------------------------------------------------------------


def test_the_resamples_have_the_variance_of_the_pigeonhole_bootstrap():
    """With effects of contents alone, a mean's bootstrap variance is that of resampling the content means."""
    content_means = np.array([0.0, 1.0, 2.0, 5.0])
    scores = np.repeat(content_means, 3)
    means = resampled_means(scores, grid(4, 3), resamples=40000)
    assert means.mean() == pytest.approx(2.0, abs=0.03)
    assert means.var() == pytest.approx(content_means.var() / 4, rel=0.03)


def test_resamples_of_one_factor_agree_with_scipy():
    scores = np.random.default_rng(3).exponential(size=15)
    found = np.quantile(resampled_means(scores, grid(15, 1), resamples=20000), [0.05, 0.95])
    wanted = stats.bootstrap(
        (scores,), np.mean, confidence_level=0.9, n_resamples=20000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert found == pytest.approx([wanted.low, wanted.high], abs=0.02)


def test_a_resample_of_a_grid_with_holes_averages_the_pairs_it_drew():
    """A cross of five pairs in 3 x 3: the centre row and column. Resamples without any of them are drawn again."""
    units = Units.of([1, 1, 1, 0, 2], [0, 1, 2, 1, 1])
    means = resampled_means([1.0, 1.0, 1.0, 5.0, 5.0], units, resamples=500)
    assert np.isfinite(means).all()
    assert len(means) == 500
    assert means.min() >= 1.0
    assert means.max() <= 5.0


def test_columns_are_resampled_alike():
    scores = np.random.default_rng(0).standard_normal((12, 1))
    means = resampled_means(np.hstack([scores, scores + 1]), grid(3, 4), resamples=50)
    assert means[:, 1] - means[:, 0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("shape", "effects", "lowest"),
    [
        ((6, 6), (1.0, 1.0), 0.92),
        ((10, 5), (2.0, 0.0), 0.92),
        ((6, 6), (0.0, 0.0), 0.95),
        ((12, 1), (1.0, 0.0), 0.92),
        ((4, 3), (0.0, 2.0), 0.92),
        ((4, 3), (2.0, 0.0), 0.92),
    ],
)
def test_intervals_cover_the_truth_about_as_often_as_they_say(shape, effects, lowest):
    random = np.random.default_rng(1)
    units = grid(*shape)
    covered = 0
    for trial in range(200):
        (interval,) = mean_intervals(crossed(random, *shape, *effects), units, resamples=300, seed=trial) or []
        covered += not interval.excludes(0.0)
    assert lowest <= covered / 200


def test_an_interval_of_independent_pairs_is_not_the_wide_one_of_a_grid():
    """Pairs that share nothing are drawn themselves: the bootstrap agrees with Student's interval, not 1.7 times it."""
    scores = np.random.default_rng(5).standard_normal(30)
    (interval,) = mean_intervals(scores, Units.of(range(30), range(30)), resamples=5000) or []
    student = stats.t.interval(0.95, 29, scores.mean(), stats.sem(scores))
    assert interval.half_width == pytest.approx((student[1] - student[0]) / 2, rel=0.08)


def test_too_few_levels_have_no_interval():
    assert mean_intervals(np.arange(4.0), grid(2, 2)) is None
    assert mean_intervals(np.arange(8.0), grid(4, 2)) is None
    assert mean_intervals(np.arange(3.0), grid(3, 1)) is not None


def test_intervals_are_the_same_every_time_and_differ_with_the_seed():
    scores = np.random.default_rng(0).standard_normal(20)
    assert mean_intervals(scores, grid(5, 4)) == mean_intervals(scores, grid(5, 4))
    assert mean_intervals(scores, grid(5, 4)) != mean_intervals(scores, grid(5, 4), seed=1)


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.floats(-1e3, 1e3), min_size=12, max_size=12),
    shift=st.floats(-100, 100),
    scale=st.floats(0.01, 100),
)
def test_an_interval_holds_the_mean_and_moves_and_scales_with_the_scores(scores, shift, scale):
    units = grid(3, 4)
    values = np.array(scores)
    (one,) = mean_intervals(values, units, resamples=100) or []
    (other,) = mean_intervals(values * scale + shift, units, resamples=100) or []
    assert (one.low + one.high) / 2 == pytest.approx(values.mean(), abs=1e-9 * (1 + np.abs(values).max()))
    assert one.low <= one.high
    tolerance = 1e-9 * (1 + abs(shift) + scale * np.abs(values).max())
    assert other.low == pytest.approx(one.low * scale + shift, abs=tolerance)
    assert other.high == pytest.approx(one.high * scale + shift, abs=tolerance)


def test_a_timings_interval_is_that_of_its_median():
    random = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        interval = timing_interval(random.lognormal(size=(2, 20)).tolist(), resamples=300, seed=trial)
        assert interval is not None
        covered += not interval.excludes(1.0)
    assert covered / 200 >= 0.88
    assert timing_interval([[1.0] * 5, [3.0] * 5]) == timing_interval([[2.0] * 9])
    assert timing_interval([[1.0] * 20, [1.0] * 4]) is None
    assert timing_interval([]) is None


# -- comparisons ---------------------------------------------------------------------------------------------------


def test_over_contents_with_one_style_it_is_the_paired_t_test():
    random = np.random.default_rng(0)
    first, second = random.standard_normal(9) + 0.5, random.standard_normal(9)
    found, wanted = compare(first, second, grid(9, 1)), stats.ttest_rel(first, second)
    assert (found.t, found.df, found.p) == pytest.approx((wanted.statistic, 8, wanted.pvalue))
    assert found.d_z == pytest.approx(wanted.statistic / 3)


def test_in_a_full_grid_it_is_clarks_min_f():
    random = np.random.default_rng(4)
    first, second = crossed(random, 5, 4, 1, 1) + 1, crossed(random, 5, 4, 1, 1)
    difference = (first - second).reshape(5, 4)
    f1, f2 = (stats.ttest_1samp(difference.mean(axis=axis), 0).statistic ** 2 for axis in (1, 0))
    found = compare(first, second, grid(5, 4))
    assert found.t is not None
    assert found.t**2 == pytest.approx(f1 * f2 / (f1 + f2))
    assert found.df == pytest.approx((f1 + f2) ** 2 / (f1**2 / 3 + f2**2 / 4))
    assert found.p == pytest.approx(stats.f.sf(found.t**2, 1, found.df))


def test_it_rejects_no_more_often_than_it_should():
    """Method effects that differ by content and by style, none on average: a paired t test over pairs rejects often."""
    random = np.random.default_rng(7)
    units = grid(8, 6)
    found = naive = 0
    for _ in range(300):
        difference = crossed(random, 8, 6, 1, 1)
        found += (compare(difference, np.zeros(48), units).p or 0) < 0.05
        naive += stats.ttest_1samp(difference, 0).pvalue < 0.05
    assert found / 300 <= 0.08
    assert naive / 300 >= 0.3


@pytest.mark.numerical
def test_differences_that_do_not_vary_are_certain_and_one_pair_tests_nothing():
    ones = np.ones(6)
    assert compare(ones, ones, grid(3, 2)) == compare(ones * 2, ones * 2, grid(3, 2))
    assert compare(ones, ones, grid(3, 2)).p == 1.0
    assert compare(ones + 1, ones, grid(3, 2)).p == 0.0
    assert compare(ones, ones + 1, grid(3, 2)).t == -math.inf
    alone = compare([1.0], [2.0], grid(1, 1))
    assert (alone.difference, alone.p, alone.d_z, alone.won) == (-1.0, None, None, 0.0)
    # An interaction alone leaves every content and every style at the same mean.
    assert compare([2.0, 0.0, 0.0, 2.0], np.zeros(4), grid(2, 2)).p is None


def test_won_is_the_share_of_pairs_with_ties_as_halves():
    assert compare([3, 1, 2, 2], [1, 3, 2, 1], grid(4, 1)).won == 0.625
    assert compare([3, 1, 2, 2], [1, 3, 2, 1], grid(4, 1), higher_is_better=False).won == 0.375


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=12, max_size=12), st.lists(st.floats(-10, 10), min_size=12, max_size=12))
def test_a_comparison_turned_round_changes_signs_alone(first, second):
    one, other = compare(first, second, grid(4, 3)), compare(second, first, grid(4, 3))
    assert one.difference == -other.difference
    assert one.p == pytest.approx(other.p)
    assert one.won == pytest.approx(1 - other.won)
    assert one.p is None or 0 <= one.p <= 1


def test_holm_on_the_textbook_case():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1.0, 1.0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_value_and_bonferroni(p):
    adjusted = holm(p)
    for raw, value in zip(p, adjusted, strict=True):
        assert raw <= value <= min(1.0, raw * len(p)) + 1e-12
    assert [adjusted[i] for i in np.argsort(p, kind="stable")] == sorted(adjusted)


# -- ranks ---------------------------------------------------------------------------------------------------------


def test_the_critical_difference_is_demsars():
    """q of his table 5a, at 0.05: 1.960 (2), 2.569 (4), 3.102 (9 methods)."""
    for methods, q in ((2, 1.960), (4, 2.569), (9, 3.102)):
        assert critical_difference(methods, 14) == pytest.approx(q * math.sqrt(methods * (methods + 1) / 84), rel=5e-4)


def test_average_ranks_and_friedman():
    random = np.random.default_rng(0)
    scores = random.standard_normal((10, 3)) + np.array([0.0, 3.0, 0.1])
    found = rank(scores, grid(10, 1))
    assert found is not None
    assert found.ranks == pytest.approx(stats.rankdata(-scores, axis=1).mean(axis=0))
    assert found.p == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    assert found.blocks == 10
    assert found.ranks[1] == 1.0
    assert sorted(found.groups[0]) == [0, 2]
    assert len(found.groups) == 1


def test_scores_are_averaged_inside_a_block_before_they_are_ranked():
    # Contents a, b; styles x, y, z: the contents are the blocks. Method 0 wins two of three styles but not the mean.
    scores = np.array([[2, 1], [2, 1], [0, 9], [2, 1], [2, 1], [0, 9]], float)
    found = rank(scores, grid(2, 3))
    assert found is not None
    assert found.ranks == (2.0, 1.0)
    lower = rank(scores, grid(2, 3), higher_is_better=False)
    assert lower is not None
    assert lower.ranks == (1.0, 2.0)


@pytest.mark.numerical
def test_ties_share_ranks_and_all_ties_are_no_difference():
    found = rank(np.ones((4, 3)), grid(4, 1))
    assert found is not None
    assert found.ranks == (2.0, 2.0, 2.0)
    assert found.p == 1.0
    assert found.groups == ((0, 1, 2),)


def test_one_block_or_one_method_has_no_ranks():
    assert rank(np.ones((1, 3)), grid(1, 1)) is None
    assert rank(np.ones((4, 1)), grid(4, 1)) is None


# -- correlations --------------------------------------------------------------------------------------------------


def test_correlations_over_all_pictures_are_scipys():
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 24))
    found = correlate(a, b, np.repeat(np.arange(6), 4))
    assert found.spearman == pytest.approx(stats.spearmanr(a, b).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(a, b).statistic)
    assert (found.pictures, found.pairs) == (24, 6)


def test_inside_pairs_the_difficulty_of_pairs_is_gone():
    """Two metrics that agree on which pair is hard and disagree on which method is good."""
    pair = np.repeat(np.arange(5), 3)
    method = np.tile([0.0, 1.0, 2.0], 5)
    found = correlate(10 * pair + method, 10 * pair - method, pair)
    assert found.spearman is not None
    assert found.spearman > 0.8
    assert found.spearman_within == pytest.approx(-1.0)
    assert found.kendall_within == pytest.approx(-1.0)


@pytest.mark.numerical
@pytest.mark.parametrize("count", [3, 8, 300, 1100])
@pytest.mark.parametrize("levels", [4, 10**6])
def test_correlations_are_scipys_with_and_without_ties(count, levels):
    draw = np.random.default_rng(count)
    a = draw.integers(0, levels, count).astype(float)
    b = np.round(a / 2) + draw.integers(0, levels, count)
    a[0], b[:2] = levels, (levels, 0)
    found = correlate(a, b, np.zeros(count, int))
    assert found.spearman == found.spearman_within == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert found.kendall == found.kendall_within == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)


@pytest.mark.numerical
def test_what_does_not_vary_correlates_with_nothing():
    found = correlate([1.0] * 6, np.arange(6), [0, 0, 0, 1, 1, 1])
    assert (found.spearman, found.kendall, found.spearman_within, found.pairs) == (None, None, None, 0)
    assert correlate([1.0, 2.0], [1.0, 2.0], [0, 0]).spearman_within is None


# -- rounding decides nothing -----------------------------------------------------------------------------------------


@pytest.mark.numerical
def test_methods_that_only_rounding_tells_apart_are_equal() -> None:
    units = Units.of([0, 0, 1, 1, 2, 2], ["a", "b"] * 3)
    first = np.array([0.1, 0.3, 0.7, 0.2, 0.9, 0.4])
    nudged = first * (1 + np.array([1, -1, 1, 1, -1, 1]) * 2e-16)
    found = compare(first, nudged, units)
    assert (found.difference, found.p, found.d_z, found.won) == (0.0, 1.0, None, 0.5)


@pytest.mark.numerical
def test_differences_that_cancel_up_to_rounding_leave_nothing_to_test() -> None:
    """Each content's and each style's sum is 0.3 - 0.1 - 0.2, which is 5e-17 or 2.8e-17 or 0, by the order."""
    units = Units.of([0, 0, 0, 1, 1, 1, 2, 2, 2], ["a", "b", "c"] * 3)
    square = np.array([[0.3, -0.1, -0.2], [-0.2, 0.3, -0.1], [-0.1, -0.2, 0.3]]).flatten()
    found = compare(square, np.zeros(9), units)
    assert (found.t, found.p) == (None, None)
    (interval,) = mean_intervals(square, units) or [None]
    assert interval is not None
    assert interval.half_width == pytest.approx(mean_intervals(np.rint(10 * square), units)[0].half_width / 10)  # type: ignore[index]


@pytest.mark.numerical
def test_ranks_tie_where_means_differ_by_rounding_only() -> None:
    # 0.1 + 0.2 is not 0.3, but 0.15 and 0.15 are the means.
    units = Units.of([0, 0, 1, 1], ["a", "b"] * 2)
    scores = np.array([[0.1, 0.3, 0.0], [0.2, 0.0, 0.1]] * 2)
    found = rank(scores, units)
    assert found is not None
    assert found.ranks == (1.5, 1.5, 3.0)


@pytest.mark.numerical
def test_correlations_tie_where_values_differ_by_rounding_only() -> None:
    a = np.array([0.1 + 0.2, 0.3, 1.0, 2.0])
    b = np.array([1.0, 2.0, 3.0, 4.0])
    exact = correlate([0.3, 0.3, 1.0, 2.0], b, [0, 0, 0, 0])
    assert correlate(a, b, [0, 0, 0, 0]) == exact
    assert correlate([0.1 + 0.2, 0.3, 0.3], [1, 2, 3], [0, 0, 0]).spearman is None
