"""What a launch consists of, in one table: how many runs of each dataset, and what they differ in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from domainbed.console import shortened_list, text_table
from domainbed.sweep.job import Job

COLUMNS = {
    "Algorithms": ("algorithm",),
    "Targets": ("test_envs",),
    "Trials": ("trial_seed",),
    "Hyper-parameters": ("hparams_seed", "hparams"),
}
"""Column -> the arguments whose different values it counts."""

_OF_ONE_ALGORITHM = ("Hyper-parameters",)
"""Columns that count those of one algorithm, the most: a sweep file may give each its own values."""


def overview(jobs: Sequence[Job]) -> list[str]:
    """Lines of a table with a row for each dataset, and the names of the algorithms below it.

    Settings that a launch gives several values of multiply the runs as well, so the last column may be more
    than the product of the others.
    """
    of_datasets: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        of_datasets[job.train_args["dataset"]].append(job)
    rows = [["Dataset", *COLUMNS, "Runs"]]
    for dataset, own in of_datasets.items():
        counts = [
            _most_of_one_algorithm(own, names) if column in _OF_ONE_ALGORITHM else _count(own, names)
            for column, names in COLUMNS.items()
        ]
        rows.append([dataset, *map(str, counts), str(len(own))])
    algorithms = list(dict.fromkeys(job.train_args["algorithm"] for job in jobs))
    return [*text_table(rows), f"Algorithms: {shortened_list(algorithms, 12)}."]


def _count(jobs: Sequence[Job], names: Sequence[str]) -> int:
    return len({str([job.train_args.get(name) for name in names]) for job in jobs})


def _most_of_one_algorithm(jobs: Sequence[Job], names: Sequence[str]) -> int:
    of_algorithms: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        of_algorithms[job.train_args["algorithm"]].append(job)
    return max(_count(own, names) for own in of_algorithms.values())
