"""The same algorithms in two sweeps: their accuracies side by side, paired where trials and splits match."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from domainbed.hparams import Kind
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import by_run
from domainbed.results.accuracies import Accuracies, ShownDataset
from domainbed.results.experiments import pool
from domainbed.results.trials import Trial
from domainbed.training.config import SETTINGS
from domainbed.training.run_settings import DATA, Kinds, Run, runs_of
from domainbed_gs.report.cells import Trials
from domainbed_gs.report.comparison import average_over_targets, compare
from domainbed_gs.report.statistics import ALPHA, holm
from domainbed_gs.report.trial_splits import split_settings

Key = tuple[str, str, int]
"""(dataset, algorithm, target)"""

MOST_VALUES = 3
"""Number of values of a setting that are listed one by one."""


@dataclass(frozen=True)
class SweepCell:
    """An algorithm on a target in this sweep and in the other one. Accuracies are fractions.

    Attributes:
        dataset: name of the dataset.
        target: name of the target, or "Average" over the targets that both sweeps have.
        algorithm: name of the algorithm.
        this: accuracies of this sweep's trials that are compared.
        other: those of the other sweep; in the same order of trials if paired.
        paired: whether trial seeds and splits match.
        interval: 95 % interval of the difference, this sweep minus the other. If paired, the exact one of the
            shift that the signed-rank test is about, with infinite ends where trials are too few; otherwise
            Welch's of the difference of means. None where it is undefined.
        p: p-value of the signed-rank test, or of Welch's test; None where it is undefined.
        holm_p: p-value after Holm's correction for all averages, or for all single targets.
        averaged: whether it is the average, or the worst target.
    """

    dataset: str
    target: str
    algorithm: str
    this: tuple[float, ...]
    other: tuple[float, ...]
    paired: bool
    interval: tuple[float, float] | None
    p: float | None
    holm_p: float | None = None
    averaged: bool = False

    @property
    def difference(self) -> float:
        """Mean accuracy in this sweep minus that in the other one."""
        return fmean(self.this) - fmean(self.other)


@dataclass(frozen=True)
class Sweep:
    """Results of one sweep.

    Attributes:
        accuracies: accuracies by the selection method that both sweeps share.
        cells: (dataset, algorithm, target) -> trial -> its runs.
        datasets: dataset -> its runs.
    """

    accuracies: Accuracies
    cells: Mapping[Key, Mapping[Trial, Sequence[Run]]]
    datasets: Mapping[str, Sequence[Run]]

    def trials(self, key: Key) -> Trials:
        """Accuracies of the trials, without NaN."""
        trials = self.accuracies.by_target.get(key, {})
        return {trial: trials[trial] for trial in sorted(trials) if not math.isnan(trials[trial])}


def sweep_of(records: Q[Record], accuracies: Accuracies) -> Sweep:
    """The sweep with these records, and accuracies computed from them."""
    cells: dict[Key, dict[Trial, list[Run]]] = defaultdict(dict)
    datasets: dict[str, list[Run]] = defaultdict(list)
    for runs in pool(records):
        datasets[runs.dataset] += runs.runs
        for (trial, target), variants in runs.cells.items():
            of_trial = [run for variant in variants for run in runs_of(variant)]
            cells[runs.dataset, runs.method, target][trial] = of_trial
    return Sweep(accuracies, cells, datasets)


def compare_sweeps(this: Sweep, other: Sweep) -> list[SweepCell]:
    """The cells that both sweeps have, by dataset, target (average last) and algorithm."""
    cells: list[SweepCell] = []
    algorithms = [name for name in this.accuracies.algorithms if name in other.accuracies.algorithms]
    known = {dataset.name for dataset in other.accuracies.datasets}
    for dataset in this.accuracies.datasets:
        if dataset.name in known:
            by_algorithm = [_cells_of(dataset, algorithm, this, other) for algorithm in algorithms]
            cells += sorted(
                (cell for of_algorithm in by_algorithm for cell in of_algorithm),
                key=lambda cell: (
                    len(dataset.targets) if cell.averaged else dataset.targets.index(cell.target)
                ),
            )
    return _with_holm(cells)


def _cells_of(dataset: ShownDataset, algorithm: str, this: Sweep, other: Sweep) -> list[SweepCell]:
    keys = [(dataset.name, algorithm, target) for target in range(len(dataset.targets))]
    shared = [key for key in keys if this.trials(key) and other.trials(key)]
    cells = [
        _cell(
            dataset.targets[key[2]],
            key,
            this.trials(key),
            other.trials(key),
            _matching([key], this, other),
        )
        for key in shared
    ]
    if len(shared) > 1:
        ours, theirs = (
            average_over_targets([sweep.trials(key) for key in shared], this.accuracies)
            for sweep in (this, other)
        )
        if ours and theirs:
            title = this.accuracies.summary_title
            average = _cell(title, shared[0], ours, theirs, _matching(shared, this, other))
            cells.append(replace(average, averaged=True))
    return cells


def _matching(keys: Sequence[Key], this: Sweep, other: Sweep) -> bool:
    """Whether every trial that both sweeps have was measured on the same samples, on each target."""
    return all(
        _same_data(this.datasets[dataset], other.datasets[dataset]) for dataset in {key[0] for key in keys}
    ) and all(
        _same_splits(this.cells[key][trial], other.cells[key][trial])
        for key in keys
        for trial in this.trials(key).keys() & other.trials(key).keys()
    )


def _same_data(ours: Sequence[Run], theirs: Sequence[Run]) -> bool:
    """Whether a table could pool both. Runs that do not identify their data have those of the others."""
    return not any(Kinds().differing([*ours, *theirs], DATA).values())


def _same_splits(ours: Sequence[Run], theirs: Sequence[Run]) -> bool:
    one, another = ([split_settings(run.records[0]) for run in runs] for runs in (ours, theirs))
    return all(each in another for each in one) and all(each in one for each in another)


def _cell(target: str, key: Key, this: Trials, other: Trials, matching: bool) -> SweepCell:
    shared = sorted(this.keys() & other.keys())
    paired = matching and bool(shared)
    ours = tuple(this[trial] for trial in shared) if paired else tuple(this.values())
    theirs = tuple(other[trial] for trial in shared) if paired else tuple(other.values())
    if paired:
        comparison = compare(ours, theirs)
        interval, p = comparison.interval, comparison.p
    else:
        interval, p = _welch(ours, theirs)
    return SweepCell(key[0], target, key[1], ours, theirs, paired, interval, p)


def _welch(this: Sequence[float], other: Sequence[float]) -> tuple[tuple[float, float] | None, float | None]:
    """Welch's interval and p-value (Welch 1947); None with one trial, or if no trials differ."""
    from scipy.stats import ttest_ind

    if min(len(this), len(other)) < 2 or (len(set(this)) == 1 and len(set(other)) == 1):
        return None, None
    found = ttest_ind(this, other, equal_var=False)
    interval = found.confidence_interval(1 - ALPHA)
    return (float(interval.low), float(interval.high)), float(found.pvalue)


def _with_holm(cells: Sequence[SweepCell]) -> list[SweepCell]:
    corrected = list(cells)
    for averages in (True, False):
        family = [i for i, cell in enumerate(cells) if cell.averaged == averages and cell.p is not None]
        adjusted = holm([p for i in family if (p := cells[i].p) is not None])
        for i, p in zip(family, adjusted, strict=True):
            corrected[i] = replace(cells[i], holm_p=p)
    return corrected


def different_settings(this: Q[Record], other: Q[Record]) -> list[str]:
    """Clauses such as "steps is 300 here and 5001 there", for the settings that define an experiment."""
    ours, theirs = _settings(this), _settings(other)
    return [
        f"{name} is {_listed(ours[name])} here and {_listed(theirs[name])} there"
        for name in ours
        if ours[name] != theirs[name]
    ]


def _settings(records: Q[Record]) -> dict[str, set[str]]:
    """Setting -> the texts of its values in the runs."""
    compared = [
        setting
        for name, setting in SETTINGS.items()
        if setting.recorded
        and setting.kind in (Kind.DESIGN, Kind.SEARCHED)
        and name not in ("algorithm", "dataset", "hparams_seed", "test_envs", "grouping")
    ]
    runs: list[Mapping[str, Any]] = [args for args, _ in by_run(records)]
    found = {each.name: {str(args.get(each.name, each.value_before)) for args in runs} for each in compared}
    last = max((int(record["step"]) for record in records), default=-1)
    return found | {"the last step": {str(last)}}


def _listed(values: set[str]) -> str:
    return " and ".join(sorted(values)) if len(values) <= MOST_VALUES else f"one of {len(values)} values"
