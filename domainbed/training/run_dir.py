"""The directory of one run: its files, and the process that works in it.

results.jsonl   one record per checkpoint     done              written last
run.json        settings and sample counts    claim-N.json      which process works here, with a heartbeat
out.txt err.txt printed output                failed.json       why the last attempt failed
checkpoint.pt   state to resume from          preempted.json    the run was stopped by a signal
model.pkl       the trained model             interrupted.json  the run was stopped by Ctrl-C
predictions.npz the predictions, with --save_predictions
attempt-N/      files of discarded attempts   queued.json       which process will launch the run
events.out.*    the records for TensorBoard, with --tensorboard
trackers.json   runs of MLflow and the like, and their last steps, with --trackers
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainbed.errors import DomainBedError, RunError, UsageError
from domainbed.files import write_atomic
from domainbed.predictions import file as predictions_file
from domainbed.training import plugin_code
from domainbed.training.claims import AlreadyClaimed, Claim, latest_claim
from domainbed.training.config import RETIRED, SETTINGS
from domainbed.training.run_state import (
    DONE,
    ENDINGS,
    FAILED,
    INTERRUPTED,
    PREEMPTED,
    QUEUED,
    failure_count,
    last_progress,
    read_json,
    record_ending,
)
from domainbed.training.stop_requests import Preempted, StopRequests

_FILES_OF_AN_ATTEMPT = (
    "results.jsonl",
    "run.json",
    "out.txt",
    "err.txt",
    *ENDINGS,
    DONE,
    "checkpoint.pt",
    "checkpoint-previous.pt",
    "model.pkl",
    "model_step*.pkl",
    predictions_file.NAME,
    predictions_file.STEP_FILES,
    "events.out.tfevents.*",
    "trackers.json",
)


class Busy(RunError):
    """Another process works on this run, or has taken it over."""

    exit_status = os.EX_TEMPFAIL


class RunDir:
    """A context manager for the directory of a run that this process works on.

    Inside the context this process holds the claim on the directory. If the context is left by an error, the
    reason is recorded in `failed.json`, by Ctrl-C in `interrupted.json`, and by `Preempted` in
    `preempted.json`.

    Args:
        path: the directory, created if missing.
        settings: everything the run's numbers depend on. A run with other settings is refused.
        restart: start over. Files of an earlier run are moved to `attempt-N`.

    Attributes:
        checkpoint: the checkpoint to resume from, or None to start from the beginning.
        unsaved: attributes of the algorithm that the newest checkpoint lacks. The run then starts from the
            beginning.

    Raises:
        UsageError: the directory cannot be written, or holds a run with other settings.
        Busy: another process works in it.
    """

    def __init__(self, path: Path, settings: dict[str, Any], restart: bool = False) -> None:
        self.path = path
        self.settings = settings
        self.checkpoint: dict[str, Any] | None = None
        self.unsaved: list[str] = []
        self._restart = restart
        self._claim: Claim | None = None
        self._failures = 0
        self._inner = contextlib.ExitStack()

    @property
    def finished(self) -> bool:
        """Whether the run is done."""
        return (self.path / DONE).exists()

    def __enter__(self) -> RunDir:
        try:
            self._enter()
        except OSError as error:
            self._release()
            raise UsageError(
                f"cannot write to output directory {self.path} ({error.strerror}); "
                "choose another --output_dir"
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
        except AlreadyClaimed as claimed:
            raise Busy(
                f"{self.path} is in use by {claimed}; wait for it to finish, or choose another --output_dir"
            ) from None
        self._failures = failure_count(self.path)  # read before the files are moved to attempt-N
        # The previous holder of the claim may have started or finished the run since the first check.
        if not self._restart:
            has_settings = self._check_settings()
            if self.finished:
                return
            self._load_checkpoint(has_settings)
        if self.checkpoint is None:
            self._move_to_attempt()
        for name in (*ENDINGS, QUEUED):
            (self.path / name).unlink(missing_ok=True)
        self._remove_temporary_files()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and self._claim is not None and self._claim.is_held() and not self.finished:
            if isinstance(error, Preempted):
                name = PREEMPTED
            else:
                name = FAILED if isinstance(error, Exception) else INTERRUPTED
            status = error.exit_status if isinstance(error, DomainBedError) else 1
            failures = self._failures + (name == FAILED)
            record_ending(self.path / name, str(error) or type(error).__name__, status, failures)
        self._release()
        self._inner.close()

    def receive(self, requests: StopRequests) -> StopRequests:
        """Enter `requests`, and leave them once this directory has recorded how the run ended."""
        return self._inner.enter_context(requests)

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.release(remove=self.finished)

    def check_claim(self) -> None:
        """Check that this run still belongs to this process.

        Raises: Busy if another process took it over, for instance because this one hung; RunError if the
            directory was deleted.
        """
        # A separate check, because the process that finishes a run removes its claim. If this process hung
        # while it wrote a heartbeat, that heartbeat then restores its own claim.
        if self.finished:
            raise Busy(f"{self.path} was taken over and finished by another process")
        if self._claim is None or not self._claim.is_held():
            if self._claim is not None and not latest_claim(self.path)[0]:
                raise RunError(f"{self.path} was deleted while the run was at work; start the run again")
            raise Busy(f"{self.path} was taken over by process {last_progress(self.path).get('pid')}")

    def set_progress(self, step: int, n_steps: int, first_step: int) -> None:
        """Set the progress that the next heartbeat reports.

        Args:
            step: number of updates done.
            n_steps: number of updates of the run.
            first_step: number of updates done before this process started.
        """
        if self._claim is not None:
            self._claim.progress = {"step": step, "n_steps": n_steps, "first_step": first_step}

    def write_summary(
        self, summary: dict[str, Any], machine: dict[str, Any], code: Mapping[str, str] | None = None
    ) -> None:
        """Write the settings, `summary`, the machines that worked on the run and its code to run.json.

        Args:
            summary: further entries.
            machine: description of this machine. It is added to the list `machines` unless it is the last.
            code: hash of each plugin class. If a resumed run has other ones than before, `code_changes` gets
                the number of updates done with the earlier code, and the earlier hashes.
        """
        self.check_claim()
        old = read_json(self.path / "run.json") or {}
        machines, changes = old.get("machines", []), old.get("code_changes", [])
        if machines[-1:] != [machine]:
            machines = [*machines, machine]
        code = dict(code or {})
        if self.checkpoint is not None and old.get("code", code) != code:
            changed = plugin_code.differences(old["code"], code)
            before = {name: old["code"].get(name) for name in changed}
            changes = [*changes, {"from_update": self.checkpoint["updates"], "before": before}]
        content = {"settings": self.settings, **summary, "machines": machines, "code": code}
        if changes:
            content["code_changes"] = changes
        write_atomic(self.path / "run.json", json.dumps(content, indent=1, sort_keys=True) + "\n")

    def finish(self) -> None:
        """Mark the run as done."""
        self.check_claim()
        write_atomic(self.path / DONE, "done")

    def check_code(self, code: Mapping[str, str], accept: bool) -> None:
        """Check that the run resumes with the plugins' code that it began with.

        Args:
            code: hash of each plugin class, as `plugin_code.hashes` returns them.
            accept: resume with other code, too.

        Raises: UsageError if code has changed, and `accept` is False.
        """
        before = (read_json(self.path / "run.json") or {}).get("code")
        if self.checkpoint is None or before is None or accept:
            return
        changed = plugin_code.differences(before, code)
        if changed:
            raise UsageError(
                f"{self.path} holds a run that other code began: {', '.join(changed)} changed since; "
                "use --accept_changed_code to resume with the code as it is, or --restart to start over"
            )

    def _load_checkpoint(self, has_settings: bool) -> None:
        """Set `checkpoint` and `unsaved`."""
        if not has_settings or not any(self.path.glob("checkpoint*.pt")):
            return
        from domainbed.training import checkpoint

        content = checkpoint.load(self.path)
        self.unsaved = (content or {}).get("attributes", {}).get("unsaved", [])
        self.checkpoint = None if self.unsaved else content

    def _check_settings(self) -> bool:
        """Compare the settings in run.json with those of this run; returns whether there is a run.json.

        A setting that is newer than the directory counts as its `value_before`. A setting that no longer
        exists is accepted with the value in `RETIRED`.

        Raises: UsageError if the settings differ, or the directory has records but no settings.
        """
        before = self._settings_on_disk()
        if before is None and (self.path / "results.jsonl").exists():
            before = self._settings_on_disk()  # there now if another process has just begun the run
            if before is None:
                raise UsageError(
                    f"{self.path} has results but no run.json with their settings; "
                    "choose another --output_dir, or use --restart to move them to attempt-N"
                )
        if before is None:
            return False
        now = json.loads(json.dumps(self.settings))
        differ = [
            difference
            for name in sorted(before.keys() | now.keys())
            if (difference := _difference(name, before, now))
        ]
        if differ:
            raise UsageError(
                f"{self.path} holds a run with other settings ({'; '.join(differ)}); "
                "choose another --output_dir, or use --restart to move it to attempt-N"
            )
        return True

    def _settings_on_disk(self) -> dict[str, Any] | None:
        return (read_json(self.path / "run.json") or {}).get("settings")

    def _move_to_attempt(self) -> None:
        """Move the files of an earlier attempt, if any, to attempt-N, so that no result is lost."""
        files = [file for pattern in _FILES_OF_AN_ATTEMPT for file in sorted(self.path.glob(pattern))]
        if not files:
            return
        suffixes = [attempt.name.removeprefix("attempt-") for attempt in self.path.glob("attempt-*")]
        number = 1 + max((int(suffix) for suffix in suffixes if suffix.isdecimal()), default=0)
        attempt = self.path / f"attempt-{number}"
        attempt.mkdir()
        for file in files:
            file.rename(attempt / file.name)

    def _remove_temporary_files(self) -> None:
        """Remove the temporary files of writes that a killed process left behind."""
        for pattern in _FILES_OF_AN_ATTEMPT:
            for file in self.path.glob(f".{pattern}.*"):
                file.unlink(missing_ok=True)


def _difference(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Description of how the setting `name` differs from run.json, or "" if it does not."""
    if name not in now:
        if name in RETIRED and before[name] == RETIRED[name]:
            return ""
        return f"{name} was {before[name]!r}, and this version does not know it"
    missing = SETTINGS[name].value_before if name in SETTINGS else None
    value = before.get(name, missing)
    return "" if value == now[name] else f"{name} was {value!r}, now {now[name]!r}"
