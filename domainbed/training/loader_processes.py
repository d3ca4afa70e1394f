"""Processes that read items of a run's data.

A loader process may die (for instance, killed for lack of memory), and it may be unable to hand over what it
has read, because shared memory is full: Docker gives a container 64 MB of it by default. Either is reported
for each item that is lost, and nothing waits for a process that no longer answers.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

import torch
from torch.utils.data._utils.pin_memory import pin_memory

from domainbed.errors import DomainBedError
from domainbed.seeds import seed_all, seed_hash

PATIENCE_SECONDS = 5.0
"""How long `close` waits for processes to finish what they are reading, before it kills them."""


class Source(Protocol):
    """A map from keys to items, such as minibatches."""

    @property
    def in_memory(self) -> bool:
        """Whether items need no reading or decoding of files. They are then made in this process."""

    def __getitem__(self, key: Any, /) -> Any: ...  # noqa: ANN401 - each source has its own types


class LoaderFailure(Exception):
    """The loader processes cannot deliver an item, for a reason that lies in them and not in the item."""


class LoaderProcesses:
    """A pool of processes that read items of several sources, in the order of the requests.

    Args:
        sources: name -> source; every process receives copies of all.
        number: number of processes.
        pin_memory: whether to put tensors into pinned memory, in a thread of this process.

    Raises: LoaderFailure if processes cannot be started here.
    """

    def __init__(self, sources: Mapping[str, Source], number: int, pin_memory: bool) -> None:
        others = {*multiprocessing.active_children()}
        try:
            self._pool = ProcessPoolExecutor(number, initializer=_start, initargs=(dict(sources),))
            # The first request starts the processes.
            self._pool.submit(os.getpid)
        except (OSError, ValueError, TypeError, AttributeError, pickle.PicklingError) as error:
            _kill({*multiprocessing.active_children()} - others)
            raise LoaderFailure(f"they cannot be started: {_one_line(error)}") from error
        self._started = {*multiprocessing.active_children()} - others
        self._pinning = _thread_on_this_device() if pin_memory else None

    def request(self, source: str, key: Any) -> Future[Any]:  # noqa: ANN401 - each source has its own keys
        """Start to read an item; `receive` returns it."""
        try:
            read = self._pool.submit(_read, source, key)
        except BrokenProcessPool as error:
            read = Future()
            read.set_exception(error)
        return read if self._pinning is None else self._pinning.submit(_pinned, read)

    def receive(self, requested: Future[Any]) -> Any:  # noqa: ANN401 - each source has its own items
        """The item of a request, which is waited for.

        Raises:
            LoaderFailure: the processes cannot deliver it.
            Exception: what the source has raised.
        """
        try:
            item, error = requested.result()
        except BrokenProcessPool as broken:
            raise LoaderFailure("one of them has died") from broken
        except Exception as failed:  # it was read, and cannot be handed over
            raise LoaderFailure(_one_line(failed)) from failed
        if error is not None:
            raise error
        return item

    def close(self) -> None:
        """End the processes. Items that were not received are discarded."""
        timer = threading.Timer(PATIENCE_SECONDS, _kill, (self._started,))
        timer.start()
        self._pool.shutdown(cancel_futures=True)
        timer.cancel()
        if self._pinning is not None:
            self._pinning.shutdown(cancel_futures=True)


_sources: Mapping[str, Source] = {}
"""In a loader process: the sources."""


def _start(sources: Mapping[str, Source]) -> None:
    """Prepare this process, a loader process."""
    global _sources
    _sources = sources
    # The run decides when to stop. SIGTERM ends a loader process: the pool sends it when another has died.
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # the other processes use the other cores


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _read(source: str, key: Any) -> tuple[Any, Exception | None]:  # noqa: ANN401 - as in `request`
    """In a loader process: the item and None, or None and the error that the source has raised."""
    # What a plugin's source draws depends neither on the process nor on what it has read before.
    seed_all(seed_hash(source, key))
    try:
        return _sources[source][key], None
    except MemoryError:
        raise  # the run's own process may have enough
    except Exception as error:
        if not isinstance(error, DomainBedError):  # whose message says it all
            error.add_note(f"In a loader process:\n{traceback.format_exc()}")
        return None, error


def _thread_on_this_device() -> ThreadPoolExecutor:
    """One thread, which uses the accelerator that the calling thread uses: a new thread has the first one."""
    select, index = torch.accelerator.set_device_index, torch.accelerator.current_device_index()
    return ThreadPoolExecutor(1, initializer=select, initargs=(index,))


def _pinned(read: Future[Any]) -> tuple[Any, Exception | None]:
    item, error = read.result()
    return pin_memory(item), error


def _kill(processes: Iterable[multiprocessing.process.BaseProcess]) -> None:
    for process in processes:
        process.kill()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
