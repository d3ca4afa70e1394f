"""Power of the signed-rank test: the smallest difference n trials can find, the trials a difference takes.

A difference is *found* if the corrected p-value is below `alpha` and the sign is right. A family of m tests
is planned for at the level alpha / m (Bonferroni). Holm's correction rejects whatever Bonferroni's does, so
its power is at least the one computed here. Power refers to a *shift*: paired differences are distributed
symmetrically around the difference, and around 0 under the null hypothesis.

The shape of that distribution has two models. Resampling, here, draws trials with replacement from the
pilot's differences, minus their Hodges-Lehmann shift, each with either sign. The normal model
(`domainbed_gs.report.normal_power`) only uses their standard deviation. Both are simulated with the same
draws for every shift, so power never decreases with the difference. Ties and zeros, which cost a little
power, are not simulated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from domainbed.errors import UsageError
from domainbed.seeds import generator
from domainbed_gs.report.signed_rank import DECIMALS, Floats, hodges_lehmann
from domainbed_gs.report.statistics import ALPHA

POWER = 0.8
"""Customary probability with which an experiment is to find the difference it was planned for."""

RESAMPLES = 2_000
"""Number of simulated experiments. The standard error of a simulated power of 0.8 is 0.009."""

MOST_TRIALS = 1_000
"""Largest number of trials that is considered."""

EXACT_TRIALS = 200
"""Largest number of trials whose critical rank sum is exact; a normal approximation, slightly
conservative, serves beyond."""

SEED = 0
"""Seed of the simulated experiments."""

Counts = NDArray[np.int32]


def smallest_detectable(
    differences: Sequence[float] | Floats, family: int, power: float = POWER, alpha: float = ALPHA
) -> float | None:
    """The smallest difference that as many trials as there are differences find with probability `power`.

    By resampling.

    Args:
        differences: (n,) paired differences of the pilot.
        family: number of tests in the family.
        power: probability of finding the difference, in (0, 1).
        alpha: level of the family, in (0, 1).

    Returns: the difference, at least 0, in the unit of `differences`; None if n trials find none, because
        2 / 2^n is not below alpha / family.

    Raises: UsageError if an argument is out of range.
    """
    level = level_of_test(family, power, alpha)
    if len(differences) < 2:
        return None
    return threshold(_symmetric(differences), len(differences), power, level)


def trials_needed(
    differences: Sequence[float] | Floats,
    difference: float,
    family: int,
    power: float = POWER,
    alpha: float = ALPHA,
) -> int | None:
    """The number of trials that find `difference` with probability `power`.

    By resampling.

    Args:
        differences: (n,) paired differences of the pilot, n at least 2.
        difference: what is to be found, above 0, in the unit of `differences`.
        family: number of tests in the family.
        power: probability of finding the difference, in (0, 1).
        alpha: level of the family, in (0, 1).

    Returns: the number; None if it is above `MOST_TRIALS`.

    Raises: UsageError if an argument is out of range.
    """
    level = level_of_test(family, power, alpha)
    check_difference(difference)
    if len(differences) < 2:
        raise UsageError(f"cannot plan from {len(differences)} paired trial; at least 2 are needed")
    values = _symmetric(differences)
    return fewest_trials(lambda trials: _power(values, trials, difference, level) >= power)


@lru_cache(maxsize=1024)
def critical_rank_sum(trials: int, level: float) -> int | None:
    """Largest sum of the ranks of one sign for which the two-sided signed-rank p-value is below `level`.

    For differences without ties and zeros. Exact for up to `EXACT_TRIALS` trials.

    Returns: the sum; None if even 0, all trials of one sign, is not below `level`.
    """
    if trials < 1 or 2.0 ** (1 - trials) >= level:
        return None
    if trials > EXACT_TRIALS:
        mean = trials * (trials + 1) / 4
        variance = mean * (2 * trials + 1) / 6
        return math.ceil(mean - 0.5 - NormalDist().inv_cdf(1 - level / 2) * math.sqrt(variance)) - 1
    share = np.zeros(trials * (trials + 1) // 2 + 1)
    share[0] = 1.0
    for rank in range(1, trials + 1):
        share[rank:] = share[rank:] + share[:-rank]
        share /= 2
    return int(np.searchsorted(2 * share.cumsum(), level)) - 1


def level_of_test(family: int, power: float, alpha: float) -> float:
    """Bonferroni's level of each test; raises UsageError for an argument out of range."""
    if family < 1:
        raise UsageError(f"family is {family}; expected a number of tests, at least 1")
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise UsageError(f"{name} is {value}; expected a number between 0 and 1")
    return alpha / family


def check_difference(difference: float) -> None:
    """Raise UsageError for a difference that no number of trials can find."""
    if not 0 < difference < math.inf:
        raise UsageError(f"difference is {difference}; expected a number above 0")


def _symmetric(differences: Sequence[float] | Floats) -> Floats:
    """(2n,) ascending: `differences` (n,) minus their Hodges-Lehmann shift, with both signs.

    They are scaled to the sample variance, which divides by n - 1. Without that, what is resampled from few
    values varies less than the population.
    """
    values = np.asarray(differences, dtype=np.float64)
    centred = values - hodges_lehmann(values)
    both = np.sort(np.concatenate([centred, -centred]).round(DECIMALS + 2))
    spread = both.std()
    return both * (values.std(ddof=1) / spread) if spread else both


@lru_cache(maxsize=64)
def _draws(trials: int, values: int) -> Counts:
    """(`RESAMPLES`, values): how often each value is among `trials` draws with replacement."""
    drawn = generator(SEED, trials, values).multinomial(trials, [1 / values] * values, size=RESAMPLES)
    return drawn.astype(np.int32)


def _power(values: Floats, trials: int, shift: float, level: float) -> float:
    """Share of experiments with `trials` draws from `values` (k,) + `shift` that find it to be above zero."""
    critical = critical_rank_sum(trials, level)
    if critical is None:
        return 0.0
    shifted = values + shift
    order = np.argsort(np.abs(shifted), kind="stable")
    drawn = _draws(trials, len(values))[:, order]
    # A value drawn c times has the c ranks up to its cumulative count. Its copies have one sign, so ties
    # among them do not matter.
    doubled = drawn * (2 * drawn.cumsum(axis=1, dtype=np.int32) - drawn + 1)
    negative = doubled[:, shifted[order] <= 0].sum(axis=1)
    return float((negative <= 2 * critical).mean())


def threshold(values: Floats, trials: int, power: float, level: float) -> float | None:
    """The shift of `values` (k,) above which the power is at least `power`; None if there is none.

    The rank sum is the number of positive averages of two drawn values. It changes where the shift is minus
    such an average. So the power is constant between these points, and the threshold is one of them.
    """
    if critical_rank_sum(trials, level) is None:
        return None
    rows, columns = np.triu_indices(len(values))
    points = np.unique(-(values[rows] + values[columns]) / 2)
    beyond = np.append((points[1:] + points[:-1]) / 2, points[-1] + 1)
    low, high = -1, len(points) - 1  # all values are positive beyond the last point
    while high - low > 1:
        middle = (low + high) // 2
        if _power(values, trials, float(beyond[middle]), level) >= power:
            high = middle
        else:
            low = middle
    return max(0.0, float(points[high]))


def fewest_trials(enough: Callable[[int], bool]) -> int | None:
    """A number of trials that is enough while one fewer is not; None if `MOST_TRIALS` are not enough.

    The numbers that are tried depend only on the answers so far. So if one condition holds wherever another
    does, its result is no larger, although simulated power does not quite grow steadily with the trials.
    """
    low, high = 0, 1
    while not enough(high):
        if high == MOST_TRIALS:
            return None
        low, high = high, min(2 * high, MOST_TRIALS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
