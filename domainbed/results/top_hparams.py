"""The hyper-parameters of one algorithm on one target, best first, and commands that run the best again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from domainbed.errors import RunError
from domainbed.model_selection import RunAcc, SelectionMethod
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.results.experiments import pool
from domainbed.results.hparam_search import ranked_candidates
from domainbed.results.loading import load_sweep
from domainbed.results.printing import print_lines
from domainbed.results.relaunch import train_command_line
from domainbed.results.trials import Trial


def list_top_hparams(
    input_dir: Path,
    *,
    dataset: str,
    algorithm: str,
    test_env: int,
    selection: Sequence[str] | None = None,
    finished_only: bool = False,
    mix_data: bool = False,
    where: Sequence[str] = (),
) -> None:
    """Print the hyper-parameters of each trial in descending order of validation accuracy.

    For each selection method there follow commands that run the best of each trial again.

    Args:
        input_dir: the sweep directory.
        dataset: name of the dataset.
        algorithm: name of the algorithm.
        test_env: index of the target environment.
        selection: short names of selection methods; by default those of the sweep, else upstream's.
        finished_only: leave out unfinished runs.
        mix_data: pool runs of one dataset that used different data.
        where: conditions that runs must meet, such as "steps>=300".

    Raises:
        UsageError: `input_dir` does not exist.
        UnknownName: no selection method has the name.
        RunError: there are no such records, or the runs are several experiments.
    """
    sweep = load_sweep(input_dir, finished_only=finished_only, mix_data=mix_data, where=where)
    methods = sweep.selection_methods(selection)
    dataset = sweep.spellings.get(dataset, dataset)
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
    trials = {trial: variants for (trial, target), variants in runs.cells.items() if target == test_env}
    for method in methods.values():
        _print_method(method, trials)
    own_records = sweep.records.filter_equals("args.dataset, args.algorithm", (dataset, algorithm))
    for name, method in methods.items():
        print_lines(f"Commands to rerun the best, selected by {method.name}:")
        for best, *_ in ranked_candidates(own_records, method):
            if best.target == test_env and best.run:
                repetition = f".{best.trial.repetition}" if best.trial.repetition else ""
                folder = f"{dataset}-{algorithm}-{test_env}-trial{best.trial.seed}{repetition}"
                folder = folder.replace("/", "_")
                output_dir = f"winners/{name}/{folder}"
                args = best.run[0]["args"]
                print_lines(train_command_line(args, hparams=dict(best.hparams), output_dir=output_dir))


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
