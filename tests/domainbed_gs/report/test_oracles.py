"""Tests, corrections and intervals against other packages, a textbook, and enumerations of their own.

statsmodels and scikit-posthocs are in the extra `dev`. Numbers of baycomp, which is not, are in
tests/data/signed_rank_posteriors.json, with the call that made them.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed_gs.report.signed_rank import (
    equivalence_p,
    hodges_lehmann,
    shift_curve,
    signed_rank_p,
    signed_rank_tails,
)
from domainbed_gs.report.statistics import holm

HAMILTON = (
    np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    - np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
)  # fmt: skip
"""Hollander, Wolfe and Chicken, table 3.1: depression factors of nine patients, after minus before."""


def test_depression_factors_of_the_textbook():
    # Examples 3.1, 3.3 and 3.4: p = 0.0195 one-sided, estimate -0.46, 96 % interval (-0.786, -0.010).
    tails = signed_rank_tails(HAMILTON)
    assert (tails.less, tails.two_sided) == (10 / 512, 20 / 512)
    assert hodges_lehmann(HAMILTON) == pytest.approx(-0.46)
    assert shift_curve(HAMILTON).interval(0.05) == pytest.approx((-0.786, -0.010))


def test_holm_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    draws = np.random.default_rng(0)
    for family in (1, 4, 25):  # each call collects garbage, which takes a while
        p_values = (draws.random(family) ** 3).round(3)  # many small ones, some equal, some zero
        expected = multitest.multipletests(p_values, method="holm")[1]
        assert holm(p_values.tolist()) == pytest.approx(expected, rel=1e-12)


def test_pairwise_tests_equal_those_of_scikit_posthocs():
    posthocs = pytest.importorskip("scikit_posthocs")
    accuracies = np.random.default_rng(4).normal([0, 0.2, 0.9], 1, (14, 3))
    pairs = list(itertools.combinations(range(3), 2))
    raw = [signed_rank_p(accuracies[:, j] - accuracies[:, i]) for i, j in pairs]
    for p_values, adjust in ((raw, None), (holm(raw), "holm")):
        expected = posthocs.posthoc_wilcoxon(accuracies.T, method="exact", p_adjust=adjust).to_numpy()
        assert p_values == pytest.approx([expected[pair] for pair in pairs], rel=1e-12)


def test_probability_of_a_positive_shift_is_close_to_the_bayesian_one(vectors):
    # One minus the mid-p value of the one-sided test; with few differences the prior counts for something.
    for case in vectors("signed_rank_posteriors")["cases"]:
        tails = signed_rank_tails(case["differences"])
        probability = (1 - tails.greater + tails.less) / 2
        assert probability == pytest.approx(case["probability_above"], abs=0.02)


def subset_sums(n):
    """(2^n,) sums of all subsets of the ranks 1 to n."""
    sums = np.zeros(1)
    for rank in range(1, n + 1):
        sums = np.concatenate([sums, sums + rank])
    return sums


@pytest.mark.parametrize("n", range(4, 15))
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_interval_without_ties_is_read_from_the_quantile_of_the_rank_sum(n, alpha):
    # The way of R's wilcox.test(conf.int = TRUE): the qsignrank(alpha / 2)-th Walsh average from either end.
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    sums = subset_sums(n)
    quantile = next(s for s in range(len(sums)) if np.mean(sums <= s) >= alpha / 2)
    averages = np.sort([(differences[i] + differences[j]) / 2 for i in range(n) for j in range(i, n)])
    low, high = shift_curve(differences).interval(alpha)
    if quantile == 0:  # R warns, and takes the extremes
        assert (low, high) == (-math.inf, math.inf)
        return
    ends = {low: averages[quantile - 1], high: averages[-quantile]}
    for end, classical in ends.items():
        # A shift equal to a difference leaves n - 1 others; if the test accepts it, the interval ends there.
        assert end == pytest.approx(classical) or (
            min(abs(differences - end)) < 1e-9 and signed_rank_p(differences - end) >= alpha
        )
    assert low <= ends[low] + 1e-9 < ends[high] - 1e-9 <= high


def enumerated_tails(differences):
    """p-values (less, greater) by enumerating the signs; exact, because doubled ranks are whole numbers."""
    values = [d for d in differences if d]
    sizes = [abs(d) for d in values]
    doubled = [2 * sum(s < size for s in sizes) + sum(s == size for s in sizes) + 1 for size in sizes]
    observed = sum(rank for rank, value in zip(doubled, values, strict=True) if value > 0)
    signs = itertools.product((0, 1), repeat=len(values))
    sums = [sum(rank for rank, sign in zip(doubled, row, strict=True) if sign) for row in signs]
    return sum(s <= observed for s in sums) / len(sums), sum(s >= observed for s in sums) / len(sums)


@settings(max_examples=25)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9), st.integers(0, 4), st.sampled_from([0.05, 0.2]))
def test_intervals_and_equivalence_of_tied_differences_equal_an_enumeration(differences, margin, alpha):
    # Whole numbers have Walsh averages at halves; p is constant between two of them, so quarters decide it.
    quarters = [4 * d for d in differences]
    grid = range(4 * min(differences) - 4, 4 * max(differences) + 5)
    p = {shift: min(1.0, 2 * min(enumerated_tails([q - shift for q in quarters]))) for shift in {0, *grid}}
    accepted = [shift / 4 for shift in grid if p[shift] >= alpha]
    low, high = shift_curve(differences).interval(alpha)
    assert (not low <= 0 <= high) == (p[0] < alpha)
    if p[0] >= alpha:  # else zero, within a hull of accepted shifts, may have moved an end
        assert low == -math.inf if accepted[0] < min(differences) else 0 <= accepted[0] - low <= 0.25
        assert high == math.inf if accepted[-1] > max(differences) else 0 <= high - accepted[-1] <= 0.25
    greater = enumerated_tails([d + margin for d in differences])[1]
    less = enumerated_tails([d - margin for d in differences])[0]
    assert equivalence_p(differences, margin) == pytest.approx(max(greater, less), abs=1e-12)
