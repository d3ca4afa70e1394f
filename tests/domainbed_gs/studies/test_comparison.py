"""Methods compared by any quantity: which trials count, and what tables say without a test."""

import math
from functools import partial

import pytest

from domainbed_gs.studies.comparison import compared_methods, trial_means
from domainbed_gs.studies.tables import TableStyle, notes_on_tests, print_method_tables


def row(algorithm, trial, value, targets="c", run=None):
    run = run or f"{algorithm}{trial}{targets}"
    return {"algorithm": algorithm, "trial_seed": trial, "targets": targets, "run": run, "value": value}


def value_of(model):
    return model[0]["value"]


def test_a_trial_without_a_number_for_one_of_its_targets_does_not_count():
    rows = [row("ERM", "0", 1.0), row("ERM", "0", 3.0, "d"), row("ERM", "10", 5.0), row("ERM", "9", 7.0)]
    rows += [row("ERM", "10", math.nan, "d"), row("ERM", "9", 9.0, "d"), row("ERM", "9", 11.0, "d", "again")]
    assert trial_means(rows, value_of) == {"0": 2.0, "9": 8.5}
    assert trial_means(rows, lambda model: None) == {}
    assert trial_means([], value_of) == {}


@pytest.mark.parametrize("untested", [(), ("values",)])
def test_methods_without_a_common_trial_have_no_test_and_the_table_says_no_difference(untested, capsys):
    rows = [row("ERM", "0", 1.0), row("SAM", "1", 2.0)]
    methods = {name: [each for each in rows if each["algorithm"] == name] for name in ("ERM", "SAM")}
    values = {"values": partial(trial_means, value=value_of)}
    erm, sam = compared_methods(("D", "in"), methods, values, "ERM", untested)
    assert erm.comparison is None
    assert (sam.family, sam.holm_p, sam.verdict()) == (0, None, "")
    assert (sam.comparison is None) == bool(untested)
    print_method_tables([erm, sam], "/".join, TableStyle("Loss", ".2f"), "markdown")
    shown = capsys.readouterr().out
    assert "D/in" in shown
    assert "| values | SAM | 2.00 | - | 1 | - | - | - | - | - |" in shown
    (note,) = notes_on_tests(rows, [erm, sam], "ERM")
    assert note.startswith("Nothing is compared" if untested else "Difference: mean of the method minus mean")
