"""Algorithms over several datasets: average ranks, Friedman's test, Nemenyi's critical difference.

After Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainbed.errors import UsageError
from domainbed.results.accuracies import Accuracies
from domainbed_gs.report.statistics import ALPHA

DATASETS = 2
ALGORITHMS = 3
"""The least with which ranks can be tested."""


@dataclass(frozen=True)
class Ranking:
    """k algorithms on N datasets; the best has the smallest rank.

    Attributes:
        datasets: the N datasets.
        ranks: algorithm -> its rank on each of them, ties sharing their mean rank; best average first.
        left_out: algorithms without a result on some dataset.
        statistic: Friedman's, corrected for ties.
        p: of Friedman's test, by the chi-squared distribution with k - 1 degrees of freedom.
        critical_difference: of two average ranks, by Nemenyi's test at the level `ALPHA`.
    """

    datasets: list[str]
    ranks: dict[str, list[float]]
    left_out: list[str]
    statistic: float
    p: float
    critical_difference: float

    def average(self, algorithm: str) -> float:
        """Average rank over the datasets, from 1 to k."""
        return float(np.mean(self.ranks[algorithm]))

    def cliques(self) -> list[list[str]]:
        """The largest groups of neighbours in which no two differ by the critical difference or more."""
        names = list(self.ranks)
        groups: list[list[str]] = []
        for start in range(len(names)):
            low = self.average(names[start])
            group = [it for it in names[start:] if self.average(it) - low < self.critical_difference]
            if len(group) > 1 and not (groups and {*group} <= {*groups[-1]}):
                groups.append(group)
        return groups


def rank(accuracies: Accuracies) -> Ranking:
    """Rank the algorithms by their mean accuracy on each dataset.

    An accuracy is the mean over trials of the mean over targets, as in the table of averages. Datasets
    without any result don't count.

    Raises: UsageError with fewer than two datasets, or three algorithms that have results on all of them.
    """
    means: dict[tuple[str, str], float] = {}
    for dataset in accuracies.datasets:
        for algorithm in accuracies.algorithms:
            trials = accuracies.averages(dataset.name, algorithm)
            if trials and not math.isnan(mean := float(np.mean(trials))):
                means[dataset.name, algorithm] = mean
    datasets = [it.name for it in accuracies.datasets if any(name == it.name for name, _ in means)]
    complete = [it for it in accuracies.algorithms if all((name, it) in means for name in datasets)]
    if len(datasets) < DATASETS or len(complete) < ALGORITHMS:
        raise UsageError(
            f"ranks need {DATASETS} datasets or more, and {ALGORITHMS} algorithms or more with results on "
            f"all of them; there are {len(datasets)} and {len(complete)}"
        )
    table = np.array([[means[dataset, algorithm] for algorithm in complete] for dataset in datasets])
    return _ranking(datasets, complete, table, [it for it in accuracies.algorithms if it not in complete])


def _ranking(datasets: list[str], names: Sequence[str], table: np.ndarray, left_out: list[str]) -> Ranking:
    """Of accuracies (N, k)."""
    from scipy.stats import friedmanchisquare, rankdata

    # Means of the same trials in another order may differ in the last bits: they are tied.
    ranks = rankdata(-table.round(12), axis=1)
    statistic, p = 0.0, 1.0
    if (ranks != ranks.mean()).any():
        statistic, p = map(float, friedmanchisquare(*ranks.T))
    order = np.argsort(ranks.mean(axis=0), kind="stable")
    by_name = {names[i]: ranks[:, i].tolist() for i in order}
    return Ranking(datasets, by_name, left_out, statistic, p, critical_difference(len(names), len(datasets)))


def critical_difference(algorithms: int, datasets: int) -> float:
    """Nemenyi's: q sqrt(k (k + 1) / (6 N)), q of the studentized range over sqrt(2) (Demsar 2006, 3.2.2)."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - ALPHA, algorithms, math.inf)) / math.sqrt(2)
    return q * math.sqrt(algorithms * (algorithms + 1) / (6 * datasets))
