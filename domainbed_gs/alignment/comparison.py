"""Comparison of methods by the distances between environments, paired over trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean

from domainbed_gs.alignment.settings import PAIRS, QUANTITIES
from domainbed_gs.studies.comparison import MethodCell, compared_methods, grouped, trial_means
from domainbed_gs.trained_models.table import Row

WITHIN = tuple(pair for pair in PAIRS if pair.startswith("within"))
"""Kinds of pairs by which methods are not compared."""


def compare_methods(rows: Sequence[Row], baseline: str) -> list[MethodCell]:
    """A cell for each dataset, part, kind of parameters, quantity, kind of pairs, and method.

    The tables are about dataset, part, parameters and quantity; `studies.comparison` has trials and tests.

    Args:
        rows: rows of alignment.csv.
        baseline: name of a method, which comes first; if no model has it, nothing is compared.
    """
    cells: list[MethodCell] = []
    for (dataset, part, parameters), own in grouped(rows, ("dataset", "part", "parameters")).items():
        of_method = {name: found for (name,), found in grouped(own, ("algorithm",)).items()}
        methods = {name: of_method[name] for name in sorted(of_method, key=lambda name: name != baseline)}
        for quantity in QUANTITIES:
            table = dataset, part, parameters, quantity
            values = {pair: partial(trials_of, quantity=quantity, pair=pair) for pair in PAIRS}
            cells += compared_methods(table, methods, values, baseline, WITHIN)
    return cells


def trials_of(rows: Iterable[Row], quantity: str, pair: str) -> dict[str, float]:
    """Distances of one method, from its rows of alignment.csv for one kind of parameters.

    A model's distance is the mean over its pairs of this kind.
    """
    column = f"{quantity}_distance"
    of_kind = [row for row in rows if row["pair"] == pair and not math.isnan(row[column])]
    return trial_means(of_kind, lambda model: fmean(row[column] for row in model))
