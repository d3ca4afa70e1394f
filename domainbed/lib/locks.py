"""Locks between processes, on this machine or on a shared file system; they end with their process."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is made, and wait for whoever has it.

    Where the file system knows no locks, nothing is held.
    """
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def claim(descriptor: int) -> bool:
    """Take the lock of an open file until this process ends; False if another process has it.

    The lock is not inherited by forks. Where the file system knows no locks, everybody gets them.
    """
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
