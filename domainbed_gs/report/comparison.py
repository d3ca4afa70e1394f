"""Comparison of methods with a baseline on the same trials: a cell for each dataset, target and method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np

from domainbed.errors import UsageError, hint
from domainbed.results.accuracies import Accuracies, ShownDataset
from domainbed_gs.report.signed_rank import Floats, signed_rank_p, smallest_p
from domainbed_gs.report.statistics import ALPHA, bootstrap_interval, holm

Trials = dict[int, float]
"""Trial seed -> accuracy in [0, 1]."""

AVERAGE = "Average"
"""Name of the row over targets."""


@dataclass(frozen=True)
class Comparison:
    """A method compared with the baseline on n shared trials. Accuracies and differences are fractions.

    Attributes:
        pairs: n.
        difference: mean of method - baseline over the trials; NaN without pairs.
        interval: 95 % bootstrap interval of `difference`; None with fewer than two pairs.
        p: two-sided exact signed-rank p-value; None without pairs.
        wins: number of trials in which the method is better than the baseline.
        ties: number of trials in which the two are equal.
        losses: number of trials in which the method is worse.
    """

    pairs: int
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    wins: int
    ties: int
    losses: int

    @property
    def significant(self) -> bool:
        """Whether the uncorrected p-value is below `ALPHA`."""
        return self.p is not None and self.p < ALPHA

    @property
    def smallest_p(self) -> float:
        """Smallest p-value possible with this number of untied pairs."""
        return smallest_p(self.wins + self.losses)


def compare(method: Sequence[float], baseline: Sequence[float], seed: int = 0) -> Comparison:
    """Compare a method with the baseline on the same n trials.

    Args:
        method: accuracies (n,) of the method.
        baseline: accuracies (n,) of the baseline, in the same order of trials.
        seed: seed of the bootstrap.

    Raises: UsageError if the two differ in length.
    """
    if len(method) != len(baseline):
        raise UsageError(f"cannot pair {len(method)} accuracies with {len(baseline)} of the baseline")
    differences: Floats = np.subtract(method, baseline, dtype=np.float64)
    # Accuracies are fractions of whole samples: 0.3 - 0.2 and 0.2 - 0.1 are tied, but differ in float64.
    rounded = differences.round(12)
    return Comparison(
        pairs=len(differences),
        difference=float(differences.mean()) if len(differences) else math.nan,
        interval=bootstrap_interval(differences, seed) if len(differences) > 1 else None,
        p=signed_rank_p(rounded) if len(rounded) else None,
        wins=int((rounded > 0).sum()),
        ties=int((rounded == 0).sum()),
        losses=int((rounded < 0).sum()),
    )


@dataclass(frozen=True)
class Cell:
    """A method on a target.

    Attributes:
        dataset: name of the dataset.
        target: index of the target environment; None for the average over the targets of the report.
        target_name: name of the environment, or "Average".
        algorithm: name of the method.
        trials: accuracies of the method.
        comparison: comparison with the baseline on their shared trials; None for the baseline itself.
        holm_p: p-value after Holm's correction; None for the baseline, for averages, and without pairs.
    """

    dataset: str
    target: int | None
    target_name: str
    algorithm: str
    trials: Trials
    comparison: Comparison | None = None
    holm_p: float | None = None

    @property
    def mean(self) -> float | None:
        """Mean accuracy over the trials; None without trials."""
        return fmean(self.trials.values()) if self.trials else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the trials (ddof=1); None with fewer than two trials."""
        return stdev(self.trials.values()) if len(self.trials) > 1 else None

    @property
    def significant(self) -> bool:
        """Whether the uncorrected p-value is below `ALPHA`."""
        return self.comparison is not None and self.comparison.significant


@dataclass(frozen=True)
class PairedReport:
    """All cells, ordered by dataset, target (average last) and method (baseline first)."""

    baseline: str
    cells: tuple[Cell, ...]

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets, in the order of the tables."""
        return list(dict.fromkeys(cell.dataset for cell in self.cells))

    @property
    def family(self) -> int:
        """Number of comparisons in the family of Holm's correction."""
        return sum(cell.holm_p is not None for cell in self.cells)

    def of(self, dataset: str) -> list[Cell]:
        """Cells of one dataset."""
        return [cell for cell in self.cells if cell.dataset == dataset]


def compare_all(accuracies: Accuracies, baseline: str, seed: int = 0) -> PairedReport:
    """Compare every method with `baseline` on every target, and on the average over a dataset's targets.

    A method without accuracies on a dataset has no cells there, and neither has a target without accuracies.

    Args:
        accuracies: results of `domainbed.results.accuracies.compute_accuracies`; NaN counts as missing.
        baseline: name of an algorithm.
        seed: seed of the bootstrap.

    Raises: UsageError if the baseline has no accuracies; the message names the algorithms that have some.
    """
    numbers = {key: _finite(trials) for key, trials in accuracies.by_target.items()}
    with_results = {algorithm for (_, algorithm, _), trials in numbers.items() if trials}
    names = [name for name in accuracies.algorithms if name in with_results]
    if baseline not in names:
        error = UsageError(
            f"--baseline {baseline} has no results under this selection method; algorithms with results: "
            + (", ".join(names) or "none")
        )
        error.add_note(hint(baseline, names) if names else "Try another --paired_selection.")
        raise error
    cells: list[Cell] = []
    for dataset in accuracies.datasets:
        own = {key[1:]: trials for key, trials in numbers.items() if key[0] == dataset.name and trials}
        present = {algorithm for algorithm, _ in own}
        methods = [baseline, *(name for name in names if name in present and name != baseline)]
        cells += _cells(dataset, own, methods, seed) if own else []
    return PairedReport(baseline, _with_holm(cells))


def _finite(trials: Trials) -> Trials:
    return {trial: trials[trial] for trial in sorted(trials) if not math.isnan(trials[trial])}


def _cells(
    dataset: ShownDataset, own: dict[tuple[str, int], Trials], methods: Sequence[str], seed: int
) -> Iterator[Cell]:
    """Cells of one dataset.

    Args:
        dataset: the dataset.
        own: (algorithm, target) -> trials.
        methods: names of the methods, the baseline first.
        seed: seed of the bootstrap.
    """
    targets = sorted({target for _, target in own})
    columns: dict[int | None, list[Trials]] = {
        target: [own.get((method, target), {}) for method in methods] for target in targets
    }
    if len(targets) > 1:
        columns[None] = [_average([own.get((method, t), {}) for t in targets]) for method in methods]
    for target, column in columns.items():
        name = AVERAGE if target is None else dataset.environments[target]
        for method, trials in zip(methods, column, strict=True):
            comparison = None if method == methods[0] else _compare_shared(trials, column[0], seed)
            yield Cell(
                dataset=dataset.name,
                target=target,
                target_name=name,
                algorithm=method,
                trials=trials,
                comparison=comparison,
            )


def _compare_shared(trials: Trials, baseline: Trials, seed: int) -> Comparison:
    shared = sorted(trials.keys() & baseline.keys())
    return compare([trials[t] for t in shared], [baseline[t] for t in shared], seed)


def _average(columns: Sequence[Trials]) -> Trials:
    """Mean over the targets, for each trial that has all of them."""
    shared = set.intersection(*(set(trials) for trials in columns))
    return {trial: fmean(trials[trial] for trials in columns) for trial in sorted(shared)}


def _with_holm(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """`cells` with Holm's correction over all single-target cells that have a p-value."""
    family = {
        i: cell.comparison.p
        for i, cell in enumerate(cells)
        if cell.target is not None and cell.comparison and cell.comparison.p is not None
    }
    adjusted = dict(zip(family, holm(list(family.values())), strict=True))
    return tuple(replace(cell, holm_p=adjusted.get(i)) for i, cell in enumerate(cells))
