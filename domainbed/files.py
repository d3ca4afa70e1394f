"""Atomic writes of files, and a lock between processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def open_atomic(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` when the context ends without an error.

    The content goes to a temporary file in the same directory, which is flushed to disk and then renamed, so
    that neither a reader nor a crash ever sees a partial file. After an error `path` is unchanged.

    Args:
        path: the file to replace.
        previous: where to move the old file. By default it is overwritten.
    """
    with _temporary_file_for(path) as (file, temporary):
        yield file
        _flush_to_disk(file)
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` so that no reader ever sees a partial file. Text is encoded as UTF-8."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with open_atomic(path) as file:
        file.write(data)


def create_atomic(path: Path, content: str) -> bool:
    """Create `path` with `content` and return True, or return False if it already exists.

    Of several processes that call this at the same time, exactly one succeeds.
    """
    with _temporary_file_for(path) as (file, temporary):
        file.write(content.encode("utf-8"))
        _flush_to_disk(file)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


@contextlib.contextmanager
def _temporary_file_for(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a temporary file in the directory of `path`; it is removed at the end if it still exists."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            temporary.chmod(0o666 & ~_umask())
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, which is created if needed. Blocks until it is free.

    On file systems without locks, nothing is locked.
    """
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield
