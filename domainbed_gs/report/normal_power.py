"""Power of the signed-rank test if the paired differences are normal, and the interval of their deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, stdev

import numpy as np

from domainbed_gs.report.power import (
    POWER,
    check_difference,
    critical_rank_sum,
    fewest_trials,
    level_of_test,
    threshold,
)
from domainbed_gs.report.signed_rank import Floats
from domainbed_gs.report.statistics import ALPHA

GRID = 200
"""Number of quantiles that stand for the normal distribution in simulations."""

SIMULATED_TRIALS = 40
"""Largest number of trials for which the normal model is simulated; moments of the rank sum serve beyond."""


def normal_smallest_detectable(
    deviation: float, trials: int, family: int, power: float = POWER, alpha: float = ALPHA
) -> float | None:
    """The smallest difference that `trials` normal differences find with probability `power`.

    Args:
        deviation: standard deviation of the paired differences.
        trials: number of paired trials.
        family: number of tests in the family.
        power: probability of finding the difference, in (0, 1).
        alpha: level of the family, in (0, 1).

    Returns: the difference in the unit of `deviation`; None if `trials` trials find none.

    Raises: UsageError if an argument is out of range.
    """
    unit = _normal_threshold(trials, power, level_of_test(family, power, alpha))
    return None if unit is None else unit * deviation


def normal_trials_needed(
    deviation: float, difference: float, family: int, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """The number of trials that find `difference` with probability `power` if the differences are normal.

    Args:
        deviation: standard deviation of the paired differences.
        difference: what is to be found, above 0, in the unit of `deviation`.
        family: number of tests in the family.
        power: probability of finding the difference, in (0, 1).
        alpha: level of the family, in (0, 1).

    Returns: the number; None if it is above `MOST_TRIALS`.

    Raises: UsageError if an argument is out of range.
    """
    level = level_of_test(family, power, alpha)
    check_difference(difference)
    shift = difference / deviation if deviation else math.inf

    def enough(trials: int) -> bool:
        if trials > SIMULATED_TRIALS:
            return _normal_power(shift, trials, level) >= power
        unit = _normal_threshold(trials, power, level)
        return unit is not None and unit * deviation < difference

    return fewest_trials(enough)


def deviation_interval(differences: Sequence[float] | Floats, level: float = 0.95) -> tuple[float, float]:
    """Interval of the standard deviation of normal differences, by the chi-squared distribution.

    Args:
        differences: (n,), n at least 2.
        level: coverage.
    """
    from scipy.stats import chi2

    freedom = len(differences) - 1
    squares = freedom * stdev(differences) ** 2
    quantiles = chi2.ppf([(1 + level) / 2, (1 - level) / 2], freedom)
    low, high = np.sqrt(squares / quantiles)
    return float(low), float(high)


@lru_cache(maxsize=1024)
def _normal_threshold(trials: int, power: float, level: float) -> float | None:
    """The shift of standard normal differences above which the power is at least `power`."""
    if trials <= SIMULATED_TRIALS or critical_rank_sum(trials, level) is None:
        return threshold(_standard_normal(), trials, power, level)
    low, high = 0.0, 8.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if _normal_power(middle, trials, level) >= power else (middle, high)
    return high


def _normal_power(shift: float, trials: int, level: float) -> float:
    """Power for standard normal differences around `shift`, with a normal approximation of the rank sum.

    The mean and the variance of the rank sum under the alternative are those of Lehmann, "Nonparametrics:
    Statistical Methods Based on Ranks", section 4.2.
    """
    from scipy.special import owens_t

    critical = critical_rank_sum(trials, level)
    if critical is None:
        return 0.0
    normal = NormalDist()
    # Probabilities that one difference, a sum of two, and both of two sums with a common term are positive.
    one, two = normal.cdf(shift), normal.cdf(math.sqrt(2) * shift)
    three = two - 2 * float(owens_t(math.sqrt(2) * shift, 1 / math.sqrt(3)))
    pairs = trials * (trials - 1) / 2
    mean = trials * one + pairs * two
    variance = (
        trials * one * (1 - one)
        + pairs * (2 * (one - two) ** 2 + 3 * two * (1 - two))
        + 2 * pairs * (trials - 2) * (three - two**2)
    )
    least = trials * (trials + 1) / 2 - critical
    if variance <= 0:
        return float(mean >= least)
    return normal.cdf((mean - least + 0.5) / math.sqrt(variance))


@lru_cache(maxsize=1)
def _standard_normal() -> Floats:
    """`GRID` equally probable values with mean 0 and variance 1 that stand for the normal distribution."""
    normal = NormalDist()
    quantiles: Floats = np.array([normal.inv_cdf((i + 0.5) / GRID) for i in range(GRID)])
    quantiles /= quantiles.std()
    return quantiles
