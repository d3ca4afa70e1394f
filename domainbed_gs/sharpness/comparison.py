"""Comparison of methods by the sharpness of their models, paired over trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

from domainbed_gs.sharpness.settings import POOLED, QUANTITIES, SOURCE, TARGET
from domainbed_gs.studies.comparison import (
    MethodCell,
    Trials,
    compared_methods,
    grouped,
    rows_of_methods,
    trial_means,
)
from domainbed_gs.trained_models.table import Row

GROUPS = {
    "pooled": "the pooled loss of the sources",
    "sources": "mean over the source environments",
    "sharpest source": "the source environment with the largest value",
    "targets": "mean over the target environments",
}
"""What a model's sharpness is read from, with its meaning."""

REPEATED = (("loss", "sources"), ("trace", "sources"))
"""Left out: the mean of the sources' losses and traces is that of their mean loss."""

RATIO = "ratio"
"""Instead of a quantity: the sharpest source's value / the pooled loss's, large in fake flat minima."""

RATIOS = ("one_step_rise", "worst_rise", "eigenvalue")
"""Quantities with a ratio; a trace is a sum of positive and negative eigenvalues."""


def compare_methods(rows: Sequence[Row], baseline: str) -> list[MethodCell]:
    """A cell for each dataset, part, quantity, group and method; the baseline is first among the methods.

    The tables are about dataset, part and quantity; `studies.comparison` has trials and tests. The labels of
    the last one, which is about `RATIO`, are quantities.

    Args:
        rows: rows of the table sharpness.csv.
        baseline: name of a method; if no model has it, nothing is compared.
    """
    cells: list[MethodCell] = []
    for (dataset, part), own in grouped(rows, ("dataset", "part")).items():
        methods = rows_of_methods(own, baseline)
        for quantity in QUANTITIES:
            values = {
                group: _reader(quantity, group) for group in GROUPS if (quantity, group) not in REPEATED
            }
            cells += compared_methods((dataset, part, quantity), methods, values, baseline)
        ratios = {name: partial(trial_means, value=partial(_ratio, quantity=name)) for name in RATIOS}
        cells += compared_methods((dataset, part, RATIO), methods, ratios, baseline)
    return cells


def _reader(quantity: str, group: str) -> Callable[[Sequence[Row]], Trials]:
    return partial(trial_means, value=partial(_value, quantity=quantity, group=group))


def _value(rows: Sequence[Row], quantity: str, group: str) -> float | None:
    """The value of one model; None if it has no environment of the group."""
    role = {"pooled": POOLED, "targets": TARGET}.get(group, SOURCE)
    values: list[float] = [row[quantity] for row in rows if row["role"] == role]
    if not values:
        return None
    return max(values) if group == "sharpest source" else fmean(values)


def _ratio(rows: Sequence[Row], quantity: str) -> float | None:
    """The sharpest source's value divided by the pooled loss's; None if that is not positive."""
    sharpest, pooled = (_value(rows, quantity, group) for group in ("sharpest source", "pooled"))
    return sharpest / pooled if sharpest is not None and pooled is not None and pooled > 0 else None
