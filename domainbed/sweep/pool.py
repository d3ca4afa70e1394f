"""A pool of processes that works through a queue of command lines, each started when its turn comes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from domainbed.sweep.ends import keep_reason, keep_time_limit
from domainbed.sweep.process import BUSY, Slot, load_what_runs_need, run_directory, start
from domainbed.training.run_dir import Preempted, failures_of
from domainbed.training.signals import Requests

GRACE_SECONDS = 60.0
"""What a process that was told to leave has for its checkpoint, before it is killed."""
_LOOK_SECONDS = 0.02

TIME_LIMIT = Preempted.exit_status
"""Exit status of a command that left to go on later: told to, or past its time limit."""


@dataclass(frozen=True)
class Task:
    """One command of a queue; `number` and `tries` are the queue's own business."""

    number: int
    command: str
    tries: int = 0


class Queue(Protocol):
    """Where a pool gets its commands from.

    Attributes:
        total: number of commands, for the progress bar.
        finished: how many of them need nothing more.
        failed: how many of these failed.
    """

    total: int
    finished: int
    failed: int

    def take(self) -> Task | None:
        """What is to be started now; None if there is nothing, for now or for good."""

    def ended(self, task: Task, status: int) -> None:
        """Hear the exit status of a command that was taken (negative: the signal that ended it)."""

    def exhausted(self) -> bool:
        """Whether nothing is left to start, now or later, but for what a command at work may bring."""


@dataclass
class _Process:
    """A command at work."""

    task: Task
    slot: Slot
    directory: Path | None
    failures: int
    began: float = field(default_factory=time.monotonic)
    told: float | None = None  # when it was told to leave


class _Bar(tqdm):  # type: ignore[type-arg] # it iterates over nothing
    # No thread that watches the bar: it could hold the bar's lock at the moment of a fork.
    monitor_interval = 0

    def show(self, queue: Queue) -> None:
        """Show how far `queue` is, if that has changed."""
        if queue.finished > self.n:
            self.set_postfix(failed=queue.failed, refresh=False)
            self.update(queue.finished - self.n)


class Pool:
    """Processes at work on a queue, one at a time in each slot.

    What `train` commands print goes to launch.log in their directories, which stays if they fail.

    Args:
        queue: gives the commands, and hears how they end.
        slots: places to run them in.
        time_limit: minutes after which a command is told to leave (SIGTERM), and `GRACE_SECONDS` later
            killed; its status is `TIME_LIMIT` then.
    """

    def __init__(self, queue: Queue, slots: Sequence[Slot], time_limit: float | None = None) -> None:
        self.queue = queue
        self.time_limit = time_limit
        self._free = list(slots)[::-1]
        self._at_work: dict[int, _Process] = {}

    def work(self, requests: Requests) -> None:
        """Work until the queue is exhausted.

        Raises: Preempted or Interrupted if `requests` has such a request. However this function is left,
            the commands at work were told to leave first, and have.
        """
        try:
            with _Bar(total=self.queue.total, desc="runs", unit="run", smoothing=0.05) as bar:
                while True:
                    requests.check()
                    self._start_what_can_be()
                    for process, status in self._ended():
                        self._free.append(process.slot)
                        self.queue.ended(process.task, status)
                    bar.show(self.queue)
                    if not self._at_work and self.queue.exhausted():
                        return
                    self._keep_time()
                    time.sleep(_LOOK_SECONDS)
        finally:
            self._end_all()

    def _start_what_can_be(self) -> None:
        while self._free and (task := self.queue.take()) is not None:
            slot = self._free.pop()
            directory = run_directory(task.command)
            failures = 0 if directory is None else failures_of(directory)
            if slot.fork and directory is not None:
                load_what_runs_need()
            self._at_work[start(task.command, slot)] = _Process(task, slot, directory, failures)

    def _ended(self) -> Iterator[tuple[_Process, int]]:
        """Processes that have ended since, with what they are to be counted as."""
        for pid in list(self._at_work):
            ended, wait_status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            process, status = self._at_work.pop(pid), os.waitstatus_to_exitcode(wait_status)
            if process.told is not None and status in (TIME_LIMIT, -signal.SIGTERM, -signal.SIGKILL):
                status = TIME_LIMIT
                if process.directory is not None and self.time_limit is not None:
                    keep_time_limit(process.directory, self.time_limit, process.failures)
            elif process.directory is not None and status != BUSY:
                keep_reason(process.directory, status, process.failures)
            yield process, status

    def _keep_time(self) -> None:
        """Tell processes past the time limit to leave, and kill those that did not."""
        now = time.monotonic()
        for pid, process in self._at_work.items():
            if process.told is not None:
                if now - process.told > GRACE_SECONDS:
                    os.kill(pid, signal.SIGKILL)
            elif self.time_limit is not None and now - process.began > 60 * self.time_limit:
                os.kill(pid, signal.SIGTERM)
                process.told = now

    def _end_all(self) -> None:
        """Let all processes leave; kill what has not left in time."""
        for pid in self._at_work:
            os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + GRACE_SECONDS
        try:
            while self._at_work and time.monotonic() < until:
                self._at_work = {pid: process for pid, process in self._at_work.items() if not _is_over(pid)}
                time.sleep(_LOOK_SECONDS)
        finally:
            for pid in self._at_work:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def _is_over(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid
