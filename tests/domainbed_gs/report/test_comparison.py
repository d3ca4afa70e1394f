"""Paired comparisons: pairing by trial, averages over targets, the family of Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest

from domainbed.errors import UsageError, describe
from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.accuracies import compute_accuracies
from domainbed_gs.report.comparison import compare, compare_all
from domainbed_gs.report.paired_notes import meanings
from domainbed_gs.report.signed_rank import shift_curve, signed_rank_p
from domainbed_gs.report.statistics import holm
from domainbed_gs.report.verdicts import Verdict, answer, verdict_text


def test_ties_are_found_despite_rounding_errors():
    method, baseline = [0.3, 0.2, 0.7, 0.1], [0.2, 0.1, 0.8, 0.1]
    assert len(set(np.subtract(method, baseline).round(20))) > 3  # no ties in float64
    result = compare(method, baseline)
    assert (result.wins, result.ties, result.losses) == (2, 1, 1)
    assert result.p == signed_rank_p([1, 1, -1, 0]) == 1.0


def test_compare():
    baseline = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80]
    method = [b + 0.01 * k for k, b in enumerate(baseline)]
    result = compare(method, baseline)
    assert (result.pairs, result.wins, result.ties, result.losses) == (7, 6, 1, 0)
    assert result.untied == 6
    assert result.differences == pytest.approx([0.01 * k for k in range(7)])
    assert result.difference == result.shift == pytest.approx(0.03)
    assert result.p == result.mean_p == 0.03125
    assert result.smallest_p == 0.03125  # the tie does not count
    assert result.direction == 21
    assert result.probability_better == 6.5 / 7
    assert result.equivalence_p == pytest.approx(1.0, abs=0.05)
    assert result.interval == pytest.approx((0.01, 0.05))


def test_compare_without_and_with_one_pair_and_with_ties_only():
    none = compare([], [])
    assert (none.pairs, none.p, none.mean_p, none.equivalence_p, none.interval) == (0, None, None, None, None)
    assert none.probability_better is none.probability_interval is None
    assert np.isnan(none.difference)
    assert np.isnan(none.shift)
    one = compare([0.6], [0.5])
    assert (one.p, one.interval) == (1.0, (-np.inf, np.inf))
    tied = compare([0.5] * 8, [0.5] * 8)
    assert (tied.p, tied.equivalence_p, tied.probability_better) == (1.0, 1 / 256, 0.5)


def test_different_numbers_of_trials_are_refused():
    with pytest.raises(UsageError, match="cannot pair 3 accuracies with 2"):
        compare([0.1, 0.2, 0.3], [0.1, 0.2])


def report_of(records, baseline="ERM", method="iccv2021", **options):
    return compare_all(compute_accuracies(records, METHODS[method]), baseline, **options)


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
    assert [trial.seed for trial in cells["EmojiStyles", "Average", "ERM"].trials] == [0, 1]
    assert [trial.seed for trial in cells["EmojiStyles", "Average", "PCGrad"].trials] == [0]
    assert cells["EmojiStyles", "Average", "PCGrad"].comparison.pairs == 1


def test_a_method_without_a_target_is_compared_over_the_targets_that_it_shares(sweep):
    # Three points worse on each target that it has, but spared the hard one.
    rng = np.random.default_rng(0)
    erm = {target: list(level + rng.random(8) / 50) for target, level in ((0, 0.8), (1, 0.7), (2, 0.2))}
    worse = {target: [accuracy - 0.03 for accuracy in erm[target]] for target in (0, 1)}
    report = report_of(sweep({"ERM": erm, "PCGrad": worse}))
    cell = by_place(report)["EmojiStyles", "Average", "PCGrad"]
    assert cell.trials == {}
    assert cell.left_out == ("Line",)
    assert cell.comparison.differences == pytest.approx([-0.03] * 8)
    assert verdict_text(cell) == "worse, without Line"
    assert answer(report) == "No method beats ERM. PCGrad is worse."


def test_one_target_has_no_average(sweep):
    report = report_of(sweep({"ERM": {3: [0.1, 0.2]}, "PCGrad": {3: [0.2, 0.3]}}))
    assert {cell.target for cell in report.cells} == {3}


def two_datasets(sweep, trials=8, **gains):
    """Records of three methods on two targets of two datasets; `gains` shift some methods."""
    rng = np.random.default_rng(0)

    def accuracies():
        return {
            name: {t: list(rng.random(trials) / 10 + 0.4 + gains.get(name, 0)) for t in (0, 1)}
            for name in ("ERM", "AgrSum", "PCGrad")
        }

    return Q([*sweep(accuracies()), *sweep(accuracies(), dataset="Debug28", environments=3)])


def test_averages_are_one_family_and_single_targets_another(sweep):
    report = report_of(two_datasets(sweep))
    assert report.datasets == ["Debug28", "EmojiStyles"]
    assert [cell.target for cell in report.primary] == [None] * 4
    assert [cell.target for cell in report.secondary] == [0, 0, 1, 1] * 2
    for family in (report.primary, report.secondary):
        assert {cell.family for cell in family} == {len(family)}
        for name in ("p", "equivalence_p", "mean_p"):
            corrected = [getattr(cell, f"holm_{name}") for cell in family]
            assert corrected == holm([getattr(cell.comparison, name) for cell in family])
        for cell in family:
            curve = shift_curve(cell.comparison.differences)
            assert cell.comparison.simultaneous == curve.interval(0.05 / len(family))
    assert all(cell.holm_p is cell.verdict is None for cell in report.cells if cell.algorithm == "ERM")


def test_the_only_target_of_a_dataset_is_in_the_primary_family(sweep):
    one = sweep({"ERM": {0: [0.1, 0.2]}, "PCGrad": {0: [0.2, 0.3]}}, dataset="Debug28", environments=3)
    two = sweep({name: {0: [0.1, 0.2], 1: [0.1, 0.3]} for name in ("ERM", "PCGrad")})
    report = report_of(Q([*one, *two]))
    assert [(cell.dataset, cell.target) for cell in report.primary] == [("Debug28", 0), ("EmojiStyles", None)]
    assert [(cell.dataset, cell.target) for cell in report.secondary] == [
        ("EmojiStyles", 0),
        ("EmojiStyles", 1),
    ]


def test_numbers_of_differences_are_explained_where_there_are_some(sweep):
    alone = meanings(report_of(sweep({"ERM": {0: [0.1, 0.2], 1: [0.3, 0.4]}})), "the rule")
    assert [line.partition(":")[0] for line in alone] == ["Model selection", "Accuracy", "Average"]
    pair = meanings(report_of(sweep({name: {0: [0.1, 0.2]} for name in ("ERM", "PCGrad")})), "the rule")
    assert {"Mean", "p", "Holm p", "Verdict"} <= {line.partition(":")[0] for line in pair}
    assert "A star marks" in pair[1]
    assert "A star marks" not in alone[1]


def test_without_correction_every_test_is_its_own_family(sweep):
    report = report_of(two_datasets(sweep, AgrSum=0.03), correction="none")
    assert report.correction == "none"
    for cell in [*report.primary, *report.secondary]:
        assert cell.family == 1
        assert cell.holm_p == cell.comparison.p
        assert cell.comparison.simultaneous == cell.comparison.interval


@pytest.mark.parametrize("correction", ["holm", "none"])
def test_no_row_contradicts_itself(sweep, correction):
    cells = []
    for trials, gain in [(5, 0.1), (6, 0.1), (8, 0.04), (12, 0.03), (20, 0.02)]:
        report = report_of(two_datasets(sweep, trials, AgrSum=gain, PCGrad=-gain), correction=correction)
        cells += [*report.primary, *report.secondary]
    for cell in cells:
        result = cell.comparison
        low, high = result.interval
        assert (result.p < 0.05) == (not low <= 0 <= high)
        assert cell.significant == (cell.holm_p < 0.05) == (cell.verdict in (Verdict.BETTER, Verdict.WORSE))
        low, high = result.simultaneous
        if not low <= 0 <= high:  # a little wider than Holm's verdict needs
            assert cell.verdict is (Verdict.BETTER if low > 0 else Verdict.WORSE)
        assert cell.trials_needed is None or cell.verdict in (Verdict.EQUIVALENT, Verdict.UNDECIDED)
    assert {cell.verdict for cell in cells} == {Verdict.BETTER, Verdict.WORSE, Verdict.UNDECIDED}


def test_hparams_are_selected_before_trials_are_paired(record):
    def run(algorithm, hparams_seed, val, test):
        made = record(algorithm, 0, 0, test, hparams_seed=hparams_seed)
        return made | {f"env{i}_out_acc": val for i in (1, 2, 3)}

    records = Q([run("ERM", 0, 0.5, 0.9), run("ERM", 1, 0.6, 0.4), run("AgrSum", 0, 0.7, 0.5)])
    cell = by_place(report_of(records))["EmojiStyles", "Flat", "AgrSum"]
    assert cell.comparison.difference == pytest.approx(0.1)


def test_nan_counts_as_missing(sweep):
    report = report_of(sweep({"ERM": {0: [0.1, 0.2]}, "PCGrad": {0: [float("nan"), 0.3]}}))
    assert [trial.seed for trial in by_place(report)["EmojiStyles", "Flat", "PCGrad"].trials] == [1]


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
