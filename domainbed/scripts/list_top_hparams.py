"""List the hyper-parameters of an algorithm on one target environment, best first.

    python -m domainbed.scripts.list_top_hparams --input_dir SWEEP --dataset VLCS --algorithm ERM --test_env 0

Below the list are commands that run the best of each trial again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from domainbed.errors import RunError, run_script
from domainbed.model_selection import RunAcc, SelectionMethod
from domainbed.records.grouping import get_grouped_records
from domainbed.records.jsonl import Record
from domainbed.records.query import Q
from domainbed.results import command_line
from domainbed.results.commands import train_command
from domainbed.results.merging import merged_for
from domainbed.results.settings import candidates


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; `argv` without the program's name, None for that of the process."""
    args = _parser().parse_args(argv)
    sweep = command_line.load(args.input_dir, args.finished_only, args.mix_data)
    methods = sweep.methods(args.selection)
    groups = get_grouped_records(sweep.records).filter_equals(
        "dataset, algorithm, test_env", (args.dataset, args.algorithm, args.test_env)
    )
    if not groups:
        known = sweep.records.select("args.dataset, args.algorithm").unique().sorted()
        raise RunError(
            f"no records of {args.algorithm} on {args.dataset} with target {args.test_env};"
            f" there are: {', '.join(f'{algorithm} on {dataset}' for dataset, algorithm in known)}"
        )
    print(f"Total records: {len(sweep.records)}")
    for method in methods.values():
        _print_method(method, groups)
    for name, method in methods.items():
        _print_winners(name, method, sweep.records, args)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m domainbed.scripts.list_top_hparams",
        description="List hyper-parameters by their validation accuracy, best first.",
    )
    command_line.add_arguments(parser)
    parser.add_argument("--dataset", required=True, help="name of the dataset, as in the records")
    parser.add_argument("--algorithm", required=True, help="name of the algorithm")
    # argparse takes upstream's --test_env, and --test, as abbreviations.
    parser.add_argument(
        "--test_envs",
        type=int,
        required=True,
        dest="test_env",
        metavar="TEST_ENV",
        help="index of the target environment; --test_env is the same",
    )
    parser.add_argument("--selection", nargs="+", metavar="NAME", help=command_line.SELECTION_HELP)
    return parser


def _print_method(method: type[SelectionMethod], groups: Q[dict[str, object]]) -> None:
    print(f"Model selection: {method.name}")
    for group in groups:
        print(f"trial_seed: {group['trial_seed']}")
        records = group["records"]
        assert isinstance(records, Q)
        for run_acc, run_records in method.hparams_accs(merged_for(method, records)):
            _print_hparams(run_acc, run_records)


def _print_winners(
    name: str, method: type[SelectionMethod], records: Q[Record], args: argparse.Namespace
) -> None:
    """The best run of each trial as a command, with its hyper-parameters written out."""
    print(f"Commands that run the best again, by {method.name}:")
    own = records.filter_equals("args.dataset, args.algorithm", (args.dataset, args.algorithm))
    for best, *_ in candidates(own, method):
        if best.target == args.test_env and best.run:
            folder = f"{args.dataset}-{args.algorithm}-{args.test_env}-trial{best.trial}".replace("/", "_")
            changed = {"hparams": dict(best.hparams), "output_dir": f"winners/{name}/{folder}"}
            print(train_command(best.run[0]["args"], **changed))


def _print_hparams(run_acc: RunAcc, records: Q[Record]) -> None:
    hparams = records[0].get("hparams", {})
    if any(record.get("hparams", {}) != hparams for record in records):
        folders = ", ".join(str(folder) for folder in _output_dirs(records))
        raise RunError(
            f"runs with the same hparams_seed have different hyper-parameters: {folders};"
            " give each sweep a directory of its own"
        )
    print(f"\t{ {key: float(value) for key, value in run_acc.items()} }")
    print("\t\thparams:")
    for name, value in sorted(hparams.items()):
        print(f"\t\t\t{name}: {value}")
    print("\t\toutput_dirs:")
    for folder in _output_dirs(records):
        print(f"\t\t\t{folder}")


def _output_dirs(records: Q[Record]) -> Q[object]:
    return Q([record["args"].get("output_dir") for record in records]).unique()


if __name__ == "__main__":
    run_script(main)
