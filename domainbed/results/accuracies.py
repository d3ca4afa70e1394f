"""What one selection method makes of a sweep: an accuracy for each trial, environment, dataset, algorithm."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from domainbed import algorithms, datasets
from domainbed.errors import DomainBedError
from domainbed.model_selection import SelectionMethod
from domainbed.records.grouping import get_grouped_records
from domainbed.records.jsonl import Record, by_run
from domainbed.records.query import Q
from domainbed.results.merging import merged_for

_ACCURACY = re.compile(r"env(\d+)_(in|out|test)_acc")


@dataclass(frozen=True)
class Columns:
    """A dataset as tables show it.

    Attributes:
        name: its name.
        environments: names of its environments, in order.
        known: whether `domainbed.datasets` has it; otherwise the records say how many environments it has.
    """

    name: str
    environments: tuple[str, ...]
    known: bool = True


@dataclass
class Accuracies:
    """Results of one selection method, as fractions.

    Attributes:
        method: the method in words.
        about: what it selects by what, and what is shown, as the beginning of a sentence.
        algorithms: names of the algorithms, in order of the rows.
        datasets: the datasets, in order of the tables.
        by_target: (dataset, algorithm, target) -> trial seed -> accuracy; trials in order of appearance.
        by_trial: (dataset, algorithm) -> trial seed -> accuracies of all its targets.
    """

    method: str
    algorithms: list[str]
    datasets: list[Columns]
    about: str = ""
    by_target: dict[tuple[str, str, int], dict[int, float]] = field(default_factory=dict)
    by_trial: dict[tuple[str, str], dict[int, list[float]]] = field(default_factory=dict)

    def trials(self, dataset: str, algorithm: str, target: int) -> list[float]:
        """Accuracies of the trials with one target."""
        return list(self.by_target.get((dataset, algorithm, target), {}).values())

    def averages(self, dataset: str, algorithm: str) -> list[float]:
        """For each trial, in order of its seed, the mean over the targets that it has."""
        trials = self.by_trial.get((dataset, algorithm), {})
        return [float(np.mean(trials[seed])) for seed in sorted(trials)]


def compute(records: Q[Record], method: type[SelectionMethod]) -> Accuracies:
    """Let `method` read every (trial, dataset, algorithm, target) group of `records`."""
    present = dict.fromkeys(args["algorithm"] for args, _ in by_run(records))
    rows = algorithms.REGISTRY.order(list(present))
    result = Accuracies(method.name, rows, shown_datasets(records), method.about())
    for group in get_grouped_records(records):
        accuracy = method.sweep_acc(merged_for(method, group["records"]))
        if accuracy is None:
            continue
        dataset, algorithm, trial = group["dataset"], group["algorithm"], group["trial_seed"]
        result.by_target.setdefault((dataset, algorithm, group["test_env"]), {})[trial] = accuracy
        result.by_trial.setdefault((dataset, algorithm), {}).setdefault(trial, []).append(accuracy)
    return result


def shown_datasets(records: Q[Record]) -> list[Columns]:
    """The datasets of `records`: those of `datasets.DATASETS` in its order, then the others by name.

    One that is not in `DATASETS` is left out if its records do not say how many environments it has.
    """
    present = {args["dataset"] for args, _ in by_run(records)}
    known = [name for name in datasets.DATASETS if name in present]
    columns = [Columns(name, tuple(datasets.get_dataset_class(name).ENVIRONMENTS)) for name in known]
    for name in sorted(present.difference(known)):
        environments = _environments(name, records.filter_equals("args.dataset", name))
        if environments:
            columns.append(Columns(name, environments, known=False))
    return columns


def _environments(dataset: str, records: Q[Record]) -> tuple[str, ...]:
    """Names of the environments of an unknown dataset, such as a folder, as many as `records` know of."""
    keys = {key for record in records for key in record}
    found = [int(match[1]) for match in map(_ACCURACY.fullmatch, keys) if match]
    count = max(found, default=-1) + 1
    try:
        names = tuple(datasets.get_dataset_class(dataset).ENVIRONMENTS)
    except DomainBedError:
        names = ()
    return names if len(names) == count else tuple(f"env{i}" for i in range(count))
