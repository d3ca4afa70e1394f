"""Groupings: what an update gets as its environments. Besides the real ones there are two controls.

The control experiment of Mansilla et al. (2021, arXiv 2108.01621, figure 4) asks whether gains come from the
agreement of environments, or from masking gradients alone. In each condition an update gets K minibatches,
where K is the number of source environments:

    domain          one minibatch from each source environment;
    single_domain   all from one source environment, drawn anew for each update;
    pooled          the samples of `domain`, shuffled across minibatches (a stronger control of ours).
"""

from __future__ import annotations

import numpy as np
import torch

from domainbed.algorithms.base import Minibatch, concatenate
from domainbed.seeds import Purpose, generator
from domainbed.training.minibatches import Minibatches


class SingleDomain(Minibatches):
    """Minibatches of a step all come from one source, which is drawn uniformly.

    Each source has its own sequence of minibatches, of which it uses K at a time. So sampling without
    replacement still shows each of its samples once per epoch.
    """

    def __init__(self, minibatches: Minibatches, seed: int) -> None:
        super().__init__(minibatches.parts, minibatches.samplers, minibatches.n_steps)
        k, n_steps = len(self.parts), self.n_steps
        self._source_of_step = generator(seed, Purpose.GROUPING).integers(k, size=n_steps)
        times_drawn = np.cumsum(self._source_of_step[:, None] == np.arange(k), axis=0)
        # How often the step's source was drawn before.
        self._times_drawn_before = times_drawn[np.arange(n_steps), self._source_of_step] - 1
        self._sources = [
            Minibatches([part], [sampler], n_steps * k)
            for part, sampler in zip(self.parts, self.samplers, strict=True)
        ]

    def __getitem__(self, step: int) -> list[Minibatch]:
        k = len(self.parts)
        source = self._sources[self._source_of_step[step]]
        first = int(self._times_drawn_before[step]) * k
        return [source[first + i][0] for i in range(k)]


class Pooled(Minibatches):
    """The samples of each step's minibatches, shuffled into minibatches of the same sizes."""

    def __init__(self, minibatches: Minibatches, seed: int) -> None:
        super().__init__(minibatches.parts, minibatches.samplers, minibatches.n_steps)
        self.seed = seed

    def __getitem__(self, step: int) -> list[Minibatch]:
        minibatches = super().__getitem__(step)
        x, y = concatenate(minibatches)
        order = torch.from_numpy(generator(self.seed, Purpose.GROUPING, step).permutation(len(y)))
        shuffled = order.split([len(labels) for _, labels in minibatches])
        return [(x[positions], y[positions]) for positions in shuffled]


def group_minibatches(grouping: str, minibatches: Minibatches, seed: int) -> Minibatches:
    """Minibatches of the condition `grouping`.

    Args:
        grouping: "domain", "single_domain" or "pooled".
        minibatches: minibatches of the source environments.
        seed: seed of the run.
    """
    if grouping == "domain":
        return minibatches
    return {"single_domain": SingleDomain, "pooled": Pooled}[grouping](minibatches, seed)
