"""Comparison of methods by the sharpness of their models, paired over trials."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from domainbed.algorithms import REGISTRY
from domainbed_gs.report.cells import Comparison
from domainbed_gs.report.comparison import compare
from domainbed_gs.report.statistics import ALPHA, holm, pairs_needed
from domainbed_gs.sharpness.settings import POOLED, QUANTITIES, SOURCE, TARGET
from domainbed_gs.trained_models.table import Row

GROUPS = {
    "pooled": "the pooled loss of the sources",
    "sources": "mean over the source environments",
    "sharpest source": "the source environment with the largest value",
    "targets": "mean over the target environments",
}
"""What a model's sharpness is read from, with its meaning."""

REPEATED = ("trace", "sources")
"""Left out: the mean of the sources' traces is the trace of their mean loss."""

Trials = dict[str, float]
"""Trial seed -> value of a quantity, averaged over targets."""


@dataclass(frozen=True)
class SharpnessCell:
    """A method in one row of a table.

    Attributes:
        dataset: name of the dataset.
        part: part of the environments.
        quantity: one of `QUANTITIES`.
        group: one of `GROUPS`.
        algorithm: name of the method.
        trials: the method's values.
        comparison: with the baseline on the trials that both have; None for the baseline.
        family: number of tests that are corrected together; 0 without a test.
        holm_p: p-value with Holm's correction; None without a test.
    """

    dataset: str
    part: str
    quantity: str
    group: str
    algorithm: str
    trials: Trials
    comparison: Comparison | None = None
    family: int = 0
    holm_p: float | None = None

    @property
    def mean(self) -> float:
        """Mean over the trials."""
        return fmean(self.trials.values())

    @property
    def std(self) -> float:
        """Standard deviation over the trials (ddof=1); NaN for a single one."""
        return stdev(self.trials.values()) if len(self.trials) > 1 else math.nan

    @property
    def verdict(self) -> str:
        """ "lower" or "higher" than the baseline, "undecided", or how many trials a verdict needs."""
        if self.comparison is None or self.holm_p is None:
            return ""
        if self.holm_p < ALPHA:
            return "higher" if self.comparison.direction > 0 else "lower"
        if self.family * self.comparison.smallest_p >= ALPHA:
            return f"undecided, needs {pairs_needed(self.family)} trials"
        return "undecided"


def compare_methods(rows: Sequence[Row], baseline: str) -> list[SharpnessCell]:
    """A cell for each dataset, part, quantity, group and method; the baseline is first among the methods.

    A trial's value is the mean over the targets that it held out in turn, and a trial counts for a method if
    it has all targets that the method has in any. Several models of one trial and target, such as those of a
    random search, are averaged. Tests are exact signed-rank tests, as for accuracies; those of one dataset,
    part and quantity are one family of Holm's correction.

    Args:
        rows: rows of the table sharpness.csv.
        baseline: name of a method; if no model has it, nothing is compared.
    """
    cells: list[SharpnessCell] = []
    for (dataset, part), own in _grouped(rows, ("dataset", "part")).items():
        methods = _grouped(own, ("algorithm",))
        order = sorted(REGISTRY.order([name for (name,) in methods]), key=lambda name: name != baseline)
        for quantity in QUANTITIES:
            family = [
                SharpnessCell(dataset, part, quantity, group, name, trials)
                for group in GROUPS
                if (quantity, group) != REPEATED
                for name in order
                if (trials := _trials(methods[name,], quantity, group))
            ]
            cells += _judged(family, baseline)
    return cells


def _grouped(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Rows by their values of the columns `names`, in order of appearance."""
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(str(row[name]) for name in names)].append(row)
    return dict(found)


def _trials(rows: Sequence[Row], quantity: str, group: str) -> Trials:
    """Values of one method."""
    by_target = {
        targets: dict(_of_target(own, quantity, group))
        for targets, own in _grouped(rows, ("targets",)).items()
    }
    shared = set.intersection(*(set(trials) for trials in by_target.values()))
    return {trial: fmean(trials[trial] for trials in by_target.values()) for trial in sorted(shared, key=int)}


def _of_target(rows: Sequence[Row], quantity: str, group: str) -> Iterator[tuple[str, float]]:
    """(trial seed, mean over its models) of one method and one set of targets; without those that are NaN."""
    for (trial,), of_trial in _grouped(rows, ("trial_seed",)).items():
        models = _grouped(of_trial, ("run",)).values()
        values = [value for model in models if (value := _value(model, quantity, group)) is not None]
        if values and not math.isnan(fmean(values)):
            yield trial, fmean(values)


def _value(rows: Sequence[Row], quantity: str, group: str) -> float | None:
    """The value of one model; None if it has no environment of the group."""
    role = {"pooled": POOLED, "targets": TARGET}.get(group, SOURCE)
    values: list[float] = [row[quantity] for row in rows if row["role"] == role]
    if not values:
        return None
    return max(values) if group == "sharpest source" else fmean(values)


def _judged(family: Sequence[SharpnessCell], baseline: str) -> list[SharpnessCell]:
    """The cells with comparisons and corrected p-values."""
    references: Mapping[str, Trials] = {
        cell.group: cell.trials for cell in family if cell.algorithm == baseline
    }
    cells = [_compared(cell, references.get(cell.group, {}), baseline) for cell in family]
    tested = [i for i, cell in enumerate(cells) if cell.comparison and cell.comparison.p is not None]
    p_values = [each.p for i in tested if (each := cells[i].comparison) and each.p is not None]
    for i, p in zip(tested, holm(p_values), strict=True):
        cells[i] = replace(cells[i], family=len(tested), holm_p=p)
    return cells


def _compared(cell: SharpnessCell, reference: Trials, baseline: str) -> SharpnessCell:
    if cell.algorithm == baseline or not reference:
        return cell
    shared = [trial for trial in cell.trials if trial in reference]
    comparison = compare(
        [cell.trials[trial] for trial in shared], [reference[trial] for trial in shared], 0.0
    )
    return replace(cell, comparison=comparison)
