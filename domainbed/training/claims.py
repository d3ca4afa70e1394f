"""Who works on a directory: one process at a time, of all hosts that share the file system.

    claim-N.json   the N-th claim: its holder, and a heartbeat that the holder renews

The claim with the highest number counts. Its file is made by a hard link, which a file system grants to one
process only, and is never removed while it counts; so of several that want to take over, one does. Neither
file locks nor the agreement of clocks is relied on: a claim is taken over when its holder's process is gone
from this host, was given back, or was watched for a while without a heartbeat. A holder that was frozen and
taken for dead finds a higher number when it looks, and must not write any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from domainbed.files import make_whole, write_whole

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A heartbeat older than this is doubtful; then the claim is watched for `WATCH_SECONDS`."""
WATCH_SECONDS = 3 * HEARTBEAT_SECONDS

Owner = dict[str, Any]
"""What a claim's file says: pid, host, started, beat, whether it was released, and the holder's progress."""


class Held(Exception):
    """Another process holds the claim; `owner` is what its file says."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(f"process {owner.get('pid')} on {owner.get('host')}")
        self.owner = owner


class Claim:
    """The right to write in `directory`, taken on construction and held until `release`.

    A thread renews the heartbeat, and tells `progress` and the seconds since the claim was taken.

    Raises: Held if another process has it; OSError if the directory can't be written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.progress: dict[str, int] = {}
        number, owner = newest(directory)
        if owner is not None and not _is_over(directory, number, owner):
            raise Held(owner)
        self.number = number + 1
        self._beats = 0
        self._began = time.monotonic()
        if not make_whole(self.path, json.dumps(self._content())):
            raise Held(newest(directory)[1] or {})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        for old in directory.glob("claim-*.json"):
            if _number_of(old) < self.number:
                old.unlink(missing_ok=True)

    @property
    def path(self) -> Path:
        """The claim's file."""
        return self.directory / f"claim-{self.number}.json"

    def held(self) -> bool:
        """Whether nobody took over since."""
        return _newest_number(self.directory) == self.number

    def release(self, for_good: bool = False) -> None:
        """Give the claim back. Does nothing if it was lost.

        Args:
            for_good: nobody will need it again; its file is removed.
        """
        self._stop.set()
        self._thread.join()
        if self.held():
            with contextlib.suppress(OSError):  # a full disk; the process is gone soon
                if for_good:
                    self.path.unlink()
                    return
                write_whole(self.path, json.dumps({**self._content(), "released": True}))

    def _content(self) -> Owner:
        seconds = round(time.monotonic() - self._began, 1)
        return {**myself(), "beat": self._beats, "seconds": seconds, **self.progress}

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS) and self.held():
            self._beats += 1
            with contextlib.suppress(OSError):  # a full disk now may have room at the next beat
                write_whole(self.path, json.dumps(self._content()))


def newest(directory: Path) -> tuple[int, Owner | None]:
    """Number of the claim that counts in `directory`, and its owner; (0, None) if there is none."""
    number = _newest_number(directory)
    if not number:
        return 0, None
    try:
        owner = json.loads((directory / f"claim-{number}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        owner = {}
    return number, owner if isinstance(owner, dict) else {}


def at_work(directory: Path) -> Owner | None:
    """The owner of the claim on `directory`, if it seems to be alive; None otherwise.

    At a glance, which compares the age of its heartbeat with this host's clock.
    """
    number, owner = newest(directory)
    if owner is None or owner.get("released") or _is_gone(owner):
        return None
    return None if _is_doubtful(directory / f"claim-{number}.json") else owner


def myself() -> Owner:
    """This process, as a claim's file tells it from all others."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "processes": _process_table(),
        "started": _start_of(os.getpid()),
    }


def is_alive(owner: Owner, marker: Path) -> bool:
    """Whether the process that wrote `marker` is alive, as far as it can be told at a glance."""
    return not _is_gone(owner) and (_is_local(owner) or not _is_doubtful(marker))


def _is_over(directory: Path, number: int, owner: Owner) -> bool:
    """Whether the claim may be taken over; watches a doubtful one for a while."""
    if owner.get("released") or _is_gone(owner):
        return True
    if not _is_doubtful(directory / f"claim-{number}.json"):
        return False
    until = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < until:
        time.sleep(WATCH_SECONDS / 20)
        if newest(directory) != (number, owner):
            return False
    return True


def _newest_number(directory: Path) -> int:
    return max(map(_number_of, directory.glob("claim-*.json")), default=0)


def _number_of(path: Path) -> int:
    number = path.stem.removeprefix("claim-")
    return int(number) if number.isdecimal() else 0


def _is_local(owner: Owner) -> bool:
    return owner.get("processes") == _process_table() is not None


def _process_table() -> str | None:
    """Which table of processes this one is in: hosts and containers may share a name, and a pid."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _is_gone(owner: Owner) -> bool:
    """Whether the owner was a process of this host that has ended."""
    if not _is_local(owner):
        return False
    return owner.get("started") is None or _start_of(int(owner.get("pid", -1))) != owner["started"]


def _is_doubtful(marker: Path) -> bool:
    """Whether a heartbeat is old, or from the future, which a clock that was set back makes."""
    try:
        return abs(time.time() - marker.stat().st_mtime) > STALE_SECONDS
    except OSError:
        return True


def _start_of(pid: int) -> str | None:
    """When process `pid` of this host started (field 22 in /proc), which tells a reused pid apart."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]  # a zombie works on nothing
    except (OSError, IndexError):
        return None
