"""The cells (dataset, target, trial) that several algorithms share, so that none is spared a hard target."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domainbed.results.accuracies import Accuracies, ShownDataset
from domainbed.results.trials import Trial
from domainbed_gs.report.signed_rank import Floats

Runs = dict[tuple[int, Trial], float]
"""(target, trial) -> accuracy, of one algorithm on one dataset."""


@dataclass(frozen=True)
class SharedCells:
    """Accuracies, in [0, 1], of k algorithms on the cells that all of them have.

    Attributes:
        algorithms: names of the k algorithms.
        datasets: names of the N datasets.
        accuracies: (dataset, name of the target) -> (k, n), with a column for each shared trial.
        trials: the same keys -> the n trials, ascending.
        remarks: sentences on algorithms and cells that are left out.
        worst: the worst of several results, to take instead of their mean over targets; None for the mean.
    """

    algorithms: list[str]
    datasets: list[str]
    accuracies: dict[tuple[str, str], Floats]
    trials: dict[tuple[str, str], list[Trial]]
    remarks: list[str]
    worst: Callable[[Sequence[float]], float] | None = None

    def dataset_means(self) -> Floats:
        """(N, k) mean over the trials of a dataset of the mean, or worst, over the targets of a trial."""
        return np.array([self._mean(dataset) for dataset in self.datasets]).reshape(-1, len(self.algorithms))

    def _mean(self, dataset: str) -> Floats:
        by_trial: dict[Trial, list[Floats]] = defaultdict(list)
        for key, columns in self.accuracies.items():
            if key[0] == dataset:
                for trial, column in zip(self.trials[key], columns.T, strict=True):
                    by_trial[trial].append(column)
        trial_means = np.array([self._over_targets(np.array(columns)) for columns in by_trial.values()])
        means: Floats = trial_means.mean(axis=0)
        return means

    def _over_targets(self, results: Floats) -> Floats:
        """(k,) of the results (targets, k) in one trial."""
        if self.worst is None:
            return np.asarray(results.mean(axis=0))
        return np.array([self.worst(column) for column in results.T.tolist()])


def shared_cells(accuracies: Accuracies) -> SharedCells:
    """Find the cells that all algorithms share.

    An algorithm without results on some dataset is left out, and so is the algorithm with the fewest cells of
    a dataset as long as no cell there is shared by all. Datasets without results are ignored, and NaN counts
    as missing.
    """
    runs = _runs(accuracies)
    datasets = [dataset for dataset in accuracies.datasets if any(name == dataset.name for name, _ in runs)]
    algorithms = [
        name for name in accuracies.algorithms if all((dataset.name, name) in runs for dataset in datasets)
    ]
    elsewhere = [name for name in accuracies.algorithms if name not in algorithms]
    remarks = [f"Left out, without results on some dataset: {', '.join(elsewhere)}."] if elsewhere else []
    for dataset in datasets:
        while algorithms and not _common(runs, dataset.name, algorithms):
            fewest = min(reversed(algorithms), key=lambda name: len(runs[dataset.name, name]))
            algorithms.remove(fewest)
            remarks.append(f"Left out: {fewest}, which shares no cell of {dataset.name} with all others.")
    result = SharedCells(
        algorithms=algorithms,
        datasets=[dataset.name for dataset in datasets],
        accuracies={},
        trials={},
        remarks=remarks,
        worst=accuracies.worst if accuracies.over_targets == "worst" else None,
    )
    for dataset in datasets if algorithms else []:
        common = _common(runs, dataset.name, algorithms)
        remarks += _missing(dataset, {name: runs[dataset.name, name] for name in algorithms}, common)
        for target in sorted({target for target, _ in common}):
            key = dataset.name, dataset.targets[target]
            trials = sorted(trial for each, trial in common if each == target)
            result.trials[key] = trials
            result.accuracies[key] = np.array(
                [[runs[dataset.name, name][target, trial] for trial in trials] for name in algorithms]
            )
    return result


def _runs(accuracies: Accuracies) -> dict[tuple[str, str], Runs]:
    """(dataset, algorithm) -> its accuracies, at least one."""
    shown = {dataset.name for dataset in accuracies.datasets}
    runs: dict[tuple[str, str], Runs] = defaultdict(dict)
    for (dataset, algorithm, target), trials in accuracies.by_target.items():
        finite = {trial: accuracy for trial, accuracy in trials.items() if not math.isnan(accuracy)}
        if dataset in shown and finite:
            runs[dataset, algorithm] |= {(target, trial): accuracy for trial, accuracy in finite.items()}
    return dict(runs)


def _common(
    runs: Mapping[tuple[str, str], Runs], dataset: str, algorithms: Sequence[str]
) -> set[tuple[int, Trial]]:
    return set.intersection(*(set(runs[dataset, name]) for name in algorithms))


def _missing(dataset: ShownDataset, runs: Mapping[str, Runs], common: set[tuple[int, Trial]]) -> list[str]:
    """A sentence on the cells that some algorithms lack, and that therefore do not count; or none."""
    known = set().union(*runs.values())
    if known == common:
        return []
    of_target = Counter(target for target, _ in known)
    lacking: dict[str, list[str]] = defaultdict(list)
    for name, own in runs.items():
        missing = Counter(target for target, _ in known - own.keys())
        texts = [
            dataset.targets[target]
            + ("" if count == of_target[target] else f" ({count} of {of_target[target]} trials)")
            for target, count in sorted(missing.items())
        ]
        if texts:
            lacking[", ".join(texts)].append(name)
    listed = "; ".join(f"without {what}: {', '.join(names)}" for what, names in lacking.items())
    return [
        f"{dataset.name}: only the cells (target and trial) that all algorithms have count, "
        f"{len(common)} of {len(known)} ({listed})."
    ]
