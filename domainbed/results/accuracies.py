"""Accuracies of a sweep by one selection method: for each trial, environment, dataset and algorithm.

With `collect_results --metric`, what is called accuracy here is that metric.

`domainbed.results.experiments` says which runs belong together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from domainbed import algorithms, datasets
from domainbed.metrics import ACCURACY, Metric
from domainbed.model_selection import SelectionMethod
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import by_run
from domainbed.records.target_sets import TARGET_SETS, columns
from domainbed.results.environment_names import recorded_names
from domainbed.results.experiments import pool
from domainbed.results.missing_cells import (
    CellKey,
    MissingResult,
    MissingTrials,
    Reason,
    explain,
    without_metric,
)
from domainbed.results.target_sets import column_names
from domainbed.results.trials import Trial

_ACCURACY = re.compile(r"env(\d+)_(in|out|test)_acc")


@dataclass(frozen=True)
class ShownDataset:
    """A dataset as tables show it.

    Attributes:
        name: name of the dataset.
        environments: names of its environments, in order.
        registered: whether `domainbed.datasets` has the dataset. A folder of images, for example, is not.
        target_sets: the sets of targets that its runs hold out at once; empty if each environment is held out
            in turn.
    """

    name: str
    environments: tuple[str, ...]
    registered: bool = True
    target_sets: tuple[tuple[int, ...], ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets, by their numbers in `Accuracies`: environments, or columns of sets."""
        return column_names(self.target_sets, self.environments) if self.target_sets else self.environments

    def sources(self, target: int) -> list[int]:
        """The environments that runs with this target train on."""
        held_out = columns(self.target_sets)[target].targets if self.target_sets else (target,)
        return [index for index in range(len(self.environments)) if index not in held_out]


OVER_TARGETS = ("mean", "worst")
"""How the results of a trial on several targets become one number: their mean, or the worst of them."""


@dataclass
class Accuracies:
    """Accuracies of a sweep by one selection method, in [0, 1], or values of another metric.

    Attributes:
        method: description of the selection method.
        algorithms: names of the algorithms, in the order of table rows.
        datasets: the datasets, in the order of tables.
        about: what the method selects by and what it reports, as the beginning of a sentence.
        by_target: (dataset, algorithm, target) -> trial -> accuracy, trials in order of appearance. "target"
            is the index of an environment; of a dataset with sets of targets, the number of a column
            (`domainbed.records.target_sets`).
        by_trial: (dataset, algorithm) -> trial -> accuracies of all targets of the trial.
        missing: (dataset, algorithm, target) -> trial -> why this trial has no result despite its records.
        images: (dataset, target) -> trial -> number of images behind the accuracy; for sets of targets only.
        validated: (dataset, target) -> sources whose validation accuracies decided, of methods that use them.
        metric: what the numbers are.
        over_targets: one of `OVER_TARGETS`.
    """

    method: str
    algorithms: list[str]
    datasets: list[ShownDataset]
    about: str = ""
    by_target: dict[CellKey, dict[Trial, float]] = field(default_factory=dict)
    by_trial: dict[tuple[str, str], dict[Trial, list[float]]] = field(default_factory=dict)
    missing: MissingTrials = field(default_factory=dict)
    images: dict[tuple[str, int], dict[Trial, int]] = field(default_factory=dict)
    validated: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    metric: Metric = ACCURACY
    over_targets: str = "mean"

    def summary(self, values: Sequence[float]) -> float:
        """The results of a trial on several targets as one number, by `over_targets`."""
        return float(np.mean(values)) if self.over_targets == "mean" else self.worst(values)

    def worst(self, values: Sequence[float]) -> float:
        """The worst of some results."""
        return min(values) if self.metric.larger_is_better else max(values)

    @property
    def summary_label(self) -> str:
        """The head of a column of such numbers: "Avg" or "Worst"."""
        return "Avg" if self.over_targets == "mean" else "Worst"

    @property
    def summary_title(self) -> str:
        """What a row or a column of such numbers is called, in full."""
        return "Average" if self.over_targets == "mean" else "Worst target"

    def trials(self, dataset: str, algorithm: str, target: int) -> list[float]:
        """Accuracies of the trials with one target."""
        return list(self.by_target.get((dataset, algorithm, target), {}).values())

    def reasons(self, dataset: str, algorithm: str, target: int) -> dict[MissingResult, list[Trial]]:
        """The reasons why trials with one target have no result -> these trials.

        The trials are those that some algorithm has on the dataset; without records or a launched run, the
        reason is `NO_RUN`.
        """
        cell = dataset, algorithm, target
        found: dict[MissingResult, list[Trial]] = {}
        known = self.missing.get(cell, {})
        several = [each for each in known.values() if each.reason is Reason.SEVERAL_EXPERIMENTS]
        otherwise = several[0] if several else MissingResult(Reason.NO_RUN)
        for trial in sorted({*self.trials_of(dataset), *known}.difference(self.by_target.get(cell, {}))):
            found.setdefault(known.get(trial, otherwise), []).append(trial)
        return found

    def reported_targets(self, dataset: str) -> list[int]:
        """Targets of `dataset` on which some algorithm has a result, in order."""
        return sorted({target for name, _, target in self.by_target if name == dataset})

    def trials_of(self, dataset: str) -> list[Trial]:
        """The trials that some algorithm has on `dataset`, in order."""
        found = [trials for (name, _), trials in self.by_trial.items() if name == dataset]
        return sorted({trial for trials in found for trial in trials})


def compute_accuracies(
    records: Q[Record], method: type[SelectionMethod], over_targets: str = "mean"
) -> Accuracies:
    """Apply `method` to the variants of each trial, dataset, algorithm and target.

    A trial whose metric is NaN or infinite has no result, unless the metric is the accuracy.
    """
    result = Accuracies(
        method=method.name,
        algorithms=algorithms.REGISTRY.order(args["algorithm"] for args, _ in by_run(records)),
        datasets=shown_datasets(records),
        about=method.about(),
        metric=method.metric,
        over_targets=over_targets,
    )
    for of_method in pool(records):
        row = of_method.dataset, of_method.method
        for (trial, target), variants in of_method.cells.items():
            ranked = method.ranked(variants)
            every: Q[Record] = Q(variants).flatten()
            if not ranked:
                result.missing.setdefault((*row, target), {})[trial] = explain(method, every)
                continue
            accuracy = ranked[0][0]["test_acc"]
            if method.metric is not ACCURACY and not math.isfinite(accuracy):
                result.missing.setdefault((*row, target), {})[trial] = without_metric(method.metric, accuracy)
                continue
            sources = None if method.selects_on_target else method.validated(every)
            if sources is not None:
                result.validated.setdefault((of_method.dataset, target), set()).update(sources)
            number = _images(method, ranked[0][1][0])
            if number is not None:
                result.images.setdefault((of_method.dataset, target), {})[trial] = number
            result.by_target.setdefault((*row, target), {})[trial] = accuracy
            result.by_trial.setdefault(row, {}).setdefault(trial, []).append(accuracy)
        if of_method.conflict is not None:
            missing = MissingResult(Reason.SEVERAL_EXPERIMENTS, of_method.conflict.text)
            for trial, target in of_method.places:
                result.missing.setdefault((*row, target), {})[trial] = missing
    return result


def _images(method: type[SelectionMethod], record: Record) -> int | None:
    """Number of images behind the reported accuracy, if the run holds out a set of targets; else None."""
    if TARGET_SETS not in record or not method.test_key:
        return None
    key = method.test_key.format(*record["args"]["test_envs"])
    size: int | None = record.get("sizes", {}).get(key.removeprefix("fd_").removesuffix("_acc"))
    return size


def shown_datasets(records: Q[Record]) -> list[ShownDataset]:
    """Datasets of `records`: the registered ones in the order of `datasets.DATASETS`, then others by name.

    A dataset is left out if it is not registered and its records do not tell the number of environments.
    """
    names = {args["dataset"] for args, _ in by_run(records)}
    shown = []
    for name in datasets.in_order(names):
        registered = name in datasets.DATASETS
        of_dataset = records.filter_equals("args.dataset", name)
        environments = recorded_names(of_dataset)
        if registered:
            environments = environments or tuple(datasets.get_dataset_class(name).ENVIRONMENTS)
        else:
            environments = environments or _numbered(of_dataset)
        if environments:
            sets = tuple(tuple(sorted(each)) for each in of_dataset[0].get(TARGET_SETS, ()))
            shown.append(ShownDataset(name, environments, registered, sets))
    return shown


def _numbered(records: Q[Record]) -> tuple[str, ...]:
    """Names for environments that `records` do not name: "env0" and so on, as many as have accuracies."""
    keys = {key for record in records for key in record}
    indices = [int(match[1]) for match in map(_ACCURACY.fullmatch, keys) if match]
    return tuple(f"env{i}" for i in range(max(indices, default=-1) + 1))
