"""Wilcoxon's signed-rank test, exact even with ties, and the shift and intervals that belong to it.

Pure functions of n *differences*: the accuracy of a method minus that of the baseline in the same trial. The
test is about their pseudo-median, the centre of a symmetric distribution (Hollander, Wolfe and Chicken,
"Nonparametric Statistical Methods", 3rd edition, sections 3.1 to 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

DECIMALS = 12
"""Decimals to which differences are rounded before equal ones are looked for.

Accuracies are fractions of whole samples: 0.3 - 0.2 and 0.2 - 0.1 are tied, but differ in float64.
"""


@dataclass(frozen=True)
class Tails:
    """One-sided and two-sided p-values of one test.

    Attributes:
        less: p-value against a pseudo-median below zero.
        greater: p-value against a pseudo-median above zero.
        two_sided: p-value against a pseudo-median other than zero.
    """

    less: float
    greater: float
    two_sided: float


def signed_rank_p(differences: Sequence[float] | Floats) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test, exact even with ties (scipy's is not).

    Args:
        differences: (n,); rounded to `DECIMALS`.

    Returns: the p-value; 1.0 if all differences are zero.
    """
    return signed_rank_tails(differences).two_sided


def signed_rank_tails(differences: Sequence[float] | Floats) -> Tails:
    """The p-values of the signed-rank test in both directions.

    Zeros are dropped, and equal magnitudes share their mean rank. A p-value is the share of the 2^n sign
    assignments whose rank sum is at least as extreme as the observed one. They are counted by dynamic
    programming over the doubled ranks, which are integers. The result is exact in float64 for up to 53
    non-zero differences, and correct to rounding error beyond.

    Args:
        differences: (n,); rounded to `DECIMALS`.
    """
    values = np.asarray(differences, dtype=np.float64).round(DECIMALS)[np.newaxis]
    less, greater, two_sided = _p_values(values)
    return Tails(less=float(less[0]), greater=float(greater[0]), two_sided=float(two_sided[0]))


def rank_sum(differences: Sequence[float] | Floats) -> float:
    """Ranks of the positive minus those of the negative differences; its sign is the test's direction."""
    values = np.asarray(differences, dtype=np.float64).round(DECIMALS)[np.newaxis]
    doubled = _doubled_ranks(values)
    return float((np.sign(values) * doubled).sum() / 2)


def smallest_p(pairs: int) -> float:
    """Smallest possible two-sided signed-rank p-value of n non-zero differences: 2 / 2^n (n = 5: 0.0625)."""
    return min(1.0, 2.0 ** (1 - pairs))


def hodges_lehmann(differences: Sequence[float] | Floats) -> float:
    """Hodges-Lehmann estimate of the shift: the median of all (d_i + d_j) / 2 with i <= j; NaN for n = 0."""
    walsh = _walsh_averages(np.asarray(differences, dtype=np.float64))
    return float(np.median(walsh)) if len(walsh) else math.nan


def equivalence_p(differences: Sequence[float] | Floats, margin: float) -> float:
    """p-value of two one-sided signed-rank tests: small if the shift lies within (-margin, margin).

    The larger of the p-values against a shift above -margin and against a shift below margin (Schuirmann
    1987, Journal of Pharmacokinetics and Biopharmaceutics 15:657).

    Args:
        differences: (n,).
        margin: largest shift that makes no practical difference, in the unit of `differences`; at least 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    above = signed_rank_tails(values + margin).greater
    below = signed_rank_tails(values - margin).less
    return max(above, below)


@dataclass(frozen=True)
class ShiftCurve:
    """The two-sided p-value of every shift, from which intervals at any level are read.

    Attributes:
        shifts: (m,) ascending: each distinct Walsh average (d_i + d_j) / 2, and a shift between each two of
            them and beyond the first and the last. The p-value is constant between two averages.
        p: (m,) p-value of the signed-rank test of the differences minus the shift.
        p_of_zero: p-value of the differences as they are.
        direction: their rank sum (see `rank_sum`).
    """

    shifts: Floats
    p: Floats
    p_of_zero: float
    direction: float

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """The interval of all shifts that the test does not reject at level `alpha`.

        Zero lies outside if and only if its p-value is below `alpha`. An end is infinite if no shift on its
        side can be rejected, which happens with few differences.

        Returns: (low, high); None without differences.
        """
        if not len(self.shifts):
            return None
        accepted = np.flatnonzero(self.p >= alpha)
        low, high = self._end(accepted[0], -1), self._end(accepted[-1], 1)
        if self.p_of_zero < alpha and low <= 0 <= high:
            # With zeros or ties, zero can be rejected at the border of the interval, or within it.
            beyond = math.ulp(0.0)
            low, high = (beyond, max(high, beyond)) if self.direction > 0 else (min(low, -beyond), -beyond)
        return low, high

    def _end(self, position: int, side: int) -> float:
        """The end of the interval on one side (-1 or 1), whose outermost accepted shift is at `position`."""
        if position in (0, len(self.shifts) - 1):
            return side * math.inf
        is_average = position % 2 == 1
        return float(self.shifts[position if is_average else position + side])


def shift_curve(differences: Sequence[float] | Floats) -> ShiftCurve:
    """The p-values of all shifts of `differences` (n,)."""
    return _shift_curve(np.asarray(differences, dtype=np.float64).round(DECIMALS).tobytes())


@lru_cache(maxsize=1024)  # a report reads two intervals of each curve, the second when its families are known
def _shift_curve(differences: bytes) -> ShiftCurve:
    values = np.frombuffer(differences, dtype=np.float64)
    averages = np.unique(_walsh_averages(values).round(DECIMALS + 1))
    if not len(averages):
        return ShiftCurve(shifts=averages, p=averages, p_of_zero=1.0, direction=0.0)
    gaps = (averages[1:] + averages[:-1]) / 2
    shifts = np.empty(2 * len(averages) + 1)
    shifts[1::2] = averages
    shifts[0], shifts[-1] = averages[0] - 1, averages[-1] + 1
    shifts[2:-1:2] = gaps
    shifted = (values - np.append(shifts, 0.0)[:, np.newaxis]).round(DECIMALS + 2)
    _, _, p = _p_values(shifted)
    return ShiftCurve(shifts=shifts, p=p[:-1], p_of_zero=float(p[-1]), direction=rank_sum(values))


def _walsh_averages(values: Floats) -> Floats:
    rows, columns = np.triu_indices(len(values))
    return (values[rows] + values[columns]) / 2


def _doubled_ranks(values: Floats) -> Integers:
    """Twice the ranks of the magnitudes in each row of `values` (m, n); zero for a zero."""
    from scipy.stats import rankdata

    magnitudes = np.where(values == 0, np.inf, np.abs(values))  # zeros rank last, and are then dropped
    doubled = np.asarray(2 * rankdata(magnitudes, axis=1), dtype=np.int64)
    doubled[values == 0] = 0
    return doubled


def _p_values(values: Floats) -> tuple[Floats, Floats, Floats]:
    """p-values (less, greater, two-sided), each (m,), of the differences in each row of `values` (m, n)."""
    doubled = _doubled_ranks(values)
    positive = np.where(values > 0, doubled, 0).sum(axis=1)
    less, greater = np.empty((2, len(values)))
    rows_with: dict[bytes, list[int]] = {}  # most shifts of the same differences have the same ranks
    for row, ranks in enumerate(np.sort(doubled, axis=1)):
        rows_with.setdefault(ranks.tobytes(), []).append(row)
    for sorted_ranks, rows in rows_with.items():
        at_most = _null_distribution(sorted_ranks)
        less[rows] = at_most[positive[rows]]
        # The distribution is symmetric around half of the largest sum.
        greater[rows] = at_most[len(at_most) - 1 - positive[rows]]
    return less, greater, np.minimum(1.0, 2 * np.minimum(less, greater))


@lru_cache(maxsize=4096)
def _null_distribution(sorted_ranks: bytes) -> Floats:
    """P(S <= s) for s = 0, 1, ..., where S sums each of the doubled ranks with probability 1/2."""
    ranks = np.frombuffer(sorted_ranks, dtype=np.int64)
    share = np.zeros(int(ranks.sum()) + 1)
    share[0] = 1.0
    reached = 0
    for rank in ranks[ranks > 0]:
        reached += int(rank)
        share[rank : reached + 1] = share[rank : reached + 1] + share[: reached + 1 - rank]
        share[: reached + 1] /= 2
    return share.cumsum()
