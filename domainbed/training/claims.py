"""Claims on a directory: only one process works in it at a time, across all hosts that share the file system.

    claim-N.json   the N-th claim: which process holds it, and a heartbeat that this process renews

Only the claim with the highest number is valid. Its file is created by a hard link, which a file system
grants to one process only, and is not removed while it is valid. So if several processes try to take over,
one succeeds. Neither file locks nor synchronized clocks are needed: a claim is taken over if its holder was
a process of this host that has exited, if it was released, or if no heartbeat arrived while this process
watched it. The age of a heartbeat of this host is measured by its monotonic clock, which cannot be set. A
holder that hung and lost its claim finds a higher number when it checks, and must not write any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainbed.files import create_atomic, write_atomic
from domainbed.json_input import parse_json

HEARTBEAT_SECONDS = 10.0
"""Seconds from one heartbeat to the next."""
STALE_SECONDS = 60.0
"""Age of a heartbeat, in seconds, from which the claim is watched before it is taken over."""
WATCH_SECONDS = 3 * HEARTBEAT_SECONDS
"""How long, in seconds, a stale claim is watched for a new heartbeat."""

Owner = dict[str, Any]
"""Content of a claim's file: pid, host, processes, started, beat, monotonic (the host's clock at the beat),
seconds, released, and progress."""


class AlreadyClaimed(Exception):
    """Another process holds the claim.

    Attributes:
        owner: content of the claim's file.
    """

    def __init__(self, owner: Owner) -> None:
        super().__init__(f"process {owner.get('pid')} on {owner.get('host')}")
        self.owner = owner


class Claim:
    """The right to write in `directory`, acquired on construction and held until `release`.

    A thread renews the heartbeat, which also reports `progress` and the seconds since the claim was acquired.

    Args:
        directory: an existing directory.

    Attributes:
        number: number of the claim.
        progress: entries that the next heartbeat adds to the claim's file.

    Raises:
        AlreadyClaimed: another process holds the claim.
        OSError: the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.progress: dict[str, int] = {}
        number, owner = latest_claim(directory)
        if owner is not None and not _can_be_taken_over(directory, number, owner):
            raise AlreadyClaimed(owner)
        self.number = number + 1
        self._identity = this_process()
        self._heartbeats = 0
        self._acquired_at = time.monotonic()
        if not create_atomic(self.path, json.dumps(self._content())):
            raise AlreadyClaimed(latest_claim(directory)[1] or {})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_heartbeat, daemon=True)
        self._thread.start()
        for old in directory.glob("claim-*.json"):
            if _number_of(old) < self.number:
                old.unlink(missing_ok=True)

    @property
    def path(self) -> Path:
        """The claim's file."""
        return self.directory / f"claim-{self.number}.json"

    def is_held(self) -> bool:
        """Whether no other process has taken over, and the directory was not deleted."""
        number, owner = latest_claim(self.directory)
        # Another process has the same number after the directory was deleted and made again.
        return number == self.number and (not owner or _is_same_process(owner, self._identity))

    def release(self, remove: bool = False) -> None:
        """Release the claim. Does nothing if another process has taken over.

        Args:
            remove: also remove the claim's file, because no process will need the directory again.
        """
        self._stop.set()
        self._thread.join()
        if self.is_held():
            # If the disk is full, the claim ends with this process.
            with contextlib.suppress(OSError):
                if remove:
                    self.path.unlink()
                    return
                write_atomic(self.path, json.dumps({**self._content(), "released": True}))

    def _content(self) -> Owner:
        seconds = round(time.monotonic() - self._acquired_at, 1)
        beat = {"beat": self._heartbeats, "monotonic": round(time.monotonic(), 1)}
        return {**self._identity, **beat, "seconds": seconds, **self.progress}

    def _renew_heartbeat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS) and self.is_held():
            self._heartbeats += 1
            # If the disk is full now, it may have room at the next heartbeat.
            with contextlib.suppress(OSError):
                write_atomic(self.path, json.dumps(self._content()))


def latest_claim(directory: Path) -> tuple[int, Owner | None]:
    """Number and owner of the valid claim on `directory`, or (0, None) if it was never claimed.

    The owner is an empty dict if the claim's file is damaged.
    """
    number = _latest_number(directory)
    if not number:
        return 0, None
    try:
        owner = parse_json((directory / f"claim-{number}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        owner = {}
    return number, owner if isinstance(owner, dict) else {}


def active_owner(directory: Path) -> Owner | None:
    """The owner of the claim on `directory` if it seems to be running, else None.

    Does not wait: it compares the time of the last heartbeat with this host's clock.
    """
    number, owner = latest_claim(directory)
    if owner is None or owner.get("released") or _has_exited(owner):
        return None
    return None if _has_stale_heartbeat(directory, number, owner) else owner


def at_work(directories: Sequence[Path]) -> set[Path]:
    """The directories in which a process may be at work: those that must not be deleted.

    These are all claims of living processes of this host, even if such a process hangs, and those of other
    hosts that have a recent heartbeat or a new one within `WATCH_SECONDS`. Waits that long if any claim of
    another host has an old heartbeat, since two hosts' clocks may differ.
    """
    found, watched = set(), {}
    for directory in directories:
        number, owner = latest_claim(directory)
        if owner is None or owner.get("released") or _has_exited(owner):
            continue
        if _is_local(owner) or not _has_stale_heartbeat(directory, number, owner):
            found.add(directory)
        else:
            watched[directory] = (number, owner)
    deadline = time.monotonic() + WATCH_SECONDS
    while watched and time.monotonic() < deadline:
        time.sleep(WATCH_SECONDS / 20)
        new = {directory for directory, claim in watched.items() if latest_claim(directory) != claim}
        found |= new
        watched = {directory: claim for directory, claim in watched.items() if directory not in new}
    return found


def this_process() -> Owner:
    """Identity of this process, different from that of every other process on any host."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "processes": _process_table(),
        "started": _start_time(os.getpid()),
    }


def seems_running(owner: Owner, marker: Path) -> bool:
    """Whether the process that wrote `marker` still seems to be running.

    A process of another host seems to be running while `marker` is not stale.
    """
    return not _has_exited(owner) and (_is_local(owner) or not _is_stale(marker))


def _can_be_taken_over(directory: Path, number: int, owner: Owner) -> bool:
    """Whether the claim can be taken over. Watches a stale claim for a new heartbeat first."""
    if owner.get("released") or _has_exited(owner):
        return True
    if not _has_stale_heartbeat(directory, number, owner):
        return False
    deadline = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < deadline:
        time.sleep(WATCH_SECONDS / 20)
        if latest_claim(directory) != (number, owner):
            return False
    return True


def _latest_number(directory: Path) -> int:
    return max(map(_number_of, directory.glob("claim-*.json")), default=0)


def _number_of(path: Path) -> int:
    number = path.stem.removeprefix("claim-")
    return int(number) if number.isdecimal() else 0


def _is_local(owner: Owner) -> bool:
    return owner.get("processes") == _process_table() is not None


def _process_table() -> str | None:
    """Identity of the process table of this process. Hosts and containers may share names and pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _has_exited(owner: Owner) -> bool:
    """Whether the owner was a process of this host that has exited."""
    if not _is_local(owner):
        return False
    return owner.get("started") is None or _start_time(int(owner.get("pid", -1))) != owner["started"]


def _has_stale_heartbeat(directory: Path, number: int, owner: Owner) -> bool:
    """Whether the last heartbeat is old."""
    if _is_local(owner) and "monotonic" in owner:
        return time.monotonic() - float(owner["monotonic"]) > STALE_SECONDS
    return _is_stale(directory / f"claim-{number}.json")


def _is_same_process(owner: Owner, other: Owner) -> bool:
    return all(owner.get(name) == value for name, value in other.items())


def _is_stale(marker: Path) -> bool:
    """Whether a file is old, or its time lies in the future because a clock was set back."""
    try:
        return abs(time.time() - marker.stat().st_mtime) > STALE_SECONDS
    except OSError:
        return True


def _start_time(pid: int) -> str | None:
    """Start time of process `pid` of this host (field 22 of /proc/PID/stat), which exposes a reused pid.

    None if the process has exited, which includes zombies.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return None
