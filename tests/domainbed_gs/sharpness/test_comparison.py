"""Methods compared by the sharpness of their models."""

import math

import pytest

from domainbed_gs.report.signed_rank import signed_rank_p
from domainbed_gs.sharpness.comparison import GROUPS, RATIO, RATIOS, compare_methods
from domainbed_gs.sharpness.settings import QUANTITIES
from domainbed_gs.sharpness.tables import print_tables

TRIALS = 10


def rows_of(algorithm, trial, values, *, target="c", run=None, part="in"):
    """Rows of one model; `values` are those of the pooled loss, the sources a and b, and the target."""
    shared = {
        "dataset": "D",
        "algorithm": algorithm,
        "targets": target,
        "trial_seed": str(trial),
        "part": part,
    }
    shared |= {"run": run or f"{algorithm}{trial}{target}", "rho": "0.05", "samples": "100"}
    roles = (("pooled", ""), ("source", "a"), ("source", "b"), ("target", target))
    return [
        {**shared, "role": role, "environment": name, **dict.fromkeys(QUANTITIES, value)}
        for (role, name), value in zip(roles, values, strict=True)
    ]


@pytest.fixture
def rows():
    """SAM: flat pooled loss, one sharp source. DGSAM: lower everywhere."""
    found = []
    for trial in range(TRIALS):
        more = trial / 100
        found += rows_of("ERM", trial, (2 + more, 2, 3, 4 - more))
        found += rows_of("SAM", trial, (1 + 2 * more, 2, 3 + more, 5))
        found += rows_of("DGSAM", trial, (1, 1, 1 + more, 1))
    return found


def cell(cells, quantity, group, algorithm):
    (found,) = [c for c in cells if (c.table[-1], c.label, c.algorithm) == (quantity, group, algorithm)]
    return found


def test_each_group_reads_its_own_rows(rows):
    cells = compare_methods(rows, "ERM")
    assert cell(cells, "eigenvalue", "pooled", "SAM").mean == pytest.approx(1.09)
    assert cell(cells, "eigenvalue", "sources", "SAM").mean == pytest.approx(2.5225)
    assert cell(cells, "eigenvalue", "sharpest source", "SAM").mean == pytest.approx(3.045)
    assert cell(cells, "eigenvalue", "targets", "ERM").mean == pytest.approx(3.955)
    assert cell(cells, "trace", "pooled", "SAM").mean == pytest.approx(1.09)
    assert not [c for c in cells if (c.table[-1], c.label) == ("trace", "sources")]
    methods = [c.algorithm for c in cells if (c.table[-1], c.label) == ("one_step_rise", "pooled")]
    assert methods[0] == "ERM"
    assert set(methods) == {"ERM", "SAM", "DGSAM"}


def test_p_values_are_exact_and_corrected_for_all_tests_of_a_table(rows):
    cells = compare_methods(rows, "ERM")
    found = cell(cells, "worst_rise", "pooled", "SAM")
    differences = [-1 + trial / 100 for trial in range(TRIALS)]
    assert found.comparison.p == pytest.approx(signed_rank_p(differences)) == 2 / 2**TRIALS
    assert found.family == 2 * len(GROUPS)
    assert found.holm_p == pytest.approx(8 * 2 / 2**TRIALS)
    assert found.verdict() == "lower"
    assert cell(cells, "worst_rise", "targets", "SAM").verdict() == "higher"
    same = cell(cells, "worst_rise", "sources", "SAM")
    assert same.comparison.ties == 1
    assert cell(cells, "trace", "pooled", "SAM").family == 2 * (len(GROUPS) - 1)


def test_ratios_show_a_flat_pooled_loss_with_a_sharp_source(rows):
    cells = compare_methods(rows, "ERM")
    ratio = {name: cell_of_ratio(cells, "eigenvalue", name) for name in ("ERM", "SAM", "DGSAM")}
    assert ratio["SAM"].trials["0"] == 3  # its sharpest source / its pooled loss
    assert ratio["DGSAM"].trials["9"] == pytest.approx(1.09)
    assert (ratio["SAM"].verdict(), ratio["DGSAM"].verdict()) == ("higher", "lower")
    assert ratio["SAM"].family == 2 * len(RATIOS)


def test_a_model_without_a_positive_pooled_value_has_no_ratio(rows):
    for row in rows:
        if row["run"] == "SAM0c" and row["role"] == "pooled":
            row["eigenvalue"] = 0.0
    assert "0" not in cell_of_ratio(compare_methods(rows, "ERM"), "eigenvalue", "SAM").trials


def cell_of_ratio(cells, quantity, algorithm):
    (found,) = [c for c in cells if (c.table[-1], c.label, c.algorithm) == (RATIO, quantity, algorithm)]
    return found


def test_too_few_trials_say_how_many_are_needed(rows):
    few = [row for row in rows if int(row["trial_seed"]) < 3]
    assert (
        cell(compare_methods(few, "ERM"), "eigenvalue", "pooled", "SAM").verdict()
        == "undecided, needs 9 trials"
    )


def test_a_trial_is_the_mean_over_its_targets_and_needs_all_of_them():
    rows = []
    for trial in range(3):
        rows += rows_of("ERM", trial, (1, 1, 1, 1), target="c")
        if trial < 2:
            rows += rows_of("ERM", trial, (3, 3, 3, 5), target="a")
    found = cell(compare_methods(rows, "ERM"), "eigenvalue", "targets", "ERM")
    assert found.trials == {"0": 3, "1": 3}


def test_several_models_of_a_trial_are_averaged_and_said_to_be(rows, capsys):
    rows += rows_of("ERM", 0, (4, 4, 4, 4), run="another")
    found = cell(compare_methods(rows, "ERM"), "eigenvalue", "pooled", "ERM")
    assert found.trials["0"] == 3
    print_tables(rows, "ERM", "text")
    assert "Note: 1 trials of ERM have several models" in capsys.readouterr().out


def test_without_the_baseline_nothing_is_compared(rows, capsys):
    cells = compare_methods(rows, "IRM")
    assert all(c.comparison is None and c.verdict() == "" for c in cells)
    print_tables(rows, "IRM", "text")
    assert (
        "Nothing is compared, because no model is of the baseline IRM; there are" in capsys.readouterr().out
    )


def test_a_value_that_is_not_a_number_leaves_its_trial_out(rows):
    for row in rows:
        if row["run"] == "SAM0c":
            row["eigenvalue"] = math.nan
    found = cell(compare_methods(rows, "ERM"), "eigenvalue", "pooled", "SAM")
    assert len(found.trials) == TRIALS - 1
    assert found.comparison.pairs == TRIALS - 1


def test_the_tables_have_every_method_with_its_verdict(rows, capsys):
    print_tables(rows, "ERM", "markdown")
    out = capsys.readouterr().out
    assert "Dataset: D, part in: largest eigenvalue of the Hessian" in out
    assert "Dataset: D, part in: sharpest source / pooled loss" in out
    assert "| sharpest source | DGSAM | 1.045 | 0.03028 | 10 | -1.955 |" in out
    assert "each on the loss of its own row; measured on 100 samples" in out
