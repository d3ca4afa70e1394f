"""Each selection method on records whose best step is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.model_selection import (
    METHODS,
    IIDAccuracySelectionMethod,
    IIDAutoLRAccuracySelectionMethod,
    LeaveOneOutSelectionMethod,
    OracleSelectionMethod,
)
from domainbed.records.query import Q


def record(step, targets, *accs, hparams_seed=0):
    """A record with the (in, out) accuracies of each environment. None omits a key."""
    found = {"args": {"test_envs": list(targets), "hparams_seed": hparams_seed}, "step": step}
    for i, pair in enumerate(accs):
        for part, acc in zip(("in", "out"), pair, strict=True):
            if acc is not None:
                found[f"env{i}_{part}_acc"] = acc
    return found


def test_oracle_takes_the_last_step():
    records = Q([record(1, [0], (0.65, 0.60)), record(0, [0], (0.75, 0.70)), record(2, [0, 1], (0.9, 0.9))])
    assert OracleSelectionMethod.run_acc(records) == {"val_acc": 0.60, "test_acc": 0.65}
    repeated = Q([record(1, [0], (0.65, 0.60)), record(1, [0], (0.1, 0.2))])
    assert OracleSelectionMethod.run_acc(repeated) == {"val_acc": 0.2, "test_acc": 0.1}


def test_iid_takes_the_best_mean_of_the_sources():
    records = Q(
        [
            record(0, [0], (0.1, 0.2), (0.5, 0.6), (0.6, 0.7)),
            record(1, [0], (0.3, 0.4), (0.6, 0.7), (0.7, 0.8)),
        ]
    )
    assert IIDAccuracySelectionMethod.run_acc(records) == {"val_acc": 0.75, "test_acc": 0.3}
    ties = Q([record(0, [1], (0, 0.5), (0.1, 0)), record(1, [1], (0, 0.5), (0.2, 0))])
    assert IIDAccuracySelectionMethod.run_acc(ties)["test_acc"] == 0.1


@given(accs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12), data=st.data())
def test_iid_equals_the_mean_of_numpy_bit_for_bit(accs, data):
    target = data.draw(st.integers(0, len(accs) - 1))
    found = IIDAccuracySelectionMethod.run_acc(Q([record(0, [target], *accs)]))
    assert found["val_acc"] == np.mean([out for i, (_, out) in enumerate(accs) if i != target])
    assert type(found["val_acc"]) is float
    assert found["test_acc"] == accs[target][0]


def with_losses(made, *losses):
    """The record with a validation loss of each environment."""
    return made | {f"env{i}_out_nll": loss for i, loss in enumerate(losses)}


def test_iid_nll_takes_the_smallest_mean_validation_loss_of_the_sources():
    records = Q(
        [
            with_losses(record(0, [0], (0.1, 0.2), (0.5, 0.9), (0.6, 0.9)), 0.0, 0.5, 0.7),
            with_losses(record(1, [0], (0.3, 0.4), (0.6, 0.7), (0.7, 0.8)), 9.0, 0.6, 0.4),
        ]
    )
    method = METHODS["iid_nll"]
    found = method.run_acc(records)
    assert found == {"val_acc": pytest.approx(-0.5), "test_acc": 0.3}
    assert method.criterion_in_unit(found["val_acc"]) == pytest.approx(0.5)
    assert METHODS["iid"].run_acc(records)["test_acc"] == 0.1


def test_iid_nll_never_selects_nan_and_prefers_any_step_to_an_infinite_loss():
    records = [
        with_losses(record(step, [0], (acc, 0), (0, 0.5)), 0.0, loss)
        for step, (acc, loss) in enumerate([(0.1, math.nan), (0.2, math.inf), (0.3, 3.0)])
    ]
    assert METHODS["iid_nll"].run_acc(Q(records))["test_acc"] == 0.3
    assert METHODS["iid_nll"].run_acc(Q(records[:1])) is None


def test_iid_nll_has_no_result_for_records_of_earlier_versions():
    assert METHODS["iid_nll"].run_acc(Q([record(0, [0], (0.1, 0.2), (0.5, 0.6))])) is None


def test_iid_worst_takes_the_best_worst_source():
    records = Q(
        [
            record(0, [0], (0.1, 0.0), (0.5, 0.9), (0.6, 0.4)),
            record(1, [0], (0.3, 0.0), (0.6, 0.6), (0.7, 0.5)),
        ]
    )
    assert METHODS["iid_worst"].run_acc(records) == {"val_acc": 0.5, "test_acc": 0.3}
    assert METHODS["iid"].run_acc(records)["test_acc"] == 0.1
    nan = Q([record(0, [0], (0.1, 0), (0, 0.9), (0, math.nan))])
    assert METHODS["iid_worst"].run_acc(nan) is None


def test_nan_is_never_selected():
    """Neither a diverged step that comes first nor a diverged hparams seed is selected."""
    nan = math.nan
    first = [record(0, [0], (0.9, 0.9), (nan, nan)), record(1, [0], (0.5, 0.5), (0.6, 0.6))]
    assert IIDAccuracySelectionMethod.run_acc(Q(first)) == {"val_acc": 0.6, "test_acc": 0.5}
    diverged = record(0, [0], (0.2, 0.2), (nan, nan), hparams_seed=1)
    assert IIDAccuracySelectionMethod.sweep_acc(Q([*first, diverged])) == 0.5
    assert IIDAccuracySelectionMethod.sweep_acc(Q([diverged])) is None


def test_environments_after_a_target_without_an_out_split_are_counted():
    records = Q([record(0, [1], (0.1, 0.4), (0.9, None), (0.3, 0.8))])
    assert IIDAccuracySelectionMethod.run_acc(records) == {"val_acc": pytest.approx(0.6), "test_acc": 0.9}
    assert OracleSelectionMethod.run_acc(records) is None


def test_steps_without_the_targets_accuracy_are_skipped():
    records = Q([record(0, [0], (None, 0.1), (0.5, 0.9)), record(1, [0], (0.3, 0.1), (0.5, 0.6))])
    assert IIDAccuracySelectionMethod.run_acc(records) == {"val_acc": 0.6, "test_acc": 0.3}
    assert IIDAccuracySelectionMethod.run_acc(Q(records[:1])) is None


def test_selection_averages_over_the_sources_that_have_a_validation_part():
    """Source 1 has too few images for one: the best of the others is step 1 (0.8), not the first step."""
    steps = [
        record(0, [0], (0.1, 0.9), (0.2, None), (0.3, 0.5), (0.4, 0.4)),
        record(1, [0], (0.8, 0.1), (0.9, None), (0.9, 0.7), (0.9, 0.9)),
        record(2, [0], (0.7, 0.1), (0.9, None), (0.9, 0.8), (0.9, 0.7)),
    ]
    assert IIDAccuracySelectionMethod.run_acc(Q(steps)) == {"val_acc": pytest.approx(0.8), "test_acc": 0.8}
    assert IIDAccuracySelectionMethod.validated(steps) == (2, 3)
    assert LeaveOneOutSelectionMethod.validated(steps) is None
    assert OracleSelectionMethod.validated(steps) == (0,)


def test_no_source_has_a_validation_part_and_there_is_no_result():
    """--holdout_fraction 0: the first step, of the untrained network, is not the result."""
    steps = [record(step, [0], (0.1 + step, None), (0.5, None), (0.5, None)) for step in (0, 0.5)]
    assert IIDAccuracySelectionMethod.sweep_acc(Q(steps)) is None
    assert IIDAccuracySelectionMethod.validated(steps) == ()
    assert OracleSelectionMethod.sweep_acc(Q(steps)) is None
    assert OracleSelectionMethod.validated(steps) == ()


def test_a_step_that_lacks_the_accuracy_of_a_validated_source_is_skipped():
    """Its mean would be one over other sources than that of the other steps."""
    partial = record(0, [0], (0.1, 0.9), (0.2, 0.99), (0.3, None))
    whole = record(1, [0], (0.6, 0.9), (0.2, 0.5), (0.3, 0.5))
    found = IIDAccuracySelectionMethod.run_acc(Q([partial, whole]))
    assert found == {"val_acc": 0.5, "test_acc": 0.6}


def test_leave_one_out_needs_the_run_of_a_source_without_a_validation_part():
    """Without the run that holds it out as well, nothing is selected."""
    steps = loo_step(0)
    for each in steps:
        del each["env2_out_acc"]
    assert LeaveOneOutSelectionMethod.run_acc(Q(steps)) == {"val_acc": 0.55, "test_acc": 0.1}
    assert LeaveOneOutSelectionMethod.run_acc(Q(steps[:-1])) is None


def test_a_single_environment_has_no_source():
    assert IIDAccuracySelectionMethod.run_acc(Q([record(0, [0], (0.5, 0.5))])) is None
    assert LeaveOneOutSelectionMethod.run_acc(Q([record(0, [0], (0.5, 0.5))])) is None


def test_autolr_reports_the_second_stage():
    merged = record(9, [0], (0.1, 0.2), (0.5, 0.6)) | {"fd_env0_in_acc": 0.95}
    assert IIDAutoLRAccuracySelectionMethod.run_acc(Q([merged])) == {"val_acc": 0.6, "test_acc": 0.95}
    del merged["fd_env0_in_acc"]
    assert IIDAutoLRAccuracySelectionMethod.run_acc(Q([merged])) is None


ANY = (0.99, 0.99)


def loo_step(step, test_acc=0.1, scores=(0.5, 0.6)):
    return [
        record(step, [0], (test_acc, 0.0), ANY, ANY),
        record(step, [0, 1], ANY, (scores[0], 0), ANY),
        record(step, [0, 2], ANY, ANY, (scores[1], 0)),
    ]


def test_leave_one_out():
    assert LeaveOneOutSelectionMethod.run_acc(Q(loo_step(0))) == {"val_acc": 0.55, "test_acc": 0.1}
    assert LeaveOneOutSelectionMethod.run_acc(Q(loo_step(0)[:-1])) is None
    steps = [*loo_step(9, 0.3, (0.7, 0.7)), *loo_step(0), *loo_step(4, 0.2, (0.7, 0.7))]
    assert LeaveOneOutSelectionMethod.run_acc(Q(steps)) == {"val_acc": 0.7, "test_acc": 0.2}


def test_leave_one_out_needs_exactly_one_run_of_the_target():
    twice = [*loo_step(0), loo_step(0, 0.7)[0]]
    assert LeaveOneOutSelectionMethod.run_acc(Q(twice)) is None
    assert LeaveOneOutSelectionMethod.run_acc(Q(loo_step(0)[1:])) is None
    assert LeaveOneOutSelectionMethod.run_acc(Q([*twice, *loo_step(1, 0.4)]))["test_acc"] == 0.4


@given(accs=st.lists(st.floats(0, 1), min_size=2, max_size=14), data=st.data())
def test_leave_one_out_equals_the_sum_of_numpy_bit_for_bit(accs, data):
    n = len(accs)
    target = data.draw(st.integers(0, n - 1))
    records = [record(0, [target], *[(0.25, 0.5)] * n)]
    for source in set(range(n)) - {target}:
        records.append(
            record(0, [source, target], *((accs[i] if i == source else 0.75, 0.5) for i in range(n)))
        )
    shuffled = data.draw(st.permutations(records))
    found = LeaveOneOutSelectionMethod.run_acc(Q(shuffled))
    assert found["val_acc"] == np.sum([acc for i, acc in enumerate(accs) if i != target]) / (n - 1)
    assert found["test_acc"] == 0.25


def test_two_stages_are_merged_before_selection():
    first, second = (record(9, [0], *accs) for accs in ([(0.1, 0.2), (0.5, 0.6)], [(0.3, None), (0.4, 0.7)]))
    second["fd_env0_in_acc"] = 0.95
    first["args"]["holdout_fraction"], second["args"]["holdout_fraction"] = 0.2, 0.0
    ((accs, records),) = IIDAutoLRAccuracySelectionMethod.hparams_accs(Q([first, second]))
    assert accs == {"val_acc": 0.7, "test_acc": 0.95}
    assert records == [first | second]
    assert IIDAutoLRAccuracySelectionMethod.hparams_accs(records) == [(accs, records)]
