"""An elastic worker: it pulls runs from a sweep directory until none is left.

Any number of workers on any hosts may share a directory. What is to be done is read from its sweep.json and
from the files of its runs; of several workers that start a run at once, its claim lets one go on.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.sweep.job import Job
from domainbed.sweep.manifest import manifest_of
from domainbed.sweep.pool import TIME_LIMIT, Pool, Task
from domainbed.sweep.process import BUSY, Slot
from domainbed.training.run_dir import RunState, end_of, failures_of, run_state
from domainbed.training.signals import Requests

LOOK_AGAIN_SECONDS = 1.0
"""Least time between two looks at the runs that others are at work on."""


def work(
    sweep_dir: Path,
    slots: Sequence[Slot],
    retries: int = 0,
    time_limit: float | None = None,
    requests: Requests | None = None,
) -> list[Job]:
    """Work on the sweep in `sweep_dir` until each of its runs is done, or has failed for good.

    Runs that others are at work on are waited for, and taken over if these die. A run that this worker told
    to leave, at the time limit, is left to other workers and launches.

    Args:
        sweep_dir: where a sweep was launched.
        slots: places to run in.
        retries: how often a run that failed, here or elsewhere, is started again; one that was refused as
            bad usage is not.
        time_limit: minutes that a run may take.
        requests: asks this worker to leave; by default SIGTERM, SIGUSR1 and Ctrl-C.

    Returns: all runs of the sweep as they are then.

    Raises:
        UsageError: no sweep is there.
        Preempted, Interrupted: this worker was told to leave; its runs have written their checkpoints.
    """
    queue = SweepQueue(sweep_dir, retries)
    pool = Pool(queue, slots, time_limit)
    if requests is not None:
        pool.work(requests)
    else:
        with Requests() as own:
            pool.work(own)
    return sweep_jobs(sweep_dir)


def sweep_jobs(sweep_dir: Path) -> list[Job]:
    """All runs of a sweep, in the order of their names; raises UsageError where no sweep is."""
    manifest = manifest_of(sweep_dir)
    return [Job(args, str(sweep_dir)) for _, args in sorted(manifest.jobs.items())]


class SweepQueue:
    """What is left of a sweep, from a place of this worker's own on: so workers rarely meet at one run."""

    def __init__(self, sweep_dir: Path, retries: int) -> None:
        jobs = sweep_jobs(sweep_dir)
        self.total, self.finished, self.failed = len(jobs), 0, 0
        self._retries = retries
        self._commands = [job.command_str for job in jobs]
        self._paths = [Path(job.output_dir) for job in jobs]
        self._to_look_at = deque(range(len(jobs)))
        self._to_look_at.rotate(secrets.randbelow(len(jobs) or 1))
        self._elsewhere: deque[int] = deque()
        self._look_again = 0.0
        # Counted here too: a full disk keeps no reasons, and nothing may be started for ever.
        self._failures_here: Counter[int] = Counter()

    def take(self) -> Task | None:
        """A run that nobody is at work on."""
        if not self._to_look_at and time.monotonic() >= self._look_again:
            self._to_look_at, self._elsewhere = self._elsewhere, self._to_look_at
        while self._to_look_at:
            number = self._to_look_at.popleft()
            state = run_state(self._paths[number])
            if state is RunState.DONE:
                self.finished += 1
            elif state is RunState.RUNNING:
                self._leave(number)
            elif not self._may_start(number, state):
                self.finished += 1
                self.failed += 1
            else:
                return Task(number, self._commands[number])
        return None

    def ended(self, task: Task, status: int) -> None:
        """Look at the run again if it failed, or if others are at work on it."""
        if status == BUSY:
            self._leave(task.number)
        elif status in (0, TIME_LIMIT):
            self.finished += 1
        else:
            self._failures_here[task.number] += 1
            self._to_look_at.append(task.number)

    def exhausted(self) -> bool:
        """Whether each run is done, or has failed for good."""
        return not self._to_look_at and not self._elsewhere

    def _leave(self, number: int) -> None:
        self._elsewhere.append(number)
        self._look_again = time.monotonic() + LOOK_AGAIN_SECONDS

    def _may_start(self, number: int, state: RunState) -> bool:
        failures = self._failures_here[number]
        if state is RunState.FAILED:
            if end_of(self._paths[number]).get("exit_status") == UsageError.exit_status:
                return False
            failures = max(failures, failures_of(self._paths[number]))
        return failures <= self._retries
