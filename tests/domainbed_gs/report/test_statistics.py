"""Statistics against enumeration, scipy, textbook numbers and their invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs.report.signed_rank import smallest_p
from domainbed_gs.report.statistics import (
    bootstrap_interval,
    critical_difference,
    friedman,
    holm,
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


def test_bootstrap_interval_depends_only_on_differences_and_seed():
    differences = np.random.default_rng(5).normal(1, 1, 12)
    assert bootstrap_interval(differences, seed=1) == bootstrap_interval(differences, seed=1)
    assert bootstrap_interval(differences, seed=1) != bootstrap_interval(differences, seed=2)
    assert bootstrap_interval([0.25] * 6) == (0.25, 0.25)


def test_bootstrap_interval_of_many_normal_differences_is_the_normal_interval():
    sample = np.random.default_rng(6).normal(3, 2, 400)
    low, high = bootstrap_interval(sample)
    half = 1.96 * sample.std() / 20
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.02)


def test_bootstrap_interval_has_about_its_nominal_coverage():
    rng = np.random.default_rng(7)
    intervals = [bootstrap_interval(rng.normal(0, 1, 20), resamples=1000) for _ in range(300)]
    assert 0.88 < np.mean([low < 0 < high for low, high in intervals]) < 0.98


@pytest.mark.parametrize(("algorithms", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (8, 3.031), (10, 3.164)])
def test_critical_values_of_demsars_table(algorithms, q):
    n = 10
    factor = np.sqrt(algorithms * (algorithms + 1) / (6 * n))
    assert critical_difference(algorithms, n) / factor == pytest.approx(q, abs=1e-3)


def test_friedman_of_equal_ranks_is_no_evidence():
    assert friedman(np.full((4, 3), 2.0)) == (0.0, 1.0)
