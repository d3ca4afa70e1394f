"""Comparison of methods by the distances between environments, paired over trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean

from domainbed_gs.alignment.settings import PAIRS, QUANTITIES
from domainbed_gs.studies.comparison import (
    MethodCell,
    compared_methods,
    grouped,
    rows_of_methods,
    trial_means,
)
from domainbed_gs.trained_models.table import Row

WITHIN = tuple(pair for pair in PAIRS if pair.startswith("within"))
"""Kinds of pairs by which methods are not compared."""

NORMS = "norms"
"""Instead of a quantity: squared norms of the sources' vectors; the labels of this table are quantities."""

BEYOND_CHANCE = {f"{pair}, beyond chance": pair for pair in PAIRS if pair not in WITHIN}
"""Label of a row -> kind of pairs, whose distances are those of `beyond_chance`."""


def compare_methods(rows: Sequence[Row], baseline: str) -> list[MethodCell]:
    """A cell for each dataset, part, kind of parameters, quantity, kind of pairs, and method.

    The tables are about dataset, part, parameters and quantity, the last one of each kind of parameters about
    `NORMS`; `studies.comparison` has trials and tests.

    Args:
        rows: rows of alignment.csv.
        baseline: name of a method, which comes first; if no model has it, nothing is compared.
    """
    cells: list[MethodCell] = []
    for (dataset, part, parameters), own in grouped(rows, ("dataset", "part", "parameters")).items():
        methods = rows_of_methods(own, baseline)
        for quantity in QUANTITIES:
            table = dataset, part, parameters, quantity
            values = {pair: partial(trials_of, quantity=quantity, pair=pair) for pair in PAIRS}
            for label, pair in BEYOND_CHANCE.items():
                values[label] = partial(
                    trial_means, value=partial(beyond_chance, quantity=quantity, pair=pair)
                )
            cells += compared_methods(table, methods, values, baseline, WITHIN)
        norms = {name: partial(trial_means, value=partial(source_norm, quantity=name)) for name in QUANTITIES}
        cells += compared_methods((dataset, part, parameters, NORMS), methods, norms, baseline)
    return cells


def trials_of(rows: Iterable[Row], quantity: str, pair: str) -> dict[str, float]:
    """Distances of one method, from its rows of alignment.csv for one kind of parameters.

    A model's distance is the mean over its pairs of this kind.
    """
    column = f"{quantity}_distance"
    of_kind = [row for row in rows if row["pair"] == pair and not math.isnan(row[column])]
    return trial_means(of_kind, lambda model: fmean(row[column] for row in model))


def beyond_chance(rows: Sequence[Row], quantity: str, pair: str) -> float | None:
    """Mean distance of one model's pairs of a kind, without what the finite number of samples adds to it.

    Groups u of one environment and v of another have |u - v|^2 = |E u - E v|^2 + var(u) + var(v) on average,
    and two groups of one environment 2 var(u). Half the squared distances within both environments are
    subtracted, so that the estimate of |E u - E v|^2 has no bias, and can be below 0.

    Args:
        rows: rows of alignment.csv of one model, for one kind of parameters.
        quantity: name of a quantity.
        pair: kind of pairs, of two environments.

    Returns: the mean over the pairs; None if there is none with a number.
    """
    numbers = [row for row in rows if not math.isnan(row[f"{quantity}_distance"])]
    within = {row["first"]: _square(row, quantity) for row in numbers if row["pair"] in WITHIN}
    values = [
        (_square(row, quantity) - (within[row["first"]] + within[row["second"]]) / 2)
        / row[f"{quantity}_norms"]
        for row in numbers
        if row["pair"] == pair and row["first"] in within and row["second"] in within
    ]
    return fmean(values) if values else None


def source_norm(rows: Sequence[Row], quantity: str) -> float | None:
    """Mean squared norm of the vectors of one model's sources; None if there is none with a number."""
    norms = [row[f"{quantity}_norms"] / 2 for row in rows if row["pair"] == "within-source"]
    return None if not norms or math.isnan(mean := fmean(norms)) else mean


def _square(row: Row, quantity: str) -> float:
    """Mean squared distance of the groups of a pair."""
    distance: float = row[f"{quantity}_distance"] * row[f"{quantity}_norms"]
    return distance
