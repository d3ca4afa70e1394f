"""The rule of what may be pooled: experiments, variants, repetitions, copies."""

import pytest

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.hparams import Hparam, Kind, const
from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.experiments import conflicts, pool
from domainbed.results.trials import Trial

ARGS = {
    "dataset": "EmojiStyles",
    "algorithm": "ERM",
    "test_envs": [0],
    "trial_seed": 0,
    "hparams_seed": 0,
    "seed": 0,
    "steps": 300,
}


def run(accuracy=0.5, validation=0.5, *, hparams=None, data=None, step=299, **args):
    """The last record of a run with one target, its accuracy there, and that on the sources."""
    record = {"step": step, "args": ARGS | args, "hparams": hparams or {}}
    if data is not None:
        record["data"] = data
    (target,) = record["args"]["test_envs"]
    record |= {f"env{i}_out_acc": validation for i in range(4)} | {f"env{target}_in_acc": accuracy}
    return record


def results(*records):
    """(trial, target) -> accuracy of ERM by `iid`."""
    found = compute_accuracies(Q(list(records)), METHODS["iid"]).by_target
    return {
        (trial, target): accuracy
        for (_, _, target), trials in found.items()
        for trial, accuracy in trials.items()
    }


def reason(*records):
    (conflict,) = conflicts(Q(list(records)))
    return conflict.reason


def test_runs_that_differ_in_a_design_setting_are_not_pooled():
    runs = run(0.1, 0.9), run(0.2, 0.8, steps=500), run(0.3, 0.7, steps=500, output_dir="b")
    assert results(*runs) == {}
    assert reason(*runs) == "steps is 500 (2 runs), 300 (1 run)"


def test_runs_of_three_step_counts_by_hand_are_three_experiments():
    runs = [run(hparams={"lr": lr}, steps=steps) for lr, steps in ((0.1, 11), (0.01, 22), (0.001, 33))]
    assert results(*runs) == {}
    assert reason(*runs) == "steps is 11 (1 run), 22 (1 run), 33 (1 run)"


def test_learning_rates_given_by_hand_are_variants_that_selection_chooses_among():
    runs = run(0.1, 0.6, hparams={"lr": 0.1}), run(0.2, 0.9, hparams={"lr": 0.01})
    assert results(*runs) == {(Trial(0), 0): 0.2}


def test_three_seeds_into_one_folder_are_three_trials():
    runs = [run(0.1 * seed, 0.9 - 0.1 * seed, seed=seed, output_dir=str(seed)) for seed in range(3)]
    assert results(*runs) == {(Trial(0, i), 0): 0.1 * i for i in range(3)}
    (method,) = pool(runs)
    assert method.repeated == (0,)


def test_upstream_seeds_that_differ_from_run_to_run_are_no_repetitions():
    runs = [
        run(0.1 * seed, 0.5 + 0.1 * seed, seed=17 * seed, hparams_seed=seed, hparams={"lr": 10.0**-seed})
        for seed in range(3)
    ]
    assert results(*runs) == {(Trial(0), 0): 0.2}


def test_repetitions_of_two_methods_have_the_number_of_their_seed():
    records = [run(0.5, seed=seed, algorithm=name) for name, seed in (("ERM", 3), ("ERM", 5), ("IRM", 5))]
    first, second = pool(records)
    assert list(first.cells) == [(Trial(0, 0), 0), (Trial(0, 1), 0)]
    assert list(second.cells) == [(Trial(0, 1), 0)]


def test_a_run_done_twice_counts_once():
    runs = run(0.1, 0.9, step=100, output_dir="a"), run(0.2, 0.1, output_dir="b"), run(0.3, output_dir="c")
    assert results(*runs) == {(Trial(0), 0): 0.2}
    assert pool(runs)[0].copies == 2


@pytest.mark.parametrize(
    "change",
    [
        {"output_dir": "elsewhere"},
        {"data_dir": "/other"},
        {"skip_model_save": True},
        {"evaluate": "selection"},
        {"channels_last": True},
        {"compile": True},
    ],
)
def test_incidental_settings_tell_no_runs_apart(change):
    assert results(run(0.1, hparams_seed=0), run(0.2, 0.9, hparams_seed=1, **change)) == {(Trial(0), 0): 0.2}


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_freq": 7},
        {"holdout_fraction": 0.3},
        {"splits": "70/10/20"},
        {"sampling": "epochs"},
        {"precision": "bf16"},
        {"classes": "union"},
        {"duplicates": "drop"},
        {"task": "domain_adaptation"},
        {"uda_holdout_fraction": 0.5},
        {"hparams": {"featurizer": "resnet18"}},
        {"hparams": {"freeze_bn": False}},
        {"hparams": {"input_size": 64}},
        {"hparams": {"data_augmentation": False}},
        {"of_a_fork": 1},
    ],
    ids=str,
)
def test_design_settings_separate_experiments(change):
    assert results(run(hparams_seed=0), run(hparams_seed=1, **change)) == {}


@pytest.mark.parametrize(
    "older",
    [{"holdout_fraction": 0.2, "sampling": "replacement", "precision": "fp32", "duplicates": "keep"}, {}],
)
def test_a_setting_that_a_record_lacks_has_the_value_of_its_time(older):
    hparams = {"vit": False, "resnet50_augmix": False, "freeze_bn": True}
    newer = run(0.2, 0.9, hparams_seed=1, evaluate="all", steps=None, hparams={"lr": 1} | hparams)
    assert results(run(0.1, steps=301, hparams={"lr": 2}, **older), newer) == {(Trial(0), 0): 0.2}


def test_overrides_count_by_what_they_set():
    one, other = run(hparams={"lr": 0.1}), run(hparams={"lr": 0.1}, hparams_seed=1)
    one["args"]["hparams"], other["args"]["hparams"] = '{"lr": 0.1}', '{"lr":0.1}'
    assert len(results(one, other)) == 1
    for record, text in ((one, '{"lr": 0.1, "freeze_bn": true}'), (other, None)):
        del record["hparams"]
        record["args"]["hparams"] = text
    assert len(results(one, other)) == 1
    one["args"]["hparams"] = '{"freeze_bn": false}'
    assert results(one, other) == {}


def test_the_number_of_steps_of_the_dataset_is_a_number_like_any_other():
    assert reason(run(steps=None), run(steps=300)) == "steps is 301 (1 run), 300 (1 run)"


def test_other_data_concern_all_methods_on_the_dataset():
    old, new = ({"checksum": name, "version": 1} for name in ("0123", "4567"))
    runs = run(data=old), run(data=old, hparams_seed=1), run(data=new, algorithm="IRM")
    assert results(*runs) == {}
    (conflict,) = conflicts(Q(list(runs)))
    assert str(conflict) == (
        "all methods on EmojiStyles: several experiments, which no number mixes: data.checksum is 0123 (2 "
        "runs), 4567 (1 run); choose one, e.g. --where data.checksum=0123, or show each with "
        "--by data.checksum, or pool them with --mix_data"
    )


def test_runs_that_do_not_identify_their_data_go_with_the_others():
    runs = run(0.1, data={"checksum": "0123", "version": 1}), run(0.2, 0.9, hparams_seed=1)
    assert results(*runs) == {(Trial(0), 0): 0.2}


def test_skipped_files_do_not_matter_if_the_data_are_the_same():
    data = {"checksum": "0123", "version": 1, "skipped": {"hidden": 1}}
    assert len(results(run(data=data), run(data=data | {"skipped": {}}, hparams_seed=1))) == 1


def test_copies_of_images_split_by_another_rule_make_another_experiment():
    copies = {"images": 3, "other_class": 0}
    old, new = (
        {"checksum": "0123", "version": 1, "copies": copies | more} for more in ({}, {"split": "together"})
    )
    assert reason(run(data=old), run(data=new)) == "data.copies.split is apart (1 run), together (1 run)"
    apart = new | {"copies": copies | {"split": "apart"}}
    assert len(results(run(data=old), run(data=apart, hparams_seed=1))) == 1


def test_environments_with_other_names_make_another_experiment():
    runs = run() | {"environments": ["photo", "sketch"]}, run() | {"environments": ["Aphoto", "sketch"]}
    assert reason(*runs) == "environments is photo, sketch (1 run), Aphoto, sketch (1 run)"


def test_a_split_file_for_each_trial_is_one_experiment():
    runs = [run(0.1 * i, trial_seed=i, splits=f"trial{i}.json") for i in range(2)]
    assert len(results(*runs)) == 2
    assert results(*runs, run(trial_seed=1, hparams_seed=1, splits="other.json")) == {}


def test_a_row_is_one_experiment_also_over_trials_and_targets():
    assert results(run(), run(trial_seed=1, steps=500)) == {}
    assert results(run(), run(test_envs=[1], steps=500)) == {}


def test_methods_may_differ_in_steps():
    assert len(compute_accuracies(Q([run(), run(algorithm="IRM", steps=500)]), METHODS["iid"]).by_target) == 2


def test_kinds_of_a_plugins_algorithm_are_those_it_declares(monkeypatch):
    class Mine(ERM):
        HPARAMS = {
            "depth_of_mine": Hparam(1, const(1)),
            "weight_of_mine": Hparam(1.0, const(1.0), kind=Kind.SEARCHED),
            "cache_of_mine": Hparam(True, const(True), kind=Kind.INCIDENTAL),
        }

    REGISTRY.register("Mine")(Mine)
    try:

        def mine(accuracy, validation, **hparams):
            return run(accuracy, validation, algorithm="Mine", hparams=hparams, output_dir=str(hparams))

        assert results(mine(0.1, 0.1, depth_of_mine=1), mine(0.2, 0.2, depth_of_mine=2)) == {}
        searched = mine(0.1, 0.1, weight_of_mine=1.0), mine(0.2, 0.2, weight_of_mine=2.0)
        assert results(*searched) == {(Trial(0), 0): 0.2}
        same = mine(0.1, 0.1, cache_of_mine=True), mine(0.2, 0.2, cache_of_mine=False)
        assert results(*same) == {(Trial(0), 0): 0.1}
    finally:
        del REGISTRY["Mine"]


def test_unknown_hyper_parameters_count_as_searched_and_are_named():
    runs = [run(0.1, 0.1, hparams={"gamma": 1}), run(0.2, 0.2, hparams={"gamma": 2})]
    assert results(*runs) == {(Trial(0), 0): 0.2}
    assert pool(runs)[0].undeclared == ("gamma",)


def test_upstreams_sweeps_give_upstreams_tables(vlcs):
    """Each run has its own seed, and no setting of ours; targets are held out alone and in pairs."""
    same_seed, own_seeds = [], []
    for number, key in enumerate(vlcs.runs):
        records = vlcs.records(key, str(key))
        same_seed += records
        drop = ("task", "uda_holdout_fraction", "save_model_every_checkpoint")  # an older version of upstream
        args = {name: value for name, value in records[0]["args"].items() if name not in drop}
        args |= {"seed": 12345 * number % 977, "auto_lr": False}
        own_seeds += [
            record | {"args": args, "hparams": record["hparams"] | {"vit": False}} for record in records
        ]
    assert not conflicts(own_seeds)
    for name in ("iid", "loo", "oracle"):
        found = compute_accuracies(Q(own_seeds), METHODS[name]).by_target
        assert found == compute_accuracies(Q(same_seed), METHODS[name]).by_target
        assert {
            (trial.seed, target): accuracy
            for (_, _, target), of in found.items()
            for trial, accuracy in of.items()
        } == {(trial, target): vlcs.chosen(trial, target, name) for trial in (0, 1) for target in range(4)}
