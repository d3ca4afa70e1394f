"""The signed-rank test against enumeration, scipy and its invariants; its intervals against the test."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, wilcoxon

from domainbed_gs.report.signed_rank import (
    equivalence_p,
    hodges_lehmann,
    rank_sum,
    shift_curve,
    signed_rank_p,
    signed_rank_tails,
    smallest_p,
)


def enumerated_p(differences):
    """Share of all assignments of signs whose rank sum is at least as far from its mean as the observed."""
    values = np.array([d for d in differences if d])
    ranks = rankdata(np.abs(values))
    signs = np.array(list(itertools.product((0, 1), repeat=len(values))))
    distance = np.abs(signs @ ranks - ranks.sum() / 2) if len(values) else np.zeros(1)
    observed = abs(ranks[values > 0].sum() - ranks.sum() / 2)
    return np.mean(distance >= observed - 1e-9)


# Few different whole numbers: most draws have ties and zeros.
tied_differences = st.lists(st.integers(-4, 4), min_size=1, max_size=10)


@given(tied_differences)
def test_p_is_the_share_of_sign_assignments(differences):
    assert signed_rank_p(differences) == pytest.approx(enumerated_p(differences), abs=1e-12)


@given(tied_differences, st.randoms())
def test_p_is_invariant_to_order_direction_and_scale(differences, random):
    p = signed_rank_p(differences)
    random.shuffle(differences)
    assert signed_rank_p([-3 * d for d in differences]) == p


@pytest.mark.parametrize("n", [1, 2, 6, 13, 20, 40])
def test_p_equals_scipys_where_scipy_is_exact(n):
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    assert signed_rank_p(differences) == pytest.approx(
        wilcoxon(differences, method="exact").pvalue, rel=1e-12
    )


def test_p_of_many_trials_is_close_to_the_normal_approximation():
    differences = np.random.default_rng(0).normal(0.1, 1, 150)
    approximate = wilcoxon(differences, method="approx").pvalue
    assert signed_rank_p(differences) == pytest.approx(approximate, rel=0.02)


def test_five_pairs_cannot_reach_five_percent_but_six_can():
    assert min(signed_rank_p(signs) for signs in itertools.product((-1, 1), repeat=5)) == 0.0625
    assert signed_rank_p([1, 2, 3, 4, 5, 6]) == 0.03125
    assert (smallest_p(5), smallest_p(6)) == (0.0625, 0.03125)


any_differences = st.one_of(
    tied_differences, st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=14)
)


@given(any_differences, st.sampled_from([0.05, 0.05 / 11, 0.3]))
def test_zero_is_outside_the_interval_if_and_only_if_the_test_rejects_it(differences, alpha):
    low, high = shift_curve(differences).interval(alpha)
    assert (signed_rank_p(differences) < alpha) == (not low <= 0 <= high)


@given(any_differences, st.sampled_from([0.05, 0.3]))
def test_every_shift_that_is_accepted_lies_in_the_interval_and_its_ends_border_on_accepted_ones(
    differences, alpha
):
    curve = shift_curve(differences)
    low, high = curve.interval(alpha)
    values = np.array(differences)
    accepted = [shift for shift in curve.shifts if signed_rank_p(values - shift) >= alpha and shift != 0]
    if not low <= 0 <= high:  # where zero alone is rejected, the interval keeps one side of it
        accepted = [shift for shift in accepted if (shift > 0) == (low > 0)]
    assert all(low <= shift <= high for shift in accepted)
    if 0 < low < math.inf or -math.inf < high < 0:
        return  # one of the ends may have been moved so that zero lies outside
    for end, side in ((low, 1), (high, -1)):
        if math.isfinite(end):
            inside = [end, end + side * 1e-9]
            assert any(signed_rank_p(values - shift) >= alpha for shift in inside)
            assert signed_rank_p(values - (end - side * 1e-9)) < alpha


def test_interval_of_differences_without_ties_is_that_of_the_walsh_averages():
    # Hollander, Wolfe and Chicken, section 3.3: the ends are the k-th smallest and largest Walsh averages,
    # where k - 1 is the largest rank sum with a two-sided p-value of at most 5 %; k = 9 for n = 10.
    values = np.random.default_rng(3).normal(size=10)
    averages = np.sort([(a + b) / 2 for i, a in enumerate(values) for b in values[i:]])
    assert shift_curve(values).interval(0.05) == pytest.approx((averages[8], averages[-9]))
    assert hodges_lehmann(values) == pytest.approx(np.median(averages))


def test_intervals_of_few_differences_are_unbounded():
    assert shift_curve([1, 2, 3, 4, 5]).interval(0.05) == (-math.inf, math.inf)
    assert shift_curve([]).interval(0.05) is None
    assert math.isnan(hodges_lehmann([]))


@given(any_differences)
def test_one_sided_tests_are_mirror_images_and_the_smaller_one_is_in_the_direction_of_the_rank_sum(
    differences,
):
    tails, mirrored = signed_rank_tails(differences), signed_rank_tails([-d for d in differences])
    assert (tails.less, tails.greater) == (mirrored.greater, mirrored.less)
    assert np.sign(tails.less - tails.greater) == np.sign(rank_sum(differences))


@pytest.mark.parametrize("alternative", ["less", "greater"])
def test_one_sided_tests_equal_scipys(alternative):
    differences = np.random.default_rng(7).normal(0.4, 1, 17)
    expected = wilcoxon(differences, method="exact", alternative=alternative).pvalue
    assert getattr(signed_rank_tails(differences), alternative) == pytest.approx(expected, rel=1e-12)


def test_equivalence_needs_all_shifts_to_lie_within_the_margin():
    differences = np.random.default_rng(1).normal(0.1, 0.5, 20)
    assert equivalence_p(differences, margin=1.0) < 0.05 < equivalence_p(differences, margin=0.1)
    assert equivalence_p(differences, margin=0.0) >= 0.5
    # The test at 5 % agrees with the 90 % interval (Schuirmann 1987).
    low, high = shift_curve(differences).interval(0.1)
    margin = max(-low, high)
    assert equivalence_p(differences, margin + 1e-6) <= 0.05 < equivalence_p(differences, margin - 1e-6)
