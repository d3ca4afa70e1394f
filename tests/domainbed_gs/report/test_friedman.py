"""Friedman's test against enumeration and scipy, and the critical values of Demsar's table."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare, rankdata

from domainbed_gs.report import friedman as module
from domainbed_gs.report.friedman import (
    critical_difference,
    datasets_for_friedman,
    datasets_for_nemenyi,
    friedman,
    nemenyi_p,
)


@given(
    st.sampled_from([(2, 3), (3, 3), (5, 3), (2, 4), (3, 4), (2, 5)]),
    st.integers(2, 9),
    st.integers(0, 10**6),
)
@settings(max_examples=25, deadline=None)
def test_exact_p_is_the_share_of_all_permutations(shape, values, seed):
    ranks = rankdata(np.random.default_rng(seed).integers(0, values, shape), axis=1)
    observed = (ranks.sum(axis=0) ** 2).sum()
    permutations = [np.array(list(itertools.permutations(row))) for row in ranks]
    sums = permutations[0]
    for rows in permutations[1:]:
        sums = (sums[:, np.newaxis] + rows).reshape(-1, shape[1])
    expected = ((sums**2).sum(axis=1) >= observed - 1e-9).mean()
    assert friedman(ranks).p == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(4, 3), (12, 4), (3, 20), (12, 7)])
def test_statistic_is_scipys_with_its_correction_for_ties(shape):
    ranks = rankdata(np.random.default_rng(1).integers(0, 5, shape), axis=1)
    assert friedman(ranks).statistic == pytest.approx(friedmanchisquare(*ranks.T).statistic)


def test_many_datasets_and_algorithms_use_chi_squared():
    ranks = rankdata(np.random.default_rng(2).normal(size=(11, 6)), axis=1)
    found = friedman(ranks)
    assert found.p == pytest.approx(friedmanchisquare(*ranks.T).pvalue)
    assert found.method == "chi-squared approximation with 5 degrees of freedom"
    assert "chi-squared" not in friedman(ranks[:10]).method


def test_random_permutations_estimate_the_exact_p(monkeypatch):
    ranks = rankdata(np.random.default_rng(3).normal(size=(4, 4)) + [0, 0, 1, 1], axis=1)
    exact = friedman(ranks)
    assert exact.method.startswith("exact")
    monkeypatch.setattr(module, "MOST_SUMS", 100)
    estimate = friedman(ranks, seed=5)
    assert estimate.method == "from 100,000 random permutations within datasets, seed 5"
    error = math.sqrt(exact.p * (1 - exact.p) / 100_000)
    assert estimate.p == pytest.approx(exact.p, abs=5 * error)
    assert estimate == friedman(ranks, seed=5)


@pytest.mark.parametrize("algorithms", [3, 4, 5])
def test_fewest_datasets_for_friedman(algorithms):
    same = np.tile(np.arange(1.0, algorithms + 1), (datasets_for_friedman(algorithms), 1))
    assert friedman(same).p < 0.05
    assert len(same) == 2 or friedman(same[1:]).p >= 0.05


def test_equal_ranks_are_no_evidence():
    found = friedman(np.full((4, 3), 2.0))
    assert (found.statistic, found.p) == (0.0, 1.0)


@pytest.mark.parametrize(("algorithms", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (8, 3.031), (10, 3.164)])
def test_critical_values_of_demsars_table(algorithms, q):
    n = 10
    factor = np.sqrt(algorithms * (algorithms + 1) / (6 * n))
    assert critical_difference(algorithms, n) / factor == pytest.approx(q, abs=1e-3)
    assert nemenyi_p(critical_difference(algorithms, n), algorithms, n) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("algorithms", [3, 5, 12])
def test_fewest_datasets_for_nemenyi(algorithms):
    needed = datasets_for_nemenyi(algorithms)
    assert critical_difference(algorithms, needed) < algorithms - 1
    assert critical_difference(algorithms, needed - 1) >= algorithms - 1
