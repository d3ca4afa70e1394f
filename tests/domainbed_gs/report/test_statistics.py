"""The statistics against enumeration, scipy, textbook numbers and their own invariants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, wilcoxon

from domainbed.errors import UsageError
from domainbed_gs.report.statistics import (
    bootstrap_interval,
    compare,
    holm,
    pairs_needed,
    signed_rank_p,
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
def test_p_knows_neither_order_nor_direction(differences, random):
    p = signed_rank_p(differences)
    random.shuffle(differences)
    assert signed_rank_p([-3 * d for d in differences]) == p


@pytest.mark.parametrize("n", [1, 2, 6, 13, 20, 40])
def test_p_equals_scipys_where_scipy_is_exact(n):
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    assert signed_rank_p(differences) == pytest.approx(
        wilcoxon(differences, method="exact").pvalue, rel=1e-12
    )


def test_p_of_many_trials_is_near_the_normal_approximation():
    differences = np.random.default_rng(0).normal(0.1, 1, 150)
    approximate = wilcoxon(differences, method="approx").pvalue
    assert signed_rank_p(differences) == pytest.approx(approximate, rel=0.02)


def test_five_pairs_never_reach_five_percent_and_six_can():
    assert min(signed_rank_p(signs) for signs in itertools.product((-1, 1), repeat=5)) == 0.0625
    assert signed_rank_p([1, 2, 3, 4, 5, 6]) == 0.03125
    assert (smallest_p(5), smallest_p(6), pairs_needed()) == (0.0625, 0.03125, 6)
    assert 12 * smallest_p(pairs_needed(12)) < 0.05 <= 12 * smallest_p(pairs_needed(12) - 1)


def test_ties_are_seen_through_rounding_errors():
    method, baseline = [0.3, 0.2, 0.7, 0.1], [0.2, 0.1, 0.8, 0.1]
    assert len(set(np.subtract(method, baseline).round(20))) > 3  # float64 alone sees no ties
    result = compare(method, baseline)
    assert (result.wins, result.ties, result.losses) == (2, 1, 1)
    assert result.p == enumerated_p([1, 1, -1, 0]) == 1.0


def test_compare():
    baseline = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80]
    method = [b + 0.01 * k for k, b in enumerate(baseline)]
    result = compare(method, baseline, seed=3)
    assert (result.pairs, result.wins, result.ties, result.losses) == (7, 6, 1, 0)
    assert result.difference == pytest.approx(0.03)
    assert result.p == 0.03125
    assert result.significant
    assert result.smallest_p == 0.03125  # the tie does not count
    low, high = result.interval
    assert 0 < low < 0.03 < high < 0.06


def test_compare_with_next_to_nothing():
    none = compare([], [])
    assert (none.pairs, none.p, none.interval, none.significant) == (0, None, None, False)
    assert np.isnan(none.difference)
    one = compare([0.6], [0.5])
    assert (one.p, one.interval) == (1.0, None)
    assert compare([0.5] * 8, [0.5] * 8).p == 1.0


def test_unequal_numbers_of_trials_are_refused():
    with pytest.raises(UsageError, match="3 accuracies cannot be paired with 2"):
        compare([0.1, 0.2, 0.3], [0.1, 0.2])


def test_holm_of_a_worked_example():
    # 0.005 * 4; 0.01 * 3; 0.03 * 2; 0.04 * 1 is below the one before and is raised to it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, raised in zip(p_values, adjusted, strict=True):
        assert p <= raised <= min(1.0, len(p_values) * p)
    in_order_of_p = [raised for _, raised in sorted(zip(p_values, adjusted, strict=True))]
    assert in_order_of_p == sorted(in_order_of_p)


def test_bootstrap_interval_depends_on_differences_and_seed_alone():
    differences = np.random.default_rng(5).normal(1, 1, 12)
    assert bootstrap_interval(differences, seed=1) == bootstrap_interval(differences, seed=1)
    assert bootstrap_interval(differences, seed=1) != bootstrap_interval(differences, seed=2)
    assert bootstrap_interval([0.25] * 6) == (0.25, 0.25)


def test_bootstrap_interval_is_that_of_a_normal_mean():
    sample = np.random.default_rng(6).normal(3, 2, 400)
    low, high = bootstrap_interval(sample)
    half = 1.96 * sample.std() / 20
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.02)


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    intervals = [bootstrap_interval(rng.normal(0, 1, 20), resamples=1000) for _ in range(300)]
    assert 0.88 < np.mean([low < 0 < high for low, high in intervals]) < 0.98
