"""Upstream's loaders, with upstream's order of samples and use of torch's global generator.

They keep their worker processes and request batches ahead from the moment they are built. `train` itself
draws its minibatches elsewhere; these are for forks.
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
    """The batches of `sampler`, pass after pass for ever."""

    def __init__(self, sampler: Iterable[list[int]]) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            yield from self.sampler


class _RecordingSampler(_InfiniteSampler):
    """Keeps the indices of each batch that was requested and not yet taken from `requested`."""

    def __init__(self, sampler: Iterable[list[int]]) -> None:
        super().__init__(sampler)
        self.requested: deque[list[int]] = deque()

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            self.requested.append(batch)
            yield batch


class _Infinite:
    """What the endless loaders share; `replacement` says how they draw."""

    replacement: bool

    def __init__(self, dataset: Samples, weights: Weights, batch_size: int, num_workers: int) -> None:
        n = len(dataset)  # type: ignore[arg-type]
        if n < batch_size and (weights is None or not self.replacement):
            raise UsageError(f"{n} samples can't fill a minibatch of {batch_size}; give a smaller batch_size")
        if weights is not None and len(weights) != n:
            raise UsageError(f"{len(weights)} weights for {n} samples; give one weight for each sample")
        order: Sampler[int]
        if weights is None:
            order = RandomSampler(dataset, replacement=self.replacement)  # type: ignore[arg-type]
        else:
            # A plain list, because the sampler warns about a tensor that it copies.
            each = torch.as_tensor(weights).tolist()
            order = WeightedRandomSampler(each, batch_size, replacement=self.replacement)
        passes = _InfiniteSampler(BatchSampler(order, batch_size, drop_last=True))
        self._iterator = _start(dataset, passes, num_workers)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield next(self._iterator)

    def __len__(self) -> int:
        raise ValueError("an infinite loader has no length")


class InfiniteDataLoader(_Infinite):
    """Endless minibatches, samples drawn with replacement.

    Constructor: `(dataset, weights, batch_size, num_workers)`. `weights`, one for each sample, are
    proportional to its chance; None for equal ones. With 0 workers samples are read in this process.
    Raises UsageError (a ValueError) if the dataset can't fill a minibatch.
    """

    replacement = True


class InfiniteDataLoaderWithoutReplacement(_Infinite):
    """Endless minibatches, samples drawn without replacement within a pass over the dataset.

    With weights, within a minibatch. Otherwise as `InfiniteDataLoader`.
    """

    replacement = False


class FastDataLoader:
    """All samples, once an iteration; it may be iterated again.

    Args:
        dataset: map-style, not empty.
        batch_size: number of samples of a batch; the last one may be shorter.
        num_workers: number of processes that read samples; 0 reads in this one.
        shuffle: in a new random order each time, as upstream; else in the dataset's order.

    Attributes:
        indices: positions in the dataset of the samples of the batch that came last.
    """

    def __init__(self, dataset: Samples, batch_size: int, num_workers: int, shuffle: bool = True) -> None:
        if len(dataset) == 0:  # type: ignore[arg-type]
            raise UsageError("a loader needs at least one sample, and the dataset is empty")
        order: Sampler[int] = (RandomSampler if shuffle else SequentialSampler)(dataset)  # type: ignore[arg-type]
        batches = BatchSampler(order, batch_size, drop_last=False)
        self._length = len(batches)
        self._passes = _RecordingSampler(batches)
        self._iterator = _start(dataset, self._passes, num_workers)
        self.indices: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._length):
            batch = next(self._iterator)
            self.indices = self._passes.requested.popleft()
            yield batch

    def __len__(self) -> int:
        return self._length


def _start(dataset: Samples, passes: _InfiniteSampler, num_workers: int) -> Iterator[Any]:
    with warnings.catch_warnings():
        # The number of workers is part of the order of random draws; it is meant, also on few cores.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        # Forking under threads is how torch's loaders work.
        warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
        return iter(DataLoader(dataset, batch_sampler=passes, num_workers=num_workers))  # type: ignore[arg-type]
