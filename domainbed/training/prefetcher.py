"""The pool of processes that load a run's data."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset

_PREFETCH_FACTOR = 2
"""Number of items each worker prefetches."""


class Source(Protocol):
    """A map from keys to items, such as minibatches."""

    @property
    def in_memory(self) -> bool:
        """Whether items need no reading or decoding of files. They are then made in this process."""

    def __getitem__(self, key: Any, /) -> Any: ...  # noqa: ANN401 - each source has its own types


class Prefetcher:
    """Reads items of several sources ahead of time, with one pool of worker processes.

    Several reads may be in progress at a time. For instance, the next minibatches wait while a run evaluates.

    Args:
        sources: name -> source. Workers receive copies of the sources that are not in memory.
        num_workers: number of worker processes, which start when they are first needed. With 0, items are
            read in this process.
        pin_memory: whether to put tensors into pinned memory, from where copies to a CUDA device are fastest.
    """

    def __init__(self, sources: Mapping[str, Source], num_workers: int, pin_memory: bool = False) -> None:
        self._sources = sources
        self._num_workers = num_workers
        self._pin_memory = pin_memory
        self._streams: dict[int, _Stream] = {}
        self._stream_ids = itertools.count()
        self._pool: Iterator[tuple[int, Any]] | None = None

    def read(self, source: str, keys: Iterable[Any]) -> Iterator[Any]:
        """Items of the source called `source`, in the order of `keys`."""
        if self._num_workers == 0 or self._sources[source].in_memory:
            return (self._sources[source][key] for key in keys)
        return self._read_from_pool(_Stream(next(self._stream_ids), source, iter(keys)))

    def close(self) -> None:
        """End the worker processes. Prefetched items are discarded.

        If this were left to the garbage collector, torch would wait five seconds for each worker.
        """
        self._pool = None

    def _read_from_pool(self, stream: _Stream) -> Iterator[Any]:
        self._streams[stream.id] = stream
        if self._pool is None:
            self._pool = self._start_pool()
        try:
            while stream.ready or stream.pending or not stream.exhausted:
                if stream.ready:
                    item = stream.ready.popleft()
                    if isinstance(item, ExceptionWrapper):
                        item.reraise()
                    yield item
                    continue
                # The next item from the pool may belong to another stream, or to one that was closed.
                stream_id, item = next(self._pool)
                if stream_id in self._streams:
                    self._streams[stream_id].pending -= 1
                    self._streams[stream_id].ready.append(item)
        finally:
            del self._streams[stream.id]

    def _start_pool(self) -> Iterator[tuple[int, Any]]:
        to_read = {name: source for name, source in self._sources.items() if not source.in_memory}
        return iter(
            DataLoader(
                _RequestedItems(to_read),
                batch_size=None,
                sampler=_RequestSampler(self._streams, _PREFETCH_FACTOR * self._num_workers),
                num_workers=self._num_workers,
                prefetch_factor=_PREFETCH_FACTOR,
                pin_memory=self._pin_memory,
                generator=torch.Generator(),  # otherwise starting would draw from the global generator
            )
        )


@dataclass
class _Stream:
    """One call of `Prefetcher.read`: its remaining keys and its prefetched items."""

    id: int
    source: str
    keys: Iterator[Any]
    exhausted: bool = False
    pending: int = 0  # number of items requested from the pool and not received yet
    ready: deque[Any] = field(default_factory=deque)


_Request = tuple[int, str, Any]
"""Id of the stream, name of the source, key."""


class _RequestSampler:
    """Endless requests for the pool; None if there is nothing to read.

    Later streams have priority. None is needed because torch's loader asks for one request for each item
    that it returned, and stops for good if it gets none.
    """

    def __init__(self, streams: dict[int, _Stream], limit: int) -> None:
        self._streams = streams
        self._limit = limit

    def __iter__(self) -> Iterator[_Request | None]:
        while True:
            yield self._next_request()

    def _next_request(self) -> _Request | None:
        for stream in reversed(self._streams.values()):
            if stream.exhausted or stream.pending + len(stream.ready) >= self._limit:
                continue
            for key in stream.keys:
                stream.pending += 1
                return stream.id, stream.source, key
            stream.exhausted = True
        return None


class _RequestedItems(Dataset[tuple[int, Any]]):
    """The dataset of the pool: stream id and item of a request, or (-1, None) for None."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def __getitem__(self, request: _Request | None) -> tuple[int, Any]:
        if request is None:
            return -1, None
        stream_id, source, key = request
        try:
            return stream_id, self._sources[source][key]
        except Exception:
            # The stream that requested the item raises the exception when it reaches this item.
            return stream_id, ExceptionWrapper(where=f"a worker process that reads {source}")
