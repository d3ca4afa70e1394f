"""The sweep file of a plan repeats the pilot's runs, each trial with its own split."""

from __future__ import annotations

import json

import pytest

from domainbed.errors import RunError
from domainbed.sweep.flags import parse
from domainbed.sweep.planned_jobs import make_jobs
from domainbed_gs.report.planned_sweep import own_splits, write_planned_sweep


@pytest.fixture
def planned(tmp_path):
    """`planned(records)`: the `train` arguments of each command that the sweep file of 5 trials launches."""

    def make(records):
        path = tmp_path / "sweep.toml"
        lines = write_planned_sweep(
            path, records, trials=5, selection=["last"], sweep_dir=tmp_path / "pilot", about="Planned."
        )
        launches = [parse(["launch", *line.split()[4:]]) for line in lines]
        return [[job.train_args for job in make_jobs(launch)] for launch in launches]

    return make


def test_all_runs_of_all_trials_with_their_settings(sweep, planned, tmp_path):
    records = sweep({"ERM": {0: [0.5, 0.6], 2: [0.5]}, "SAM": {0: [0.7]}}, steps=7)
    for record in records:
        rate = {"ERM": 0.1, "SAM": 0.2}[record["args"]["algorithm"]]
        record["args"]["hparams"] = json.dumps({"lr": rate})
    (jobs,) = planned(records)
    assert len(jobs) == 2 * 2 * 5
    assert {(job["algorithm"], job["hparams"]) for job in jobs} == {
        ("ERM", '{"lr": 0.1}'),
        ("SAM", '{"lr": 0.2}'),
    }
    assert {tuple(job["test_envs"]) for job in jobs} == {(0,), (2,)}
    assert {(job["splits"], job["steps"]) for job in jobs} == {("70/10/20:per_trial", 7)}
    assert {job["trial_seed"] for job in jobs} == set(range(5))
    assert len({(*job["test_envs"], job["seed"]) for job in jobs}) == 2 * 5  # paired
    head = (tmp_path / "sweep.toml").read_text()
    assert head.startswith("# Planned.\n")
    assert "share one split" not in head


def test_conditions_and_methods_with_other_settings_become_presets(sweep, planned):
    records = [*sweep({"AgrSum": {0: [0.5]}}, steps=7)]
    records += sweep({"AgrSum/pooled": {0: [0.5]}}, steps=9, grouping="pooled")
    records += sweep({"ERM": {0: [0.5]}}, steps=8)
    jobs = planned(records)
    found = [{(job["algorithm"], job.get("grouping"), job["steps"]) for job in each} for each in jobs]
    assert found == [{("AgrSum", None, 7)}, {("ERM", None, 8)}, {("AgrSum", "pooled", 9)}]


def test_a_search_is_repeated_with_its_seeds_and_pairs_of_targets(sweep, planned):
    records = [each for seed in (1, 2) for each in sweep({"ERM": {0: [0.5]}}, hparams_seed=seed)]
    records += sweep({"ERM": {0: [0.5]}}, hparams_seed=1, test_envs=[0, 1])
    (jobs,) = planned(records)
    assert {job["hparams_seed"] for job in jobs} == {1, 2}
    assert max(len(job["test_envs"]) for job in jobs) == 2
    records += sweep({"ERM": {0: [0.5]}}, hparams_seed=5)
    with pytest.raises(RunError, match=r"consecutive hparams seeds, but .* by ERM are 1, 2, 5"):
        planned(records)


def test_runs_of_one_method_with_several_settings_are_refused(sweep, planned):
    records = [*sweep({"ERM": {0: [0.5]}}, steps=7), *sweep({"ERM": {1: [0.5]}}, steps=8)]
    with pytest.raises(RunError, match="--write needs runs with equal settings, but steps on EmojiStyles by"):
        planned(records)


def test_a_split_that_cannot_vary_is_said(sweep, planned, tmp_path):
    planned(sweep({"ERM": {0: [0.5]}}, splits="whole"))
    assert "All trials share one split (splits = whole)" in (tmp_path / "sweep.toml").read_text()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("70/10/20", "70/10/20:per_trial"),
        ("stratified:60/20/20:unstratified", "stratified:60/20/20:unstratified:per_trial"),
        ("stratified", "stratified:70/10/20:per_trial"),
        ("70/10/20:per_trial", "70/10/20:per_trial"),
        ("holdout", "holdout"),
        ("whole", "whole"),
        ("not_registered", "not_registered"),
    ],
)
def test_splits_of_the_planned_trials(before, after):
    assert own_splits(before) == after
