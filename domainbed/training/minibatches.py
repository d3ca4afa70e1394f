"""Minibatches as functions of (seed, environment, step).

The samples of a minibatch, and all random numbers that augment them, come from generators seeded by counters.
So the same seed gives exactly the same minibatches to a resumed run, to any number of worker processes, and
to every algorithm.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from domainbed.algorithms.base import Minibatch
from domainbed.datasets.splitting import SplitDataset
from domainbed.seeds import Purpose, counter_seed, generator


class EnvironmentSampler:
    """Indices of the samples in one environment's minibatches.

    Args:
        size: number of samples in the environment's part.
        batch_size: B. A part with fewer samples has minibatches of `size` samples.
        seeds: (seed, environment), the first counters of every draw.
        sampling: "replacement" for B independent draws (upstream), or "epochs" for passes without
            replacement, each in a new random order; an incomplete last minibatch is dropped (the code of
            Mansilla et al. 2021).
        weights: (size,) probability of each sample with replacement, up to a factor. By default all
            are equal.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seeds: tuple[int, int],
        sampling: str,
        weights: np.ndarray | None = None,
    ) -> None:
        self.size = size
        self.batch_size = min(batch_size, size)
        self.seeds = seeds
        self.sampling = sampling
        self.probabilities = None if weights is None else weights / weights.sum()
        self._last_order: tuple[int, np.ndarray] | None = None  # epoch and its order of samples

    def indices(self, step: int) -> np.ndarray:
        """(B,) int64: positions in the part of the samples of this step."""
        if self.sampling == "replacement":
            rng = generator(*self.seeds, Purpose.MINIBATCH, step)
            if self.probabilities is not None:
                return rng.choice(self.size, self.batch_size, p=self.probabilities)
            return rng.integers(self.size, size=self.batch_size)
        epoch, position = divmod(step, self.size // self.batch_size)
        if self._last_order is None or self._last_order[0] != epoch:
            order = generator(*self.seeds, Purpose.MINIBATCH, epoch).permutation(self.size)
            self._last_order = (epoch, order)
        return self._last_order[1][position * self.batch_size : (position + 1) * self.batch_size]


class Minibatches(Dataset[list[Minibatch]]):
    """Map-style dataset: item `step` is the list of that step's minibatches, one for each part.

    Args:
        parts: the parts of environments to draw from.
        samplers: one for each part.
        n_steps: number of steps.
    """

    def __init__(
        self, parts: Sequence[SplitDataset], samplers: Sequence[EnvironmentSampler], n_steps: int
    ) -> None:
        self.parts = parts
        self.samplers = samplers
        self.n_steps = n_steps

    def __len__(self) -> int:
        return self.n_steps

    def __getitem__(self, step: int) -> list[Minibatch]:
        return [
            load_minibatch(part, sampler.indices(step), (*sampler.seeds, Purpose.AUGMENTATION, step))
            for part, sampler in zip(self.parts, self.samplers, strict=True)
        ]

    @property
    def in_memory(self) -> bool:
        """Whether all parts are in memory."""
        return all(map(is_in_memory, self.parts))


def load_minibatch(part: SplitDataset, positions: np.ndarray, draws: tuple[int, ...]) -> Minibatch:
    """Inputs (B, *input_shape) and labels (B,) of some samples of a part.

    Args:
        part: a part of an environment.
        positions: (B,) positions in the part.
        draws: counters of the random numbers for augmentation. If samples are read one by one, each sample's
            position in the minibatch is added.
    """
    environment, indices = _underlying(part, positions)
    if hasattr(environment, "augmented_batch"):
        x, y = environment.augmented_batch(indices, draws)
        return x, y
    if hasattr(environment, "batch"):
        x, y = environment.batch(indices)
        return x, y
    if hasattr(environment, "tensors"):
        x, y = (tensor[torch.from_numpy(indices)] for tensor in environment.tensors)
        return x, y
    samples = []
    with _global_generators_restored():
        for i, index in enumerate(indices):
            _seed_transforms(counter_seed(*draws, i))
            samples.append(environment[int(index)])
    return torch.stack([x for x, _ in samples]), torch.as_tensor([int(y) for _, y in samples])


def is_in_memory(part: SplitDataset) -> bool:
    """Whether samples of a part need no reading or decoding, so that worker processes do not help."""
    environment, _ = _underlying(part, np.arange(0))
    has_tensors = hasattr(environment, "batch") or hasattr(environment, "tensors")
    return bool(getattr(environment, "in_memory", has_tensors))


def _underlying(part: Any, positions: np.ndarray) -> tuple[Any, np.ndarray]:  # noqa: ANN401 - any map-style dataset
    """The environment below a part (of a part ...), and the indices in it of `positions`."""
    indices = np.asarray(positions, dtype=np.int64)
    while isinstance(part, SplitDataset):
        part, indices = part.underlying_dataset, np.asarray(part.keys, dtype=np.int64)[indices]
    return part, indices


def _seed_transforms(seed: int) -> None:
    """Seed the CPU generators that transforms draw from, but not those of a GPU."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def _global_generators_restored() -> Iterator[None]:
    """Restore the global CPU generators at the end, so that reading samples has no side effect."""
    states: tuple[Any, Any, Tensor] = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
