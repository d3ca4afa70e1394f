"""Paired comparisons: pairing by trial, averages over targets, the family of Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest

from domainbed.errors import UsageError, describe
from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.accuracies import compute_accuracies
from domainbed_gs.report.comparison import compare, compare_all
from domainbed_gs.report.signed_rank import signed_rank_p
from domainbed_gs.report.statistics import holm


def test_ties_are_found_despite_rounding_errors():
    method, baseline = [0.3, 0.2, 0.7, 0.1], [0.2, 0.1, 0.8, 0.1]
    assert len(set(np.subtract(method, baseline).round(20))) > 3  # no ties in float64
    result = compare(method, baseline)
    assert (result.wins, result.ties, result.losses) == (2, 1, 1)
    assert result.p == signed_rank_p([1, 1, -1, 0]) == 1.0


def test_compare():
    baseline = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80]
    method = [b + 0.01 * k for k, b in enumerate(baseline)]
    result = compare(method, baseline, seed=3)
    assert (result.pairs, result.wins, result.ties, result.losses) == (7, 6, 1, 0)
    assert result.difference == pytest.approx(0.03)
    assert result.p == 0.03125
    assert result.significant
    assert result.smallest_p == 0.03125  # the tie does not count
    low, high = result.interval
    assert 0 < low < 0.03 < high < 0.06


def test_compare_without_and_with_one_pair_and_with_ties_only():
    none = compare([], [])
    assert (none.pairs, none.p, none.interval, none.significant) == (0, None, None, False)
    assert np.isnan(none.difference)
    one = compare([0.6], [0.5])
    assert (one.p, one.interval) == (1.0, None)
    assert compare([0.5] * 8, [0.5] * 8).p == 1.0


def test_different_numbers_of_trials_are_refused():
    with pytest.raises(UsageError, match="cannot pair 3 accuracies with 2"):
        compare([0.1, 0.2, 0.3], [0.1, 0.2])


def report_of(records, baseline="ERM", method="iccv2021"):
    return compare_all(compute_accuracies(records, METHODS[method]), baseline)


def by_place(report):
    return {(cell.dataset, cell.target_name, cell.algorithm): cell for cell in report.cells}


def test_cells_of_a_complete_sweep(sweep):
    erm = {0: [0.50, 0.52, 0.54], 2: [0.60, 0.62, 0.64]}
    agr = {0: [0.51, 0.54, 0.57], 2: [0.60, 0.61, 0.64]}
    report = report_of(sweep({"AgrSum": agr, "ERM": erm}))
    cells = by_place(report)
    assert [key[1:] for key in cells] == [
        ("Flat", "ERM"),
        ("Flat", "AgrSum"),
        ("Line", "ERM"),
        ("Line", "AgrSum"),
        ("Average", "ERM"),
        ("Average", "AgrSum"),
    ]
    flat = cells["EmojiStyles", "Flat", "AgrSum"]
    assert flat.mean == pytest.approx(0.54)
    assert flat.std == pytest.approx(np.std([0.51, 0.54, 0.57], ddof=1))
    assert flat.comparison.difference == pytest.approx(0.02)
    line = cells["EmojiStyles", "Line", "AgrSum"].comparison
    assert (line.wins, line.ties, line.losses) == (0, 2, 1)
    average = cells["EmojiStyles", "Average", "AgrSum"]
    assert list(average.trials.values()) == pytest.approx([0.555, 0.575, 0.605])
    assert average.comparison.difference == pytest.approx((0.02 - 0.01 / 3) / 2)
    assert cells["EmojiStyles", "Average", "ERM"].comparison is None


def test_trials_are_paired_by_seed_not_by_position(sweep):
    report = report_of(sweep({"ERM": {0: [0.1, 0.5, None, 0.7]}, "PCGrad": {0: [None, 0.6, 0.9, 0.8]}}))
    cell = by_place(report)["EmojiStyles", "Flat", "PCGrad"]
    assert cell.comparison.pairs == 2
    assert cell.comparison.difference == pytest.approx(0.1)
    assert len(cell.trials) == 3


def test_an_average_needs_all_targets_of_its_trial(sweep):
    report = report_of(
        sweep({"ERM": {0: [0.1, 0.2], 1: [0.3, 0.4]}, "PCGrad": {0: [0.2, 0.3], 1: [0.4, None]}})
    )
    cells = by_place(report)
    assert list(cells["EmojiStyles", "Average", "ERM"].trials) == [0, 1]
    assert list(cells["EmojiStyles", "Average", "PCGrad"].trials) == [0]
    assert cells["EmojiStyles", "Average", "PCGrad"].comparison.pairs == 1


def test_one_target_has_no_average(sweep):
    report = report_of(sweep({"ERM": {3: [0.1, 0.2]}, "PCGrad": {3: [0.2, 0.3]}}))
    assert {cell.target for cell in report.cells} == {3}


def test_holms_family_contains_all_single_targets_of_all_datasets(sweep):
    rng = np.random.default_rng(0)

    def accuracies():
        return {name: {t: list(rng.random(8)) for t in (0, 1)} for name in ("ERM", "AgrSum", "PCGrad")}

    records = [*sweep(accuracies()), *sweep(accuracies(), dataset="Debug28", environments=3)]
    report = report_of(Q(records))
    family = [cell for cell in report.cells if cell.comparison and cell.target is not None]
    assert report.family == len(family) == 8
    assert [cell.holm_p for cell in family] == holm([cell.comparison.p for cell in family])
    assert all(cell.holm_p is None for cell in report.cells if cell.target is None)
    assert report.datasets == ["Debug28", "EmojiStyles"]


def test_hparams_are_selected_before_trials_are_paired(record):
    def run(algorithm, hparams_seed, val, test):
        made = record(algorithm, 0, 0, test, hparams_seed=hparams_seed)
        return made | {f"env{i}_out_acc": val for i in (1, 2, 3)}

    records = Q([run("ERM", 0, 0.5, 0.9), run("ERM", 1, 0.6, 0.4), run("AgrSum", 0, 0.7, 0.5)])
    cell = by_place(report_of(records))["EmojiStyles", "Flat", "AgrSum"]
    assert cell.comparison.difference == pytest.approx(0.1)


def test_nan_counts_as_missing(sweep):
    report = report_of(sweep({"ERM": {0: [0.1, 0.2]}, "PCGrad": {0: [float("nan"), 0.3]}}))
    assert list(by_place(report)["EmojiStyles", "Flat", "PCGrad"].trials) == [1]


def test_a_dataset_without_the_baseline_is_shown_but_not_compared(sweep):
    records = [*sweep({"ERM": {0: [0.1, 0.2]}}), *sweep({"PCGrad": {0: [0.1]}}, dataset="Debug28")]
    cell = by_place(report_of(Q(records)))["Debug28", "0", "PCGrad"]
    assert cell.mean == 0.1
    assert cell.comparison.pairs == 0
    assert cell.holm_p is None


def test_a_missing_baseline_names_the_algorithms_with_results(sweep):
    with pytest.raises(UsageError, match=r"--baseline Erm has no results.*ERM, AgrSum") as caught:
        report_of(sweep({"AgrSum": {0: [0.1]}, "ERM": {0: [0.2]}}), baseline="Erm")
    assert "Did you mean ERM?" in describe(caught.value)


def test_a_selection_method_without_results_is_an_error(record):
    made = record("ERM", 0, 0, 0.5)
    del made["env0_test_acc"]
    with pytest.raises(UsageError, match="algorithms with results: none"):
        report_of(Q([made]))
