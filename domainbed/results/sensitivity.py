"""How much results depend on hyper-parameters: rank correlations over the settings of a random search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainbed.hparams import Value
from domainbed.results.settings import Setting

LEAST = 4
"""Settings without which no correlation is given."""


@dataclass(frozen=True)
class Influence:
    """One hyper-parameter that varies.

    Attributes:
        name: of the hyper-parameter.
        points: its value, and the accuracies that selection maximises and reports, in each setting.
        best: its value in the setting with the best validation accuracy.
        validation: Spearman's rank correlation with the validation accuracy; None where there is none.
        target: likewise with the target accuracy.
    """

    name: str
    points: list[tuple[Value, float, float]]
    best: Value
    validation: float | None
    target: float | None


def influences(settings: Sequence[Setting]) -> list[Influence]:
    """Every hyper-parameter that varies over `settings`, the strongest in validation first."""
    usable = [it for it in settings if not math.isnan(it.val_acc)]
    if not usable:
        return []
    best = max(usable, key=lambda it: it.val_acc).hparams
    found = []
    for name in sorted(best):
        points = [(it.hparams[name], it.val_acc, it.test_acc) for it in usable if name in it.hparams]
        values, validation, target = map(list, zip(*points, strict=True))
        if len(points) == len(usable) and len(set(values)) > 1:
            correlations = (rank_correlation(values, validation), rank_correlation(values, target))
            found.append(Influence(name, points, best[name], *correlations))
    return sorted(found, key=lambda it: -abs(it.validation or 0.0))


def rank_correlation(values: Sequence[Value], accuracies: Sequence[float]) -> float | None:
    """Spearman's, in [-1, 1]; None for texts, too few settings, or accuracies that are all the same."""
    if any(isinstance(value, str) for value in values) or len(values) < LEAST or len(set(accuracies)) < 2:
        return None
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(np.array(values, dtype=np.float64)), rankdata(accuracies))[0, 1])
