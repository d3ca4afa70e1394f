"""Comparison of methods by the sharpness of their models, paired over trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean

from domainbed_gs.sharpness.settings import POOLED, QUANTITIES, SOURCE, TARGET
from domainbed_gs.studies.comparison import (
    MethodCell,
    compared_methods,
    grouped,
    rows_of_methods,
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

LARGEST = "largest source"
"""Label of the source environment with the largest loss, where others have the sharpest one."""

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
                _label(quantity, group): partial(_value, quantity=quantity, group=group)
                for group in GROUPS
                if (quantity, group) not in REPEATED
            }
            cells += compared_methods((dataset, part, quantity), methods, values, baseline)
        ratios = {name: partial(_ratio, quantity=name) for name in RATIOS}
        cells += compared_methods((dataset, part, RATIO), methods, ratios, baseline)
    return cells


def _label(quantity: str, group: str) -> str:
    return LARGEST if (quantity, group) == ("loss", "sharpest source") else group


def _value(rows: Sequence[Row], quantity: str, group: str) -> float | None:
    """The value of one model; None if it has no environment of the group, NaN if one is not finite."""
    role = {"pooled": POOLED, "targets": TARGET}.get(group, SOURCE)
    values: list[float] = [row[quantity] for row in rows if row["role"] == role]
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return math.nan
    return max(values) if group == "sharpest source" else fmean(values)


def _ratio(rows: Sequence[Row], quantity: str) -> float | None:
    """The sharpest source's value divided by the pooled loss's; NaN if that is not positive."""
    sharpest, pooled = (_value(rows, quantity, group) for group in ("sharpest source", "pooled"))
    if sharpest is None or pooled is None:
        return None
    return sharpest / pooled if pooled > 0 else math.nan
