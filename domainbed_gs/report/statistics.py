"""Holm's correction, the permutation test of a mean, and win probabilities.

Pure functions of numbers. A *difference* is the accuracy of a method minus that of the baseline in the same
trial.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domainbed.seeds import generator
from domainbed_gs.report.signed_rank import DECIMALS, Floats, smallest_p

ALPHA = 0.05
"""Significance level of all tests, as in the paper's Table 1 (arXiv 2108.01621)."""

MOST_ENUMERATED = 30
"""Largest number of non-zero differences whose sign assignments are all counted."""

RANDOM_ASSIGNMENTS = 50_000
"""Number of random sign assignments for more differences than that."""


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


def mean_permutation_p(differences: Sequence[float] | Floats, seed: int = 0) -> float:
    """Two-sided p-value of the sign-flip permutation test of the mean.

    The share of the 2^n sign assignments to the n non-zero differences whose mean is at least as far from
    zero as the observed one (Fisher 1935, "The Design of Experiments", section 21). Exact for up to
    `MOST_ENUMERATED` differences. Beyond, a share of `RANDOM_ASSIGNMENTS` random assignments, in which the
    observed one counts as another (Phipson and Smyth 2010, section 4).

    Args:
        differences: (n,).
        seed: seed of the random assignments.

    Returns: the p-value; 1.0 if all differences are zero.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values.round(DECIMALS) != 0]
    # Sums that are equal but for rounding errors count as equally far.
    observed = abs(values.sum()) - 10.0**-DECIMALS
    if len(values) <= MOST_ENUMERATED:
        return _share_of_sums(values, float(observed))
    draw = generator(seed)
    blocks = np.array_split(np.arange(RANDOM_ASSIGNMENTS), RANDOM_ASSIGNMENTS // 10_000)
    sums = (draw.choice((-1.0, 1.0), size=(len(block), len(values))) @ values for block in blocks)
    extreme = sum(int((np.abs(each) >= observed).sum()) for each in sums)
    return (extreme + 1) / (RANDOM_ASSIGNMENTS + 1)


def _share_of_sums(values: Floats, least: float) -> float:
    """Share of the sign assignments to `values` (n,) whose sum is at least `least` from zero.

    Meets in the middle: the sums of one half are looked up among the sorted sums of the other, which takes
    2^(n/2) numbers instead of 2^n.
    """
    one, other = (_signed_sums(half) for half in np.array_split(values, 2))
    other.sort()
    above = len(other) - np.searchsorted(other, least - one, side="left")
    below = np.searchsorted(other, -least - one, side="right")
    extreme = int(above.sum() + below.sum()) if least > 0 else len(one) * len(other)
    return extreme / (len(one) * len(other))


def _signed_sums(values: Floats) -> Floats:
    """(2^n,) sums of `values` (n,) with every assignment of signs."""
    sums: Floats = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def better_probability(wins: int, ties: int, losses: int) -> tuple[float, tuple[float, float]] | None:
    """Probability that a method is better in a trial, and its 95 % interval.

    Wins and half the ties, divided by the number of trials. The interval is that of Clopper and Pearson
    (1934), Biometrika 26:404, with half the ties among the successes: by quantiles of beta distributions,
    which are defined for half a success too.

    Returns: (probability, (low, high)); None without trials.
    """
    from scipy.special import betaincinv  # the quantile; scipy.stats takes twenty times as long

    trials = wins + ties + losses
    if not trials:
        return None
    successes = wins + ties / 2
    low = betaincinv(successes, trials - successes + 1, ALPHA / 2) if successes else 0.0
    high = betaincinv(successes + 1, trials - successes, 1 - ALPHA / 2) if successes < trials else 1.0
    return successes / trials, (float(low), float(high))
