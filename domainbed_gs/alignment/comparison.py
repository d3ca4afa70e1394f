"""Comparison of methods by the distances between environments, paired over trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean

from domainbed_gs.alignment.settings import PAIRS, QUANTITIES
from domainbed_gs.studies.comparison import MethodCell, compared_methods, grouped, rows_of_methods
from domainbed_gs.trained_models.table import Row

AnyRow = Mapping[str, float | str]
"""A row of a table, of trained models or of a run during training."""

WITHIN = tuple(pair for pair in PAIRS if pair.startswith("within"))
"""Kinds of pairs of an environment with itself."""

NORMS = "norms"
"""Instead of a quantity: squared norms of the sources' vectors; the labels of this table are quantities."""

BEYOND_CHANCE = {f"{pair}, beyond chance": pair for pair in PAIRS if pair not in WITHIN}
"""Label of a row -> kind of pairs, whose distances are those of `beyond_chance`."""

LEAST_SHARE = 0.1
"""Least share of the squared norms that chance may leave, for a distance beyond chance."""

MOST_ERROR = 0.5
"""Largest standard error of a distance of Hessians that counts."""


def compare_methods(rows: Sequence[Row], baseline: str) -> list[MethodCell]:
    """A cell for each dataset, part, kind of parameters, quantity, kind of pairs, and method.

    The tables are about dataset, part, parameters and quantity, the last one of each kind of parameters about
    `NORMS`; `studies.comparison` has trials and tests. Methods are compared by their distances beyond chance:
    the others are larger for a method whose gradients are noisier.

    Args:
        rows: rows of alignment.csv.
        baseline: name of a method, which comes first; if no model has it, nothing is compared.
    """
    cells: list[MethodCell] = []
    for (dataset, part, parameters), own in grouped(rows, ("dataset", "part", "parameters")).items():
        methods = rows_of_methods(own, baseline)
        measured = [name for name in QUANTITIES if name in own[0]["quantities"].split()]
        present = {row["pair"] for row in own}
        for quantity in measured:
            table = dataset, part, parameters, quantity
            values = {
                pair: partial(mean_distance, quantity=quantity, pair=pair)
                for pair in PAIRS
                if pair in present
            }
            for label, pair in BEYOND_CHANCE.items():
                if pair in present:
                    values[label] = partial(beyond_chance, quantity=quantity, pair=pair)
            cells += compared_methods(table, methods, values, baseline, PAIRS)
        norms = {name: partial(source_norm, quantity=name) for name in measured}
        cells += compared_methods((dataset, part, parameters, NORMS), methods, norms, baseline)
    return cells


def mean_distance(rows: Sequence[AnyRow], quantity: str, pair: str) -> float | None:
    """Mean distance of one model's pairs of a kind.

    Args:
        rows: rows of one model, for one kind of parameters.
        quantity: name of a quantity.
        pair: kind of pairs.

    Returns: None if there are no such pairs; NaN if one of them has no distance that `counts`.
    """
    own = [row for row in rows if row["pair"] == pair]
    if not own:
        return None
    if not all(counts(row, quantity) for row in own):
        return math.nan
    return fmean(float(row[f"{quantity}_distance"]) for row in own)


def counts(row: AnyRow, quantity: str) -> bool:
    """Whether a pair has a distance that is more than noise of random vectors."""
    is_noise = quantity == "hessian" and float(row["hessian_error"]) > MOST_ERROR
    return not is_noise and not math.isnan(float(row[f"{quantity}_distance"]))


def beyond_chance(rows: Sequence[AnyRow], quantity: str, pair: str) -> float | None:
    """Mean distance of one model's pairs of a kind that the vectors of all possible samples would have.

    Two groups u and u' of one environment, and v and v' of another, are independent. So without bias

        |u - v|^2 - (|u - u'|^2 + |v - v'|^2) / 2    estimates |E u - E v|^2, and
        u . u' + v . v'                              estimates |E u|^2 + |E v|^2,

    where |u - v|^2 is a mean over the pairs of groups. The distance of two environments is the first divided
    by the second. It can be below 0 by chance.

    Args:
        rows: rows of one model, for one kind of parameters.
        quantity: name of a quantity.
        pair: kind of pairs, of two environments.

    Returns: None if there are no such pairs; NaN if one of them or of their environments has no distance that
        `counts`, or the second estimate is less than `LEAST_SHARE` of |u|^2 + |v|^2.
    """
    within = {row["first"]: row for row in rows if row["pair"] in WITHIN}
    values = [
        _beyond_chance(row, within[row["first"]], within[row["second"]], quantity)
        for row in rows
        if row["pair"] == pair
    ]
    return fmean(values) if values else None


def _beyond_chance(row: AnyRow, first: AnyRow, second: AnyRow, quantity: str) -> float:
    """That of one pair of environments, `first` and `second` being the rows of each with itself."""
    if not all(counts(each, quantity) for each in (row, first, second)):
        return math.nan
    by_chance = (_square(first, quantity) + _square(second, quantity)) / 2
    norms = sum(float(each[f"{quantity}_norms"]) / 2 for each in (first, second))
    if norms - by_chance < LEAST_SHARE * norms:
        return math.nan
    return (_square(row, quantity) - by_chance) / (norms - by_chance)


def source_norm(rows: Sequence[Row], quantity: str) -> float | None:
    """Mean squared norm of the vectors of one model's sources; None if there are none."""
    norms = [row[f"{quantity}_norms"] / 2 for row in rows if row["pair"] == "within-source"]
    return fmean(norms) if norms else None


def _square(row: AnyRow, quantity: str) -> float:
    """Mean squared distance of the groups of a pair."""
    return float(row[f"{quantity}_distance"]) * float(row[f"{quantity}_norms"])
