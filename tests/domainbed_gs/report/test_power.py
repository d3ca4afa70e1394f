"""Power against simulated experiments, the analytic cases, and its invariants."""

from __future__ import annotations

import math
from statistics import NormalDist, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainbed.errors import UsageError
from domainbed_gs.report import normal_power
from domainbed_gs.report.normal_power import (
    deviation_interval,
    normal_smallest_detectable,
    normal_trials_needed,
)
from domainbed_gs.report.power import (
    EXACT_TRIALS,
    MOST_TRIALS,
    critical_rank_sum,
    smallest_detectable,
    trials_needed,
)
from domainbed_gs.report.signed_rank import hodges_lehmann, rank_sum, signed_rank_p
from domainbed_gs.report.statistics import pairs_needed

PILOT = np.array([0.021, -0.004, 0.013, 0.008, -0.019, 0.0305, 0.002, -0.0115, 0.017, 0.006, -0.027, 0.012])

pilots = st.lists(st.integers(-40, 40), min_size=6, max_size=12).map(lambda d: [each / 1000 for each in d])


def with_negative_ranks(trials, total):
    """Differences 1, ..., trials, of which some with the rank sum `total` are negative."""
    differences = np.arange(1.0, trials + 1)
    for rank in range(trials, 0, -1):
        if rank <= total:
            total -= rank
            differences[rank - 1] *= -1
    assert total == 0
    return differences


def found(differences, level):
    """Share of the experiments in the rows of `differences` that find a method to be better."""
    return np.mean([rank_sum(row) > 0 and signed_rank_p(row) < level for row in differences])


@pytest.mark.parametrize("trials", [6, 7, 10, 20, 45])
@pytest.mark.parametrize("level", [0.05, 0.04, 0.0625 / 2])
def test_the_critical_rank_sum_is_the_last_that_the_test_rejects(trials, level):
    critical = critical_rank_sum(trials, level)
    if critical is None:
        assert signed_rank_p(with_negative_ranks(trials, 0)) >= level
        return
    assert signed_rank_p(with_negative_ranks(trials, critical)) < level
    assert signed_rank_p(with_negative_ranks(trials, critical + 1)) >= level


@pytest.mark.parametrize("level", [0.05, 0.05 / 60])
def test_the_critical_rank_sum_of_many_trials_is_close_to_the_exact_one(level):
    trials = EXACT_TRIALS + 1
    p = signed_rank_p(with_negative_ranks(trials, critical_rank_sum(trials, level)))
    assert p == pytest.approx(level, rel=0.1)
    assert p < level


@pytest.mark.parametrize("power", [0.5, 0.8, 0.9])
def test_six_trials_find_what_makes_all_six_of_one_sign(power):
    analytic = NormalDist().inv_cdf(power ** (1 / 6))
    assert normal_smallest_detectable(1.0, 6, 1, power) == pytest.approx(analytic, rel=0.03)


@pytest.mark.parametrize(("family", "power"), [(1, 0.8), (1, 0.9), (11, 0.8)])
def test_many_trials_follow_the_asymptotic_efficiency(family, power):
    """3 / pi of the paired z-test's (Lehmann, "Nonparametrics", section 4.3)."""
    quantiles = NormalDist().inv_cdf(1 - 0.025 / family) + NormalDist().inv_cdf(power)
    expected = quantiles**2 * math.pi / 3 / 0.2**2
    assert normal_trials_needed(1.0, 0.2, family, power) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(("trials", "family"), [(8, 1), (12, 3), (25, 12)])
def test_simulated_normal_experiments_find_the_difference_as_often_as_computed(trials, family):
    rng = np.random.default_rng(trials)
    difference = normal_smallest_detectable(0.02, trials, family)
    drawn = rng.normal(difference, 0.02, (600, trials))
    assert found(drawn, 0.05 / family) == pytest.approx(0.8, abs=0.04)


def resampled(rng, trials):
    """600 experiments under the null hypothesis: the pilot around its shift, with random signs."""
    centred = PILOT - hodges_lehmann(PILOT)
    scale = stdev(PILOT) / math.sqrt(np.mean(centred**2))
    return scale * rng.choice(centred, (600, trials)) * rng.choice([-1, 1], (600, trials))


@pytest.mark.parametrize("family", [1, 4])
def test_resampled_experiments_find_the_difference_as_often_as_computed(family):
    difference = smallest_detectable(PILOT, family)
    drawn = resampled(np.random.default_rng(5), len(PILOT))
    assert found(drawn + 1.001 * difference, 0.05 / family) == pytest.approx(0.8, abs=0.05)
    assert found(drawn + 0.8 * difference, 0.05 / family) < 0.75


def test_the_computed_number_of_trials_finds_the_difference_and_few_less_do_not():
    trials = trials_needed(PILOT, 0.01, family=2)
    rng = np.random.default_rng(1)
    assert found(resampled(rng, trials) + 0.01, 0.025) == pytest.approx(0.8, abs=0.05)
    assert found(resampled(rng, trials - 8) + 0.01, 0.025) < 0.75


@pytest.mark.parametrize("trials", [30, 40])
@pytest.mark.parametrize("family", [1, 52])
def test_moments_of_the_rank_sum_continue_the_simulation(trials, family):
    simulated = normal_smallest_detectable(1.0, trials, family)
    level = 0.05 / family
    assert normal_power._normal_power(simulated, trials, level) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("family", [1, 2, 3, 60])
def test_too_few_trials_find_no_difference(family):
    needed = pairs_needed(family)
    for trials in range(needed):
        assert smallest_detectable(PILOT[:trials], family) is None
        assert normal_smallest_detectable(1.0, trials, family) is None
    assert normal_smallest_detectable(1.0, needed, family) is not None
    assert normal_trials_needed(1.0, 100.0, family) == needed
    assert trials_needed(PILOT, 100.0, family) == needed


def test_a_difference_that_takes_too_many_trials_has_no_number():
    assert trials_needed(PILOT, 1e-4, 1) is None
    assert normal_trials_needed(1.0, 0.01, 1) is None
    assert MOST_TRIALS == 1000


def test_equal_differences_have_no_spread_to_overcome():
    assert smallest_detectable([0.25] * 6, 1) == 0.0
    assert trials_needed([0.25] * 3, 1e-6, 1) == 6
    assert normal_trials_needed(0.0, 1e-6, 1) == 6


@settings(max_examples=12, deadline=None)
@given(pilots, st.floats(0.002, 0.05), st.floats(1.0, 3.0))
def test_a_larger_difference_needs_no_more_trials(pilot, difference, factor):
    some = trials_needed(pilot, difference, 2) or math.inf
    assert (trials_needed(pilot, factor * difference, 2) or math.inf) <= some
    normal = normal_trials_needed(stdev(pilot), difference, 2) or math.inf
    assert (normal_trials_needed(stdev(pilot), factor * difference, 2) or math.inf) <= normal


@settings(max_examples=12, deadline=None)
@given(pilots, st.integers(1, 20), st.floats(0.5, 0.95))
def test_more_tests_or_more_power_take_a_larger_difference(pilot, family, power):
    def smallest(family, power):
        found = smallest_detectable(pilot, family, power)
        return math.inf if found is None else found

    assert smallest(1, 0.5) <= smallest(family, 0.5) <= smallest(family, power)


@settings(max_examples=12, deadline=None)
@given(pilots, st.integers(-100, 100))
def test_direction_and_level_of_the_pilot_do_not_matter(pilot, moved):
    expected = smallest_detectable(pilot, 1)
    assert smallest_detectable([-each for each in pilot], 1) == pytest.approx(expected, abs=1e-12)
    assert smallest_detectable([each + moved / 1000 for each in pilot], 1) == pytest.approx(
        expected, abs=1e-12
    )
    assert smallest_detectable([8 * each for each in pilot], 1) == pytest.approx(8 * expected, abs=1e-12)


def test_the_interval_of_a_standard_deviation():
    """Of ten differences with the standard deviation 1: the tables' 0.688 and 1.826."""
    differences = np.random.default_rng(0).normal(size=10)
    low, high = deviation_interval(differences / stdev(differences))
    assert (low, high) == (pytest.approx(0.688, abs=1e-3), pytest.approx(1.826, abs=1e-3))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: trials_needed(PILOT, 0.0, 1), "difference is 0.0"),
        (lambda: normal_trials_needed(1.0, math.nan, 1), "difference is nan"),
        (lambda: trials_needed(PILOT[:1], 0.01, 1), "1 paired trial"),
        (lambda: smallest_detectable(PILOT, 0), "family is 0"),
        (lambda: smallest_detectable(PILOT, 1, power=1.0), "power is 1.0"),
        (lambda: normal_smallest_detectable(1.0, 9, 1, alpha=0.0), "alpha is 0.0"),
    ],
)
def test_an_argument_out_of_range_is_named(call, name):
    with pytest.raises(UsageError, match=name):
        call()
