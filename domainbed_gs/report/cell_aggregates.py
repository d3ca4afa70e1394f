"""Interquartile means and probabilities of improvement over the cells of a sweep, with bootstrap intervals.

After Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021
(arXiv 2108.13264), section 4, and their library rliable. A cell is one of their tasks, a trial one of their
runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainbed.seeds import generator
from domainbed_gs.report.shared_cells import SharedCells
from domainbed_gs.report.signed_rank import DECIMALS, Floats
from domainbed_gs.report.statistics import ALPHA

RESAMPLES = 2_000
"""Number of bootstrap resamples, as in the examples of rliable."""


@dataclass(frozen=True)
class Estimate:
    """A number, `value`, and its 95 % percentile interval, `low` to `high`, by the stratified bootstrap."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Aggregate:
    """An algorithm over all cells.

    Attributes:
        algorithm: name of the algorithm.
        mean: mean accuracy over cells and trials, in [0, 1].
        interquartile_mean: mean of the middle half of the accuracies of all cells and trials.
        improvement: probability that a trial of the algorithm is better than an independent one of the
            baseline, mean over cells; None for the baseline, and without one.
    """

    algorithm: str
    mean: Estimate
    interquartile_mean: Estimate
    improvement: Estimate | None


def aggregates(shared: SharedCells, baseline: str, seed: int = 0, sign: int = 1) -> list[Aggregate]:
    """Aggregates of each algorithm of `shared` over its cells (dataset and target).

    Args:
        shared: accuracies on the cells that all algorithms have.
        baseline: name of the algorithm that others are compared with.
        seed: seed of the bootstrap.
        sign: 1 if larger values are better, -1 if smaller ones are.
    """
    found = []
    for i, algorithm in enumerate(shared.algorithms):
        cells = [columns[i] for columns in shared.accuracies.values()]
        improvement = None
        if baseline in shared.algorithms and algorithm != baseline:
            j = shared.algorithms.index(baseline)
            baselines = [columns[j] for columns in shared.accuracies.values()]
            improvement = probability_of_improvement(
                [sign * cell for cell in cells], [sign * cell for cell in baselines], seed
            )
        aggregate = Aggregate(algorithm, mean(cells, seed), interquartile_mean(cells, seed), improvement)
        found.append(aggregate)
    return found


def mean(cells: Sequence[Floats], seed: int = 0) -> Estimate:
    """Mean of the accuracies of all cells and trials: `cells` has (n,) accuracies of each cell."""
    resampled: Floats = _resample(cells, seed).mean(axis=1)
    return _estimate(float(np.concatenate(cells).mean()), resampled)


def interquartile_mean(cells: Sequence[Floats], seed: int = 0) -> Estimate:
    """Mean of all accuracies without the lowest and the highest quarter, each rounded down to whole ones.

    Args:
        cells: (n,) accuracies of each cell.
        seed: seed of the bootstrap.
    """
    from scipy.stats import trim_mean

    resampled = np.asarray(trim_mean(_resample(cells, seed), proportiontocut=0.25, axis=1))
    return _estimate(float(trim_mean(np.concatenate(cells), proportiontocut=0.25)), resampled)


def probability_of_improvement(
    cells: Sequence[Floats], baselines: Sequence[Floats], seed: int = 0
) -> Estimate:
    """Probability that a random trial is better than a random one of the baseline, mean over cells.

    In a cell, it is the share of the pairs (trial, trial of the baseline) in which the former is better, and
    half the share of equal ones (the Mann-Whitney statistic). Trials are resampled independently.

    Args:
        cells: (n,) accuracies of each cell.
        baselines: (m,) accuracies of the baseline in each cell.
        seed: seed of the bootstrap.
    """
    drawn = generator(seed)
    values, resampled = [], np.zeros(RESAMPLES)
    for own, other in zip(cells, baselines, strict=True):
        differences = (own[:, np.newaxis] - other).round(DECIMALS)
        better = (differences > 0) + 0.5 * (differences == 0)
        values.append(better.mean())
        own_weights, other_weights = (_resampling_weights(drawn, size) for size in better.shape)
        resampled += ((own_weights @ better) * other_weights).sum(axis=1) / len(cells)
    return _estimate(float(np.mean(values)), resampled)


def _resampling_weights(drawn: np.random.Generator, size: int) -> Floats:
    """(RESAMPLES, size) share of each trial in each resample."""
    counts = drawn.multinomial(size, np.full(size, 1 / size), size=RESAMPLES)
    return np.asarray(counts / size, dtype=np.float64)


def _resample(cells: Sequence[Floats], seed: int) -> Floats:
    """(RESAMPLES, number of all accuracies): trials drawn with replacement within each cell."""
    drawn = generator(seed)
    columns = [cell[drawn.integers(len(cell), size=(RESAMPLES, len(cell)))] for cell in cells]
    return np.concatenate(columns, axis=1)


def _estimate(value: float, resampled: Floats) -> Estimate:
    low, high = np.quantile(resampled, [ALPHA / 2, 1 - ALPHA / 2])
    return Estimate(value, float(low), float(high))
