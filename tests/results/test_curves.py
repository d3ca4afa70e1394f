"""Learning curves and rank correlations against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from domainbed.records.query import Q
from domainbed.results.curves import curve, logged, source_validation, target_accuracy
from domainbed.results.sensitivity import influences, rank_correlation
from domainbed.results.settings import Candidate, Setting


def run(*values, step=10):
    return [{"step": step * i, "loss": value, "args": {"test_envs": [1]}} for i, value in enumerate(values)]


def test_mean_over_runs_then_mean_and_error_over_trials():
    it = curve([(0, run(1.0, 2.0)), (0, run(3.0, 6.0)), (1, run(6.0, 8.0))], logged("loss"))
    assert it.steps.tolist() == [0, 10]
    assert it.means.tolist() == [4.0, 6.0]  # of 2 and 6, of 4 and 8
    np.testing.assert_allclose(it.errors, [2 / math.sqrt(2)] * 2)


def test_steps_of_few_runs_and_records_without_the_measure():
    long = run(*[1.0] * 5)
    it = curve([(0, long), (1, run(1.0, 1.0)), (2, run(1.0, 1.0, 1.0))], logged("loss"))
    assert it.steps.tolist() == [0, 10, 20]
    assert curve([(0, run(1.0))], logged("agreement")) is None
    assert curve([], logged("loss")) is None


def test_accuracies_of_sources_and_targets():
    args = {"test_envs": [1]}
    record = {
        "args": args,
        "env0_out_acc": 0.5,
        "env1_out_acc": 0.9,
        "env2_out_acc": 0.7,
        "env1_in_acc": 0.25,
    }
    assert source_validation(record) == pytest.approx(60)
    assert target_accuracy(record) == 25
    assert target_accuracy(record | {"env1_test_acc": 0.125}) == 12.5
    assert target_accuracy({"args": {"test_envs": [0, 1]}, "env1_in_acc": 0.25}) is None
    assert source_validation({"args": args}) is None


def setting(val_acc, test_acc=0.5, **hparams):
    candidate = Candidate("VLCS", "ERM", 0, 0, hparams, val_acc, test_acc, Q([]))
    return Setting(hparams, [candidate])


def test_what_varies_strongest_first():
    settings = [
        setting(0.1, 0.4, lr=1e-4, batch=8, drop=True, name="a", fixed=3),
        setting(0.2, 0.3, lr=1e-3, batch=9, drop=True, name="b", fixed=3),
        setting(0.3, 0.2, lr=1e-2, batch=7, drop=False, name="c", fixed=3),
        setting(0.4, 0.1, lr=1e-1, batch=8, drop=False, name="d", fixed=3),
        setting(math.nan, lr=1.0, batch=1, drop=True, name="e", fixed=3),
    ]
    found = {it.name: it for it in influences(settings)}
    assert next(iter(found)) == "lr"
    assert "fixed" not in found
    assert (found["lr"].validation, found["lr"].target) == (pytest.approx(1), pytest.approx(-1))
    assert (found["lr"].best, len(found["lr"].points)) == (0.1, 4)
    assert found["drop"].validation == pytest.approx(-2 / math.sqrt(5))
    assert found["name"].validation is None
    assert influences([]) == influences(settings[-1:]) == []


def test_no_correlation_of_few_or_equal_numbers():
    assert rank_correlation([1, 2, 3], [0.1, 0.2, 0.3]) is None
    assert rank_correlation([1, 2, 3, 4], [0.1] * 4) is None
    assert rank_correlation([1, 2, 2, 4], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
