"""Minibatches as functions of (seed, environment, step).

Which samples a minibatch holds, and every random number that augments them, comes from generators seeded
by counters. So a run that is interrupted and goes on, another number of loader processes, and another
algorithm with the same seed all see exactly the same minibatches.
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
    """Indices of one part's minibatches.

    Args:
        size: number of samples in the part.
        batch_size: B; a part with fewer samples gives all that it has.
        seeds: (seed, environment) that the draws belong to.
        sampling: "replacement" (upstream): B independent draws; "epochs": without replacement through
            one random order after the other, an incomplete last minibatch dropped (ICCV 2021's code).
        weights: probability of each sample, up to a factor, for replacement; all equal if None.
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
        self._order: tuple[int, np.ndarray] | None = None  # the last epoch's, with its number

    def indices(self, step: int) -> np.ndarray:
        """(B,) int64: positions in the part of the samples of this step."""
        if self.sampling == "replacement":
            rng = generator(*self.seeds, Purpose.MINIBATCH, step)
            if self.probabilities is not None:
                return rng.choice(self.size, self.batch_size, p=self.probabilities)
            return rng.integers(self.size, size=self.batch_size)
        epoch, position = divmod(step, self.size // self.batch_size)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, generator(*self.seeds, Purpose.MINIBATCH, epoch).permutation(self.size))
        return self._order[1][position * self.batch_size : (position + 1) * self.batch_size]


class Minibatches(Dataset[list[Minibatch]]):
    """Map-style: item `step` is the list of minibatches, one a part, of that step."""

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
        return all(map(in_memory, self.parts))


def load_minibatch(part: SplitDataset, positions: np.ndarray, draws: tuple[int, ...]) -> Minibatch:
    """Inputs and labels of samples of a part, stacked.

    Args:
        part: a view of an environment.
        positions: (B,) positions in the part.
        draws: counters that the augmentation's random numbers belong to. Where samples are read one by one,
            each sample's own number in the minibatch is added.
    """
    environment, keys = _unwrap(part, positions)
    if hasattr(environment, "augmented_batch"):
        x, y = environment.augmented_batch(keys, draws)
        return x, y
    if hasattr(environment, "batch"):
        x, y = environment.batch(keys)
        return x, y
    if hasattr(environment, "tensors"):
        x, y = (tensor[torch.from_numpy(keys)] for tensor in environment.tensors)
        return x, y
    samples = []
    with _own_random_numbers():
        for i, key in enumerate(keys):
            _seed_reading(counter_seed(*draws, i))
            samples.append(environment[int(key)])
    return torch.stack([x for x, _ in samples]), torch.as_tensor([int(y) for _, y in samples])


def in_memory(part: SplitDataset) -> bool:
    """Whether samples cost no reading or decoding, so that loader processes would only be in the way."""
    environment, _ = _unwrap(part, np.arange(0))
    held = hasattr(environment, "batch") or hasattr(environment, "tensors")
    return bool(getattr(environment, "in_memory", held))


def _unwrap(part: Any, positions: np.ndarray) -> tuple[Any, np.ndarray]:  # noqa: ANN401 - any map-style dataset
    keys = np.asarray(positions, dtype=np.int64)
    while isinstance(part, SplitDataset):
        part, keys = part.underlying_dataset, np.asarray(part.keys, dtype=np.int64)[keys]
    return part, keys


def _seed_reading(seed: int) -> None:
    """Seed the generators that transforms use; the device's is the algorithm's."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Leave the global generators as they were: reading a sample in this process must change nothing."""
    states: tuple[Any, Any, Tensor] = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
