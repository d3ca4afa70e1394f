"""The directory of one run: what is in it, who works on it, and what state it is in.

    results.jsonl   one record a checkpoint       done           written last
    run.json        settings and sample counts    running.json   who is at work, with a heartbeat
    out.txt err.txt what was printed              failed.json    why the last attempt ended badly
    model.pkl       the trained model             interrupted.json  that it ended by Ctrl-C
    attempt-N/      files of attempts before this one

A run's state is read from these files alone.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from domainbed.errors import RunError, UsageError
from domainbed.lib.atomic import write_whole
from domainbed.lib.locks import claim

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A heartbeat older than this, from a process of another host, counts as the end of that process."""

_FILES = (
    *("results.jsonl", "run.json", "out.txt", "err.txt", "failed.json", "interrupted.json", "done"),
    *("model.pkl", "model_step*.pkl"),
)


class RunState(enum.Enum):
    """What became of a run."""

    ABSENT = "not launched"
    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DONE = "done"


def run_state(path: Path) -> RunState:
    """State of the run in `path`."""
    if (path / "done").exists():
        return RunState.DONE
    if not path.exists():
        return RunState.ABSENT
    owner = _read_json(path / "running.json")
    if owner is not None:
        return RunState.RUNNING if _is_alive(owner, path / "running.json") else RunState.INTERRUPTED
    if (path / "failed.json").exists():
        return RunState.FAILED
    if (path / "interrupted.json").exists():
        return RunState.INTERRUPTED
    # Handed to a launcher that has not started it yet, or by a process that died before it did.
    launcher = _read_json(path / "queued.json")
    if launcher is not None and not _is_alive(launcher, path / "queued.json"):
        return RunState.INTERRUPTED
    return RunState.QUEUED


def failure_of(path: Path) -> str:
    """The line in which the last attempt in `path` said why it failed; empty if it did not say."""
    return str((_read_json(path / "failed.json") or {}).get("error", ""))


def mark_queued(path: Path) -> None:
    """Note that this process is going to see to the run in `path`, which need not exist."""
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / "queued.json", json.dumps(_myself()))


def record_failure(path: Path, reason: str) -> None:
    """Keep in `path` why its run ended badly."""
    _note_end(path / "failed.json", reason)


class RunDir:
    """The directory of a run that this process works on; a context manager.

    Inside the context this process holds the lock `.lock`, and `running.json` says that it is at work. On
    leaving it by an error the reason is kept in `failed.json`, by Ctrl-C in `interrupted.json`.

    Args:
        path: made if it is missing.
        settings: what the run's numbers depend on; a directory of a run with other settings is refused.
        restart: move all files of a run that is there aside, whatever it is.

    Raises:
        UsageError: the directory can't be written, or holds a run with other settings.
        RunError: another process is at work in it.
    """

    def __init__(self, path: Path, settings: dict[str, Any], restart: bool = False) -> None:
        self.path = path
        self.settings = settings
        self._restart = restart
        self._stop = threading.Event()
        self._lock: TextIO | None = None

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
        self._lock = (self.path / ".lock").open("a")
        if not claim(self._lock.fileno()) or run_state(self.path) is RunState.RUNNING:
            owner = _read_json(self.path / "running.json") or {}
            raise RunError(
                f"{self.path} is being worked on by process {owner.get('pid')} on {owner.get('host')}; "
                "wait for it, or name another --output_dir"
            )
        if self._restart:
            self._move_aside()
        else:
            self._check_settings()
        if not self.finished:
            self._move_aside()
            write_whole(self.path / "running.json", json.dumps(_myself()))
            (self.path / "queued.json").unlink(missing_ok=True)
            threading.Thread(target=self._beat, daemon=True).start()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._stop.set()
        if error is not None and not self.finished:
            name = "failed.json" if isinstance(error, Exception) else "interrupted.json"
            _note_end(self.path / name, str(error) or type(error).__name__)
        if _read_json(self.path / "running.json") == _myself():
            (self.path / "running.json").unlink(missing_ok=True)
        self._release()

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write run.json: the settings, and `summary`."""
        content = {"settings": self.settings, **summary}
        write_whole(self.path / "run.json", json.dumps(content, indent=1, sort_keys=True) + "\n")

    def finish(self) -> None:
        """Write `done`."""
        write_whole(self.path / "done", "done")

    def _check_settings(self) -> None:
        """Refuse to mix runs."""
        before = (_read_json(self.path / "run.json") or {}).get("settings")
        if before is None:
            if (self.path / "results.jsonl").exists():
                raise UsageError(
                    f"{self.path} holds results of a run that says nothing of its settings; "
                    "name another --output_dir, or give --restart to move them aside"
                )
            return
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

    def _move_aside(self) -> None:
        """Move the files of an attempt that is there to attempt-N: nothing computed is thrown away."""
        files = [file for pattern in _FILES for file in sorted(self.path.glob(pattern))]
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

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self.path / "running.json")
            except OSError:
                return  # the directory was removed under us; the run itself will say so


def _note_end(path: Path, reason: str) -> None:
    """Write why a run ended; a full disk must not hide the reason from the caller, so this never fails."""
    with contextlib.suppress(OSError):
        write_whole(path, json.dumps({"error": " ".join(reason.split()), **_myself()}))


def _myself() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _start_of(os.getpid())}


def _start_of(pid: int) -> str | None:
    """When process `pid` of this host started (field 22 in /proc), which tells a reused pid apart."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]  # a zombie works on nothing
    except (OSError, IndexError):
        return None


def _is_alive(owner: dict[str, Any], marker: Path) -> bool:
    if owner.get("host") == socket.gethostname() and Path("/proc").is_dir():
        return owner.get("started") is not None and _start_of(int(owner.get("pid", -1))) == owner["started"]
    try:
        return time.time() - marker.stat().st_mtime < STALE_SECONDS
    except OSError:
        return False


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
