"""Friedman's test of k algorithms on N datasets, exact where possible, and Nemenyi's test after it.

After Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), section 3.2.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from domainbed.seeds import generator
from domainbed_gs.report.signed_rank import Floats, Integers
from domainbed_gs.report.statistics import ALPHA

MANY_DATASETS, MANY_ALGORITHMS = 10, 5
"""With more than so many of both, the chi-squared approximation holds (Demsar 2006, section 3.2.2)."""

PERMUTATIONS = 100_000
"""Number of random permutations where there are too many to enumerate."""

MOST_SUMS = 2_000_000
"""Largest number of rank sums that enumeration looks at for one dataset."""


@dataclass(frozen=True)
class FriedmanTest:
    """Result of Friedman's test.

    Attributes:
        statistic: chi-squared statistic, corrected for ties; 0 if all ranks are equal.
        p: its p-value.
        method: how the p-value was computed, in words.
    """

    statistic: float
    p: float
    method: str


def friedman(ranks: Floats, seed: int = 0) -> FriedmanTest:
    """Test whether k algorithms have the same distribution of ranks on N datasets.

    The p-value is the share of all permutations of the ranks within datasets whose statistic is at least as
    large as the observed one. All are enumerated if that is feasible; otherwise the share is estimated from
    `PERMUTATIONS` random ones. With many datasets and algorithms, chi-squared with k - 1 degrees of freedom
    approximates it.

    Args:
        ranks: (N, k) ranks within each dataset; ties share their mean rank.
        seed: seed of the random permutations.
    """
    datasets, algorithms = ranks.shape
    doubled = np.asarray(2 * ranks, dtype=np.int64)
    if (doubled == algorithms + 1).all():
        return FriedmanTest(0.0, 1.0, "all ranks are equal")
    statistic = _statistic(ranks)
    if datasets > MANY_DATASETS and algorithms > MANY_ALGORITHMS:
        from scipy.stats import chi2

        degrees = algorithms - 1
        p = float(chi2.sf(statistic, degrees))
        return FriedmanTest(statistic, p, f"chi-squared approximation with {degrees} degrees of freedom")
    exact = _exact_p(doubled)
    if exact is not None:
        return FriedmanTest(statistic, exact, "exact, over all permutations within datasets")
    method = f"from {PERMUTATIONS:,} random permutations within datasets, seed {seed}"
    return FriedmanTest(statistic, _permutation_p(doubled, seed), method)


def _statistic(ranks: Floats) -> float:
    """Friedman's chi-squared with its correction for ties: (k - 1) times explained over total variation.

    Equal to 12 N / (k (k + 1)) sum_j (R_j - (k + 1) / 2)^2 without ties, where R_j are the average ranks.
    """
    datasets, algorithms = ranks.shape
    middle = (algorithms + 1) / 2
    explained = datasets * ((ranks.mean(axis=0) - middle) ** 2).sum()
    return float((algorithms - 1) * datasets * explained / ((ranks - middle) ** 2).sum())


def _exact_p(doubled: Integers) -> float | None:
    """Share of all permutations with at least the observed sum of squared rank sums; None if too many.

    Args:
        doubled: (N, k) twice the ranks.
    """
    datasets, algorithms = doubled.shape
    bits = (2 * algorithms * datasets).bit_length()
    if math.factorial(algorithms) > MOST_SUMS or algorithms * bits > 62:
        return None
    observed = (doubled.sum(axis=0) ** 2).sum()
    # The statistic ignores which algorithm has which sum: the first dataset need not be permuted, and sums
    # are kept in ascending order.
    sums: Integers = np.sort(doubled[:1], axis=1)
    shares: Floats = np.ones(1)
    for row in doubled[1:]:
        arrangements = np.array(sorted(set(itertools.permutations(row.tolist()))))
        if len(sums) * len(arrangements) > MOST_SUMS:
            return None
        added = np.sort((sums[:, np.newaxis] + arrangements).reshape(-1, algorithms), axis=1)
        keys = (added << (bits * np.arange(algorithms))).sum(axis=1)
        _, first, positions = np.unique(keys, return_index=True, return_inverse=True)
        weights = np.repeat(shares / len(arrangements), len(arrangements))
        sums = added[first]
        shares = np.asarray(np.bincount(positions, weights=weights), dtype=np.float64)
    return min(1.0, float(shares[(sums**2).sum(axis=1) >= observed].sum()))


def _permutation_p(doubled: Integers, seed: int) -> float:
    """(1 + b) / (1 + B), where b of B random permutations are at least as extreme as the observed ranks."""
    observed = (doubled.sum(axis=0) ** 2).sum()
    drawn = generator(seed)
    extreme = 0
    for _ in range(PERMUTATIONS // 1000):
        permuted = drawn.permuted(np.broadcast_to(doubled, (1000, *doubled.shape)), axis=2)
        extreme += int(((permuted.sum(axis=1) ** 2).sum(axis=1) >= observed).sum())
    return (1 + extreme) / (1 + PERMUTATIONS)


def datasets_for_friedman(algorithms: int) -> int:
    """Smallest number N of datasets on which Friedman's p-value can be below `ALPHA`: (k!)^(1 - N) is."""
    datasets = 2
    while math.factorial(algorithms) ** (1 - datasets) >= ALPHA:
        datasets += 1
    return datasets


def critical_difference(algorithms: int, datasets: int) -> float:
    """Nemenyi's critical difference of average ranks at the level `ALPHA` (Demsar 2006, section 3.2.2).

    q sqrt(k (k + 1) / (6 N)) for k algorithms on N datasets, where q is the quantile of the studentized range
    divided by sqrt(2).
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - ALPHA, algorithms, math.inf)) / math.sqrt(2)
    return q * _rank_error(algorithms, datasets)


def nemenyi_p(rank_difference: float, algorithms: int, datasets: int) -> float:
    """Nemenyi's p-value of a difference of average ranks, corrected for all pairs of k algorithms."""
    from scipy.stats import studentized_range

    q = abs(rank_difference) / _rank_error(algorithms, datasets) * math.sqrt(2)
    return float(studentized_range.sf(q, algorithms, math.inf))


def datasets_for_nemenyi(algorithms: int) -> int:
    """Smallest number of datasets on which two average ranks can differ by the critical difference."""
    return math.floor((critical_difference(algorithms, 1) / (algorithms - 1)) ** 2) + 1


def _rank_error(algorithms: int, datasets: int) -> float:
    """Standard error of a difference of two average ranks if all algorithms are equal."""
    return math.sqrt(algorithms * (algorithms + 1) / (6 * datasets))
