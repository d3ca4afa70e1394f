"""The frame of a paired comparison: one typed row for each cell, which every format renders."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from domainbed.metrics import Metric
from domainbed_gs.report.cells import Cell, Comparison, Interval, PairedReport
from domainbed_gs.report.verdicts import verdict_text


@dataclass(frozen=True, kw_only=True)
class Row:
    """A cell in numbers: accuracies in %, differences in percentage points. None where a number is missing.

    Those of another metric are in its unit; the CSV then names them without percent and points. The fields
    are the columns of the CSV, in order, but for `verdict_text` and `measure`. Unbounded ends of intervals
    are infinite.

    Attributes:
        dataset: name of the dataset.
        target_env: index of the target environment; None for the average over targets.
        target: name of the environment, or "Average".
        algorithm: name of the method.
        baseline: name of the baseline.
        selection: name of the selection method.
        trials: number of trials of the method.
        mean_percent: mean accuracy over them.
        std_percent: standard deviation (ddof=1) over them.
        pairs: number of trials shared with the baseline; None for the baseline. What follows needs one.
        difference_points: mean difference over the pairs.
        low_points: lower end of the exact 95 % interval of the shift.
        high_points: its upper end.
        p: exact signed-rank p-value.
        holm_p: p-value with Holm's correction in the family; None without correction.
        wins: number of pairs in which the method is better.
        ties: number of pairs that are equal.
        losses: number of pairs in which it is worse.
        significant: whether the (corrected) p-value is below 0.05.
        shift_points: Hodges-Lehmann estimate of the shift.
        low_simultaneous: lower end of the interval at the level 1 - 0.05 / family, in points.
        high_simultaneous: its upper end.
        probability_better: probability that the method is better in a trial: wins and half the ties.
        verdict: "better", "worse", "equivalent" or "undecided".
        smallest_detectable_points: smallest difference that is found with a probability of 80 %.
        splits: "own", "shared", "repeated" or "unknown": whether trials share a split.
        metric: what is compared, with unit and direction.
        mean_p: p-value of the permutation test of the mean.
        equivalence_p: p-value of two one-sided signed-rank tests within the rope.
        probability_low: lower end of the 95 % interval of `probability_better`.
        probability_high: its upper end.
        family: "primary" or "secondary".
        target_part: "test" if accuracies are on the part that the selection method tests on, "all" if on all
            images of the target.
        verdict_text: the verdict with its remarks.
        measure: what is compared.
    """

    dataset: str
    target_env: int | None
    target: str
    algorithm: str
    baseline: str
    selection: str
    trials: int
    mean_percent: float | None
    std_percent: float | None
    pairs: int | None
    difference_points: float | None
    low_points: float | None
    high_points: float | None
    p: float | None
    holm_p: float | None
    wins: int | None
    ties: int | None
    losses: int | None
    significant: bool | None
    shift_points: float | None
    low_simultaneous: float | None
    high_simultaneous: float | None
    probability_better: float | None
    verdict: str | None
    smallest_detectable_points: float | None
    splits: str
    metric: str
    mean_p: float | None
    equivalence_p: float | None
    probability_low: float | None
    probability_high: float | None
    family: str | None
    target_part: str
    verdict_text: str
    measure: Metric

    def values(self) -> dict[str, Any]:
        """Column -> value, in the order of the CSV."""
        names = [field.name for field in dataclasses.fields(self)]
        values = {name: getattr(self, name) for name in names if name not in ("verdict_text", "measure")}
        if self.measure.unit != "%":
            values = {re.sub(r"_(percent|points)$", "", name): value for name, value in values.items()}
        return values

    def csv(self) -> dict[str, str]:
        """Column -> text at full precision; missing values and unbounded ends are empty."""
        return {name: _csv_text(value) for name, value in self.values().items()}


def frame(report: PairedReport, selection: str, target_part: str = "test") -> list[Row]:
    """The rows of `report`, in the order of its cells.

    Args:
        report: the comparison.
        selection: name of the selection method.
        target_part: "test" or "all", see `Row`.
    """
    return [_row(cell, report, selection, target_part) for cell in report.cells]


def _row(cell: Cell, report: PairedReport, selection: str, target_part: str) -> Row:
    comparison, scale = cell.comparison, report.metric.scale
    tested = comparison if comparison is not None and comparison.pairs else None
    low, high = _points(tested.interval if tested else None, scale)
    low_simultaneous, high_simultaneous = _points(tested.simultaneous if tested else None, scale)
    probability_low, probability_high = (tested.probability_interval if tested else None) or (None, None)
    return Row(
        dataset=cell.dataset,
        target_env=cell.target,
        target=cell.target_name,
        algorithm=cell.algorithm,
        baseline=report.baseline,
        selection=selection,
        trials=len(cell.trials),
        mean_percent=_scaled(cell.mean, scale),
        std_percent=_scaled(cell.std, scale),
        pairs=comparison.pairs if comparison else None,
        difference_points=_scaled(tested.difference, scale) if tested else None,
        low_points=low,
        high_points=high,
        p=tested.p if tested else None,
        holm_p=None if report.correction == "none" else cell.holm_p,
        wins=tested.wins if tested else None,
        ties=tested.ties if tested else None,
        losses=tested.losses if tested else None,
        significant=cell.significant if tested else None,
        shift_points=_scaled(tested.shift, scale) if tested else None,
        low_simultaneous=low_simultaneous,
        high_simultaneous=high_simultaneous,
        probability_better=tested.probability_better if tested else None,
        verdict=cell.verdict.value if cell.verdict else None,
        smallest_detectable_points=_scaled(cell.smallest_detectable, scale),
        splits=report.splits,
        metric=report.metric.described,
        mean_p=tested.mean_p if tested else None,
        equivalence_p=tested.equivalence_p if tested else None,
        probability_low=probability_low,
        probability_high=probability_high,
        family=_family(cell, comparison),
        target_part=target_part,
        verdict_text=verdict_text(cell),
        measure=report.metric,
    )


def _family(cell: Cell, comparison: Comparison | None) -> str | None:
    if comparison is None:
        return None
    return "primary" if cell.primary else "secondary"


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else scale * value


def _points(interval: Interval | None, scale: float) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (scale * interval[0], scale * interval[1])


def _csv_text(value: object) -> str:
    unbounded = isinstance(value, float) and math.isinf(value)
    return "" if value is None or unbounded else str(value)
