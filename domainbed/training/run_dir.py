"""The directory of one run: what is in it, who works on it, and what state it is in.

    results.jsonl   one record a checkpoint       done            written last
    run.json        settings and sample counts    claim-N.json    who is at work, with a heartbeat
    out.txt err.txt what was printed              failed.json     why the last attempt ended badly
    checkpoint.pt   what an unfinished run needs  preempted.json  that it was told to leave
    model.pkl       the trained model             interrupted.json  that it ended by Ctrl-C
    attempt-N/      files of attempts that began anew
    events.out.*    the records for TensorBoard, if they are wanted there

A run's state is read from these files alone.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
from pathlib import Path
from typing import Any

from domainbed.errors import DomainBedError, RunError, UsageError
from domainbed.files import write_whole
from domainbed.training.claims import Claim, Held, Owner, at_work, is_alive, myself, newest

_OWN = (
    *("results.jsonl", "run.json", "out.txt", "err.txt", "failed.json", "interrupted.json", "preempted.json"),
    *("done", "checkpoint.pt", "checkpoint-previous.pt", "model.pkl", "model_step*.pkl"),
    "events.out.tfevents.*",
)
_ENDS = ("failed.json", "interrupted.json", "preempted.json")


class RunState(enum.Enum):
    """What became of a run."""

    ABSENT = "not launched"
    QUEUED = "queued"
    RUNNING = "running"
    PREEMPTED = "preempted"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DONE = "done"


class Busy(RunError):
    """Another process is at work on this run, or has taken it over."""

    exit_status = os.EX_TEMPFAIL


class Preempted(DomainBedError):
    """The run was told to leave (SIGTERM, SIGUSR1), and did so with a checkpoint to go on from."""

    exit_status = 3


def run_state(path: Path) -> RunState:
    """State of the run in `path`."""
    if (path / "done").exists():
        return RunState.DONE
    if not path.exists():
        return RunState.ABSENT
    if at_work(path) is not None:
        return RunState.RUNNING
    for name, state in zip(_ENDS, (RunState.FAILED, RunState.INTERRUPTED, RunState.PREEMPTED), strict=True):
        if (path / name).exists():
            return state
    if newest(path)[1] is not None:
        return RunState.INTERRUPTED
    # Handed to a launcher that has not started it yet, or by a process that died before it did.
    launcher = _read_json(path / "queued.json")
    if launcher is not None and not is_alive(launcher, path / "queued.json"):
        return RunState.INTERRUPTED
    return RunState.QUEUED


def end_of(path: Path) -> dict[str, Any]:
    """What the last attempt in `path` left if it failed: error, exit_status, pid, host; else empty."""
    return _read_json(path / "failed.json") or {}


def failure_of(path: Path) -> str:
    """The line in which the last attempt in `path` said why it failed; empty if it did not say."""
    return str(end_of(path).get("error", ""))


def failures_of(path: Path) -> int:
    """How many attempts at the run in `path` have failed, as far as its last one knows; 0 once it is done."""
    ends = {name: _read_json(path / name) for name in _ENDS}
    return max(
        int(end.get("failures", name == "failed.json")) if end is not None else 0
        for name, end in ends.items()
    )


def forget_failure(path: Path) -> None:
    """Let the run in `path`, if it has failed, count as one that has not."""
    (path / "failed.json").unlink(missing_ok=True)


def progress_of(path: Path) -> Owner:
    """What the last process at work on the run in `path` told of itself and its progress; may be empty."""
    return newest(path)[1] or {}


def mark_queued(path: Path) -> None:
    """Note that this process is going to see to the run in `path`, which need not exist."""
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / "queued.json", json.dumps(myself()))


def record_failure(path: Path, reason: str, exit_status: int, failures: int = 1) -> None:
    """Keep in `path` why its run ended badly, `failures` times by now."""
    _note_end(path / "failed.json", reason, exit_status, failures)


def record_preemption(path: Path, reason: str, failures: int = 0) -> None:
    """Keep in `path` that its run was ended to go on later, `failures` failed attempts being before that."""
    _note_end(path / "preempted.json", reason, Preempted.exit_status, failures)


class RunDir:
    """The directory of a run that this process works on; a context manager.

    Inside the context this process has the claim on the directory. On leaving it by an error the reason is
    kept in `failed.json`, by Ctrl-C in `interrupted.json`, and by `Preempted` in `preempted.json`.

    Args:
        path: made if it is missing.
        settings: what the run's numbers depend on; a directory of a run with other settings is refused.
        restart: begin anew, whatever is there: its files are moved aside.

    Attributes:
        checkpoint: what an unfinished run goes on from; None where there is nothing, and it begins anew.

    Raises:
        UsageError: the directory can't be written, or holds a run with other settings.
        Busy: another process is at work in it.
    """

    def __init__(self, path: Path, settings: dict[str, Any], restart: bool = False) -> None:
        self.path = path
        self.settings = settings
        self.checkpoint: dict[str, Any] | None = None
        self._restart = restart
        self._claim: Claim | None = None
        self._failures = 0

    @property
    def finished(self) -> bool:
        """Whether the run is done."""
        return (self.path / "done").exists()

    def __enter__(self) -> RunDir:
        try:
            self._enter()
        except OSError as error:
            self._release()
            raise UsageError(
                f"output directory {self.path} can't be written ({error.strerror}); name another --output_dir"
            ) from None
        except BaseException:
            self._release()
            raise
        return self

    def _enter(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._restart:
            self._check_settings()
            if self.finished:
                return
        try:
            self._claim = Claim(self.path)
        except Held as held:
            raise Busy(
                f"{self.path} is being worked on by {held}; wait for it, or name another --output_dir"
            ) from None
        self._failures = failures_of(self.path)  # before its files are moved aside
        # Whoever had the claim until now may have begun, or finished, since we looked.
        if not self._restart:
            known = self._check_settings()
            if self.finished:
                return
            self.checkpoint = self._load_checkpoint() if known else None
        if self.checkpoint is None:
            self._move_aside()
        for name in (*_ENDS, "queued.json"):
            (self.path / name).unlink(missing_ok=True)
        for left_over in (path for own in _OWN for path in self.path.glob(f".{own}.*")):
            left_over.unlink(missing_ok=True)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and self._claim is not None and self._claim.held() and not self.finished:
            name = "failed.json" if isinstance(error, Exception) else "interrupted.json"
            if isinstance(error, Preempted):
                name = "preempted.json"
            status = error.exit_status if isinstance(error, DomainBedError) else 1
            failures = self._failures + (name == "failed.json")
            _note_end(self.path / name, str(error) or type(error).__name__, status, failures)
        self._release()

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.release(for_good=self.finished)

    def check_held(self) -> None:
        """Raise Busy if another process has taken this run over, as from one that was frozen for minutes."""
        if self._claim is None or not self._claim.held():
            raise Busy(f"{self.path} was taken over by process {progress_of(self.path).get('pid')}")

    def tell(self, step: int, n_steps: int, first_step: int) -> None:
        """Let the next heartbeat say how far the run is."""
        if self._claim is not None:
            self._claim.progress = {"step": step, "n_steps": n_steps, "first_step": first_step}

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write run.json: the settings, and `summary`."""
        self.check_held()
        content = {"settings": self.settings, **summary}
        write_whole(self.path / "run.json", json.dumps(content, indent=1, sort_keys=True) + "\n")

    def finish(self) -> None:
        """Write `done`."""
        self.check_held()
        write_whole(self.path / "done", "done")

    def _load_checkpoint(self) -> dict[str, Any] | None:
        if not any(self.path.glob("checkpoint*.pt")):
            return None
        from domainbed.training import checkpoint

        return checkpoint.load(self.path)

    def _check_settings(self) -> bool:
        """Refuse to mix runs; whether the directory says of which run it is."""
        before = (_read_json(self.path / "run.json") or {}).get("settings")
        if before is None:
            if (self.path / "results.jsonl").exists():
                raise UsageError(
                    f"{self.path} holds results of a run that says nothing of its settings; "
                    "name another --output_dir, or give --restart to move them aside"
                )
            return False
        now = json.loads(json.dumps(self.settings))
        differ = [
            f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if differ:
            raise UsageError(
                f"{self.path} holds a run with other settings ({'; '.join(differ)}); "
                "name another --output_dir, or give --restart to move it aside"
            )
        return True

    def _move_aside(self) -> None:
        """Move the files of an attempt that is there to attempt-N: nothing computed is thrown away."""
        files = [file for pattern in _OWN for file in sorted(self.path.glob(pattern))]
        if files:
            taken = [
                0,
                *(int(each.name[8:]) for each in self.path.glob("attempt-*") if each.name[8:].isdecimal()),
            ]
            number = 1 + max(taken)
            aside = self.path / f"attempt-{number}"
            aside.mkdir()
            for file in files:
                file.rename(aside / file.name)


def _note_end(path: Path, reason: str, exit_status: int, failures: int) -> None:
    """Write why a run ended; a full disk must not hide the reason from the caller, so this never fails."""
    reason = " ".join(reason.split())
    end = {"error": reason, "exit_status": exit_status, "failures": failures, **myself()}
    with contextlib.suppress(OSError):
        write_whole(path, json.dumps(end))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
