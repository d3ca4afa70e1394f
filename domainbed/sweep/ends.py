"""What is left in a run's directory when its process has ended, however that was."""

from __future__ import annotations

from pathlib import Path

from domainbed.sweep.process import LOG
from domainbed.training.run_dir import (
    RunState,
    failure_of,
    record_failure,
    record_preemption,
    run_state,
)


def keep_reason(directory: Path, status: int, failures: int) -> None:
    """After a `train` command: remove its log if it is done, else keep the reason of its end.

    Args:
        directory: the run's.
        status: exit status of the command (negative: the signal that ended it).
        failures: how many of its attempts had failed before this one.
    """
    log = directory / LOG
    if status == 0:
        log.unlink(missing_ok=True)
    elif run_state(directory) not in (RunState.DONE, RunState.RUNNING, RunState.PREEMPTED):
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        reason = _reason_in(text)
        if status < 0:
            last = next((line for line in reversed(text.splitlines()) if line.strip()), "nothing")
            ended = f"ended by signal {-status} after: {last.removeprefix('error: ')}"
            record_failure(directory, ended, status, failures + 1)
        elif reason or not failure_of(directory):
            nothing = f"exit status {status}, it left no reason; is the disk full?"
            record_failure(directory, reason or nothing, status, failures + 1)


def keep_time_limit(directory: Path, minutes: float, failures: int) -> None:
    """After a `train` command that was ended by the time limit: its run goes on at another launch."""
    if run_state(directory) not in (RunState.DONE, RunState.RUNNING, RunState.PREEMPTED):
        record_preemption(directory, f"ended by the time limit of {minutes:g} minutes", failures)


def _reason_in(log: str) -> str:
    """The error that a log ends with; empty if it ends with something else, or in the middle of a line.

    On a full disk the error itself may be cut off or missing, and what stands last is no reason.
    """
    last = log.splitlines()[-1] if log.endswith("\n") else ""
    is_error = last.startswith("error: ") or "Traceback (most recent call last)" in log or ": error: " in last
    return last.removeprefix("error: ") if is_error else ""
