"""Learning curves against numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from domainbed.results.curves import learning_curve, logged, on_targets, source_validation


def run(*values, step=10):
    return [{"step": step * i, "loss": value, "args": {"test_envs": [1]}} for i, value in enumerate(values)]


def test_mean_over_the_runs_of_a_trial_then_mean_and_error_over_trials():
    curve = learning_curve([(0, run(1.0, 2.0)), (0, run(3.0, 6.0)), (1, run(6.0, 8.0))], logged("loss"))
    assert curve.steps.tolist() == [0, 10]
    assert curve.means.tolist() == [4.0, 6.0]  # means of 2 and 6, and of 4 and 8
    np.testing.assert_allclose(curve.errors, [2 / math.sqrt(2)] * 2)


def test_steps_of_few_runs_and_records_without_the_measure_are_left_out():
    long = run(*[1.0] * 5)
    curve = learning_curve([(0, long), (1, run(1.0, 1.0)), (2, run(1.0, 1.0, 1.0))], logged("loss"))
    assert curve.steps.tolist() == [0, 10, 20]
    assert learning_curve([(0, run(1.0))], logged("agreement")) is None
    assert learning_curve([], logged("loss")) is None


def test_accuracies_of_sources_and_targets():
    args = {"test_envs": [1]}
    record = {
        "args": args,
        "env0_out_acc": 0.5,
        "env1_out_acc": 0.9,
        "env2_out_acc": 0.7,
        "env1_in_acc": 0.25,
    }
    assert source_validation()(record) == pytest.approx(60)
    assert on_targets()(record) == 25
    assert on_targets()(record | {"env1_test_acc": 0.125}) == 12.5
    assert on_targets()({"args": {"test_envs": [0, 1]}, "env1_in_acc": 0.25}) is None
    assert source_validation()({"args": args}) is None
