"""A command that runs in a process of its own, with a time limit. The end of a run is recorded on disk."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from domainbed.sweep.devices import Slot
from domainbed.sweep.fork import LOG, start
from domainbed.sweep.job import run_directory
from domainbed.training.run_dir import Busy
from domainbed.training.run_state import (
    RunState,
    failure_count,
    failure_reason,
    record_failure,
    record_preemption,
    run_state,
)
from domainbed.training.stop_requests import Preempted

BUSY = Busy.exit_status
"""Exit status of a run that another process is working on."""
PREEMPTED = Preempted.exit_status
"""Exit status of a command that was stopped by a signal or its time limit. A relaunch resumes it."""

GRACE_SECONDS = 60.0
"""Time that a command has to write its checkpoint between SIGTERM and SIGKILL."""
POLL_SECONDS = 0.02

_RECORDED = (RunState.DONE, RunState.RUNNING, RunState.PREEMPTED)
"""States of a run whose directory already says how it ended, or belongs to another process."""


class CommandProcess:
    """A command that runs in a slot.

    Args:
        command: a command line.
        slot: the slot that it uses.
        time_limit: minutes that it may take; None: no limit.
    """

    def __init__(self, command: str, slot: Slot, time_limit: float | None = None) -> None:
        self.slot = slot
        self._time_limit = time_limit
        self._directory = run_directory(command)
        self._failures_before = failure_count(self._directory) if self._directory is not None else 0
        self._terminated_at: float | None = None
        self._ended = False
        self._pid = start(command, slot)
        self._started_at = time.monotonic()

    def poll(self) -> int | None:
        """Exit status (negative: the signal that ended it), or None while the command runs.

        A command that exceeds its time limit is terminated, and its exit status is `PREEMPTED`. Call this
        regularly, and not again after it has returned a status.
        """
        status = self._wait(os.WNOHANG)
        if status is None:
            self._enforce_time_limit()
            return None
        if self._terminated_at is not None and status in (PREEMPTED, -signal.SIGTERM, -signal.SIGKILL):
            status = PREEMPTED
        if self._directory is not None:
            self._record_end(self._directory, status)
        return status

    def _enforce_time_limit(self) -> None:
        now = time.monotonic()
        if self._terminated_at is not None:
            if now - self._terminated_at > GRACE_SECONDS:
                os.kill(self._pid, signal.SIGKILL)
        elif self._time_limit is not None and now - self._started_at > 60 * self._time_limit:
            os.kill(self._pid, signal.SIGTERM)
            self._terminated_at = now

    def _record_end(self, directory: Path, status: int) -> None:
        """Record how the run in `directory` ended, and remove its log if it succeeded."""
        if status == 0:
            (directory / LOG).unlink(missing_ok=True)
        elif status != BUSY and run_state(directory) not in _RECORDED:
            if self._terminated_at is not None and status == PREEMPTED:
                reason = f"stopped by the time limit of {self._time_limit:g} minutes"
                record_preemption(directory, reason, self._failures_before)
            elif reason := _failure(directory, status):
                record_failure(directory, reason, status, self._failures_before + 1)

    def _wait(self, flags: int = 0) -> int | None:
        pid, wait_status = os.waitpid(self._pid, flags)
        self._ended = pid == self._pid
        return os.waitstatus_to_exitcode(wait_status) if self._ended else None


def terminate(processes: Iterable[CommandProcess]) -> None:
    """Send SIGTERM to all `processes`, and SIGKILL to those that have not ended after `GRACE_SECONDS`.

    Returns when all have ended. Does not record their ends.
    """
    running = [process for process in processes if not process._ended]
    for process in running:
        os.kill(process._pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    try:
        while running and time.monotonic() < deadline:
            running = [process for process in running if process._wait(os.WNOHANG) is None]
            time.sleep(POLL_SECONDS)
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process._pid, signal.SIGKILL)
                process._wait()


def _failure(directory: Path, status: int) -> str:
    """Why the command of the run in `directory` failed; empty if the run has recorded that itself."""
    log = directory / LOG
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if status < 0:
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "nothing")
        return f"ended by signal {-status} after: {last.removeprefix('error: ')}"
    reason = _error_in(text)
    if not reason and not failure_reason(directory):
        return f"exit status {status} without an error message; is the disk full?"
    return reason


def _error_in(log: str) -> str:
    """The error message at the end of a log; empty if there is none.

    On a full disk the message may be missing or truncated. Then the last line is something else.
    """
    last = log.splitlines()[-1] if log.endswith("\n") else ""
    is_error = last.startswith("error: ") or "Traceback (most recent call last)" in log or ": error: " in last
    return last.removeprefix("error: ") if is_error else ""
