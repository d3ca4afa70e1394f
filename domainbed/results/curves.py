"""Learning curves: a quantity of the records over the updates, as mean and standard error over trials."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from domainbed.metrics import get_metric
from domainbed.records.results_file import Record
from domainbed.results.printing import FigureData

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Measure = Callable[[Record], float | None]
"""A quantity of one record; None if the record does not have it."""


@dataclass(frozen=True)
class LearningCurve:
    """A measure over training, at S steps.

    Attributes:
        steps: (S,) in ascending order.
        means: (S,) mean over trials of the mean over the runs of a trial.
        errors: (S,) standard error over trials (ddof=0).
    """

    steps: NDArray[np.int64]
    means: Floats
    errors: Floats


def learning_curve(
    runs: Iterable[tuple[Hashable, Iterable[Record]]], measure: Measure
) -> LearningCurve | None:
    """The learning curve of `measure`, or None if no record has it.

    Steps that fewer than half of the runs have are left out, such as those of one run that trained longer.

    Args:
        runs: (trial, records) of each run.
        measure: the quantity to average.
    """
    values: dict[int, dict[Hashable, list[float]]] = defaultdict(lambda: defaultdict(list))
    counts: dict[int, int] = defaultdict(int)
    for trial, records in runs:
        by_step = {record["step"]: value for record in records if (value := measure(record)) is not None}
        for step, value in by_step.items():
            values[step][trial].append(value)
            counts[step] += 1
    most = max(counts.values(), default=0)
    steps = sorted(step for step, count in counts.items() if 2 * count >= most)
    if not steps:
        return None
    trial_means = [np.array([np.mean(of_runs) for of_runs in values[step].values()]) for step in steps]
    with np.errstate(invalid="ignore"):  # infinities, whose error is NaN
        errors = np.array([means.std() / np.sqrt(len(means)) for means in trial_means])
    return LearningCurve(np.array(steps), np.array([means.mean() for means in trial_means]), errors)


def source_validation(name: str = "acc") -> Measure:
    """Mean of a metric on the out-splits of the source environments, in its unit.

    Args:
        name: name of the metric; see `get_metric`.
    """
    pattern, scale = re.compile(rf"env(\d+)_out_{name}"), get_metric(name).scale

    def measure(record: Record) -> float | None:
        values = [
            record[key]
            for key in record
            if (match := pattern.fullmatch(key)) and int(match[1]) not in record["args"]["test_envs"]
        ]
        return scale * float(np.mean(values)) if values else None

    return measure


def on_targets(name: str = "acc") -> Measure:
    """Mean of a metric on the targets, in its unit: on their test splits if they have any, else in-splits.

    Args:
        name: name of the metric; see `get_metric`.
    """
    scale = get_metric(name).scale

    def measure(record: Record) -> float | None:
        targets: Sequence[int] = record["args"]["test_envs"]
        values = [record.get(f"env{i}_test_{name}", record.get(f"env{i}_in_{name}")) for i in targets]
        known = [value for value in values if value is not None]
        return scale * float(np.mean(known)) if known and len(known) == len(values) else None

    return measure


def logged(name: str) -> Measure:
    """The value that `Algorithm.update` returns as `name`."""
    return lambda record: record.get(name)


def draw_curve(axis: Axes, curve: LearningCurve, label: str, color: str, dashes: str, marker: str) -> None:
    """Draw the means, with markers at every eighth of the steps, and a band of one standard error."""
    axis.plot(
        curve.steps,
        curve.means,
        color=color,
        linestyle=dashes,
        linewidth=1.6,
        marker=marker,
        markersize=4,
        markevery=max(1, len(curve.steps) // 8),
        label=label,
    )
    low, high = curve.means - curve.errors, curve.means + curve.errors
    axis.fill_between(curve.steps, low, high, color=color, alpha=0.25, lw=0)


def curve_data(
    curves: Iterable[tuple[list[str], LearningCurve]], labels: list[str], digits: int
) -> FigureData:
    """The numbers of curves as a table, a row for each step of each curve.

    Args:
        curves: (labels, curve) of each curve.
        labels: labels of the columns that tell the curves apart.
        digits: digits after the decimal point.
    """
    rows = [
        [*names, str(step), f"{mean:.{digits}f}", f"{error:.{digits}f}"]
        for names, curve in curves
        for step, mean, error in zip(curve.steps, curve.means, curve.errors, strict=True)
    ]
    return FigureData([*labels, "Step", "Mean", "Standard error"], rows)
