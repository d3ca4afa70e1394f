"""Hashes of image files that the cache folder remembers, so that each file is hashed once.

A file is known as long as its path, size, modification time, change time and inode stay the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from domainbed.datasets.file_copies import HashFiles, hash_each
from domainbed.datasets.hashes import CONTENT_BYTES, file_hash, hash_array
from domainbed.files import write_atomic
from domainbed.images.building import map_in_threads
from domainbed.images.checked_arrays import DamagedCache, packed, read_packed
from domainbed.threads import in_threads

_THREADS = 8  # network file systems answer slowly
_CHUNK = 1000


def file_states(paths: Sequence[str]) -> np.ndarray:
    """Size, modification time, change time (ns) and inode of each file: (N, 4) int64. Raises OSError."""
    chunks = [paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK)]
    return np.concatenate(list(in_threads(_states, chunks, threads=_THREADS, chunk=1)))


class KnownContents:
    """The content hashes of the image files of one environment.

    All lists of files with the same name and common folder share one file in the cache folder, which keeps
    the hashes of files that a list lacks.

    Args:
        folder: the cache folder.
        name: name of the environment.
        paths: the files, at least one.

    Attributes:
        path: the file in the cache folder.
        states: `file_states` of the files, now.

    Raises: OSError if an image file does not exist.
    """

    def __init__(self, folder: Path, name: str, paths: Sequence[str]) -> None:
        home = "" if all(path.startswith(os.sep) for path in paths) else os.getcwd()  # noqa: PTH109 - text is hashed
        key = hashlib.blake2b(_as_bytes([home, common_folder(paths)]), digest_size=8).hexdigest()
        self.path = folder / f"{file_stem(name)}-{key}.contents"
        self.states = file_states(paths)
        self._name, self._paths = name, paths

    def recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes (N, 32) uint8 of the files, and whether each is known, (N,) bool.

        If the file in the cache folder is missing, damaged or cannot be read, none is known.
        """
        stored, states, hashes = self._read()
        if stored == self._paths:
            return hashes, (states == self.states).all(axis=1)
        positions = {path: i for i, path in enumerate(stored)}
        found = np.array([positions.get(path, -1) for path in self._paths], dtype=np.int64)
        states = np.concatenate([states, np.full((1, 4), -1)])[found]  # position -1 is this last row
        hashes = np.concatenate([hashes, np.zeros((1, CONTENT_BYTES), dtype=np.uint8)])[found]
        return hashes, (states == self.states).all(axis=1)

    def remember(self, hashes: np.ndarray, known: np.ndarray | None = None) -> None:
        """Write the hashes (N, 32) of the files, or of those that are `known` (N,).

        If that fails, they will be computed again.
        """
        here = np.arange(len(hashes)) if known is None else np.flatnonzero(known)
        paths = [self._paths[i] for i in here.tolist()]
        stored, old_states, old_hashes = self._read()
        present = set(paths)
        others = [i for i, path in enumerate(stored) if path not in present]
        text = np.frombuffer(_as_bytes([*paths, *(stored[i] for i in others)]), dtype=np.uint8)
        states = np.concatenate([self.states[here], old_states[others]])
        hashes = np.concatenate([hashes[here], old_hashes[others]])
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, packed([text, states, hashes]))

    def hashes_at(self, positions: Sequence[int]) -> np.ndarray:
        """Hashes (K, 32) of the files at `positions`. Unknown ones are read, in threads, and remembered.

        Raises: OSError.
        """
        hashes, known = self.recall()
        unknown = [position for position in positions if not known[position]]

        def hash_file(i: int) -> bytes:
            return file_hash(self._paths[unknown[i]])

        if unknown:
            hashes = hashes.copy()
            hashes[unknown] = hash_array(map_in_threads(hash_file, len(unknown), f"{self._name}: reading"))
            known[unknown] = True
            self.remember(hashes, known)
        return hashes[list(positions)]

    def _read(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Paths, states (M, 4) and hashes (M, 32) in the cache folder; empty if there is no such file."""
        with contextlib.suppress(OSError, DamagedCache), self.path.open("rb") as file:
            text, states, hashes = read_packed(file, 3)
            return text.tobytes().decode("utf-8", "surrogateescape").split("\0"), states, hashes
        return [], np.zeros((0, 4), dtype=np.int64), hash_array(())


def remembered_hashes(folder: Path | None) -> HashFiles:
    """A function for `file_copies` that takes hashes of files from the cache folder, if there is one."""

    def hash_files(name: str, paths: Sequence[str], positions: Sequence[int]) -> np.ndarray:
        if folder is None or not positions:
            return hash_each(name, paths, positions)
        return KnownContents(folder, name, paths).hashes_at(positions)

    return hash_files


def file_stem(name: str) -> str:
    """The name of an environment as the beginning of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name)


def common_folder(paths: Sequence[str]) -> str:
    """The longest folder, with its separator, in which all `paths` lie."""
    # A prefix that the first and the last path share is shared by all.
    prefix = os.path.commonprefix([min(paths), max(paths)])  # noqa: RUF071 - cut after a separator
    return prefix[: prefix.rfind(os.sep) + 1]


def _as_bytes(texts: Sequence[str]) -> bytes:
    return "\0".join(texts).encode("utf-8", "surrogateescape")


def _states(paths: Sequence[str]) -> np.ndarray:
    stats = map(os.stat, paths)
    rows = [(each.st_size, each.st_mtime_ns, each.st_ctime_ns, each.st_ino % 2**63) for each in stats]
    return np.array(rows, dtype=np.int64)
