"""Rank correlations of hyper-parameters against numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from domainbed.records.query import Q
from domainbed.results.hparam_search import Candidate, HparamSetting
from domainbed.results.page.sensitivity import hparam_influences, rank_correlation


def setting(val_acc, test_acc=0.5, **hparams):
    candidate = Candidate(
        dataset="VLCS",
        algorithm="ERM",
        trial=0,
        target=0,
        hparams=hparams,
        val_acc=val_acc,
        test_acc=test_acc,
        records=Q([]),
    )
    return HparamSetting(hparams, [candidate])


def test_hyperparameters_that_vary_in_order_of_their_influence():
    settings = [
        setting(0.1, 0.4, lr=1e-4, batch=8, drop=True, name="a", fixed=3),
        setting(0.2, 0.3, lr=1e-3, batch=9, drop=True, name="b", fixed=3),
        setting(0.3, 0.2, lr=1e-2, batch=7, drop=False, name="c", fixed=3),
        setting(0.4, 0.1, lr=1e-1, batch=8, drop=False, name="d", fixed=3),
        setting(math.nan, lr=1.0, batch=1, drop=True, name="e", fixed=3),
    ]
    found = {influence.name: influence for influence in hparam_influences(settings)}
    assert next(iter(found)) == "lr"
    assert "fixed" not in found
    assert (found["lr"].validation, found["lr"].target) == (pytest.approx(1), pytest.approx(-1))
    assert (found["lr"].best, len(found["lr"].points)) == (0.1, 4)
    assert found["drop"].validation == pytest.approx(-2 / math.sqrt(5))
    assert found["name"].validation is None
    assert hparam_influences([]) == hparam_influences(settings[-1:]) == []


def test_no_correlation_for_few_or_equal_numbers():
    assert rank_correlation([1, 2, 3], [0.1, 0.2, 0.3]) is None
    assert rank_correlation([1, 2, 3, 4], [0.1] * 4) is None
    assert rank_correlation([1, 2, 2, 4], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
