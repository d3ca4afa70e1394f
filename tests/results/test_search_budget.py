"""Expected best accuracy by budget, against enumeration of all draws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.hparam_search import ranked_candidates
from domainbed.results.search_budget import Search, best_of, both_best_of, budget_curves, budgets


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_mean_and_variance_are_those_of_all_draws(count, draws, seed):
    # Distinct validation accuracies, so that each draw has one best setting on each of two targets.
    rng = np.random.default_rng(seed)
    validation, target = np.array([rng.permutation(count) for _ in range(2)]), rng.random((2, count))
    results = []
    for drawn in itertools.product(range(count), repeat=draws):
        best = [max(drawn, key=row.__getitem__) for row in validation]
        results.append(np.mean([target[t, i] for t, i in enumerate(best)]))
    search = Search(validation.astype(float), target)
    assert search.expected(target, draws) == pytest.approx(np.mean(results))
    assert search.variance(draws) == pytest.approx(np.var(results), abs=1e-12)


def test_expected_maximum_of_dodge_et_al():
    # P(best = 0.5) = 1/9, P(best = 0.6) = 3/9, P(best = 0.9) = 5/9 in two draws from three.
    accuracies = np.array([0.9, 0.5, 0.6])
    assert best_of(accuracies, 2) == pytest.approx([5 / 9, 1 / 9, 3 / 9])
    assert best_of(accuracies, 2) @ accuracies == pytest.approx((0.5 + 3 * 0.6 + 5 * 0.9) / 9)


def test_ties_are_equally_likely_and_nan_is_never_better():
    assert best_of(np.array([0.5, 0.5, math.nan, math.nan]), 2) == pytest.approx([3 / 8, 3 / 8, 1 / 8, 1 / 8])
    tied = both_best_of(np.array([0.5, 0.5]), np.array([0.1, 0.2]), 2)
    np.testing.assert_allclose(tied, [[1 / 8, 3 / 8]] * 2)
    assert Search(np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]])).variance(3) == pytest.approx(0.25)


def test_budgets():
    assert [budgets(most) for most in (1, 2, 5, 20)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8, 16, 20]]


def test_curves_of_a_sweep(vlcs):
    records = Q([record for key in vlcs.runs for record in vlcs.records(key, str(key))])
    (curve,) = budget_curves(ranked_candidates(records, METHODS["oracle"]))
    assert (curve.dataset, curve.algorithm, curve.targets, curve.trials) == ("VLCS", "ERM", (0, 1, 2, 3), 2)
    assert [point.settings for point in curve.points] == [1, 2]
    last = np.array(
        [[[vlcs.runs[trial, (target,), seed][:, -1, target] for seed in (0, 1)] for target in range(4)]
         for trial in (0, 1)]
    )  # fmt: skip
    inside = last[..., 0]
    assert curve.points[0].target == pytest.approx(inside.mean())
    of_trials = inside.mean(axis=(1, 2))
    assert curve.points[0].trials == pytest.approx(np.std(of_trials, ddof=1))
    of_settings = inside.mean(axis=1)
    assert curve.points[0].search == pytest.approx(np.sqrt(of_settings.var(axis=1).mean()))


def test_targets_that_another_algorithm_lacks_do_not_count(vlcs):
    whole = [record for key in vlcs.runs for record in vlcs.records(key, str(key))]
    vlcs.algorithm = "AgrSum"
    vlcs.drop(*[(trial, (1,), seed) for trial in (0, 1) for seed in (0, 1)], (1, (2,), 0))
    partial = [record for key in vlcs.runs for record in vlcs.records(key, str(key))]
    curves = budget_curves(ranked_candidates(Q(whole + partial), METHODS["iid"]))
    found = {curve.algorithm: (curve.targets, curve.left_out, curve.trials) for curve in curves}
    # The second trial of AgrSum has a single setting on target 2.
    assert found == {"ERM": ((0, 2, 3), (1,), 2), "AgrSum": ((0, 2, 3), (1,), 1)}
