"""Two runs on the same samples: McNemar's test of their accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainbed.errors import UsageError
from domainbed.predictions.content import PartPredictions


@dataclass(frozen=True)
class McNemar:
    """McNemar's test (1947) of whether two classifiers are equally accurate, from n shared samples.

    It is about these two trained models, not about the methods: other trials of a method have other models.

    Attributes:
        samples: n.
        only_first: number of samples that only the first one classifies correctly.
        only_second: number of samples that only the second one classifies correctly.
        p: two-sided exact p-value: under equal accuracy, each of the samples on which exactly one is correct
            is equally likely to be either's (a binomial test). 1 without such samples.
    """

    samples: int
    only_first: int
    only_second: int
    p: float

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second on the shared samples."""
        return (self.only_first - self.only_second) / self.samples


def mcnemar(first: Sequence[PartPredictions], second: Sequence[PartPredictions]) -> McNemar:
    """McNemar's test between two runs, on the samples that both have predicted.

    Args:
        first: predictions of one run for parts of an environment; see `Predictions.environment`.
        second: those of another run for the same environment. Its split may be another one.

    Raises: UsageError if the runs share no sample, or disagree about a label, as on other data.
    """
    matched = shared_samples([first, second])
    one, other = ((part.predicted == part.labels)[rows] for part, rows in matched)
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    p = 1.0
    if only_first + only_second:
        from scipy.stats import binomtest

        p = float(binomtest(only_first, only_first + only_second).pvalue)
    return McNemar(len(one), only_first, only_second, p)


def shared_samples(
    runs: Sequence[Sequence[PartPredictions]],
) -> list[tuple[PartPredictions, NDArray[np.int64]]]:
    """The samples of an environment that all runs have predicted.

    Args:
        runs: for each run, its predictions for disjoint parts of the environment.

    Returns: for each run, all its predictions as one part, and the rows (M,) of the shared samples in it, in
        the order of the first run.

    Raises: UsageError as `mcnemar`.
    """
    joined = [join(parts) for parts in runs]
    rows = [{sample: row for row, sample in enumerate(part.identities.tolist())} for part in joined]
    shared = [sample for sample in rows[0] if all(sample in other for other in rows[1:])]
    if not shared:
        raise UsageError(
            f"the runs share no sample of environment {joined[0].environment}: they have other images, or "
            "other parts of them"
        )
    chosen = [np.array([of_run[sample] for sample in shared], dtype=np.int64) for of_run in rows]
    labels = [part.labels[own] for part, own in zip(joined, chosen, strict=True)]
    if any((each != labels[0]).any() for each in labels[1:]):
        raise UsageError(
            f"the runs disagree about labels of environment {joined[0].environment}: they were trained on "
            "other data"
        )
    return list(zip(joined, chosen, strict=True))


def join(parts: Sequence[PartPredictions]) -> PartPredictions:
    """Predictions for disjoint parts of one environment as one part; of the first part it has the name.

    Raises: UsageError if there is no part.
    """
    if not parts:
        raise UsageError(
            "the run saved no predictions for this environment (--evaluate reported saves fewer)"
        )
    first = parts[0]
    if len(parts) == 1:
        return first

    def all_of(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    return replace(
        first,
        labels=all_of("labels"),
        positions=all_of("positions"),
        images=None if first.images is None else all_of("images"),
        predicted=all_of("predicted"),
        log_probabilities=all_of("log_probabilities"),
        classes=None if first.classes is None else all_of("classes"),
    )
