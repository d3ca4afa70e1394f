"""Files of arrays, one after the other, each verified by its checksum when a process first reads it.

What such files begin with differs (`cache_file`, `outputs_file`). Arrays are copied out of the file, not
mapped: a file that is cut while it is in use then gives an error instead of a fatal signal.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from domainbed.datasets.hashes import image_digest
from domainbed.images.checked_arrays import DamagedCache

_PAGE = 4096


class VerifiedFile:
    """A file of arrays, open for reading. Copies in other processes open it again.

    Args:
        path: the file.
        start: position of the first array.
        nbytes: number of bytes of all arrays.
        checksums: `image_digest` of each array, (N,) uint64.
        content: what an array is called in messages, such as "output {}"; {} stands for its number.

    Attributes:
        path, nbytes: see above.

    Raises: OSError; DamagedCache if the file has another size.
    """

    def __init__(self, path: Path, start: int, nbytes: int, checksums: np.ndarray, content: str) -> None:
        self.path = path
        self.nbytes = nbytes
        self._start = start
        self._checksums = checksums
        self._content = content
        self._verified = np.zeros(len(checksums), dtype=bool)
        self._descriptor: int | None = None
        size = os.fstat(self._open()).st_size
        if size != start + nbytes:
            raise DamagedCache(f"it has {size} bytes, not {start + nbytes}")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_descriptor": None}

    def read_into(self, array: np.ndarray, index: int, offset: int) -> None:
        """Fill `array` with array number `index`, which is `offset` bytes after the first one's start.

        Raises: OSError; DamagedCache if the file was cut, or the array has changed.
        """
        if os.preadv(self._open(), [array.data], self._start + offset) < array.nbytes:
            raise DamagedCache("it was cut while it was in use")
        if not self._verified[index]:
            if image_digest(array) != int(self._checksums[index]):
                raise DamagedCache(f"{self._content.format(index)} changed")
            self._verified[index] = True

    def is_at_its_path(self) -> bool:
        """Whether no other file has taken the place of this one."""
        try:
            return os.path.samestat(os.fstat(self._open()), self.path.stat())
        except OSError:
            return False

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._descriptor)
        return self._descriptor


def page_aligned(position: int) -> int:
    """The first multiple of a page's size from `position` on."""
    return -(-position // _PAGE) * _PAGE
