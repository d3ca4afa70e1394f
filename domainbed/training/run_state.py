"""The state of a run: whether it is queued, running or done, and how its last attempt ended.

The state is derived from the files in the run's directory alone (see `run_dir`). A launcher or a worker that
watches runs can also record why a process ended that could not record it itself.
"""

from __future__ import annotations

import contextlib
import enum
import json
from pathlib import Path
from typing import Any

from domainbed.files import write_atomic
from domainbed.json_input import parse_json
from domainbed.training.claims import Owner, active_owner, latest_claim, seems_running, this_process
from domainbed.training.stop_requests import Preempted

DONE = "done"
FAILED = "failed.json"
INTERRUPTED = "interrupted.json"
PREEMPTED = "preempted.json"
QUEUED = "queued.json"


class RunState(enum.Enum):
    """State of a run."""

    ABSENT = "not launched"
    QUEUED = "queued"
    RUNNING = "running"
    PREEMPTED = "preempted"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DONE = "done"


ENDINGS = {
    FAILED: RunState.FAILED,
    INTERRUPTED: RunState.INTERRUPTED,
    PREEMPTED: RunState.PREEMPTED,
}
"""Files that record how an attempt ended before the run was done -> the state they stand for."""


def run_state(path: Path) -> RunState:
    """State of the run in `path`."""
    if (path / DONE).exists():
        return RunState.DONE
    if not path.exists():
        return RunState.ABSENT
    if active_owner(path) is not None:
        return RunState.RUNNING
    for name, state in ENDINGS.items():
        if (path / name).exists():
            return state
    if latest_claim(path)[1] is not None:
        return RunState.INTERRUPTED
    # Either a launcher has not started the run yet, or the launching process died before it did.
    launcher = read_json(path / QUEUED)
    if launcher is not None and not seems_running(launcher, path / QUEUED):
        return RunState.INTERRUPTED
    return RunState.QUEUED


def last_failure(path: Path) -> dict[str, Any]:
    """The record of the last attempt in `path` (error, exit_status, pid, host) if it failed, else empty."""
    return read_json(path / FAILED) or {}


def seconds_of_finished(path: Path) -> float | None:
    """Seconds that the last attempt of the run in `path` took, without its imports; None if it is not done.

    By the times of its files, so None also if these were changed.
    """
    try:
        seconds = (path / DONE).stat().st_mtime - (path / "run.json").stat().st_mtime
    except OSError:
        return None
    return seconds if seconds > 0 else None


def failure_reason(path: Path) -> str:
    """The one-line error of the last attempt in `path`, or "" if it recorded none."""
    return str(last_failure(path).get("error", ""))


def failure_count(path: Path) -> int:
    """Number of failed attempts recorded in `path`, or 0 once the run is done."""
    counts = [0]
    for name in ENDINGS:
        ending = read_json(path / name)
        if ending is not None:
            failures = ending.get("failures")
            counts.append(failures if isinstance(failures, int) else int(name == FAILED))
    return max(counts)


def clear_failure(path: Path) -> None:
    """Remove the failure recorded in `path`, if any, so that the run no longer counts as failed."""
    (path / FAILED).unlink(missing_ok=True)


def last_progress(path: Path) -> Owner:
    """Identity and progress of the last process that worked on the run in `path`. May be empty."""
    return latest_claim(path)[1] or {}


def mark_queued(path: Path) -> None:
    """Record that this process will launch the run in `path`. The directory is created if needed."""
    path.mkdir(parents=True, exist_ok=True)
    write_atomic(path / QUEUED, json.dumps(this_process()))


def record_failure(path: Path, reason: str, exit_status: int, failures: int = 1) -> None:
    """Record in `path` why its run failed, and that this was failure number `failures`."""
    record_ending(path / FAILED, reason, exit_status, failures)


def record_preemption(path: Path, reason: str, failures: int = 0) -> None:
    """Record in `path` that its run was stopped and can be resumed, after `failures` failed attempts."""
    record_ending(path / PREEMPTED, reason, Preempted.exit_status, failures)


def record_ending(file: Path, reason: str, exit_status: int, failures: int) -> None:
    """Write why an attempt ended. Never raises OSError: a full disk must not hide the reason itself."""
    reason = " ".join(reason.split())
    ending = {"error": reason, "exit_status": exit_status, "failures": failures, **this_process()}
    with contextlib.suppress(OSError):
        write_atomic(file, json.dumps(ending))


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in the file `path`, or None if there is no such file or no object in it."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
