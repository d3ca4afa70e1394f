"""Statistics against enumeration, scipy, textbook numbers and their invariants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, wilcoxon

from domainbed_gs.report.statistics import (
    bootstrap_interval,
    critical_difference,
    friedman,
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
    assert (smallest_p(5), smallest_p(6), pairs_needed()) == (0.0625, 0.03125, 6)
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
