"""From selected accuracies to paired comparisons: a cell for each dataset, target and method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from domainbed.errors import UsageError, hint
from domainbed.results.accuracies import Accuracies, Columns
from domainbed_gs.report.statistics import Comparison, compare, holm

Trials = dict[int, float]
"""Trial seed -> accuracy in [0, 1]."""

AVERAGE = "Average"
"""Name of the row over targets."""


@dataclass(frozen=True)
class Cell:
    """A method on a target.

    Attributes:
        dataset: name of the dataset.
        target: index of the target environment; None for the average over the targets of the report.
        target_name: the environment's name, or "Average".
        algorithm: the method.
        trials: its accuracies.
        comparison: with the baseline, on the trials that both have; None for the baseline itself.
        holm_p: Holm's p over the family; None for the baseline, for averages, and without pairs.
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
        """Mean accuracy over the trials; None without any."""
        return fmean(self.trials.values()) if self.trials else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the trials (ddof=1); None with fewer than two."""
        return stdev(self.trials.values()) if len(self.trials) > 1 else None

    @property
    def significant(self) -> bool:
        """Whether the raw p is below 0.05."""
        return self.comparison is not None and self.comparison.significant


@dataclass(frozen=True)
class PairedReport:
    """All cells of a report, in order of dataset, target (average last) and method (baseline first)."""

    baseline: str
    cells: tuple[Cell, ...]

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets, in the order of tables."""
        return list(dict.fromkeys(cell.dataset for cell in self.cells))

    @property
    def family(self) -> int:
        """Number of comparisons that Holm's correction is over."""
        return sum(cell.holm_p is not None for cell in self.cells)

    def of(self, dataset: str) -> list[Cell]:
        """The cells of a dataset."""
        return [cell for cell in self.cells if cell.dataset == dataset]


def compare_all(accuracies: Accuracies, baseline: str, seed: int = 0) -> PairedReport:
    """Compare every method with `baseline` on every target, and on the average of a dataset's targets.

    A method without any accuracy on a dataset has no cells there, nor has a target without any.

    Args:
        accuracies: of `domainbed.results.accuracies.compute`; nan counts as missing.
        baseline: name of an algorithm.
        seed: of the bootstrap.

    Raises: UsageError if there are no accuracies of the baseline; it names the algorithms that have some.
    """
    numbers = {key: _finite(trials) for key, trials in accuracies.by_target.items()}
    with_results = {algorithm for (_, algorithm, _), trials in numbers.items() if trials}
    names = [name for name in accuracies.algorithms if name in with_results]
    if baseline not in names:
        error = UsageError(
            f"--baseline {baseline} has no results by this selection; algorithms with results: "
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
    dataset: Columns, own: dict[tuple[str, int], Trials], methods: Sequence[str], seed: int
) -> Iterator[Cell]:
    """The cells of one dataset; `own` is (algorithm, target) -> trials, and the first method the baseline."""
    targets = sorted({target for _, target in own})
    columns: dict[int | None, list[Trials]] = {
        target: [own.get((method, target), {}) for method in methods] for target in targets
    }
    if len(targets) > 1:
        columns[None] = [_average([own.get((method, t), {}) for t in targets]) for method in methods]
    for target, column in columns.items():
        name = AVERAGE if target is None else dataset.environments[target]
        for method, trials in zip(methods, column, strict=True):
            comparison = None if method == methods[0] else _compare(trials, column[0], seed)
            yield Cell(dataset.name, target, name, method, trials, comparison)


def _compare(trials: Trials, reference: Trials, seed: int) -> Comparison:
    shared = sorted(trials.keys() & reference.keys())
    return compare([trials[t] for t in shared], [reference[t] for t in shared], seed)


def _average(columns: Sequence[Trials]) -> Trials:
    """The mean over the targets within each trial that has all of them."""
    shared = set.intersection(*(set(trials) for trials in columns))
    return {trial: fmean(trials[trial] for trials in columns) for trial in sorted(shared)}


def _with_holm(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """`cells` with Holm's p over all those of a single target that have a p."""
    family = {
        i: cell.comparison.p
        for i, cell in enumerate(cells)
        if cell.target is not None and cell.comparison and cell.comparison.p is not None
    }
    adjusted = dict(zip(family, holm(list(family.values())), strict=True))
    return tuple(replace(cell, holm_p=adjusted.get(i)) for i, cell in enumerate(cells))
