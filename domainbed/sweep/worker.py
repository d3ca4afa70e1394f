"""A worker that runs what is left of a sweep.

Any number of workers on any hosts may share a sweep directory. They read what is left to do from its
sweep.json and from the files of its runs. If several start the same run, the run's claim lets one continue.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.sweep import launch_folder
from domainbed.sweep.defaults import kept_defaults, with_earlier_swad
from domainbed.sweep.devices import Slot
from domainbed.sweep.job import Job
from domainbed.sweep.manifest import manifest_of
from domainbed.sweep.pool import Pool, Task
from domainbed.sweep.process import BUSY, PREEMPTED
from domainbed.sweep.shared_hparams import with_shared_hparams
from domainbed.training.run_state import RunState, failure_count, last_failure, run_state
from domainbed.training.stop_requests import AFTER_CHECKPOINTS, StopRequests

RECHECK_SECONDS = 1.0
"""Least time between two checks of the runs that other workers are working on."""


def work(
    sweep_dir: Path,
    slots: Sequence[Slot],
    retries: int = 0,
    time_limit: float | None = None,
    requests: StopRequests | None = None,
) -> list[Job]:
    """Work on the sweep in `sweep_dir` until each of its runs is done or has failed.

    Works in the folder in which the sweep was launched, since relative paths start there.
    Waits for runs that other workers are working on, and takes them over if those workers die. Runs that
    this worker stops at the time limit are left to other workers and later launches.

    Args:
        sweep_dir: directory of a launched sweep.
        slots: where to run.
        retries: number of times that a failed run is started again, by any worker. A run that failed with
            `UsageError`'s exit status is not.
        time_limit: minutes that a run may take; None: no limit.
        requests: signals that stop this worker; None: SIGTERM, SIGUSR1, SIGUSR2 (which Grid Engine
            sends before it kills a job) and Ctrl-C.

    Returns: all jobs of the sweep in their final state.

    Raises:
        UsageError: `sweep_dir` contains no sweep, or was launched in a folder that is gone or unknown and
            has relative paths.
        Preempted, Interrupted: a signal stopped this worker. Its runs have written their checkpoints.
    """
    with launch_folder.for_work(sweep_dir) as sweep_dir:
        pool = Pool(SweepQueue(sweep_dir, retries), slots, time_limit)
        if requests is not None:
            pool.work(requests)
        else:
            with StopRequests([signal.SIGUSR2], AFTER_CHECKPOINTS) as own:
                pool.work(own)
        return sweep_jobs(sweep_dir)


def sweep_jobs(sweep_dir: Path) -> list[Job]:
    """All jobs of the sweep in `sweep_dir`, sorted by name. Raises UsageError if it contains no sweep."""
    manifest = manifest_of(sweep_dir)
    defaults = kept_defaults(manifest)
    args_of_runs = with_earlier_swad(manifest, (args for _, args in sorted(manifest.jobs.items())))
    return [Job(args, str(sweep_dir), defaults) for args in with_shared_hparams(args_of_runs)]


class SweepQueue:
    """The unfinished runs of a sweep, from a random position on, so that workers rarely try the same run."""

    def __init__(self, sweep_dir: Path, retries: int) -> None:
        jobs = sweep_jobs(sweep_dir)
        self.total, self.finished, self.failed = len(jobs), 0, 0
        self._retries = retries
        self._commands = [job.command_str for job in jobs]
        self._paths = [Path(job.output_dir) for job in jobs]
        self._pending = deque(range(len(jobs)))
        self._pending.rotate(secrets.randbelow(len(jobs) or 1))
        self._running_elsewhere: deque[int] = deque()
        self._next_recheck = 0.0
        # On a full disk a failure may leave no file. Counting here as well keeps retries finite.
        self._failures_here: Counter[int] = Counter()

    def take(self) -> Task | None:
        """A run that no worker is working on."""
        if not self._pending and time.monotonic() >= self._next_recheck:
            self._pending, self._running_elsewhere = self._running_elsewhere, self._pending
        while self._pending:
            number = self._pending.popleft()
            state = run_state(self._paths[number])
            if state is RunState.DONE:
                self.finished += 1
            elif state is RunState.RUNNING:
                self._recheck_later(number)
            elif not self._may_start(number, state):
                self.finished += 1
                self.failed += 1
            else:
                return Task(number, self._commands[number])
        return None

    def report(self, task: Task, status: int) -> None:
        """Check the run again if it failed or if another worker is working on it."""
        if status == BUSY:
            self._recheck_later(task.number)
        elif status in (0, PREEMPTED):
            self.finished += 1
        else:
            self._failures_here[task.number] += 1
            self._pending.append(task.number)

    def exhausted(self) -> bool:
        """Whether each run is done, running here, or has failed with no retries left."""
        return not self._pending and not self._running_elsewhere

    def _recheck_later(self, number: int) -> None:
        self._running_elsewhere.append(number)
        self._next_recheck = time.monotonic() + RECHECK_SECONDS

    def _may_start(self, number: int, state: RunState) -> bool:
        failures = self._failures_here[number]
        if state is RunState.FAILED:
            if last_failure(self._paths[number]).get("exit_status") == UsageError.exit_status:
                return False
            failures = max(failures, failure_count(self._paths[number]))
        return failures <= self._retries
