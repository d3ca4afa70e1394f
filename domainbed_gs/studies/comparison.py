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

ByTarget = Mapping[str, Trials]
"""Targets that a run held out -> the values of its trials."""

ModelNumber = tuple[str, str, float]
"""Targets that a run held out, its trial seed, and the value of its model; NaN if that has none."""

ModelValue = Callable[[Sequence[Row]], float | None]
"""Reads a value of one model from its rows: NaN if it has no number, None if it has no such thing."""


@dataclass(frozen=True)
class MethodCell:
    """A method in one row of a table.

    Attributes:
        table: what the table is about, such as dataset, part and quantity; its tests are one family.
        label: what the row is about, such as a loss or a kind of pairs.
        algorithm: name of the method.
        trials: the method's values.
        models: number of the method's models.
        missing: how many of them have no value, and are left out.
        comparison: with the baseline on the trials and targets that both have, in multiples of `unit`; None
            for the baseline, and for a label without tests.
        unit: a power of two, at least as large as the compared values.
        left_out: targets that are not compared, because the method or the baseline lacks them.
        family: number of tests that are corrected together; 0 without a test.
        holm_p: p-value with Holm's correction; None without a test.
    """

    table: tuple[str, ...]
    label: str
    algorithm: str
    trials: Trials
    models: int = 0
    missing: int = 0
    comparison: Comparison | None = None
    unit: float = 1.0
    left_out: tuple[str, ...] = ()
    family: int = 0
    holm_p: float | None = None

    @property
    def mean(self) -> float:
        """Mean over the trials; NaN without trials."""
        return fmean(self.trials.values()) if self.trials else math.nan

    @property
    def std(self) -> float:
        """Standard deviation over the trials (ddof=1); NaN for fewer than two."""
        return stdev(self.trials.values()) if len(self.trials) > 1 else math.nan

    @property
    def difference(self) -> float:
        """Mean of the method minus mean of the baseline on the compared trials; NaN without any."""
        return math.nan if self.comparison is None else self.comparison.difference * self.unit

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the shift; None without one."""
        if self.comparison is None or self.comparison.interval is None:
            return None
        # An end that is next to 0 says on which side of it the interval ends.
        low, high = (0.0 if abs(end) <= math.ulp(0.0) else end for end in self.comparison.interval)
        return low * self.unit, high * self.unit

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
    values: Mapping[str, ModelValue],
    baseline: str,
    untested: Container[str] = (),
) -> list[MethodCell]:
    """The cells of one table: for each label, those of the methods whose models have such a thing.

    Tests are exact signed-rank tests, as for accuracies, and one family of Holm's correction.

    Args:
        table: what the table is about.
        methods: method -> its rows.
        values: label -> function that reads the value of a model.
        baseline: name of a method; if it is not among them, nothing is compared.
        untested: labels for which no method is compared.
    """
    cells = []
    for label, value in values.items():
        found = {name: model_values(rows, value) for name, rows in methods.items()}
        own = {name: by_target(models) for name, models in found.items() if models}
        reference = None if label in untested else own.get(baseline)
        for name, targets in own.items():
            missing = sum(math.isnan(number) for *_, number in found[name])
            cell = MethodCell(table, label, name, over_targets(targets), len(found[name]), missing)
            cells.append(
                cell if reference is None or name == baseline else _compared(cell, targets, reference)
            )
    return _corrected(cells)


def _compared(cell: MethodCell, targets: ByTarget, reference: ByTarget) -> MethodCell:
    """The cell with the comparison on the targets and trials that the method and the baseline have."""
    own, other = (
        over_targets({name: of[name] for name in of if name in targets and name in reference})
        for of in (targets, reference)
    )
    shared = [trial for trial in own if trial in other]
    # `compare` rounds to a number of decimals that suits accuracies.
    largest = max((abs(of[trial]) for trial in shared for of in (own, other)), default=1.0)
    unit = 2.0 ** math.frexp(largest)[1]
    method, baseline = ([of[trial] / unit for trial in shared] for of in (own, other))
    left_out = tuple(name for name in {**targets, **reference} if not (name in targets and name in reference))
    return replace(cell, comparison=compare(method, baseline, 0.0), unit=unit, left_out=left_out)


def _corrected(cells: Sequence[MethodCell]) -> list[MethodCell]:
    """The cells with p-values that are corrected for all tests among them."""
    found = list(cells)
    comparisons = {i: cell.comparison for i, cell in enumerate(cells) if cell.comparison is not None}
    p_values = {i: each.p for i, each in comparisons.items() if each.p is not None}
    for i, p in zip(p_values, holm(list(p_values.values())), strict=True):
        found[i] = replace(found[i], family=len(p_values), holm_p=p)
    return found


def model_values(rows: Sequence[Row], value: ModelValue) -> list[ModelNumber]:
    """The value of each model in `rows`, NaN if it is not finite, without those that have no such thing."""
    found = []
    for (targets, trial, _), model in grouped(rows, ("targets", "trial_seed", "run")).items():
        number = value(model)
        if number is not None:
            found.append((targets, trial, number if math.isfinite(number) else math.nan))
    return found


def by_target(models: Sequence[ModelNumber]) -> ByTarget:
    """The values of a method's trials. Several models of one trial and target are averaged."""
    found: dict[str, dict[str, list[float]]] = {}
    for targets, trial, number in models:
        trials = found.setdefault(targets, {})
        if not math.isnan(number):
            trials.setdefault(trial, []).append(number)
    return {
        targets: {trial: fmean(numbers) for trial, numbers in trials.items()}
        for targets, trials in found.items()
    }


def over_targets(trials: ByTarget) -> dict[str, float]:
    """Trial seed -> mean over the targets. A trial counts if it has a value for all of them."""
    if not trials:
        return {}
    shared = set.intersection(*(set(own) for own in trials.values()))
    return {trial: fmean(own[trial] for own in trials.values()) for trial in sorted(shared, key=int)}


def grouped(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Rows by their values of the columns `names`, in order of appearance."""
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(str(row[name]) for name in names)].append(row)
    return dict(found)
