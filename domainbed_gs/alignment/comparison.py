"""Comparison of methods by the distances between environments, paired over trials."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from domainbed_gs.alignment.settings import PAIRS, QUANTITIES
from domainbed_gs.report.cells import Comparison
from domainbed_gs.report.comparison import compare
from domainbed_gs.report.statistics import ALPHA, holm, pairs_needed
from domainbed_gs.trained_models.table import Row

Trials = Mapping[str, float]
"""Trial seed -> distance, averaged over pairs, models and targets."""


@dataclass(frozen=True)
class AlignmentCell:
    """A method in one row of a table.

    Attributes:
        dataset, part, parameters, quantity: what the table is about.
        pair: one of `settings.PAIRS`.
        algorithm: name of the method.
        trials: the method's distances.
        comparison: with the baseline on the trials that both have; None for the baseline, and for pairs
            within an environment.
        family: number of tests that are corrected together; 0 without a test.
        holm_p: p-value with Holm's correction; None without a test.
    """

    dataset: str
    part: str
    parameters: str
    quantity: str
    pair: str
    algorithm: str
    trials: Trials
    comparison: Comparison | None = None
    family: int = 0
    holm_p: float | None = None

    @property
    def table(self) -> tuple[str, str, str, str]:
        """What the table of this row is about; its tests are one family."""
        return self.dataset, self.part, self.parameters, self.quantity

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
        """ "closer" or "further apart" than with the baseline, "undecided", or how many trials are needed."""
        if self.comparison is None or self.holm_p is None:
            return ""
        if self.holm_p < ALPHA:
            return "further apart" if self.comparison.direction > 0 else "closer"
        if self.family * self.comparison.smallest_p >= ALPHA:
            return f"undecided, needs {pairs_needed(self.family)} trials"
        return "undecided"


def compare_methods(rows: Sequence[Row], baseline: str) -> list[AlignmentCell]:
    """A cell for each dataset, part, kind of parameters, quantity, kind of pairs, and method.

    A trial's distance is the mean over the pairs of a kind, over models of the trial (such as those of a
    search), and over the targets that it held out in turn. A trial counts for a method if it has all targets
    that the method has in any. Tests are exact signed-rank tests, as for accuracies.

    Args:
        rows: rows of alignment.csv.
        baseline: name of a method, which comes first; if no model has it, nothing is compared.
    """
    cells: list[AlignmentCell] = []
    for (dataset, part, parameters), own in _grouped(rows, ("dataset", "part", "parameters")).items():
        methods = _grouped(own, ("algorithm",))
        order = sorted(methods, key=lambda key: key != (baseline,))
        for quantity in QUANTITIES:
            family = [
                AlignmentCell(dataset, part, parameters, quantity, pair, key[0], trials)
                for pair in PAIRS
                for key in order
                if (trials := trials_of(methods[key], quantity, pair))
            ]
            cells += _judged(family, baseline)
    return cells


def trials_of(rows: Iterable[Row], quantity: str, pair: str) -> dict[str, float]:
    """Distances of one method, from its rows of alignment.csv for one kind of parameters."""
    of_kind = [row for row in rows if row["pair"] == pair and not math.isnan(row[f"{quantity}_distance"])]
    by_target: dict[str, dict[str, float]] = {}
    for (targets, trial), own in _grouped(of_kind, ("targets", "trial_seed")).items():
        models = _grouped(own, ("run", "step")).values()
        means = [fmean(row[f"{quantity}_distance"] for row in model) for model in models]
        by_target.setdefault(targets, {})[trial] = fmean(means)
    if not by_target:
        return {}
    shared = set.intersection(*(set(trials) for trials in by_target.values()))
    return {trial: fmean(trials[trial] for trials in by_target.values()) for trial in sorted(shared, key=int)}


def _grouped(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Rows by their values of the columns `names`, in order of appearance."""
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(str(row[name]) for name in names)].append(row)
    return dict(found)


def _judged(family: Sequence[AlignmentCell], baseline: str) -> list[AlignmentCell]:
    """The cells with comparisons and corrected p-values."""
    references = {cell.pair: cell.trials for cell in family if cell.algorithm == baseline}
    cells = [_compared(cell, references.get(cell.pair, {}), baseline) for cell in family]
    tested = {i: cell.comparison.p for i, cell in enumerate(cells) if cell.comparison is not None}
    p_values = {i: p for i, p in tested.items() if p is not None}
    for i, p in zip(p_values, holm(list(p_values.values())), strict=True):
        cells[i] = replace(cells[i], family=len(p_values), holm_p=p)
    return cells


def _compared(cell: AlignmentCell, reference: Trials, baseline: str) -> AlignmentCell:
    shared = [trial for trial in cell.trials if trial in reference]
    if cell.algorithm == baseline or cell.pair.startswith("within") or not shared:
        return cell
    pairs = [cell.trials[trial] for trial in shared], [reference[trial] for trial in shared]
    return replace(cell, comparison=compare(*pairs, 0.0))
