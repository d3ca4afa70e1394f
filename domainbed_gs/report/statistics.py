"""Holm's correction, bootstrap intervals, Friedman's and Nemenyi's tests.

Pure functions of numbers. A *difference* is the accuracy of a method minus that of the baseline in the same
trial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from domainbed.seeds import generator
from domainbed_gs.report.signed_rank import Floats, smallest_p

ALPHA = 0.05
"""Significance level of all tests, as in the paper's Table 1 (arXiv 2108.01621)."""

RESAMPLES = 10_000
"""Number of bootstrap resamples."""

LEVEL = 0.95
"""Nominal coverage of intervals."""


def pairs_needed(family: int = 1) -> int:
    """Smallest number of pairs for which Holm's p-value can be below `ALPHA` in a family of tests."""
    pairs = 1
    while family * smallest_p(pairs) >= ALPHA:
        pairs += 1
    return pairs


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values, in the order given (Holm 1979).

    The i-th smallest of m p-values (i = 0, 1, ...) becomes the largest of (m - j) p_j over j <= i, at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for position, i in enumerate(order):
        largest = max(largest, (len(p_values) - position) * p_values[i])
        adjusted[i] = min(1.0, largest)
    return adjusted


def bootstrap_interval(
    differences: Sequence[float] | Floats, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `differences` (n,), resampling trials.

    Depends only on the differences and the seed, not on the rest of the report. With fewer than about ten
    trials the interval is too narrow, as percentile intervals are.
    """
    values = np.asarray(differences, dtype=np.float64)
    drawn = generator(seed).integers(len(values), size=(resamples, len(values)))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values[drawn].mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)


def friedman(ranks: Floats) -> tuple[float, float]:
    """Friedman's chi-squared statistic, corrected for ties, and its p-value.

    Args:
        ranks: (N, k) of k algorithms on N datasets; ties share their mean rank.

    Returns: the statistic, and its p-value by the chi-squared distribution with k - 1 degrees of freedom;
        (0, 1) if all ranks are equal.
    """
    from scipy.stats import friedmanchisquare

    if (ranks == ranks.mean()).all():
        return 0.0, 1.0
    statistic, p = friedmanchisquare(*ranks.T)
    return float(statistic), float(p)


def critical_difference(algorithms: int, datasets: int) -> float:
    """Nemenyi's critical difference of average ranks at the level `ALPHA` (Demsar 2006, section 3.2.2).

    q sqrt(k (k + 1) / (6 N)) for k algorithms on N datasets, where q is the quantile of the studentized range
    divided by sqrt(2).
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - ALPHA, algorithms, math.inf)) / math.sqrt(2)
    return q * math.sqrt(algorithms * (algorithms + 1) / (6 * datasets))
