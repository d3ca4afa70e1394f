"""Map a function over items in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from domainbed.cores import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int | None = None, chunk: int = 16
) -> Iterator[Result]:
    """Results of `function` for `items`, in order. The first error is raised, and ends the other threads.

    Unlike `multiprocessing.pool.ThreadPool`, this needs no semaphores, which lie in shared memory.

    Args:
        function: called in several threads at a time.
        items: its arguments.
        threads: number of threads; by default, one for each core.
        chunk: number of items that a thread takes at a time.
    """

    def results(start: int) -> list[Result]:
        return [function(item) for item in items[start : start + chunk]]

    pool = ThreadPoolExecutor(threads or cores())
    try:
        for part in pool.map(results, range(0, len(items), chunk)):
            yield from part
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, or if the caller has read enough
