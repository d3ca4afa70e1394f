"""Sets of targets in reports: which runs they concern, and the names of their columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from domainbed import datasets
from domainbed.console import shortened_list
from domainbed.datasets.environment_names import environment_indices
from domainbed.records.environments import environments
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import by_run
from domainbed.records.target_sets import TARGET_SETS, TargetSets, columns
from domainbed.results.environment_names import recorded_names
from domainbed.sweep.target_sets import parse_target_sets


def with_target_sets(
    records: Iterable[Record], sets: Mapping[str, TargetSets]
) -> tuple[list[Record], dict[str, int]]:
    """The records of the runs that belong to `sets`, which are added to them.

    Args:
        records: records of a sweep.
        sets: dataset -> its sets of targets. Runs on other datasets all belong.

    Returns: the records, and dataset -> number of runs that hold out something else and are left out.
    """
    kept: list[Record] = []
    left_out: dict[str, int] = {}
    for args, of_run in by_run(records):
        own = sets.get(args["dataset"])
        if own and sorted(args["test_envs"]) not in [sorted(each) for each in own]:
            left_out[args["dataset"]] = left_out.get(args["dataset"], 0) + 1
            continue
        kept += [record | {TARGET_SETS: own} for record in of_run] if own else of_run
    return kept, left_out


def named_sets(records: Iterable[Record], texts: Sequence[str]) -> dict[str, TargetSets]:
    """Dataset of `records` -> the sets that `texts` name, as for `sweep launch --target_sets`.

    Raises: UsageError for something else than sets of a dataset's environments.
    """
    by_dataset: dict[str, list[Record]] = {}
    for args, of_run in by_run(records):
        by_dataset.setdefault(args["dataset"], []).append(of_run[0])
    sets: dict[str, TargetSets] = {}
    for dataset, own in by_dataset.items():
        sets[dataset] = parse_target_sets(texts, _names(own), dataset)
    return sets


def target_index(name: str, records: Iterable[Record], dataset: str) -> int:
    """Index of the environment called `name`, in records of one dataset.

    Raises: UsageError if they have no environment of this name.
    """
    own = list(records)
    return environment_indices([name], _names(own) if own else (), dataset)[0]


def _names(records: Sequence[Record]) -> tuple[str, ...]:
    """The environments of records of one dataset, "env0" and so on where nothing tells their names."""
    dataset = records[0]["args"]["dataset"]
    if names := recorded_names(records):
        return names
    if dataset in datasets.DATASETS:
        return tuple(datasets.get_dataset_class(dataset).ENVIRONMENTS)
    return tuple(
        f"env{i}" for i in range(1 + max(index for record in records for index in environments(record)))
    )


def notes_on_several_targets(records: Iterable[Record]) -> list[str]:
    """A note on datasets whose runs all hold out several targets, of sweeps that do not know them as sets."""
    fewest: dict[str, int] = {}
    for args, of_run in by_run(records):
        if TARGET_SETS not in of_run[0]:
            number = len(args["test_envs"])
            fewest[args["dataset"]] = min(number, fewest.get(args["dataset"], number))
    names = [dataset for dataset, number in fewest.items() if number > 1]
    what = (
        "datasets of which every run holds out several environments (for tables of them, give --target_sets)"
    )
    return [f"{what}: {shortened_list(names)}"] if names else []


def column_names(sets: TargetSets, environments: Sequence[str]) -> tuple[str, ...]:
    """A name for each column: the target, with its source or its set where several sets have the target."""
    own = columns(sets)
    targets = [column.target for column in own]
    if len({*targets}) == len(targets):
        return tuple(environments[target] for target in targets)
    if is_single_source(sets, len(environments)):
        return tuple(
            f"{_source(column.targets, environments)} to {environments[column.target]}" for column in own
        )
    return tuple(
        f"{environments[column.target]} ({set_name(column.targets, environments)})" for column in own
    )


def set_names(sets: TargetSets, environments: Sequence[str]) -> tuple[str, ...]:
    """A name for each set: "from art" if each leaves one source, else its targets, "photo + sketch"."""
    if is_single_source(sets, len(environments)):
        return tuple(f"from {_source(each, environments)}" for each in sets)
    return tuple(set_name(each, environments) for each in sets)


def set_name(targets: Sequence[int], environments: Sequence[str]) -> str:
    """The targets, such as "photo + sketch"."""
    return " + ".join(environments[target] for target in targets)


def is_single_source(sets: TargetSets, environments: int) -> bool:
    """Whether every set leaves one of three or more environments to train on."""
    return environments > 2 and all(len({*each}) == environments - 1 for each in sets)


def _source(targets: Sequence[int], environments: Sequence[str]) -> str:
    return next(name for index, name in enumerate(environments) if index not in targets)
