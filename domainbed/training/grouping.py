"""What an algorithm is given as its environments: the sources themselves, or controls.

The control experiment of "Domain Generalization via Gradient Surgery" (ICCV 2021, figure 4) asks whether a
gain comes from what the environments agree on, or from masking alone. In each condition an update sees K
minibatches, K the number of sources:

    domain          one from each source;
    single_domain   all from one source, drawn anew for each update;
    pooled          the samples of `domain`, dealt out at random: a stronger control of ours.
"""

from __future__ import annotations

import numpy as np
import torch

from domainbed.algorithms.base import Minibatch, concatenate
from domainbed.seeds import Purpose, generator
from domainbed.training.minibatches import Minibatches


class SingleDomain(Minibatches):
    """All minibatches of a step from one source, which is drawn uniformly.

    A source goes through its own sequence of minibatches, K of them at each of its turns, so that without
    replacement it still shows every sample once an epoch.
    """

    def __init__(self, of: Minibatches, seed: int) -> None:
        super().__init__(of.parts, of.samplers, of.n_steps)
        parts, n_steps = self.parts, self.n_steps
        self._turns = generator(seed, Purpose.GROUPING).integers(len(parts), size=n_steps)
        so_far = np.cumsum(self._turns[:, None] == np.arange(len(parts)), axis=0)
        # How many turns the step's source had before.
        self._before = so_far[np.arange(n_steps), self._turns] - 1
        self._alone = [
            Minibatches([part], [sampler], n_steps * len(parts))
            for part, sampler in zip(parts, self.samplers, strict=True)
        ]

    def __getitem__(self, step: int) -> list[Minibatch]:
        k = len(self.parts)
        source, first = self._alone[self._turns[step]], int(self._before[step]) * k
        return [source[first + i][0] for i in range(k)]


class Pooled(Minibatches):
    """The samples of each step's minibatches, pooled and dealt out at random into minibatches as large."""

    def __init__(self, of: Minibatches, seed: int) -> None:
        super().__init__(of.parts, of.samplers, of.n_steps)
        self.seed = seed

    def __getitem__(self, step: int) -> list[Minibatch]:
        minibatches = super().__getitem__(step)
        x, y = concatenate(minibatches)
        order = torch.from_numpy(generator(self.seed, Purpose.GROUPING, step).permutation(len(y)))
        dealt = order.split([len(labels) for _, labels in minibatches])
        return [(x[positions], y[positions]) for positions in dealt]


def grouped(grouping: str, minibatches: Minibatches, seed: int) -> Minibatches:
    """`minibatches`, one a source, as the condition `grouping` of the run's `seed` has them."""
    if grouping == "domain":
        return minibatches
    return {"single_domain": SingleDomain, "pooled": Pooled}[grouping](minibatches, seed)
