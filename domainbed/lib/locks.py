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
