"""The paper's selection methods on small runs, against numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from domainbed.model_selection import METHODS, SelectionMethod
from domainbed.records.query import Q
from domainbed_gs.selection import (
    ICCV2021MacroSelectionMethod,
    ICCV2021SelectionMethod,
    LastSelectionMethod,
)


@pytest.fixture
def step(record):
    def make(step, val, test, hparams_seed=0, sizes=(100, 300)):
        """A record of target 1 with validation accuracies of the sources 0 and 2."""
        made = record("ERM", 1, 0, test, step=step, environments=3, hparams_seed=hparams_seed)
        made["env0_out_acc"], made["env2_out_acc"] = val
        made["env1_out_acc"] = 1.0  # the target's own validation split must not count
        made["sizes"] = {"env0_out": sizes[0], "env1_out": 10**6, "env2_out": sizes[1]}
        return made

    return make


def test_pooled_and_mean_validation_select_different_steps(step):
    records = Q([step(0, (0.9, 0.5), 0.11), step(20, (0.5, 0.7), 0.22)])
    assert ICCV2021SelectionMethod.run_acc(records) == {"val_acc": pytest.approx(0.65), "test_acc": 0.22}
    assert ICCV2021MacroSelectionMethod.run_acc(records) == {"val_acc": pytest.approx(0.7), "test_acc": 0.11}


def test_ties_keep_the_earliest_step_in_any_order_of_records(step):
    records = [step(0, (0.5, 0.5), 0.1), step(20, (0.6, 0.6), 0.2), step(40, (0.6, 0.6), 0.3)]
    for method in (ICCV2021SelectionMethod, ICCV2021MacroSelectionMethod):
        assert method.run_acc(Q(records))["test_acc"] == 0.2
        assert method.run_acc(Q(records[::-1]))["test_acc"] == 0.2


def test_last_selects_the_last_step_and_its_validation_accuracy(step):
    records = Q([step(40, (0.1, 0.1), 0.3), step(0, (0.9, 0.9), 0.1)])
    assert LastSelectionMethod.run_acc(records) == {"val_acc": pytest.approx(0.1), "test_acc": 0.3}


def test_the_targets_own_validation_accuracy_is_not_needed(step):
    made = step(0, (0.5, 0.7), 0.4)
    del made["env1_out_acc"]
    assert ICCV2021SelectionMethod.run_acc(Q([made])) == {"val_acc": pytest.approx(0.65), "test_acc": 0.4}


def test_best_hparams_seed_is_reported(step):
    records = Q([step(0, (0.5, 0.5), 0.9), step(0, (0.8, 0.8), 0.3, hparams_seed=1)])
    for method in (ICCV2021SelectionMethod, ICCV2021MacroSelectionMethod, LastSelectionMethod):
        assert method.sweep_acc(records) == 0.3


def test_sources_without_a_validation_part_are_left_out(step):
    """Source 0 has none: both averages are those of source 2. Without any, only `last` has a result."""
    records = [step(0, (0.9, 0.5), 0.1), step(20, (0.1, 0.7), 0.2)]
    for each in records:
        del each["env0_out_acc"], each["sizes"]["env0_out"]
    for method in (ICCV2021SelectionMethod, ICCV2021MacroSelectionMethod):
        assert method.run_acc(Q(records)) == {"val_acc": pytest.approx(0.7), "test_acc": 0.2}
    for each in records:
        del each["env2_out_acc"], each["sizes"]["env2_out"]
    for method in (ICCV2021SelectionMethod, ICCV2021MacroSelectionMethod):
        assert method.sweep_acc(Q(records)) is None
        assert method.validated(records) == ()
    assert LastSelectionMethod.sweep_acc(Q(records)) == 0.2
    other = [step(0, (0.5, 0.5), 0.3, hparams_seed=1) | {"env0_out_acc": math.nan}]
    assert LastSelectionMethod.sweep_acc(Q([*records, *other])) is None  # nothing decides between the seeds


@pytest.mark.parametrize("name", ["iccv2021", "iccv2021_macro", "last"])
def test_methods_have_names_and_no_result_without_a_test_split(name, step):
    method = METHODS[name]
    assert issubclass(method, SelectionMethod)
    assert "test split" in method.name
    assert method.run_acc(Q([])) is None
    without = step(0, (0.5, 0.5), 0.1)
    del without["env1_test_acc"]
    assert method.run_acc(Q([without])) is None
    pair = step(0, (0.5, 0.5), 0.1)
    pair["args"]["test_envs"] = [1, 2]
    assert method.run_acc(Q([pair])) is None


def test_steps_without_a_usable_validation_accuracy_are_skipped(step):
    diverged = step(0, (math.nan, 0.9), 0.1)
    unsized = step(10, (0.9, 0.9), 0.2)
    del unsized["sizes"]
    records = Q([diverged, unsized, step(20, (0.3, 0.3), 0.3)])
    assert ICCV2021SelectionMethod.run_acc(records)["test_acc"] == 0.3
    assert ICCV2021MacroSelectionMethod.run_acc(records)["test_acc"] == 0.2  # a mean needs no sizes
    assert ICCV2021SelectionMethod.run_acc(Q([diverged, unsized])) is None
