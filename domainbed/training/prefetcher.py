"""The one pool of loader processes of a run."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset

_AHEAD = 2
"""Items for each process that are read before they are asked for."""


class Source(Protocol):
    """What a reader reads: an item for each key."""

    @property
    def in_memory(self) -> bool:
        """Whether items cost no reading of files, so that this process makes them."""

    def __getitem__(self, key: Any, /) -> Any: ...  # noqa: ANN401 - each source has its own


class Prefetcher:
    """Items of several sources, read ahead by one pool of processes.

    Several streams of items may be open at a time: while a run evaluates, its next minibatches wait.

    Args:
        sources: by name; the processes get those that are not in memory.
        num_workers: number of processes, which start when they are first needed; with 0, this process reads.
        pin_memory: whether items are put where a CUDA device fetches them fastest.
    """

    def __init__(self, sources: Mapping[str, Source], num_workers: int, pin_memory: bool = False) -> None:
        self._sources = sources
        self._num_workers = num_workers
        self._pin_memory = pin_memory
        self._streams: dict[int, _Stream] = {}
        self._numbers = itertools.count()
        self._pool: Iterator[tuple[int, Any]] | None = None

    def read(self, source: str, keys: Iterable[Any]) -> Iterator[Any]:
        """Items of a source, in the order of `keys`."""
        if self._num_workers == 0 or self._sources[source].in_memory:
            return (self._sources[source][key] for key in keys)
        return self._from_pool(_Stream(next(self._numbers), source, iter(keys)))

    def close(self) -> None:
        """End the processes; nothing that was begun is read on.

        Left to the garbage collector, torch would wait five seconds for each.
        """
        self._pool = None

    def _from_pool(self, stream: _Stream) -> Iterator[Any]:
        self._streams[stream.number] = stream
        if self._pool is None:
            self._pool = self._start()
        try:
            while stream.come or stream.on_its_way or not stream.exhausted:
                if stream.come:
                    item = stream.come.popleft()
                    if isinstance(item, ExceptionWrapper):
                        item.reraise()
                    yield item
                    continue
                # What comes next may belong to another stream.
                owner, item = next(self._pool)
                if owner in self._streams:
                    self._streams[owner].on_its_way -= 1
                    self._streams[owner].come.append(item)
        finally:
            del self._streams[stream.number]

    def _start(self) -> Iterator[tuple[int, Any]]:
        read = {name: source for name, source in self._sources.items() if not source.in_memory}
        return iter(
            DataLoader(
                _Items(read),
                batch_size=None,
                sampler=_Requests(self._streams, _AHEAD * self._num_workers),
                num_workers=self._num_workers,
                prefetch_factor=_AHEAD,
                pin_memory=self._pin_memory,
                generator=torch.Generator(),  # starting draws nothing from the run's generator
            )
        )


@dataclass
class _Stream:
    """Keys of a source that are asked for in order, and what became of them."""

    number: int
    source: str
    keys: Iterator[Any]
    exhausted: bool = False
    on_its_way: int = 0
    come: deque[Any] = field(default_factory=deque)


_Request = tuple[int, str, Any]


class _Requests:
    """What the pool is to read next: stream, source and key, for ever.

    The stream that was opened last goes first. None stands for nothing to do: torch's loader asks for a
    request whenever an item has come, and ends when it gets none.
    """

    def __init__(self, streams: dict[int, _Stream], limit: int) -> None:
        self._streams = streams
        self._limit = limit

    def __iter__(self) -> Iterator[_Request | None]:
        while True:
            yield self._next()

    def _next(self) -> _Request | None:
        for stream in reversed(self._streams.values()):
            if stream.exhausted or stream.on_its_way + len(stream.come) >= self._limit:
                continue
            for key in stream.keys:
                stream.on_its_way += 1
                return stream.number, stream.source, key
            stream.exhausted = True
        return None


class _Items(Dataset[tuple[int, Any]]):
    """Number of the stream and item of a request."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def __getitem__(self, request: _Request | None) -> tuple[int, Any]:
        if request is None:
            return -1, None
        number, source, key = request
        try:
            return number, self._sources[source][key]
        except Exception:
            # For the one who asked, when it is this item's turn.
            return number, ExceptionWrapper(where=f"a process that reads {source}")
