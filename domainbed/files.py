"""Files that are written whole or not at all, and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to that becomes `path` at the end, so that a reader, or a crash, sees all or nothing.

    A temporary file beside the target is flushed to disk and moved over it; after an error it is removed
    and the target is what it was.

    Args:
        path: what is written.
        previous: where the old file is moved first, if it is to be kept.
    """
    with _beside(path) as (file, temporary):
        yield file
        _to_disk(file)
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with whole(path) as file:
        file.write(data)


def make_whole(path: Path, content: str) -> bool:
    """Make `path` with `content`, whole; False if it is there already. Of several processes, one makes it."""
    with _beside(path) as (file, temporary):
        file.write(content.encode("utf-8"))
        _to_disk(file)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary file beside `path`, which is removed if it is still there at the end."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            temporary.chmod(0o666 & ~_umask())
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is made, and wait for whoever has it.

    Where the file system knows no locks, nothing is held.
    """
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield
