"""The hyper-parameters of one algorithm on one target, best first, and commands that run the best again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainbed.errors import RunError
from domainbed.model_selection import RunAcc, SelectionMethod
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import get_grouped_records
from domainbed.results.hparam_search import ranked_candidates
from domainbed.results.loading import load_sweep
from domainbed.results.printing import print_lines
from domainbed.results.relaunch import train_command_line


def list_top_hparams(
    input_dir: Path,
    *,
    dataset: str,
    algorithm: str,
    test_env: int,
    selection: Sequence[str] | None = None,
    finished_only: bool = False,
    mix_data: bool = False,
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
        mix_data: accept runs of one dataset that used different data.

    Raises:
        UsageError: `input_dir` does not exist.
        UnknownName: no selection method has the name.
        RunError: there are no such records, runs used different data, or runs with one hparams seed have
            different hyper-parameters.
    """
    sweep = load_sweep(input_dir, finished_only=finished_only, mix_data=mix_data)
    methods = sweep.selection_methods(selection)
    dataset = sweep.spellings.get(dataset, dataset)
    groups = get_grouped_records(sweep.records).filter_equals(
        "dataset, algorithm, test_env", (dataset, algorithm, test_env)
    )
    if not groups:
        pairs = sweep.records.select("args.dataset, args.algorithm").unique().sorted()
        known = ", ".join(f"{pair[1]} on {pair[0]}" for pair in pairs)
        raise RunError(
            f"no records of {algorithm} on {dataset} with target {test_env}; the sweep has {known}"
        )
    print_lines(f"Total records: {len(sweep.records)}")
    for method in methods.values():
        _print_method(method, groups)
    own_records = sweep.records.filter_equals("args.dataset, args.algorithm", (dataset, algorithm))
    for name, method in methods.items():
        print_lines(f"Commands to rerun the best, selected by {method.name}:")
        for best, *_ in ranked_candidates(own_records, method):
            if best.target == test_env and best.run:
                folder = f"{dataset}-{algorithm}-{test_env}-trial{best.trial}".replace("/", "_")
                output_dir = f"winners/{name}/{folder}"
                args = best.run[0]["args"]
                print_lines(train_command_line(args, hparams=dict(best.hparams), output_dir=output_dir))


def _print_method(method: type[SelectionMethod], groups: Q[dict[str, Any]]) -> None:
    print_lines(f"Model selection: {method.name}")
    for group in groups:
        print_lines(f"trial_seed: {group['trial_seed']}")
        for run_acc, run_records in method.hparams_accs(group["records"]):
            _print_hparams(run_acc, run_records)


def _print_hparams(run_acc: RunAcc, records: Q[Record]) -> None:
    hparams = records[0].get("hparams", {})
    output_dirs = Q([str(record["args"].get("output_dir")) for record in records]).unique()
    if any(record.get("hparams", {}) != hparams for record in records):
        raise RunError(
            f"runs with one hparams_seed have different hyper-parameters: {', '.join(output_dirs)}; "
            "use a separate directory for each sweep"
        )
    print_lines(
        f"\t{ {key: float(value) for key, value in run_acc.items()} }",
        "\t\thparams:",
        *(f"\t\t\t{name}: {value}" for name, value in sorted(hparams.items())),
        "\t\toutput_dirs:",
        *(f"\t\t\t{folder}" for folder in output_dirs),
    )
