"""Reading the next batch in threads while the current one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from domainbed.cores import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(
    function: Callable[[Item], Result], items: Sequence[Item], batch_size: int
) -> Generator[list[Result]]:
    """Results of `function` for batches of `items`, in order. At most two batches are in memory.

    The first error is raised, and no further item is begun.
    """
    pool = ThreadPoolExecutor(cores())
    waiting: deque[list[Future[Result]]] = deque()
    try:
        for start in range(0, len(items), batch_size):
            waiting.append([pool.submit(function, each) for each in items[start : start + batch_size]])
            if len(waiting) > 1:
                yield [each.result() for each in waiting.popleft()]
        while waiting:
            yield [each.result() for each in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)
