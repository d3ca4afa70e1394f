"""Learning curves: accuracies over the updates, as mean and standard error over trials."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from domainbed.records.jsonl import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Measure = Callable[[Record], float | None]

_OUT_ACC = re.compile(r"env(\d+)_out_acc")


@dataclass(frozen=True)
class Curve:
    """A measure over training.

    Attributes:
        steps: (S,) ascending.
        means: (S,) over trials, of the means over the runs of each.
        errors: (S,) standard errors over trials (ddof=0).
    """

    steps: NDArray[np.int64]
    means: Floats
    errors: Floats


def curve(runs: Iterable[tuple[int, Iterable[Record]]], measure: Measure) -> Curve | None:
    """The curve of `measure` over (trial, records) of runs; None where no record has it.

    Steps that fewer than half of the runs have are left out, as those of a run that was trained for longer.
    """
    found: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    counts: dict[int, int] = defaultdict(int)
    for trial, records in runs:
        own = {record["step"]: value for record in records if (value := measure(record)) is not None}
        for step, value in own.items():
            found[step][trial].append(value)
            counts[step] += 1
    most = max(counts.values(), default=0)
    steps = sorted(step for step, number in counts.items() if 2 * number >= most)
    if not steps:
        return None
    of_trials = [np.array([np.mean(values) for values in found[step].values()]) for step in steps]
    errors = [trials.std() / np.sqrt(len(trials)) for trials in of_trials]
    return Curve(np.array(steps), np.array([trials.mean() for trials in of_trials]), np.array(errors))


def source_validation(record: Record) -> float | None:
    """Mean accuracy on the out-splits of the sources, in %."""
    found = [
        record[key]
        for key in record
        if (match := _OUT_ACC.fullmatch(key)) and int(match[1]) not in record["args"]["test_envs"]
    ]
    return 100 * float(np.mean(found)) if found else None


def target_accuracy(record: Record) -> float | None:
    """Mean accuracy on the targets, in %: on their test splits where there are some, else their in-splits."""
    targets: Sequence[int] = record["args"]["test_envs"]
    found = [record.get(f"env{i}_test_acc", record.get(f"env{i}_in_acc")) for i in targets]
    values = [value for value in found if value is not None]
    return 100 * float(np.mean(values)) if values and len(values) == len(found) else None


def logged(name: str) -> Measure:
    """The number that `update` logs as `name`."""
    return lambda record: record.get(name)


def draw_curve(axis: Axes, it: Curve, label: str, colour: str, dashes: str, marker: str) -> None:
    """Draw the means with a mark at every eighth of the steps, and a band of one error to each side."""
    axis.plot(
        it.steps,
        it.means,
        color=colour,
        linestyle=dashes,
        linewidth=1.6,
        marker=marker,
        markersize=4,
        markevery=max(1, len(it.steps) // 8),
        label=label,
    )
    axis.fill_between(it.steps, it.means - it.errors, it.means + it.errors, color=colour, alpha=0.25, lw=0)
