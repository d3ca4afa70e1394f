"""The hyper-parameters of one algorithm on one target, best first, and commands that run the best again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from domainbed.errors import RunError
from domainbed.model_selection import RunAcc, SelectionMethod
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.target_sets import columns, sets_by_dataset, targets_of
from domainbed.results.experiments import pool
from domainbed.results.hparam_search import Candidate, ranked_candidates
from domainbed.results.loading import load_sweep
from domainbed.results.printing import print_lines
from domainbed.results.relaunch import train_command_line
from domainbed.results.target_sets import target_index
from domainbed.results.trials import Trial


def list_top_hparams(
    input_dir: Path,
    *,
    dataset: str,
    algorithm: str,
    test_env: int | str,
    selection: Sequence[str] | None = None,
    finished_only: bool = False,
    mix_data: bool = False,
    where: Sequence[str] = (),
    target_sets: Sequence[str] | None = None,
) -> None:
    """Print the hyper-parameters of each trial in descending order of validation accuracy.

    For each selection method there follow commands that run the best of each trial again.

    Args:
        input_dir: the sweep directory.
        dataset: name of the dataset.
        algorithm: name of the algorithm.
        test_env: index or name of the target environment.
        selection: short names of selection methods; by default those of the sweep, else upstream's.
        finished_only: leave out unfinished runs.
        mix_data: pool runs of one dataset that used different data.
        where: conditions that runs must meet, such as "steps>=300".
        target_sets: sets of targets such as "0 1" and "2 3"; by default those of the sweep's launch. Each set
            with the target has a list of its own.

    Raises:
        UsageError: `input_dir` does not exist, or has no environment of this name.
        UnknownName: no selection method has the name.
        RunError: there are no such records, or the runs are several experiments.
    """
    sweep = load_sweep(
        input_dir,
        finished_only=finished_only,
        mix_data=mix_data,
        where=where,
        target_sets=target_sets,
    )
    methods = sweep.selection_methods(selection)
    dataset = sweep.spellings.get(dataset, dataset)
    if isinstance(test_env, str):
        test_env = target_index(test_env, sweep.records.filter_equals("args.dataset", dataset), dataset)
    own = [runs for runs in pool(sweep.records) if (runs.dataset, runs.method) == (dataset, algorithm)]
    if not any(test_env in run.args["test_envs"] for runs in own for run in runs.runs):
        pairs = sweep.records.select("args.dataset, args.algorithm").unique().sorted()
        known = ", ".join(f"{pair[1]} on {pair[0]}" for pair in pairs)
        raise RunError(
            f"no records of {algorithm} on {dataset} with target {test_env}; the sweep has {known}"
        )
    (runs,) = own
    if runs.conflict is not None:
        raise RunError(str(runs.conflict))
    print_lines(f"Total records: {len(sweep.records)}")
    sets = sets_by_dataset(sweep.records).get(dataset, ())
    of_target = [i for i, each in enumerate(columns(sets)) if each.target == test_env]
    own_columns = of_target if sets else [test_env]
    for column in own_columns:
        if sets:
            print_lines(f"Targets: {' '.join(map(str, columns(sets)[column].targets))}")
        for method in methods.values():
            _print_method(method, {key[0]: each for key, each in runs.cells.items() if key[1] == column})
    own_records = sweep.records.filter_equals("args.dataset, args.algorithm", (dataset, algorithm))
    for name, method in methods.items():
        print_lines(f"Commands to rerun the best, selected by {method.name}:")
        for best, *_ in ranked_candidates(own_records, method):
            if best.target in own_columns and best.run:
                print_lines(_command(best, f"winners/{name}"))


def _command(best: Candidate, folder: str) -> str:
    """The command line that runs `best` again, into a folder of its own below `folder`."""
    targets = targets_of(best.run[0])
    held_out = "_".join(map(str, targets))
    repetition = f".{best.trial.repetition}" if best.trial.repetition else ""
    place = f"{best.dataset}-{best.algorithm}-{held_out}-trial{best.trial.seed}{repetition}"
    return train_command_line(
        best.run[0]["args"],
        test_envs=targets,
        hparams=dict(best.hparams),
        output_dir=f"{folder}/{place.replace('/', '_')}",
    )


def _print_method(method: type[SelectionMethod], trials: Mapping[Trial, Sequence[Q[Record]]]) -> None:
    print_lines(f"Model selection: {method.name}")
    for trial, variants in trials.items():
        print_lines(f"trial_seed: {trial}")
        for run_acc, run_records in method.ranked(variants):
            _print_hparams(run_acc, run_records)


def _print_hparams(run_acc: RunAcc, records: Q[Record]) -> None:
    hparams = records[0].get("hparams", {})
    output_dirs = Q([str(record["args"].get("output_dir")) for record in records]).unique()
    print_lines(
        f"\t{ {key: float(value) for key, value in run_acc.items()} }",
        "\t\thparams:",
        *(f"\t\t\t{name}: {value}" for name, value in sorted(hparams.items())),
        "\t\toutput_dirs:",
        *(f"\t\t\t{folder}" for folder in output_dirs),
    )
