"""Hashes of image files that the cache folder remembers, so that each file is hashed once.

A file is known as long as its path, size, modification time, change time and inode stay the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from domainbed.datasets.hashes import CONTENT_BYTES
from domainbed.files import write_atomic
from domainbed.images.checked_arrays import DamagedCache, packed, read_packed
from domainbed.threads import in_threads

_THREADS = 8  # network file systems answer slowly
_CHUNK = 1000


def file_states(paths: Sequence[str]) -> np.ndarray:
    """Size, modification time, change time (ns) and inode of each file: (N, 4) int64. Raises OSError."""
    chunks = [paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK)]
    return np.concatenate(list(in_threads(_states, chunks, threads=_THREADS, chunk=1)))


class KnownContents:
    """The content hashes of the files in one list.

    Args:
        folder: the cache folder.
        stem: begins the name of the file in it.
        paths: the files.

    Attributes:
        path: the file in the cache folder.
        states: `file_states` of the files, now.
    """

    def __init__(self, folder: Path, stem: str, paths: Sequence[str]) -> None:
        home = "" if all(path.startswith(os.sep) for path in paths) else os.getcwd()  # noqa: PTH109 - text is hashed
        text = "\0".join([home, *paths]).encode("utf-8", "surrogateescape")
        self.path = folder / f"{stem}-{hashlib.blake2b(text, digest_size=8).hexdigest()}.contents"
        self.states = file_states(paths)

    def recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes (N, 32) uint8 of the files, and whether each is known, (N,) bool.

        If the file in the cache folder is missing, damaged or cannot be read, none is known.
        """
        shape = (len(self.states), CONTENT_BYTES)
        with contextlib.suppress(OSError, DamagedCache), self.path.open("rb") as file:
            states, hashes = read_packed(file, 2)
            if states.shape == self.states.shape and hashes.shape == shape:
                return hashes, (states == self.states).all(axis=1)
        return np.zeros(shape, dtype=np.uint8), np.zeros(len(self.states), dtype=bool)

    def remember(self, hashes: np.ndarray) -> None:
        """Write the hashes (N, 32) of all files. If that fails, they will be computed again."""
        with contextlib.suppress(OSError):
            write_atomic(self.path, packed([self.states, hashes]))


def _states(paths: Sequence[str]) -> np.ndarray:
    stats = map(os.stat, paths)
    rows = [(each.st_size, each.st_mtime_ns, each.st_ctime_ns, each.st_ino % 2**63) for each in stats]
    return np.array(rows, dtype=np.int64)
