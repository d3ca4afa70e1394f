"""Expected accuracy of a random hyper-parameter search by its budget, the number of settings that it tries.

After Dodge et al., "Show Your Work: Improved Reporting of Experimental Results", EMNLP 2019 (arXiv
1909.03004), section 3: if the settings that were tried have the distribution function F of validation
accuracies, the best of n draws has the distribution function F^n.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainbed.results.hparam_search import Candidate, Variant
from domainbed.results.trials import Trial

Floats = NDArray[np.float64]

FEWEST_SETTINGS = 2
"""Number of settings that make a search."""


@dataclass(frozen=True)
class BudgetPoint:
    """A search of n settings in each trial. Accuracies and standard deviations are fractions.

    Attributes:
        settings: n.
        validation: expected validation accuracy of the setting that is selected, mean over trials.
        target: expected accuracy that is reported for it, mean over trials.
        search: standard deviation of that accuracy between searches within a trial.
        trials: standard deviation between trials of its expected value (ddof=1); None with one trial.
    """

    settings: int
    validation: float
    target: float
    search: float
    trials: float | None


@dataclass(frozen=True)
class BudgetCurve:
    """An algorithm on a dataset, averaged over targets.

    Attributes:
        dataset: name of the dataset.
        algorithm: name of the algorithm.
        targets: indices of the targets, those that all algorithms with a search on the dataset have.
        left_out: indices of targets that some of these algorithms have.
        trials: number of trials that have all of these targets with two or more settings.
        points: budgets in ascending order, up to the smallest number of settings in a trial.
    """

    dataset: str
    algorithm: str
    targets: tuple[int, ...]
    left_out: tuple[int, ...]
    trials: int
    points: tuple[BudgetPoint, ...]


@dataclass(frozen=True)
class Search:
    """The settings that one trial tried on each of T targets.

    Attributes:
        validation: (T, B) validation accuracies of the B settings; NaN is never selected.
        target: (T, B) accuracies that are reported for them.
    """

    validation: Floats
    target: Floats

    @property
    def settings(self) -> int:
        """B."""
        return len(self.validation[0])

    def expected(self, accuracies: Floats, draws: int) -> float:
        """Expected mean over targets of `accuracies` (T, B) at the best of `draws` settings."""
        chosen = [
            best_of(row, draws) @ values for row, values in zip(self.validation, accuracies, strict=True)
        ]
        return float(np.mean(chosen))

    def variance(self, draws: int) -> float:
        """Variance between searches of the mean over targets of the reported accuracy.

        The targets share the settings that are drawn, and each selects its own.
        """
        pairs = list(zip(self.validation, self.target, strict=True))
        squares = sum(float(best_of(one, draws) @ values**2) for one, values in pairs)
        products = sum(
            float(values @ both_best_of(one, other, draws) @ other_values)
            for (one, values), (other, other_values) in itertools.combinations(pairs, 2)
        )
        mean_of_squares = (squares + 2 * products) / len(pairs) ** 2
        return max(0.0, mean_of_squares - self.expected(self.target, draws) ** 2)


def best_of(validation: Floats, draws: int) -> Floats:
    """(B,) probability that each of B settings is the best of `draws`, drawn with replacement.

    P(best <= v) = P(V <= v)^n (Dodge et al. 2019, section 3). Settings with equal validation accuracy
    are equally likely.
    """
    positions, counts = _positions(validation)
    at_most = np.concatenate([[0.0], np.cumsum(counts) / len(validation)])
    shares: Floats = (np.diff(at_most**draws) / counts)[positions]
    return shares


def both_best_of(one: Floats, other: Floats, draws: int) -> Floats:
    """(B, B) probability that setting i is the best of `draws` on one target and j on another.

    Both targets see the same draws: P(best <= v, other best <= w) = P(V <= v, W <= w)^n.
    """
    rows, row_counts = _positions(one)
    columns, column_counts = _positions(other)
    joint = np.zeros((len(row_counts) + 1, len(column_counts) + 1))
    np.add.at(joint, (rows + 1, columns + 1), 1 / len(one))
    at_most = joint.cumsum(axis=0).cumsum(axis=1)
    levels = np.diff(np.diff(at_most**draws, axis=0), axis=1) / np.outer(row_counts, column_counts)
    shares: Floats = levels[np.ix_(rows, columns)]
    return shares


def _positions(validation: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Position of each setting among the distinct accuracies, ascending, and the size of each group."""
    ordered = np.where(np.isnan(validation), -np.inf, validation)
    _, positions, counts = np.unique(ordered, return_inverse=True, return_counts=True)
    return positions, counts


def budget_curves(groups: Iterable[Sequence[Candidate]]) -> list[BudgetCurve]:
    """Curves of all algorithms that tried two or more settings, in the order of `groups`.

    Only trials count that have all targets of the dataset, and in them the settings that all targets share,
    so that algorithms are averaged over the same targets.

    Args:
        groups: the candidates of each trial, dataset, algorithm and target
            (`domainbed.results.hparam_search.ranked_candidates`).
    """
    found: dict[tuple[str, str], dict[Trial, dict[int, dict[Variant, Candidate]]]] = defaultdict(dict)
    for group in groups:
        if len(group) >= FEWEST_SETTINGS:
            first = group[0]
            targets = found[first.dataset, first.algorithm].setdefault(first.trial, {})
            targets[first.target] = {candidate.variant: candidate for candidate in group}
    curves = []
    for (dataset, algorithm), trials in found.items():
        known = [set().union(*others.values()) for (name, _), others in found.items() if name == dataset]
        shared = sorted(set.intersection(*known))
        searches = [search for of_trial in trials.values() if (search := _search(of_trial, shared))]
        if searches:
            curve = BudgetCurve(
                dataset=dataset,
                algorithm=algorithm,
                targets=tuple(shared),
                left_out=tuple(sorted(set().union(*known) - set(shared))),
                trials=len(searches),
                points=_points(searches),
            )
            curves.append(curve)
    return curves


def _search(candidates: dict[int, dict[Variant, Candidate]], targets: Sequence[int]) -> Search | None:
    """The search of one trial; None if it lacks a target, or has too few settings on all of them.

    Args:
        candidates: target -> variant -> candidate.
        targets: the targets to average over.
    """
    if not targets or not candidates.keys() >= set(targets):
        return None
    variants = sorted(set.intersection(*(set(candidates[target]) for target in targets)))
    if len(variants) < FEWEST_SETTINGS:
        return None
    table = [[candidates[target][variant] for variant in variants] for target in targets]
    return Search(
        validation=np.array([[candidate.val_acc for candidate in row] for row in table]),
        target=np.array([[candidate.test_acc for candidate in row] for row in table]),
    )


def _points(searches: Sequence[Search]) -> tuple[BudgetPoint, ...]:
    return tuple(_point(searches, draws) for draws in budgets(min(search.settings for search in searches)))


def budgets(most: int) -> list[int]:
    """1, 2, 4, 8, ... and `most`, the budgets that a table shows."""
    return sorted({*(2**i for i in range(most.bit_length())), most})


def _point(searches: Sequence[Search], draws: int) -> BudgetPoint:
    targets = np.array([search.expected(search.target, draws) for search in searches])
    return BudgetPoint(
        settings=draws,
        validation=float(np.mean([search.expected(search.validation, draws) for search in searches])),
        target=float(targets.mean()),
        search=math.sqrt(np.mean([search.variance(draws) for search in searches])),
        trials=float(targets.std(ddof=1)) if len(targets) > 1 else None,
    )
