"""Averages over the targets of a dataset: upstream's, and those over complete trials.

With `collect_results --over_targets worst`, the worst target of each trial instead of its average.
"""

from __future__ import annotations

from dataclasses import dataclass

from domainbed.metrics import ACCURACY, Metric
from domainbed.results.accuracies import Accuracies, ShownDataset
from domainbed.results.missing_cells import trials_text
from domainbed.results.tables import format_mean
from domainbed.results.trials import Trial


@dataclass(frozen=True)
class Average:
    """The accuracy of an algorithm on a dataset, averaged over targets in each trial.

    A trial is complete if it has a result on every target of the table, that is, on every target for which
    some algorithm has one.

    Attributes:
        dataset: the dataset.
        algorithm: name of the algorithm.
        complete: mean of each complete trial, by ascending trial, in [0, 1].
        upstream: mean of every trial over the targets that it has, as upstream averages.
        trials: number of trials that some algorithm has on the dataset.
        lacking: target -> the algorithm's trials that lack it.
        absent: targets of the dataset that are not in the table, since no algorithm has a result there.
        metric: what the numbers are.
    """

    dataset: ShownDataset
    algorithm: str
    complete: list[float]
    upstream: list[float]
    trials: int
    lacking: dict[int, list[Trial]]
    absent: list[int]
    metric: Metric = ACCURACY

    @property
    def has_empty_target(self) -> bool:
        """Whether the algorithm has no result on some target of the dataset."""
        seeds = len(self.upstream)
        return bool(self.absent) or any(len(lacking) == seeds for lacking in self.lacking.values())

    def missing(self) -> list[str]:
        """Names of the missing targets, with the trials that lack them unless no algorithm has the target."""
        names = self.dataset.targets
        found = [f"{names[target]} ({trials_text(seeds)})" for target, seeds in self.lacking.items()]
        return [names[target] for target in self.absent] + found

    def cell(self, latex: bool = False) -> str:
        """The mean over complete trials and, if other trials exist, how many they are; X without any."""
        _, _, text = format_mean(self.complete, latex, self.metric)
        counted = f" ({len(self.complete)} of {self.trials} trials)"
        return text + counted if 0 < len(self.complete) < self.trials else text

    def sentence(self) -> str:
        """What some trials lack, and the average over the complete ones."""
        _, _, mean = format_mean(self.complete, latex=False, metric=self.metric)
        lacking = ", ".join(self.missing()[len(self.absent) :])
        complete = f"{len(self.complete)} of {self.trials} trials complete: {mean}"
        return f"{self.algorithm} on {self.dataset.name} lacks {lacking}; {complete}"


def average_of(accuracies: Accuracies, dataset: ShownDataset, algorithm: str) -> Average:
    """The average of `algorithm` on `dataset`."""
    by_trial = accuracies.by_trial.get((dataset.name, algorithm), {})
    reported = accuracies.reported_targets(dataset.name)
    with_target = {
        target: accuracies.by_target.get((dataset.name, algorithm, target), {}).keys() for target in reported
    }
    lacking = {target: sorted(by_trial.keys() - seeds) for target, seeds in with_target.items()}
    means = {seed: accuracies.summary(by_trial[seed]) for seed in sorted(by_trial)}
    return Average(
        dataset=dataset,
        algorithm=algorithm,
        complete=[mean for seed, mean in means.items() if len(by_trial[seed]) == len(reported)],
        upstream=list(means.values()),
        trials=len(accuracies.trials_of(dataset.name)),
        lacking={target: seeds for target, seeds in lacking.items() if seeds},
        absent=[target for target in range(len(dataset.targets)) if target not in reported],
        metric=accuracies.metric,
    )
