"""Whether a folder that several machines share has what runs need of its file system."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from domainbed.files import create_atomic, write_atomic

MOST_SECONDS = 5.0
"""Largest difference between the clocks of this machine and of the file system that is not reported."""


def check_shared_folder(folder: Path) -> dict[str, str]:
    """Try in `folder` what runs need, and leave nothing behind.

    Returns: what was tried -> "ok", or what is wrong with it. One machine cannot see what another one sees,
    so this is to be run on each.

    Raises: OSError if nothing can be written there.
    """
    with TemporaryDirectory(prefix=".domainbed-doctor-", dir=folder) as name:
        return {about: _result_of(check, Path(name)) for about, check in CHECKS.items()}


def _result_of(check: Callable[[Path], str | None], folder: Path) -> str:
    try:
        return check(folder) or "ok"
    except OSError as error:
        return error.strerror or str(error)


def _hard_links(folder: Path) -> str | None:
    path = folder / "claim"
    if not create_atomic(path, "first"):
        return "no link can be made"
    return "a link replaces an existing file" if create_atomic(path, "second") else None


def _exclusive_creation(folder: Path) -> str | None:
    path = folder / "exclusive"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return None
    return "a file can be created twice"


def _renaming(folder: Path) -> str | None:
    path = folder / "renamed"
    path.write_text("old", encoding="ascii")
    write_atomic(path, "new")
    return None if path.read_text(encoding="ascii") == "new" else "the old content stays"


_LOCKING = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1], "a"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("locked")
"""


def _locks(folder: Path) -> str | None:
    path = folder / "lock"
    with path.open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process: a process's own locks never exclude each other.
        other = subprocess.run(
            [sys.executable, "-I", "-c", _LOCKING, str(path)], capture_output=True, text=True
        )
    if other.returncode == 0:
        return "a file can be locked twice"
    return None if other.stderr.strip() == "locked" else "a second lock fails with an error"


def _times(folder: Path) -> str | None:
    path = folder / "time"
    path.touch()
    offset = path.stat().st_mtime - time.time()
    if abs(offset) > MOST_SECONDS:
        return f"its clock differs from this machine's by {offset:+.0f} s"
    os.utime(path, (0, 0))
    return None if path.stat().st_mtime == 0 else "times of files cannot be set"


CHECKS: dict[str, Callable[[Path], str | None]] = {
    "hard links (claims on runs)": _hard_links,
    "exclusive creation (claims on runs)": _exclusive_creation,
    "renaming over a file (all writing)": _renaming,
    "locks (sweep.json, the cache of images)": _locks,
    "times of files (claims of other hosts)": _times,
}
"""What is tried, and what needs it."""
