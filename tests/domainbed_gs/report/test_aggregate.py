"""Aggregates over cells, against rliable and by hand, and the report section in each format."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from domainbed.errors import UsageError
from domainbed_gs.report.cell_aggregates import interquartile_mean, mean, probability_of_improvement


@pytest.fixture
def scores():
    """Accuracies of two algorithms on four cells in seven trials, with ties between them."""
    rng = np.random.default_rng(4)
    base = rng.integers(40, 80, (4, 1)) / 100
    return base + rng.integers(-3, 4, (2, 4, 7)) / 100 + np.array([0.01, 0])[:, None, None]


def test_values_are_those_of_rliable(scores):
    metrics = pytest.importorskip("rliable.metrics")
    one, other = scores.round(12)
    assert mean(list(one)).value == pytest.approx(metrics.aggregate_mean(one.T))
    assert interquartile_mean(list(one)).value == pytest.approx(metrics.aggregate_iqm(one.T))
    improvement = metrics.probability_of_improvement(one.T, other.T)
    assert probability_of_improvement(list(one), list(other)).value == pytest.approx(improvement)


def test_intervals_are_those_of_a_bootstrap_that_resamples_trials_within_cells(scores):
    one, other = scores.round(12)
    rng = np.random.default_rng(0)
    means, improvements = [], []
    for _ in range(2000):
        own, base = (np.array([rng.choice(cell, len(cell)) for cell in each]) for each in (one, other))
        means.append(np.sort(own.ravel())[7:21].mean())
        better = own[:, :, None] - base[:, None, :]
        improvements.append(((better > 1e-9) + 0.5 * (np.abs(better) <= 1e-9)).mean())
    found = interquartile_mean(list(one))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=2e-3)
    found = probability_of_improvement(list(one), list(other))
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(improvements, [0.025, 0.975])), abs=0.02
    )


def test_cells_may_have_different_numbers_of_trials():
    cells = [np.array([0.1, 0.2, 0.3]), np.array([0.9])]
    assert mean(cells).value == pytest.approx(0.375)
    assert interquartile_mean(cells).value == pytest.approx(0.25)
    found = probability_of_improvement(cells, [np.array([0.2]), np.array([0.8, 0.95])])
    assert found.value == pytest.approx((0.5 + 0.5) / 2)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_equal_accuracies_are_half_an_improvement():
    cells = [np.array([0.3 - 0.2, 0.5])]
    found = probability_of_improvement(cells, [np.array([0.2 - 0.1, 0.5])])
    assert found.value == 0.5
    assert mean([np.full(3, 0.25)]) == mean([np.full(3, 0.25)], seed=1)


@pytest.fixture
def records(sweep):
    return sweep(
        {
            "ERM": {0: [0.50, 0.52], 1: [0.60, 0.62]},
            "AgrSum": {0: [0.53, 0.54], 1: [0.62, 0.63]},
            "PCGrad": {0: [0.49, 0.55]},
        }
    )


def test_in_text_on_shared_cells(records, collect):
    out = collect(records, "--aggregate").out
    rows = {
        line.split()[0]: line.split() for line in out.split("Aggregates over all cells")[1].splitlines()[2:5]
    }
    assert rows["AgrSum"][1:5] == ["53.50", "[53.00,", "54.00]", "53.50"]
    assert rows["AgrSum"][7] == "100.00"
    assert rows["ERM"][-2:] == ["-", "-"]
    assert rows["PCGrad"][7] == "50.00"
    words = " ".join(out.split())
    assert "over 1 cell (dataset and target) with 2 accuracies" in words
    assert "EmojiStyles: only the cells (target and trial) that all algorithms have count, 2 of 4" in words


def test_in_csv(records, collect):
    out = collect(records, "--aggregate", "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(out.split("\n\n")[1])))
    assert [row["algorithm"] for row in rows] == ["ERM", "AgrSum", "PCGrad"]
    assert rows[0]["probability_of_improvement"] == ""
    assert float(rows[1]["iqm_percent"]) == pytest.approx(53.5)
    assert float(rows[1]["probability_of_improvement"]) == 1.0


def test_without_a_baseline_or_without_shared_datasets(sweep, collect):
    out = " ".join(collect(sweep({"AgrSum": {0: [0.5]}}), "--aggregate").out.split())
    assert "no algorithm is compared, since ERM (--baseline) has no shared results" in out


def test_no_algorithm_on_all_datasets(sweep, collect):
    records = [*sweep({"ERM": {0: [0.5]}}, dataset="PACS"), *sweep({"AgrSum": {0: [0.5]}}, dataset="VLCS")]
    with pytest.raises(UsageError, match="with results on all datasets"):
        collect(records, "--aggregate")
