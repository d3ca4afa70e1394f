"""Upstream's data loaders, for forks of upstream. `train` itself does not use them (see `minibatches`).

They have upstream's order of samples and draw from torch's global generator as upstream does. Worker
processes start, and begin to prefetch, when a loader is constructed.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from domainbed.errors import UsageError

Samples = Dataset[Any] | Sequence[Any]
Weights = Tensor | Sequence[float] | None


class _InfiniteSampler(Sampler[list[int]]):
    """Endless passes over the batches of `sampler`."""

    def __init__(self, sampler: Iterable[list[int]]) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            yield from self.sampler


class _RecordingSampler(_InfiniteSampler):
    """Also appends the indices of each requested batch to `requested`."""

    def __init__(self, sampler: Iterable[list[int]]) -> None:
        super().__init__(sampler)
        self.requested: deque[list[int]] = deque()

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            self.requested.append(batch)
            yield batch


class Infinite:
    """Base class of the endless loaders, whose arguments are those of `InfiniteDataLoader`.

    Attributes:
        replacement: whether samples are drawn with replacement.
    """

    replacement: bool

    def __init__(self, dataset: Samples, weights: Weights, batch_size: int, num_workers: int) -> None:
        n = len(dataset)  # type: ignore[arg-type] # torch's types lack __len__
        if n < batch_size and (weights is None or not self.replacement):
            raise UsageError(f"{n} samples cannot fill a minibatch of {batch_size}; reduce batch_size")
        if weights is not None and len(weights) != n:
            raise UsageError(f"{len(weights)} weights for {n} samples; expected one weight per sample")
        order: Sampler[int]
        if weights is None:
            order = RandomSampler(dataset, replacement=self.replacement)  # type: ignore[arg-type] # torch's types lack __len__
        else:
            # A list, because the sampler warns if it has to copy a tensor.
            as_list = torch.as_tensor(weights).tolist()
            order = WeightedRandomSampler(as_list, batch_size, replacement=self.replacement)
        batches = _InfiniteSampler(BatchSampler(order, batch_size, drop_last=True))
        self._iterator = _start(dataset, batches, num_workers)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield next(self._iterator)

    def __len__(self) -> int:
        raise ValueError("an infinite loader has no length")


class InfiniteDataLoader(Infinite):
    """Endless minibatches of samples drawn with replacement.

    Args:
        dataset: map-style dataset.
        weights: (N,) probability of each sample, up to a factor; None for equal probabilities.
        batch_size: number of samples in a minibatch.
        num_workers: number of worker processes; with 0, samples are read in this process.

    Raises: UsageError (a ValueError) if the dataset cannot fill a minibatch.
    """

    replacement = True


class InfiniteDataLoaderWithoutReplacement(Infinite):
    """Endless minibatches of samples drawn without replacement within a pass over the dataset.

    With weights, samples are drawn without replacement within a minibatch. Arguments are those of
    `InfiniteDataLoader`.
    """

    replacement = False


class FastDataLoader:
    """Batches of all samples, once per iteration. Can be iterated repeatedly.

    Args:
        dataset: map-style dataset, not empty.
        batch_size: number of samples in a batch. The last batch may be smaller.
        num_workers: number of worker processes; with 0, samples are read in this process.
        shuffle: whether each iteration has a new random order (as in upstream), or the dataset's order.

    Attributes:
        indices: positions in the dataset of the samples in the last batch.

    Raises: UsageError if the dataset is empty.
    """

    def __init__(self, dataset: Samples, batch_size: int, num_workers: int, shuffle: bool = True) -> None:
        if len(dataset) == 0:  # type: ignore[arg-type] # torch's types lack __len__
            raise UsageError("cannot load from an empty dataset")
        order: Sampler[int] = (RandomSampler if shuffle else SequentialSampler)(dataset)  # type: ignore[arg-type] # torch's types lack __len__
        batches = BatchSampler(order, batch_size, drop_last=False)
        self._length = len(batches)
        self._sampler = _RecordingSampler(batches)
        self._iterator = _start(dataset, self._sampler, num_workers)
        self.indices: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._length):
            batch = next(self._iterator)
            self.indices = self._sampler.requested.popleft()
            yield batch

    def __len__(self) -> int:
        return self._length


def _start(dataset: Samples, batches: _InfiniteSampler, num_workers: int) -> Iterator[Any]:
    with warnings.catch_warnings():
        # torch suggests fewer workers on few cores, but the order of random draws depends on their number.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        # Python 3.12 warns of forks in multi-threaded processes, and torch's loaders fork.
        warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
        return iter(DataLoader(dataset, batch_sampler=batches, num_workers=num_workers))  # type: ignore[arg-type] # torch's types lack __len__
