"""The report's claims on simulated accuracies whose truth is known."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
FAILURE = 1e-4
"""Largest probability that chance alone makes one of the slow tests fail."""


@pytest.fixture(scope="module")
def modules():
    """`calibration` and `simulated_accuracies`, which import each other as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        names = ("simulated_accuracies", "calibration")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in names:
        sys.modules.pop(name)


class NoBar:
    def update(self, amount):
        pass


def most(data_sets, checks):
    """Largest count that passes as "at most 6 % of `data_sets`".

    A correct procedure errs in at most 5 % of them. This makes sure that there are data sets enough for all
    of `checks` such procedures to pass, but for a probability of `FAILURE`.
    """
    bound = int(0.06 * data_sets)
    assert checks * binom.sf(bound, data_sets, 0.05) < FAILURE
    return bound


@pytest.mark.slow
@pytest.mark.timeout(3600)  # about four minutes on a free core
def test_false_claims_with_own_splits_are_rare_in_both_families(modules):
    data_sets, rng = 7_600, np.random.default_rng(16)
    counts = modules.calibration.studies(rng, data_sets, NoBar(), split_effect=1.0)
    bound = most(data_sets, checks=2)
    claims = {family: counts[family, "claim"] for family in ("averages", "cells")}
    assert max(claims.values()) <= bound, claims
    assert counts["contradictions"] == counts["unclaimed"] == 0
    # The same studies, with each test on its own: what the correction is for.
    assert counts["averages", "uncorrected"] > 0.15 * data_sets
    assert counts["cells", "uncorrected"] > 0.4 * data_sets


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("n", [6, 10, 20])
@pytest.mark.parametrize("distribution", ["normal", "Laplace", "uniform", "whole images"])
def test_intervals_of_symmetric_differences_contain_the_shift(modules, distribution, n):
    data_sets, rng = 9_300, np.random.default_rng(n)
    counts = modules.calibration.coverage(rng, data_sets, n, distribution, NoBar())
    assert data_sets - counts["shift"] <= most(data_sets, checks=12)
    assert counts["contradictions"] == 0


@pytest.mark.slow
def test_the_table_of_few_studies(modules, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["calibration.py", "--data_sets", "2"])
    modules.calibration.main()
    shown = capsys.readouterr()
    rows = [line.strip("| ").split(" | ") for line in shown.out.splitlines() if line.startswith("| ")]
    assert rows[0][:2] == ["situation", "quantity"]
    quantities = {row[1] for row in rows}
    assert {"false claim among averages", "false claim among cells", "true power"} <= quantities
    assert next(row for row in rows if row[1] == "raw p and 95 % interval disagree")[2].startswith("0 of ")
    assert "100%" in shown.err


@pytest.mark.parametrize(
    "distribution", ["normal", "Laplace", "uniform", "whole images", "exponential", "lognormal"]
)
def test_the_truth_about_samples(modules, distribution):
    rng = np.random.default_rng(0)
    differences, shift, mean = modules.simulated_accuracies.sample(rng, (2, 200_000), distribution)
    # Five standard errors. The median of whole numbers of images is one of them.
    error = 5 * differences.std() / np.sqrt(200_000)
    assert differences.mean() == pytest.approx(mean, abs=error)
    assert np.median(differences.mean(axis=0)) == pytest.approx(shift, abs=2 * error)


def test_trials_share_the_effect_of_a_shared_split(modules):
    rng = np.random.default_rng(1)
    noise = modules.simulated_accuracies.NOISE
    for shared, expected in ((True, noise), (False, 10 * noise)):
        study = modules.simulated_accuracies.study(rng, split_effect=10.0, shared=shared)
        spreads = [np.std(list(trials.values())) for trials in study.by_target.values()]
        assert np.mean(spreads) == pytest.approx(expected, rel=0.2)


def test_an_interval_and_a_p_value_can_disagree(modules):
    contradicts = modules.calibration.contradicts
    assert contradicts(0.04, (-1.0, 1.0))
    assert contradicts(0.05, (0.1, 1.0))
    assert not contradicts(0.04, (0.1, 1.0))
    assert not contradicts(0.05, (-float("inf"), 1.0))
