"""Ranks of algorithms over several datasets, and which pairs of algorithms differ.

After Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006). Pairs are
compared by signed-rank tests rather than by average ranks, which depend on the other algorithms (Benavoli,
Corani and Mangili, "Should we really use post-hoc tests based on mean-ranks?", JMLR 17, 2016).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from domainbed.errors import UsageError
from domainbed.metrics import ACCURACY, Metric
from domainbed.results.accuracies import Accuracies
from domainbed_gs.report.friedman import (
    FriedmanTest,
    critical_difference,
    datasets_for_nemenyi,
    friedman,
    nemenyi_p,
)
from domainbed_gs.report.shared_cells import shared_cells
from domainbed_gs.report.signed_rank import DECIMALS, Floats, signed_rank_p
from domainbed_gs.report.statistics import ALPHA, holm, pairs_needed

MIN_DATASETS = 2
MIN_ALGORITHMS = 3
"""Smallest numbers for which ranks can be tested."""

SIGNED_RANK, NEMENYI = RANK_TESTS = ("signed_rank", "nemenyi")
"""Tests of pairs of algorithms; the first is the default."""


@dataclass(frozen=True)
class RankedPair:
    """Two algorithms on N datasets.

    Attributes:
        better: the algorithm with the lower average rank.
        worse: the other one.
        difference: mean over datasets of the accuracy of `better` minus that of `worse`, a fraction.
            Where smaller is better, that of `worse` minus that of `better`.
        rank_difference: average rank of `worse` minus that of `better`, at least 0.
        wins: number of datasets on which `better` has the higher accuracy.
        ties: number of datasets on which both have the same.
        losses: number of datasets on which `worse` has the higher accuracy.
        p: p-value of the signed-rank test over datasets; None in Nemenyi's test.
        corrected_p: p-value corrected for all pairs.
    """

    better: str
    worse: str
    difference: float
    rank_difference: float
    wins: int
    ties: int
    losses: int
    p: float | None
    corrected_p: float

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below `ALPHA`."""
        return self.corrected_p < ALPHA


@dataclass(frozen=True)
class Ranking:
    """Ranks of k algorithms on N datasets; rank 1 is the best.

    Attributes:
        datasets: names of the N datasets.
        ranks: algorithm -> its rank on each dataset, best average first. Ties share their mean rank.
        friedman: Friedman's test of all algorithms.
        rank_test: the test of pairs, one of `RANK_TESTS`.
        pairs: all pairs of algorithms, in the order of their average ranks.
        remarks: sentences on algorithms and cells that do not count.
        metric: what the algorithms are ranked by.
        over_targets: how results on several targets become one, one of `OVER_TARGETS`.
    """

    datasets: list[str]
    ranks: dict[str, list[float]]
    friedman: FriedmanTest
    rank_test: str
    pairs: tuple[RankedPair, ...]
    remarks: list[str]
    metric: Metric = ACCURACY
    over_targets: str = "mean"

    @property
    def averages(self) -> dict[str, float]:
        """Algorithm -> average rank over the datasets, between 1 and k; best first."""
        return {name: float(np.mean(ranks)) for name, ranks in self.ranks.items()}

    @property
    def critical_difference(self) -> float | None:
        """Nemenyi's critical difference of two average ranks; None in the signed-rank test."""
        if self.rank_test != NEMENYI:
            return None
        return critical_difference(len(self.ranks), len(self.datasets))

    @property
    def datasets_needed(self) -> int:
        """Smallest number of datasets on which any two of so many algorithms can differ significantly."""
        algorithms = len(self.ranks)
        if self.rank_test == NEMENYI:
            return datasets_for_nemenyi(algorithms)
        return pairs_needed(algorithms * (algorithms - 1) // 2)

    def cliques(self) -> list[list[str]]:
        """Maximal groups of two or more algorithms of which no two differ significantly, best first."""
        order = list(self.ranks)
        close: dict[str, set[str]] = {name: set() for name in order}
        for pair in self.pairs:
            if not pair.significant:
                close[pair.better].add(pair.worse)
                close[pair.worse].add(pair.better)
        groups = [sorted(group, key=order.index) for group in _maximal(set(), set(order), set(), close)]
        return sorted((group for group in groups if len(group) > 1), key=lambda group: _places(group, order))


def rank(accuracies: Accuracies, rank_test: str = SIGNED_RANK, seed: int = 0) -> Ranking:
    """Rank the algorithms by their mean accuracy on each dataset, over the cells that all of them share.

    The accuracy on a dataset is the mean over trials of the mean over targets.

    Args:
        accuracies: results of `domainbed.results.accuracies.compute_accuracies`.
        rank_test: test of pairs, one of `RANK_TESTS`.
        seed: seed of the random permutations in Friedman's test.

    Raises: UsageError with fewer than two datasets or three algorithms.
    """
    shared = shared_cells(accuracies)
    if len(shared.datasets) < MIN_DATASETS or len(shared.algorithms) < MIN_ALGORITHMS:
        raise UsageError(
            f"ranks need at least {MIN_DATASETS} datasets, and at least {MIN_ALGORITHMS} algorithms with "
            f"results on all of them; found {len(shared.datasets)} and {len(shared.algorithms)}"
        )
    ranking = rank_table(
        accuracies.metric.sign * shared.dataset_means(),
        datasets=shared.datasets,
        algorithms=shared.algorithms,
        remarks=shared.remarks,
        rank_test=rank_test,
        seed=seed,
    )
    return replace(ranking, metric=accuracies.metric, over_targets=accuracies.over_targets)


def rank_table(
    accuracies: Floats,
    *,
    datasets: list[str],
    algorithms: Sequence[str],
    remarks: list[str],
    rank_test: str = SIGNED_RANK,
    seed: int = 0,
) -> Ranking:
    """Ranking of `accuracies` (N, k), a row for each dataset and a column for each algorithm.

    The largest number gets rank 1.
    """
    from scipy.stats import rankdata

    # Means of the same trials in another order may differ in the last bits; they are tied.
    rounded = accuracies.round(DECIMALS)
    ranks = rankdata(-rounded, axis=1)
    order = np.argsort(ranks.mean(axis=0), kind="stable")
    names = [algorithms[i] for i in order]
    return Ranking(
        datasets=datasets,
        ranks=dict(zip(names, ranks.T[order].tolist(), strict=True)),
        friedman=friedman(ranks, seed),
        rank_test=rank_test,
        pairs=_compare_pairs(names, rounded[:, order], ranks[:, order], rank_test),
        remarks=remarks,
    )


def _compare_pairs(
    names: Sequence[str], accuracies: Floats, ranks: Floats, rank_test: str
) -> tuple[RankedPair, ...]:
    """All pairs of the algorithms `names`, the columns of `accuracies` and `ranks` (N, k), best first."""
    datasets, algorithms = ranks.shape
    averages = ranks.mean(axis=0)
    pairs = []
    for i, j in itertools.combinations(range(algorithms), 2):
        differences = (accuracies[:, i] - accuracies[:, j]).round(DECIMALS)
        rank_difference = float(averages[j] - averages[i])
        p = signed_rank_p(differences) if rank_test == SIGNED_RANK else None
        pair = RankedPair(
            better=names[i],
            worse=names[j],
            difference=float(differences.mean()),
            rank_difference=rank_difference,
            wins=int((differences > 0).sum()),
            ties=int((differences == 0).sum()),
            losses=int((differences < 0).sum()),
            p=p,
            corrected_p=nemenyi_p(rank_difference, algorithms, datasets) if p is None else p,
        )
        pairs.append(pair)
    if rank_test == SIGNED_RANK:
        corrected = holm([pair.corrected_p for pair in pairs])
        pairs = [replace(pair, corrected_p=p) for pair, p in zip(pairs, corrected, strict=True)]
    return tuple(pairs)


def _maximal(
    group: set[str], candidates: set[str], excluded: set[str], close: dict[str, set[str]]
) -> Iterator[set[str]]:
    """Maximal cliques that contain `group` (Bron and Kerbosch 1973, algorithm 457, with pivoting)."""
    if not candidates and not excluded:
        yield group
        return
    pivot = max(sorted(candidates | excluded), key=lambda name: len(close[name] & candidates))
    for name in sorted(candidates - close[pivot]):
        yield from _maximal(group | {name}, candidates & close[name], excluded & close[name], close)
        candidates = candidates - {name}
        excluded = excluded | {name}


def _places(group: Sequence[str], order: Sequence[str]) -> list[int]:
    return [order.index(name) for name in group]
