"""Reads a run's data ahead of time, in loader processes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from domainbed.training.loader_processes import LoaderFailure, LoaderProcesses
from domainbed.training.loader_processes import Source as Source

_PREFETCH_FACTOR = 2
"""Number of items that each loader process prefetches for one read."""

_log = logging.getLogger(__name__)


class Prefetcher:
    """Reads items of several sources ahead of time, with one pool of loader processes.

    Several reads may be in progress at a time. For instance, the next minibatches wait while a run evaluates.
    If the loader processes fail, this is logged, and items are read in this process from then on. They are
    the same.

    Args:
        sources: name -> source. Loader processes receive copies of the sources that are not in memory.
        num_workers: number of loader processes, which start when they are first needed. With 0, items are
            read in this process.
        pin_memory: whether to put tensors into pinned memory, from where copies to a CUDA device are fastest.
    """

    def __init__(self, sources: Mapping[str, Source], num_workers: int, pin_memory: bool = False) -> None:
        self._sources = sources
        self._num_workers = num_workers
        self._pin_memory = pin_memory
        self._processes: LoaderProcesses | None = None

    def read(self, source: str, keys: Iterable[Any]) -> Iterator[Any]:
        """Items of the source called `source`, in the order of `keys`."""
        if self._sources[source].in_memory:
            return (self._sources[source][key] for key in keys)
        return self._read_ahead(source, iter(keys))

    def close(self) -> None:
        """End the loader processes. Prefetched items are discarded."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def _read_ahead(self, source: str, keys: Iterator[Any]) -> Iterator[Any]:
        requested: deque[tuple[Any, Future[Any]]] = deque()
        try:
            while True:
                self._request(source, keys, requested)
                if requested:
                    yield self._receive(source, *requested.popleft())
                    continue
                for key in keys:  # without loader processes
                    yield self._sources[source][key]
                return
        finally:
            for _, future in requested:
                future.cancel()

    def _request(self, source: str, keys: Iterator[Any], requested: deque[tuple[Any, Future[Any]]]) -> None:
        """Request the next items, up to as many as one read may prefetch."""
        if self._processes is None and self._num_workers:
            to_read = {name: each for name, each in self._sources.items() if not each.in_memory}
            try:
                self._processes = LoaderProcesses(to_read, self._num_workers, self._pin_memory)
            except LoaderFailure as failure:
                self._do_without(failure)
        while self._processes is not None and len(requested) < _PREFETCH_FACTOR * self._num_workers:
            for key in keys:
                requested.append((key, self._processes.request(source, key)))
                break
            else:
                return

    def _receive(self, source: str, key: Any, future: Future[Any]) -> Any:  # noqa: ANN401 - see Source
        if self._processes is not None:
            try:
                return self._processes.receive(future)
            except LoaderFailure as failure:
                self._do_without(failure)
        return self._sources[source][key]

    def _do_without(self, failure: LoaderFailure) -> None:
        """From now on, read in this process."""
        _log.warning(
            "loader processes failed (%s); this process now reads the images itself, with the same numbers "
            "but more slowly. In Docker, give the container more shared memory (--ipc=host, or --shm-size); "
            "if memory is short, use fewer processes; --num_workers 0 does without",
            failure,
        )
        self._num_workers = 0
        self.close()
