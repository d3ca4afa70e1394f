"""Whether trials share a split, as the records tell."""

from __future__ import annotations

import pytest

from domainbed.records.query import Q
from domainbed_gs.report.trial_splits import split_settings, trial_splits


@pytest.mark.parametrize(
    ("splits", "kind"),
    [
        ("70/10/20", "shared"),
        ("70/10/20:per_trial", "own"),
        ("holdout", "own"),
        ("whole", "shared"),
        ("splits.json", "shared"),
        ("splits-{trial_seed}.json", "own"),
        ("no_such_scheme", "unknown"),
    ],
)
def test_by_the_declaration_of_the_scheme(sweep, splits, kind):
    found = trial_splits(sweep({"ERM": {0: [0.5, 0.6]}}, splits=splits))
    assert (found.kind, found.schemes) == (kind, (splits,))
    assert splits in found.sentence()


def test_records_without_the_setting_have_upstreams_splits(sweep):
    records = sweep({"ERM": {0: [0.5, 0.6]}})
    for record in records:
        del record["args"]["splits"]
    assert trial_splits(records).kind == "own"


def test_one_file_for_each_trial(record):
    files = [record("ERM", 0, trial, 0.5, splits=f"{trial}.json") for trial in (0, 1)]
    assert trial_splits(Q(files)).kind == "own"
    again = record("ERM", 0, 2, 0.5, splits="1.json")
    found = trial_splits(Q([*files, again]))
    assert (found.kind, found.schemes) == ("shared", ("1.json",))


def test_one_trial_of_a_shared_scheme_and_two_datasets(sweep):
    assert trial_splits(sweep({"ERM": {0: [0.5]}})).kind == "shared"
    own = sweep({"ERM": {0: [0.5, 0.6]}}, splits="holdout")
    other = sweep({"ERM": {0: [0.5, 0.6]}}, dataset="Debug28", environments=3)
    found = trial_splits(Q([*own, *other]))
    assert (found.kind, found.schemes) == ("shared", ("70/10/20",))


def test_trials_that_differ_in_the_seed_only_share_a_split(record):
    runs = [record("ERM", 0, trial, 0.5, splits="holdout", seed=seed) for trial in (0, 1) for seed in (0, 1)]
    found = trial_splits(Q(runs))
    assert found.kind == "repeated"
    assert "Trials that differ in --seed only share a split of the data" in found.sentence()


def test_copies_split_by_another_rule_are_other_splits(record):
    one, other = record("ERM", 0, 0, 0.5), record("IRM", 0, 0, 0.5)
    assert split_settings(one) == split_settings(other)
    other["data"] = {"copies": {"split": "together"}}
    assert split_settings(one) != split_settings(other)
    one["args"].pop("splits")
    assert split_settings(one)["splits"] == "holdout"
