"""Statistics against enumeration, scipy, textbook numbers and their invariants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from domainbed_gs.report.signed_rank import smallest_p
from domainbed_gs.report.statistics import (
    better_probability,
    holm,
    mean_permutation_p,
    pairs_needed,
)


def test_pairs_needed_for_a_family_of_tests():
    assert pairs_needed() == 6
    assert 12 * smallest_p(pairs_needed(12)) < 0.05 <= 12 * smallest_p(pairs_needed(12) - 1)


def test_holm_of_a_worked_example():
    # 0.005 * 4; 0.01 * 3; 0.03 * 2; 0.04 * 1 is below the one before and is raised to it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_preserves_order_and_lies_between_p_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, raised in zip(p_values, adjusted, strict=True):
        assert p <= raised <= min(1.0, len(p_values) * p)
    in_order_of_p = [raised for _, raised in sorted(zip(p_values, adjusted, strict=True))]
    assert in_order_of_p == sorted(in_order_of_p)


small_differences = st.lists(st.integers(-5, 5), min_size=1, max_size=9)


@given(small_differences)
def test_mean_permutation_p_is_the_share_of_sign_assignments(differences):
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    sums = np.abs(signs @ np.array(differences))
    assert mean_permutation_p(differences) == np.mean(sums >= abs(sum(differences)))


def test_mean_permutation_p_ignores_rounding_errors_and_zeros():
    differences = [0.3 - 0.2, 0.2 - 0.1, 0.1, -0.1, 0.0]
    assert mean_permutation_p(differences) == mean_permutation_p([1, 1, 1, -1]) == 10 / 16
    assert mean_permutation_p([0.0, 0.0]) == 1.0


def test_mean_permutation_p_equals_scipys():
    sample = np.random.default_rng(2).normal(0.4, 1, 12)
    found = permutation_test((sample,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert mean_permutation_p(sample) == pytest.approx(found.pvalue)


def test_mean_permutation_p_of_many_differences_is_close_to_the_exact_one():
    sample = np.random.default_rng(6).normal(0.4, 1, 30)
    exact = mean_permutation_p(sample)
    more = [*sample, 1e-9, 1e-9]  # which hardly matter, but now assignments are drawn at random
    assert mean_permutation_p(more) == pytest.approx(exact, abs=4 * np.sqrt(exact / 50_000))
    assert mean_permutation_p(more) == mean_permutation_p(more)


def test_better_probability_has_the_interval_of_clopper_and_pearson():
    exact = binomtest(14, 20).proportion_ci(method="exact")
    probability, interval = better_probability(14, 0, 6)
    assert probability == 0.7
    assert interval == pytest.approx((exact.low, exact.high))
    assert better_probability(0, 0, 6) == (0.0, (0.0, pytest.approx(1 - 0.025 ** (1 / 6))))
    assert better_probability(6, 0, 0)[1][1] == 1.0
    assert better_probability(0, 0, 0) is None


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_better_probability_is_symmetric_and_lies_in_its_interval(wins, ties, losses):
    if wins + ties + losses == 0:
        return
    probability, (low, high) = better_probability(wins, ties, losses)
    other, (other_low, other_high) = better_probability(losses, ties, wins)
    assert low <= probability <= high
    assert (other, other_low, other_high) == pytest.approx((1 - probability, 1 - high, 1 - low))
