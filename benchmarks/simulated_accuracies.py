"""Accuracies of sweeps, and paired differences, that are drawn from known distributions."""

from typing import NamedTuple

import numpy as np

from domainbed.results.accuracies import Accuracies, ShownDataset

METHODS = ("A", "B", "C", "D", "E")
TARGETS = ("north", "east", "south", "west")
TRIALS = 20
NOISE = 0.02
"""Standard deviation of an accuracy between seeds."""

IMAGES = 300
"""Images of a target whose accuracies vary by two images, so that many differences are equal or zero."""

SYMMETRIC = ("normal", "Laplace", "uniform", "whole images")
SKEWED = ("exponential", "lognormal")

PSEUDO_MEDIANS = {"exponential": 0.839173, "lognormal": 1.221583}
"""Medians of the mean of two draws: half the median of a gamma distribution, and by quadrature."""

MEANS = {"exponential": 1.0, "lognormal": np.exp(0.5)}


def study(rng, *, split_effect=0.0, shared=False, differences=(0.0, 0.0, 0.0, 0.0, 0.0)):
    """Accuracies of a baseline, ERM, and of METHODS on all targets in all trials; no two are equal.

    Args:
        split_effect: standard deviation of a method's accuracy between splits, divided by that between seeds.
        shared: whether all trials have the same split.
        differences: true difference of each method from the baseline, a fraction.
    """
    shape = (len(METHODS) + 1, len(TARGETS), TRIALS)
    of_splits = rng.normal(0, split_effect * NOISE, (*shape[:2], 1 if shared else TRIALS))
    means = 0.6 + np.array([0.0, *differences])[:, np.newaxis, np.newaxis]
    accuracies = means + of_splits + rng.normal(0, NOISE, shape)
    names = ["ERM", *METHODS]
    return Accuracies(
        method="simulated",
        algorithms=names,
        datasets=[ShownDataset("Simulated", TARGETS)],
        by_target={
            ("Simulated", name, target): dict(enumerate(accuracies[i, target].tolist()))
            for i, name in enumerate(names)
            for target in range(len(TARGETS))
        },
    )


class Sample(NamedTuple):
    """Paired differences (data sets, n), their true pseudo-median and their true mean."""

    differences: np.ndarray
    shift: float
    mean: float


def sample(rng, shape, distribution):
    """Differences of `shape` (data sets, n) that vary by about a percentage point."""
    if distribution == "whole images":
        method, baseline = of_images(0.6 + rng.normal(0, 2 / IMAGES, (2, *shape)), IMAGES)
        shift = 1 / IMAGES
        return Sample(method - baseline + shift, shift, shift)
    draws = {
        "normal": rng.standard_normal,
        "Laplace": lambda shape: rng.laplace(size=shape),
        "uniform": lambda shape: rng.uniform(-1, 1, shape),
        "exponential": rng.standard_exponential,
        "lognormal": lambda shape: rng.lognormal(size=shape),
    }[distribution](shape)
    of_draws = (draws, PSEUDO_MEDIANS.get(distribution, 0.0), MEANS.get(distribution, 0.0))
    return Sample(*((value + 0.5) / 100 for value in of_draws))


def of_images(accuracies, images):
    """The nearest accuracies that so many images can have."""
    return np.round(accuracies * images) / images
