"""Statistics of paired trials: exact Wilcoxon signed-rank test, Holm's correction, bootstrap interval.

Pure functions of NumPy arrays. A *pair* is the accuracy of a method and of the baseline in one trial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainbed.errors import UsageError
from domainbed.seeds import generator

ALPHA = 0.05
"""Level of the test in the paper's Table 1 (arXiv 2108.01621)."""

RESAMPLES = 10_000
LEVEL = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """A method against the baseline over `pairs` trials; accuracies and differences in [-1, 1].

    Attributes:
        pairs: number of trials compared.
        difference: mean of method - baseline over them; nan without pairs.
        interval: 95 % bootstrap interval of `difference`; None with fewer than two pairs.
        p: two-sided exact signed-rank p; None without pairs.
        wins, ties, losses: trials in which the method is better than, equal to, worse than the baseline.
    """

    pairs: int
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    wins: int
    ties: int
    losses: int

    @property
    def significant(self) -> bool:
        """Whether the raw p is below `ALPHA`."""
        return self.p is not None and self.p < ALPHA

    @property
    def smallest_p(self) -> float:
        """The smallest p that these trials could have given: all but the ties of one sign."""
        return smallest_p(self.wins + self.losses)


def compare(method: Sequence[float], baseline: Sequence[float], seed: int = 0) -> Comparison:
    """Compare accuracies (n,) of a method with the baseline's (n,) in the same n trials.

    Raises: UsageError if there are not as many of the one as of the other.
    """
    if len(method) != len(baseline):
        raise UsageError(f"{len(method)} accuracies cannot be paired with {len(baseline)} of the baseline")
    differences: Floats = np.subtract(method, baseline, dtype=np.float64)
    # Accuracies are fractions of whole samples: 0.3 - 0.2 and 0.2 - 0.1 are tied, which float64 does not see.
    ranked = differences.round(12)
    return Comparison(
        pairs=len(differences),
        difference=float(differences.mean()) if len(differences) else math.nan,
        interval=bootstrap_interval(differences, seed) if len(differences) > 1 else None,
        p=signed_rank_p(ranked) if len(ranked) else None,
        wins=int((ranked > 0).sum()),
        ties=int((ranked == 0).sum()),
        losses=int((ranked < 0).sum()),
    )


def signed_rank_p(differences: Sequence[float] | Floats) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, exact with ties too (scipy's is not).

    Zeros are dropped and equal magnitudes share their mean rank. p is the share of the 2^n assignments
    of signs to the ranks whose rank sum lies at least as far from its expectation as the one observed;
    they are counted by dynamic programming over the doubled ranks, which are whole. Exact in float64 up
    to 53 non-zero differences, to rounding beyond. 1.0 if all differences are zero.
    """
    from scipy.stats import rankdata

    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    doubled = np.asarray(2 * rankdata(np.abs(values)), dtype=np.int64)
    total = int(doubled.sum())
    positive = int(doubled[values > 0].sum())
    share = np.zeros(total + 1)
    share[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(share)
        shifted[rank:] = share[: total + 1 - rank]
        share = (share + shifted) / 2
    sums = np.arange(total + 1)
    # The expectation of the sum is total / 2; both sides are doubled to stay whole.
    return float(min(1.0, share[np.abs(2 * sums - total) >= abs(2 * positive - total)].sum()))


def smallest_p(pairs: int) -> float:
    """The smallest two-sided p of n = `pairs` non-zero differences: 2 / 2^n (5: 0.0625, 6: 0.03125)."""
    return min(1.0, 2.0 ** (1 - pairs))


def pairs_needed(family: int = 1) -> int:
    """The smallest number of pairs with which Holm's p over a family of that size can be below `ALPHA`."""
    pairs = 1
    while family * smallest_p(pairs) >= ALPHA:
        pairs += 1
    return pairs


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in their order (Holm 1979).

    The i-th smallest of m (i = 0, 1, ...) becomes the largest of (m - j) p_j over j <= i, at most 1.
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
    """95 % percentile interval of the mean of `differences` (n,), from resampled trials.

    It depends on the differences and the seed alone, not on what else is in the report. With fewer than
    about ten trials it is too narrow, as percentile intervals are.
    """
    values = np.asarray(differences, dtype=np.float64)
    drawn = generator(seed).integers(len(values), size=(resamples, len(values)))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values[drawn].mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)
