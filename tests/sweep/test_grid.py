import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.errors import UnknownName, UsageError
from domainbed.scripts import sweep
from domainbed.seeds import seed_hash
from domainbed.sweep.grid import all_test_env_combinations, hparams_of, make_args_list, run_seed, targets

UPSTREAM_KEYS = {
    *("dataset", "algorithm", "test_envs", "holdout_fraction", "hparams_seed", "data_dir", "task"),
    *("trial_seed", "seed"),
}


def grid(**changes):
    settings = {
        **{"n_trials": 1, "dataset_names": ["Debug28"], "algorithms": ["ERM"], "n_hparams_from": 0},
        **{"n_hparams": 1, "steps": None, "data_dir": None, "task": "domain_generalization"},
        **{"holdout_fraction": 0.2, "single_test_envs": False, "hparams": None},
    }
    return make_args_list(**(settings | changes))


def test_targets_are_single_environments_and_pairs():
    assert list(all_test_env_combinations(3)) == [[0], [0, 1], [0, 2], [1], [1, 2], [2]]
    with pytest.raises(AssertionError):
        next(all_test_env_combinations(2))


@given(st.integers(3, 12))
def test_every_set_of_one_or_two_targets_occurs_once(n):
    combinations = list(all_test_env_combinations(n))
    assert len({tuple(each) for each in combinations}) == len(combinations) == n * (n + 1) // 2


def test_targets_can_be_restricted_to_some_environments():
    assert targets("Debug28", True, None) == [[0], [1], [2]]
    assert targets("Debug28", True, [2]) == [[2]]
    # With pairs: all runs that leave-one-domain-out selection needs for the target.
    assert targets("Debug28", False, [2]) == [[0, 2], [1, 2], [2]]
    assert targets("Debug28", False, [0, 1, 2]) == targets("Debug28", False, None)
    with pytest.raises(UsageError, match="--test_envs 3 is out of range: Debug28 has environments 0 to 2"):
        targets("Debug28", True, [0, 3])


def test_restricting_targets_does_not_change_the_other_runs():
    everything = grid(single_test_envs=True, seed_scheme="paired")
    assert grid(single_test_envs=True, seed_scheme="paired", test_envs=[1, 2]) == everything[1:]


def test_the_grid_has_upstreams_jobs(vectors):
    expected = [job["train_args"] for job in vectors("jobs")["jobs"]]
    made = grid(dataset_names=["VLCS"], data_dir="/data", n_hparams=2, hparams='{"lr": 0.001}')
    assert made[: len(expected)] == expected


def test_two_trials_of_three_hparams_on_three_environments_are_36_runs():
    made = grid(n_trials=2, n_hparams=3)
    assert len(made) == 36
    assert all(set(args) == UPSTREAM_KEYS for args in made)


def test_loops_run_over_trial_dataset_algorithm_targets_and_hparams_seed():
    made = grid(
        n_trials=2,
        dataset_names=["Debug28", "Debug224"],
        algorithms=["ERM", "AgrSum"],
        n_hparams_from=1,
        n_hparams=3,
        single_test_envs=True,
    )
    keys = ("trial_seed", "dataset", "algorithm", "test_envs", "hparams_seed")
    order = [tuple(args[key] for key in keys) for args in made]
    assert order == [
        (trial, dataset, algorithm, [target], seed)
        for trial in (0, 1)
        for dataset in ("Debug28", "Debug224")
        for algorithm in ("ERM", "AgrSum")
        for target in (0, 1, 2)
        for seed in (1, 2)
    ]


def test_flags_that_are_not_given_are_not_in_the_arguments():
    args = grid(steps=5, extra={"splits": "70/10/20", "evaluate": None, "skip_model_save": True})[0]
    assert set(args) == {*UPSTREAM_KEYS, "steps", "splits", "skip_model_save"}


def test_upstreams_seeds_differ_for_every_run():
    made = grid(n_trials=3, algorithms=["ERM", "AgrSum"], n_hparams=4)
    assert len({args["seed"] for args in made}) == len(made)
    for args in made:
        keys = ("dataset", "algorithm", "test_envs", "hparams_seed", "trial_seed")
        assert args["seed"] == seed_hash(*(args[key] for key in keys))


def test_paired_seeds_differ_for_everything_but_the_algorithm():
    made = grid(n_trials=2, algorithms=["ERM", "AgrSum", "PCGrad"], n_hparams=2, seed_scheme="paired")
    seeds = {}
    for args in made:
        trial = (tuple(args["test_envs"]), args["hparams_seed"], args["trial_seed"])
        seeds.setdefault(trial, set()).add(args["seed"])
    assert all(len(each) == 1 for each in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds) == 24


def test_the_authors_seeds_depend_on_dataset_algorithm_target_and_trial():
    assert run_seed("authors", "PACS", "AgrSum", [2], 0, 7) == seed_hash("PACS", "AgrSum", 2, 7)
    assert run_seed("authors", "PACS", "AgrSum", [2], 1, 7) == run_seed(
        "authors", "PACS", "AgrSum", [2], 0, 7
    )


@pytest.mark.parametrize("text", [None, "{}", '{"lr":1e-3}', '{ "lr": 0.001 }'])
def test_hparams_without_objects_stay_as_typed(text):
    # The text is part of a run's name.
    assert hparams_of(text, "ERM") == text


def test_an_object_under_an_algorithms_name_is_for_its_runs_only():
    text = '{"lr": 0.1, "PCGrad": {"order": "shared", "lr": 0.2}}'
    assert json.loads(hparams_of(text, "PCGrad")) == {"lr": 0.2, "order": "shared"}
    assert json.loads(hparams_of(text, "ERM")) == {"lr": 0.1}


def test_unknown_datasets_and_too_few_environments_are_refused(tmp_path):
    with pytest.raises(UnknownName, match="Dataset not found: Debug82"):
        grid(dataset_names=["Debug82"])
    for name in ("day", "night"):
        (tmp_path / name / "cat").mkdir(parents=True)
    with pytest.raises(UsageError, match="has 2 environments, too few to hold out two; give --single"):
        grid(dataset_names=[str(tmp_path)])
    assert len(grid(dataset_names=[str(tmp_path)], single_test_envs=True)) == 2


def test_paired_runs_start_from_the_same_weights_and_see_the_same_minibatches(forked_script, tmp_path):
    flags = ["--datasets", "Debug28", "--algorithms", "ERM", "AgrSum", "AgrRand", "--n_trials", 1]
    flags += ["--n_hparams", 1, "--single_test_envs", "--seed_scheme", "paired", "--steps", 1]
    flags += ["--hparams", '{"batch_size": 8}', "--skip_model_save", "--skip_confirmation"]
    done = forked_script("sweep", "launch", *flags, "--output_dir", "sweep")
    assert done.returncode == 0, done.stderr
    losses = {}
    for path in (tmp_path / "sweep").glob("*/results.jsonl"):
        record = json.loads(path.read_text(encoding="utf-8"))
        trial = (*record["args"]["test_envs"], record["args"]["trial_seed"])
        losses.setdefault(trial, {})[record["args"]["algorithm"]] = record["loss"]
    assert len(losses) == 3
    for by_algorithm in losses.values():
        # Both take the mean of the sources' losses; ERM's is one mean over all samples, rounded otherwise.
        assert (
            by_algorithm["AgrSum"] == by_algorithm["AgrRand"] == pytest.approx(by_algorithm["ERM"], rel=1e-6)
        )
    assert len({by_algorithm["ERM"] for by_algorithm in losses.values()}) == 3


def test_a_runs_command_has_no_shell_syntax(vectors):
    for job in vectors("jobs")["jobs"]:
        assert shlex.join(shlex.split(job["command"])) == job["command"]


@pytest.mark.parametrize("flags", [["--n_hparams", "1" + 14 * "0"], ["--n_trials", "1" + 14 * "0"]])
def test_a_sweep_of_too_many_runs_is_refused_by_a_stated_limit(flags, tmp_path):
    common = ["launch", "--datasets", "VLCS", "--algorithms", "ERM", "--skip_confirmation", "--output_dir"]
    with pytest.raises(UsageError, match=r"would have [\d,]+ runs .*at most 1,000,000 are allowed"):
        sweep.main([*common, str(tmp_path / "sweep"), "--data_dir", str(tmp_path), *flags])
    assert not (tmp_path / "sweep").exists()
