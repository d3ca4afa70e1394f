"""Confusion matrices of a sweep: one for each method and target, averaged over trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbed.errors import DomainBedError
from domainbed.model_selection import SelectionMethod
from domainbed.predictions import confusion_matrix
from domainbed.results.hparam_search import Candidate
from domainbed.results.saved_predictions import reported_predictions


@dataclass(frozen=True)
class ConfusionMatrix:
    """The mean confusion matrix of one method on one target.

    Attributes:
        dataset: name of the dataset.
        algorithm: name of the method.
        target: number of the target.
        classes: names of the C classes.
        shares: (C, C) share of the samples of a class (row) that a model takes for a class (column), averaged
            over the trials in which the class has samples; NaN if it has none.
        trials: number of trials.
        missing: why a trial's predictions cannot be read -> number of such trials.
    """

    dataset: str
    algorithm: str
    target: int
    classes: list[str]
    shares: NDArray[np.float64]
    trials: int
    missing: dict[str, int] = field(default_factory=dict)

    def confusions(self) -> list[tuple[str, str, float]]:
        """(label, predicted class, share) of all pairs of different classes, the most frequent first."""
        shares = np.nan_to_num(self.shares * (1 - np.eye(len(self.classes))))
        order = np.argsort(-shares, axis=None, kind="stable")
        pairs = [divmod(int(place), len(self.classes)) for place in order if shares.flat[place] > 0]
        return [(self.classes[i], self.classes[j], float(shares[i, j])) for i, j in pairs]


def confusion_matrices(
    sweep: Path, groups: Sequence[Sequence[Candidate]], method: type[SelectionMethod]
) -> list[ConfusionMatrix]:
    """The confusion matrices on the part of each target that `method` reports, at the selected steps.

    Args:
        sweep: the sweep directory.
        groups: the candidates of each trial, method and target, the selected one first.
        method: the selection method.

    Returns: one for each method and target of which at least one trial saved predictions.
    """
    cells: dict[tuple[str, str, int], list[Candidate]] = {}
    for best, *_ in groups:
        cells.setdefault((best.dataset, best.algorithm, best.target), []).append(best)
    made = (_mean_matrix(sweep, cell, trials, method) for cell, trials in cells.items())
    return [matrix for matrix in made if matrix is not None]


def _mean_matrix(
    sweep: Path, cell: tuple[str, str, int], trials: Sequence[Candidate], method: type[SelectionMethod]
) -> ConfusionMatrix | None:
    shares, missing, names = [], dict[str, int](), list[str]()
    for candidate in trials:
        try:
            part, names = reported_predictions(sweep, candidate, method)
            counts = confusion_matrix(part)
        except DomainBedError as error:
            missing[str(error)] = missing.get(str(error), 0) + 1
            continue
        with np.errstate(invalid="ignore"):
            shares.append(counts / counts.sum(1, keepdims=True))
    if not shares:
        return None
    known = np.isfinite(shares).sum(0)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(shares, axis=0) / known
    return ConfusionMatrix(*cell, names, mean, len(shares), missing)
