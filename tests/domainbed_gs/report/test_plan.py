"""The plan of an experiment: families, trials, hours, and what is said about the pilot."""

from __future__ import annotations

from dataclasses import replace
from statistics import stdev

import numpy as np
import pytest

from domainbed.errors import UsageError
from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.accuracies import compute_accuracies
from domainbed_gs.report.comparison import compare_all
from domainbed_gs.report.normal_power import deviation_interval, normal_trials_needed
from domainbed_gs.report.plan import Goal, hours_per_trial, make_plan, training_seconds
from domainbed_gs.report.plan_tables import answer, duration, pilot_notes
from domainbed_gs.report.power import smallest_detectable, trials_needed

GOAL = Goal(difference=0.03, power=0.8, alpha=0.05)


@pytest.fixture
def pilot(sweep):
    """Eight trials of ERM, SAM and Mixup on two targets."""
    rng = np.random.default_rng(0)

    def accuracies():
        return {target: rng.normal(0.6, 0.02, 8).round(3).tolist() for target in (0, 1)}

    return sweep({"ERM": accuracies(), "SAM": accuracies(), "Mixup": accuracies()})


def plan_of(records, goal=GOAL, methods=None):
    report = compare_all(compute_accuracies(records, METHODS["iccv2021"]), "ERM")
    return make_plan(report, records, goal, methods)


def test_a_row_has_the_numbers_of_its_differences_in_its_family(pilot):
    plan = plan_of(pilot)
    assert [(row.cell.algorithm, row.cell.target_name) for row in plan.primary] == [
        ("Mixup", "Average"),
        ("SAM", "Average"),
    ]
    assert {row.family for row in plan.primary} == {2}
    assert [row.family for row in plan.secondary] == [4] * 4
    for row in (*plan.primary, *plan.secondary):
        differences = row.cell.comparison.differences
        assert row.pairs == 8
        assert row.deviation == stdev(differences)
        assert row.trials == trials_needed(differences, 0.03, row.family)
        assert row.normal_trials == normal_trials_needed(row.deviation, 0.03, row.family)
        low, high = deviation_interval(differences)
        assert row.normal_range == (
            normal_trials_needed(low, 0.03, row.family),
            normal_trials_needed(high, 0.03, row.family),
        )
        assert row.normal_range[0] <= row.normal_trials < row.normal_range[1]
        assert row.smallest == smallest_detectable(differences, row.family)
    assert plan.trials == max(max(row.trials, row.normal_trials) for row in plan.primary)


def test_more_methods_make_larger_families_and_need_more_trials(pilot):
    few, many = plan_of(pilot), plan_of(pilot, methods=11)
    assert {row.family for row in many.primary} == {11}
    assert {row.family for row in many.secondary} == {22}
    assert many.trials > few.trials


def test_a_single_method_on_a_single_target_is_a_family_of_one(pilot):
    of_one = Q([record for record in pilot if record["args"]["test_envs"] == [0]]).filter(
        lambda record: record["args"]["algorithm"] != "SAM"
    )
    plan = plan_of(of_one)
    assert [row.family for row in plan.primary] == [1]
    assert not plan.secondary
    assert answer(plan).startswith(f"{plan.trials} trials find a difference of 3 points to ERM with")
    assert "(1 test," in answer(plan)


def test_the_time_of_a_run_is_that_of_its_updates():
    records = [{"step": 0, "step_time": 3.0}, {"step": 10, "step_time": 0.5}, {"step": 12}]
    assert training_seconds(records) == 3.0 + 10 * 0.5
    assert training_seconds([]) == 0


def test_hours_of_a_trial_are_means_over_the_trials_that_ran(sweep):
    records = sweep({"ERM": {0: [0.5, 0.5], 1: [0.5, None]}, "SAM": {0: [0.5, 0.5], 1: [0.5, 0.5]}}, step=35)
    for record in records:
        of_sam = record["args"]["algorithm"] == "SAM"
        record["step_time"] = 200.0 if of_sam and record["args"]["trial_seed"] else 100.0
    # 36 updates of 100 s are an hour; SAM's trials take one and two.
    assert hours_per_trial(records) == pytest.approx(1 + 1 + 1.5 + 1.5)
    for record in records:
        del record["step_time"]
    assert hours_per_trial(records) is None


def test_hours_grow_with_the_trials(pilot):
    for record in pilot:
        record["step_time"] = 36.0
    plan = plan_of(pilot)
    one_trial = 3 * 2 * 101 * 36 / 3600
    assert plan.hours(10) == pytest.approx(10 * one_trial)
    assert plan.hours(None) is None
    assert f"Training takes {duration(plan.trials * one_trial)} in all." in answer(plan)


def test_a_difference_that_is_too_small_has_no_plan(pilot):
    plan = plan_of(pilot, replace(GOAL, difference=1e-4))
    assert plan.trials is None
    assert answer(plan) == (
        "More than 1000 trials are needed to find a difference of 0.01 points to ERM for every method."
    )


@pytest.mark.parametrize(
    "accuracies",
    [
        {"ERM": {0: [0.5, 0.6]}},
        {"ERM": {0: [0.5, 0.6]}, "SAM": {0: [0.5]}},
        {"ERM": {0: [0.5, 0.6], 1: [0.5, 0.6]}, "SAM": {0: [0.5, 0.6]}},
    ],
)
def test_a_pilot_without_two_pairs_is_refused(sweep, accuracies):
    with pytest.raises(UsageError, match="no method with two trials on all targets that ERM has too"):
        plan_of(sweep(accuracies))


def test_what_a_pilot_cannot_tell_is_said(pilot, sweep):
    plan = plan_of(pilot)
    assert pilot_notes(plan, "own") == []
    (shared,) = pilot_notes(plan, "shared")
    assert "share one split" in shared
    assert "more of them are needed" in shared
    (unknown,) = pilot_notes(plan, "unknown")
    assert "unknown whether" in unknown
    small = plan_of(sweep({"ERM": {0: [0.5, 0.6, 0.55]}, "SAM": {0: [0.6, 0.7, 0.65]}}))
    few, equal = pilot_notes(small, "own")
    assert "only 3 paired trials" in few
    assert "equal in all trials" in equal


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.001, "less than a minute"),
        (1 / 60, "about 1 minute"),
        (0.5, "about 30 minutes"),
        (9.94, "about 9.9 hours"),
        (12345.6, "about 12,346 hours"),
    ],
)
def test_durations_in_words(hours, text):
    assert duration(hours) == text
