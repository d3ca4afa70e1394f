"""Minibatches of one class: what is measured, so that class does not confound environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainbed.algorithms.base import Minibatch
from domainbed.datasets.base import labels_of
from domainbed.datasets.splitting import SplitDataset
from domainbed.errors import UsageError
from domainbed.seeds import Purpose, generator
from domainbed.training.data import fetch
from domainbed.training.evaluation import plain


@dataclass(frozen=True)
class Probe:
    """The samples of one measurement.

    Attributes:
        label: their class.
        minibatches: one a source environment.
    """

    label: int
    minibatches: list[Minibatch]


class Probes:
    """One class a step, and samples of it from each source; a function of (seed, step).

    Classes are drawn uniformly from those that have two samples or more in every source. Of each source
    `samples` are drawn without replacement, or all that it has, so that no sample is paired with itself;
    without augmentation.

    Args:
        parts: the sources' parts to draw from.
        samples: number of samples of each environment.
        seed: the run's.

    Raises: UsageError if there is no such class.
    """

    def __init__(self, parts: Sequence[SplitDataset], samples: int, seed: int) -> None:
        self.samples = samples
        self.seed = seed
        self._parts = [plain(part) for part in parts]
        labels = [labels_of(part) for part in parts]
        shared = set.intersection(*({int(c) for c in np.unique(own) if sum(own == c) > 1} for own in labels))
        if not shared:
            raise UsageError("no class has two samples in every source environment: nothing can be compared")
        self.classes = sorted(shared)
        self._positions = [{c: np.flatnonzero(own == c) for c in self.classes} for own in labels]

    def at(self, step: int) -> Probe:
        """The class and the samples of `step`."""
        rng = generator(self.seed, Purpose.PROBES, step)
        label = self.classes[rng.integers(len(self.classes))]
        minibatches = []
        for number, (part, positions) in enumerate(zip(self._parts, self._positions, strict=True)):
            available = positions[label]
            drawn = rng.choice(available, min(self.samples, len(available)), replace=False)
            minibatches.append(fetch(part, drawn, (self.seed, Purpose.PROBES, step, number)))
        return Probe(label, minibatches)
