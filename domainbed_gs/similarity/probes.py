"""Minibatches of a single class to measure gradients on, so that class does not confound environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainbed.algorithms.base import Minibatch
from domainbed.datasets.base import labels_of
from domainbed.datasets.splitting import SplitDataset
from domainbed.errors import UsageError
from domainbed.seeds import Purpose, generator
from domainbed.training.evaluation import without_augmentation
from domainbed.training.minibatches import load_minibatch


@dataclass(frozen=True)
class Probe:
    """Samples of one measurement.

    Attributes:
        label: class of all samples.
        minibatches: one minibatch for each source environment.
    """

    label: int
    minibatches: list[Minibatch]


class Probes:
    """A class for each step, and samples of it from each source; a function of (seed, step).

    Classes are drawn uniformly from those with at least two samples in every source. Samples are drawn
    without replacement, so that no sample is paired with itself, and are not augmented. A source with fewer
    than `samples` samples of the class contributes all of them.

    Args:
        parts: for each source, the part to draw from.
        samples: number of samples from each source.
        seed: seed of the run.

    Raises: UsageError if no class has two samples in every source.
    """

    def __init__(self, parts: Sequence[SplitDataset], samples: int, seed: int) -> None:
        self.samples = samples
        self.seed = seed
        self._parts = [without_augmentation(part) for part in parts]
        labels = [labels_of(part) for part in parts]
        shared = set.intersection(*({int(c) for c in np.unique(own) if sum(own == c) > 1} for own in labels))
        if not shared:
            raise UsageError(
                "no class has two samples in every source environment, so no gradients can be compared"
            )
        self.classes = sorted(shared)
        self._positions = [{c: np.flatnonzero(own == c) for c in self.classes} for own in labels]

    def at(self, step: int) -> Probe:
        """Class and samples of `step`."""
        rng = generator(self.seed, Purpose.PROBES, step)
        label = self.classes[rng.integers(len(self.classes))]
        minibatches = []
        for number, (part, positions) in enumerate(zip(self._parts, self._positions, strict=True)):
            available = positions[label]
            drawn = rng.choice(available, min(self.samples, len(available)), replace=False)
            minibatches.append(load_minibatch(part, drawn, (self.seed, Purpose.PROBES, step, number)))
        return Probe(label, minibatches)
