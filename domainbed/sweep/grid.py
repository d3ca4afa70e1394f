"""The grid of a sweep: the arguments of `train` for each run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from domainbed.errors import UsageError
from domainbed.hparams import parse_overrides
from domainbed.seeds import seed_hash
from domainbed.sweep.target_sets import parse_target_sets

MOST_RUNS = 1_000_000
"""Most runs of one grid. Each is listed in sweep.json and has a directory."""

SEED_SCHEMES = ("upstream", "paired", "authors")


def all_test_env_combinations(n: int) -> Iterator[list[int]]:
    """All sets of one or two target environments out of `n` (3 or more): [0], [0, 1], ..., [1], ..."""
    assert n >= 3
    for i in range(n):
        yield [i]
        for j in range(i + 1, n):
            yield [i, j]


def targets(
    dataset: str,
    single: bool,
    wanted: Sequence[int | str] | None,
    target_sets: Sequence[str] | None = None,
) -> list[list[int]]:
    """The sets of target environments of the runs on `dataset`, by default in upstream's order.

    Args:
        dataset: its name.
        single: sets of one environment only, no pairs.
        wanted: only sets that have at least one of these environments, given by index or name, as
            leave-one-domain-out selection needs them; None: all sets.
        target_sets: these sets instead of each environment and each pair; see `parse_target_sets`.

    Raises: UsageError if `dataset` is too small for pairs, or has no environment of a wanted index or name.
    """
    from domainbed.datasets import get_dataset_class
    from domainbed.datasets.environment_names import environment_indices

    environments = get_dataset_class(dataset).ENVIRONMENTS
    n = len(environments)
    if n < 3 and not single and target_sets is None:
        raise UsageError(f"{dataset} has {n} environments, too few to hold out two; give --single_test_envs")
    indices = environment_indices(wanted or (), environments, dataset)
    for index in indices:
        if not 0 <= index < n:
            raise UsageError(f"--test_envs {index} is out of range: {dataset} has environments 0 to {n - 1}")
    if target_sets is not None:
        combinations = parse_target_sets(target_sets, environments, dataset)
    else:
        combinations = [[i] for i in range(n)] if single else list(all_test_env_combinations(n))
    return combinations if wanted is None else [each for each in combinations if {*each} & {*indices}]


def run_seed(
    scheme: str, dataset: str, algorithm: str, test_envs: list[int], hparams_seed: int, trial_seed: int
) -> int:
    """The `--seed` of a run.

    Args:
        scheme: upstream: a different seed for each run; paired: the same seed for all algorithms, so that
            they share initial weights and minibatches; authors: a hash of dataset, algorithm, target and
            trial, as in the code of the ICCV 2021 paper.
    """
    if scheme == "paired":
        return seed_hash(dataset, test_envs, hparams_seed, trial_seed)
    if scheme == "authors":
        return seed_hash(dataset, algorithm, test_envs[0], trial_seed)
    return seed_hash(dataset, algorithm, test_envs, hparams_seed, trial_seed)


def hparams_of(text: str | None, algorithm: str) -> str | None:
    """The `--hparams` of a run of `algorithm`.

    Args:
        text: that of the sweep. An object under the name of an algorithm is only for the runs of that
            algorithm: '{"lr": 0.001, "PCGrad": {"order": "shared"}}'.

    Raises: UsageError if `text` is not a JSON object.
    """
    entries = parse_overrides(text)
    if not any(isinstance(value, dict) for value in entries.values()):
        return text  # unchanged, since the job's name is a hash of it
    shared = {name: value for name, value in entries.items() if not isinstance(value, dict)}
    own = entries.get(algorithm, {})
    return json.dumps(shared | own if isinstance(own, dict) else shared, sort_keys=True)


def make_args_list(
    n_trials: int,
    dataset_names: Sequence[str],
    algorithms: Sequence[str],
    n_hparams_from: int,
    n_hparams: int,
    steps: int | None,
    data_dir: str | None,
    task: str,
    holdout_fraction: float,
    single_test_envs: bool,
    hparams: str | None,
    seed_scheme: str = "upstream",
    extra: Mapping[str, Any] | None = None,
    test_envs: Sequence[int | str] | None = None,
    target_sets: Sequence[str] | None = None,
    trials_from: int = 0,
) -> list[dict[str, Any]]:
    """Arguments of all runs, in upstream's order (docs/compatibility.md, "Sweep directories").

    Args:
        n_trials: number of trial seeds.
        dataset_names: names of datasets.
        algorithms: names of algorithms.
        n_hparams_from: first seed of hyper-parameters.
        n_hparams: last seed of hyper-parameters, plus 1.
        steps: number of updates; None: not in the arguments.
        data_dir: root folder of the datasets.
        task: as in `TrainConfig`.
        holdout_fraction: as in `TrainConfig`.
        single_test_envs: no pairs of targets.
        hparams: JSON object, see `hparams_of`.
        seed_scheme: see `run_seed`.
        extra: more settings of all runs. One that is None is not in the arguments, so that the arguments of
            upstream's sweeps, and the names of their jobs, stay as they are.
        test_envs: only runs with a target among these, given by index or name; None: all.
        target_sets: see `targets`.
        trials_from: first trial seed.

    Raises: UsageError for an unknown dataset, one that is too small for pairs of targets, unknown targets, or
        more than `MOST_RUNS` runs.
    """
    targets_of = {name: targets(name, single_test_envs, test_envs, target_sets) for name in dataset_names}
    n_targets = sum(len(targets_of[name]) for name in dataset_names)
    n_runs = n_trials * n_targets * len(algorithms) * max(0, n_hparams - n_hparams_from)
    if n_runs > MOST_RUNS:
        raise UsageError(
            f"the sweep would have {n_runs:,} runs ({n_trials:,} trials, {n_targets:,} sets of targets, "
            f"{len(algorithms):,} algorithms, {n_hparams - n_hparams_from:,} settings of hyper-parameters); "
            f"at most {MOST_RUNS:,} are allowed: reduce --n_hparams or --n_trials"
        )
    args_list = []
    for trial_seed in range(trials_from, trials_from + n_trials):
        for dataset in dataset_names:
            combinations = targets_of[dataset]
            for algorithm in algorithms:
                optional = {"steps": steps, "hparams": hparams_of(hparams, algorithm), **(extra or {})}
                given = {name: value for name, value in optional.items() if value is not None}
                for held_out in combinations:
                    for hparams_seed in range(n_hparams_from, n_hparams):
                        seed = run_seed(seed_scheme, dataset, algorithm, held_out, hparams_seed, trial_seed)
                        args_list.append(
                            {
                                "dataset": dataset,
                                "algorithm": algorithm,
                                "test_envs": held_out,
                                "holdout_fraction": holdout_fraction,
                                "hparams_seed": hparams_seed,
                                "data_dir": data_dir,
                                "task": task,
                                "trial_seed": trial_seed,
                                "seed": seed,
                                **given,
                            }
                        )
    return args_list
