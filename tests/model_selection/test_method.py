"""Selection methods as plugins define them, and the records that they read."""

from __future__ import annotations

import json
import math

import pytest

from domainbed.model_selection import (
    METHODS,
    SelectionMethod,
    get_test_records,
    merge_records,
    recursive_freeze,
)
from domainbed.records.query import Q


class ByLoss(SelectionMethod):
    """A subclass such as forks define."""

    name = "by loss"

    @classmethod
    def run_acc(cls, run_records):
        accs = run_records.filter(lambda each: "val" in each)
        return {"val_acc": accs[0]["val"], "test_acc": accs[0]["test"]} if len(accs) else None


def by_loss(seed, **values):
    return {"args": {"hparams_seed": seed}, **values}


def test_get_test_records():
    records = Q([{"args": {"test_envs": targets}} for targets in ([0], [0, 1], [2], [])])
    assert get_test_records(records) == [records[0], records[2]]


def test_methods_cannot_be_instantiated():
    for method in (SelectionMethod, *METHODS.values()):
        with pytest.raises(TypeError):
            method()


def test_hparams_accs_come_best_first_and_of_equals_the_larger_seed():
    records = Q(
        [
            by_loss(0, val=0.5, test=0.1),
            by_loss(1, val=0.7, test=0.2),
            by_loss(2, val=0.7, test=0.3),
            by_loss(3),
            by_loss(4, val=math.nan, test=0.4),
        ]
    )
    accs = ByLoss.hparams_accs(records)
    assert isinstance(accs, list)
    assert [members[0]["args"]["hparams_seed"] for _, members in accs] == [2, 1, 0, 4]
    assert accs[0] == ({"val_acc": 0.7, "test_acc": 0.3}, Q([records[2]]))
    assert ByLoss.sweep_acc(records) == 0.3


@pytest.mark.parametrize("method", [*METHODS.values(), ByLoss], ids=lambda method: method.__name__)
def test_no_records(method):
    assert method.sweep_acc(Q([])) is None
    assert method.hparams_accs(Q([])) == []


def test_of_several_hparams_seeds_without_validation_none_is_chosen():
    nan = math.nan
    records = [by_loss(0, val=nan, test=0.1), by_loss(1, val=nan, test=0.9)]
    assert ByLoss.sweep_acc(Q(records)) is None
    assert ByLoss.sweep_acc(Q(records[:1])) == 0.1


def stage_record(seed, step, holdout):
    args = {"dataset": "VLCS", "hparams_seed": seed, "test_envs": [0], "holdout_fraction": holdout}
    return {"args": args, "step": step}


def test_merge_records_keeps_order_and_leaves_its_input_alone():
    records = [
        stage_record(seed, step, 0.2 * (1 - stage)) for stage in (0, 1) for seed in (2, 1) for step in (0, 7)
    ]
    before = json.dumps(records)
    merged = merge_records(records)
    assert [(r["args"]["hparams_seed"], r["step"], r["args"]["holdout_fraction"]) for r in merged] == [
        (2, 7, 0.0),
        (1, 7, 0.0),
    ]
    assert json.dumps(records) == before


def test_recursive_freeze():
    frozen = recursive_freeze({"a": [1, {"b": 2}], "c": {3, 4}})
    assert frozen == frozenset({("a", (1, frozenset({("b", 2)}))), ("c", frozenset({3, 4}))})
    assert hash(frozen) == hash(recursive_freeze({"c": {4, 3}, "a": [1, {"b": 2}]}))
