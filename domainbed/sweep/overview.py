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
            len({str([job.train_args.get(name) for name in names]) for job in own})
            for names in COLUMNS.values()
        ]
        rows.append([dataset, *map(str, counts), str(len(own))])
    algorithms = list(dict.fromkeys(job.train_args["algorithm"] for job in jobs))
    return [*text_table(rows), f"Algorithms: {shortened_list(algorithms, 12)}."]
