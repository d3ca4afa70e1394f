"""Methods compared by any quantity: which trials count, and what tables say without a test."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed_gs.studies.comparison import by_target, compared_methods, model_values, over_targets
from domainbed_gs.studies.tables import TableStyle, notes_on_models, print_method_tables

NUMBERS = st.integers(-50, 50).map(lambda number: number / 8)


def row(algorithm, trial, value, targets="c", run=None):
    run = run or f"{algorithm}{trial}{targets}"
    return {
        "dataset": "D",
        "algorithm": algorithm,
        "trial_seed": trial,
        "targets": targets,
        "run": run,
        "value": value,
    }


def value_of(model):
    return model[0]["value"]


def trials_of(rows):
    return over_targets(by_target(model_values(rows, value_of)))


def compared(*rows, untested=()):
    methods = {}
    for each in rows:
        methods.setdefault(each["algorithm"], []).append(each)
    return compared_methods(("D", "in"), methods, {"values": value_of}, "ERM", untested)


def test_a_trial_without_a_number_for_one_of_its_targets_does_not_count():
    rows = [row("ERM", "0", 1.0), row("ERM", "0", 3.0, "d"), row("ERM", "10", 5.0), row("ERM", "9", 7.0)]
    rows += [row("ERM", "10", math.nan, "d"), row("ERM", "9", 9.0, "d"), row("ERM", "9", 11.0, "d", "again")]
    assert trials_of(rows) == {"0": 2.0, "9": 8.5}
    assert model_values(rows, lambda model: None) == []
    assert over_targets(by_target([])) == {}


def test_a_value_that_is_not_finite_is_counted_as_missing_and_its_method_stays_in_the_table():
    erm, sam, irm = compared(
        row("ERM", "0", 1.0), row("SAM", "0", math.inf), row("SAM", "1", 2.0), row("IRM", "0", math.nan)
    )
    assert (erm.models, erm.missing) == (1, 0)
    assert (sam.models, sam.missing, sam.trials, sam.comparison.pairs) == (2, 1, {"1": 2.0}, 0)
    assert (irm.models, irm.missing, irm.trials) == (1, 1, {})
    assert math.isnan(irm.mean)


def test_a_method_without_some_targets_is_compared_on_those_of_both(capsys):
    both = [
        row("ERM", str(trial), trial + value, target)
        for trial in range(10)
        for target, value in (("a", 1.0), ("c", 9.0))
    ]
    sam = [row("SAM", str(trial), trial + 1.5, "a") for trial in range(10)]
    erm, found = compared(*both, *sam)
    assert erm.trials["0"] == 5
    assert (found.difference, found.left_out, found.verdict()) == (0.5, ("c",), "higher")
    (note, *_) = [
        line for line in notes_on_models([*both, *sam], [erm, found], "ERM", "") if "without" in line
    ]
    assert note == "Note: on D, SAM and ERM are compared on the targets of both, without c."


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=9), st.integers(-300, 300))
def test_verdicts_do_not_depend_on_the_unit_of_a_quantity(pairs, power):
    def cell(factor):
        rows = [row("ERM", str(trial), other * factor) for trial, (_, other) in enumerate(pairs)]
        rows += [row("SAM", str(trial), own * factor) for trial, (own, _) in enumerate(pairs)]
        return compared(*rows)[1]

    one, scaled = cell(1.0), cell(2.0**power)
    assert (scaled.holm_p, scaled.verdict()) == (one.holm_p, one.verdict())
    assert scaled.difference == one.difference * 2.0**power
    assert scaled.interval == tuple(end * 2.0**power for end in one.interval)


@pytest.mark.parametrize("untested", [(), ("values",)])
def test_methods_without_a_common_trial_have_no_test_and_the_table_says_no_difference(untested, capsys):
    rows = [row("ERM", "0", 1.0), row("SAM", "1", 2.0)]
    erm, sam = compared(*rows, untested=untested)
    assert erm.comparison is None
    assert (sam.family, sam.holm_p, sam.verdict()) == (0, None, "")
    assert (sam.comparison is None) == bool(untested)
    print_method_tables([erm, sam], "/".join, TableStyle("Loss", ".2f"), "markdown")
    shown = capsys.readouterr().out
    assert "D/in" in shown
    assert "| values | SAM | 2.00 | - | 1 | - | - | - | - | - |" in shown
    notes = notes_on_models(rows, [erm, sam], "ERM", "")
    assert [note[:37] for note in notes] == ([] if untested else ["Difference: mean of the method minus "])


def test_a_baseline_that_no_model_has_is_named_with_those_there_are():
    rows = [row("SAM", "1", 2.0), row("IRM", "1", 2.0)]
    (note,) = notes_on_models(rows, compared(*rows), "EMR", "")
    assert (
        note == "Nothing is compared, because no model is of the baseline EMR; there are models of IRM, SAM."
    )
