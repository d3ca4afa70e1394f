"""The average of several runs' predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainbed.predictions.agreement import shared_samples
from domainbed.predictions.content import PartPredictions


@dataclass(frozen=True)
class Ensemble:
    """The average of some runs' probabilities for M samples that all of them predicted.

    Attributes:
        identities: (M,) what identifies the samples in their environment.
        labels: (M,) int64.
        probabilities: (M, C) float64.
        predicted: (M,) int64, the most probable classes.
        members: accuracy of each run on these samples.
    """

    identities: NDArray[np.object_]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int64]
    members: list[float]

    @property
    def accuracy(self) -> float:
        """Share of samples that it classifies correctly."""
        return float((self.predicted == self.labels).mean())


def ensemble(runs: Sequence[Sequence[PartPredictions]]) -> Ensemble:
    """Average the predictions of some runs.

    The idea is that of EoA (Arpit et al. 2022, arXiv 2110.10832, section 3.2), whose members are averages of
    weights. Here probabilities are averaged.

    Args:
        runs: for each run, its predictions for disjoint parts of one environment.

    Raises: UsageError if the runs share no sample, disagree about labels, or did not save the probabilities
        of all classes.
    """
    for part in (part for parts in runs for part in parts):
        part.require_all_classes("the average of predictions")
    matched = shared_samples(runs)
    chosen = [part.at(rows) for part, rows in matched]
    probabilities = np.mean([_probabilities(part) for part in chosen], axis=0)
    return Ensemble(
        identities=chosen[0].identities.astype(object),
        labels=chosen[0].labels,
        probabilities=probabilities,
        predicted=probabilities.argmax(1),
        members=[float((part.predicted == part.labels).mean()) for part in chosen],
    )


def _probabilities(part: PartPredictions) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = np.exp(part.logits().astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    return probabilities
