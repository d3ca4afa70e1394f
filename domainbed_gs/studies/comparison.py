"""Comparison of methods by a quantity of their models, paired over trials."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from domainbed.algorithms import REGISTRY
from domainbed_gs.report.cells import Comparison
from domainbed_gs.report.comparison import compare
from domainbed_gs.report.statistics import ALPHA, holm, pairs_needed
from domainbed_gs.trained_models.table import Row

Trials = Mapping[str, float]
"""Trial seed -> value of a quantity, averaged over models and targets."""


@dataclass(frozen=True)
class MethodCell:
    """A method in one row of a table.

    Attributes:
        table: what the table is about, such as dataset, part and quantity; its tests are one family.
        label: what the row is about, such as a loss or a kind of pairs.
        algorithm: name of the method.
        trials: the method's values.
        comparison: with the baseline on the trials that both have; None for the baseline, and for a label
            without tests.
        family: number of tests that are corrected together; 0 without a test.
        holm_p: p-value with Holm's correction; None without a test.
    """

    table: tuple[str, ...]
    label: str
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

    def verdict(self, lower: str = "lower", higher: str = "higher") -> str:
        """`lower` or `higher` than the baseline, "undecided", or how many trials a verdict needs."""
        if self.comparison is None or self.holm_p is None:
            return ""
        if self.holm_p < ALPHA:
            return higher if self.comparison.direction > 0 else lower
        if self.family * self.comparison.smallest_p >= ALPHA:
            return f"undecided, needs {pairs_needed(self.family)} trials"
        return "undecided"


def rows_of_methods(rows: Iterable[Row], baseline: str) -> dict[str, list[Row]]:
    """Method -> its rows: the baseline first, then in the order of reports."""
    found = {name: own for (name,), own in grouped(rows, ("algorithm",)).items()}
    return {name: found[name] for name in sorted(REGISTRY.order(found), key=lambda name: name != baseline)}


def compared_methods(
    table: tuple[str, ...],
    methods: Mapping[str, Sequence[Row]],
    values: Mapping[str, Callable[[Sequence[Row]], Trials]],
    baseline: str,
    untested: Container[str] = (),
) -> list[MethodCell]:
    """The cells of one table: for each label, those of the methods that have values.

    Tests are exact signed-rank tests, as for accuracies, and one family of Holm's correction.

    Args:
        table: what the table is about.
        methods: method -> its rows.
        values: label -> function that reads the values of a method from its rows.
        baseline: name of a method; if it is not among them, nothing is compared.
        untested: labels for which no method is compared.
    """
    cells = []
    for label, read in values.items():
        own = {name: trials for name, rows in methods.items() if (trials := read(rows))}
        reference = None if label in untested else own.get(baseline)
        for name, trials in own.items():
            compared = None if reference is None or name == baseline else _compare(trials, reference)
            cells.append(MethodCell(table, label, name, trials, compared))
    return _corrected(cells)


def _compare(trials: Trials, reference: Trials) -> Comparison:
    shared = [trial for trial in trials if trial in reference]
    return compare([trials[trial] for trial in shared], [reference[trial] for trial in shared], 0.0)


def _corrected(cells: Sequence[MethodCell]) -> list[MethodCell]:
    """The cells with p-values that are corrected for all tests among them."""
    found = list(cells)
    comparisons = {i: cell.comparison for i, cell in enumerate(cells) if cell.comparison is not None}
    p_values = {i: each.p for i, each in comparisons.items() if each.p is not None}
    for i, p in zip(p_values, holm(list(p_values.values())), strict=True):
        found[i] = replace(found[i], family=len(p_values), holm_p=p)
    return found


def trial_means(rows: Sequence[Row], value: Callable[[Sequence[Row]], float | None]) -> dict[str, float]:
    """The values of one method: trial seed -> mean over the targets that the trial held out in turn.

    A trial counts if it has all targets that the method has in any. Several models of one trial and target,
    such as those of a random search, are averaged; without a number, the trial lacks that target.

    Args:
        rows: the method's rows.
        value: reads the value of a model from its rows; None if it has none.
    """
    by_target: dict[str, dict[str, float]] = {}
    for (targets,), of_target in grouped(rows, ("targets",)).items():
        found = by_target[targets] = {}
        for (trial,), of_trial in grouped(of_target, ("trial_seed",)).items():
            models = grouped(of_trial, ("run",)).values()
            values = [number for model in models if (number := value(model)) is not None]
            if values and not math.isnan(mean := fmean(values)):
                found[trial] = mean
    if not by_target:
        return {}
    shared = set.intersection(*(set(trials) for trials in by_target.values()))
    return {trial: fmean(trials[trial] for trials in by_target.values()) for trial in sorted(shared, key=int)}


def grouped(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Rows by their values of the columns `names`, in order of appearance."""
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(str(row[name]) for name in names)].append(row)
    return dict(found)
