"""A pool of processes that runs the commands of a queue, one at a time in each slot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tqdm import tqdm

from domainbed.sweep.devices import Slot
from domainbed.sweep.process import POLL_SECONDS, CommandProcess, terminate
from domainbed.training.stop_requests import StopRequests


@dataclass(frozen=True)
class Task:
    """One command of a queue.

    Attributes:
        number: its position, for the queue.
        command: the command line.
        failures: how many times it has failed, for the queue.
    """

    number: int
    command: str
    failures: int = 0


class Queue(Protocol):
    """A source of commands for a pool.

    Attributes:
        total: number of commands.
        finished: number of commands that need no more work.
        failed: number of finished commands that failed.
    """

    total: int
    finished: int
    failed: int

    def take(self) -> Task | None:
        """The next command to start; None if there is none at the moment."""

    def report(self, task: Task, status: int) -> None:
        """Receive the exit status of a command (negative: the signal that ended it)."""

    def exhausted(self) -> bool:
        """Whether `take` will return nothing more unless a running command fails."""


class Pool:
    """Runs the commands of a queue in slots.

    Args:
        queue: provides the commands and receives their exit statuses.
        slots: where to run them, one at a time in each.
        time_limit: minutes that a command may take; None: no limit. See `CommandProcess`.
    """

    def __init__(self, queue: Queue, slots: Sequence[Slot], time_limit: float | None = None) -> None:
        self.queue = queue
        self.time_limit = time_limit
        self._free = list(slots)[::-1]
        self._running: list[tuple[Task, CommandProcess]] = []

    def work(self, requests: StopRequests) -> None:
        """Run commands until the queue is exhausted, with a progress bar on stderr.

        Raises: Preempted or Interrupted when `requests` has received a signal. On any exception the running
            commands are stopped first.
        """
        try:
            with RunsBar(self.queue.total) as bar:
                while True:
                    requests.check()
                    self._start_commands()
                    self._collect_finished()
                    bar.show(self.queue)
                    if not self._running and self.queue.exhausted():
                        return
                    time.sleep(POLL_SECONDS)
        finally:
            terminate(process for _, process in self._running)

    def _start_commands(self) -> None:
        while self._free and (task := self.queue.take()) is not None:
            process = CommandProcess(task.command, self._free.pop(), self.time_limit)
            self._running.append((task, process))

    def _collect_finished(self) -> None:
        for task, process in list(self._running):
            status = process.poll()
            if status is not None:
                self._running.remove((task, process))
                self._free.append(process.slot)
                self.queue.report(task, status)


class Counts(Protocol):
    """How many commands have ended, as in `Queue`."""

    finished: int
    failed: int


class RunsBar(tqdm):  # type: ignore[type-arg] # it iterates over nothing
    """A progress bar of runs on stderr."""

    # No monitor thread: it could hold the bar's lock at the moment of a fork.
    monitor_interval = 0

    def __init__(self, total: int) -> None:
        super().__init__(total=total, desc="runs", unit="run", smoothing=0.05)

    def show(self, counts: Counts) -> None:
        """Show the progress if it has changed."""
        if counts.finished > self.n:
            self.set_postfix(failed=counts.failed, refresh=False)
            self.update(counts.finished - self.n)
