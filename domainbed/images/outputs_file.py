"""The file that caches a network's outputs for N inputs: float32, one output after the other.

Checksums of the outputs and their shape come first, themselves with a checksum (`checked_arrays`). Each
output is verified when a process first reads it, and copied out of the file, not mapped (see `cache_file`).
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from domainbed.datasets.hashes import image_digest
from domainbed.files import open_atomic
from domainbed.images.checked_arrays import DamagedCache, packed, read_packed

_PAGE = 4096


class OutputsFile:
    """A file of outputs, open for reading. Copies in other processes open it again.

    Args:
        path: the file.

    Attributes:
        path: see above.
        shape: shape of one output.

    Raises: OSError; DamagedCache if the file does not begin or end as it should.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._checksums, shape = read_packed(file, 2)
            self._start = _page_aligned(file.tell())
        self.shape: tuple[int, ...] = tuple(shape.tolist())
        self._verified = np.zeros(len(self), dtype=bool)
        self._descriptor: int | None = None
        self._bytes_each = 4 * int(np.prod(self.shape))
        size, expected = os.fstat(self._open()).st_size, self._start + self.nbytes
        if size != expected:
            raise DamagedCache(f"it has {size} bytes, not {expected}")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_descriptor": None}

    def __len__(self) -> int:
        return len(self._checksums)

    @property
    def nbytes(self) -> int:
        """Number of bytes of all outputs."""
        return len(self) * self._bytes_each

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The outputs at `indices` (B,), float32 of shape (B, *shape). Each is verified the first time.

        Raises: OSError; DamagedCache if the file was cut, or an output has changed.
        """
        outputs = np.empty((len(indices), *self.shape), dtype=np.float32)
        for output, index in zip(outputs, indices.tolist(), strict=True):
            position = self._start + index * self._bytes_each
            if os.preadv(self._open(), [output.data], position) < self._bytes_each:
                raise DamagedCache("it was cut while it was in use")
            if not self._verified[index]:
                if image_digest(output) != int(self._checksums[index]):
                    raise DamagedCache(f"output {index} has changed")
                self._verified[index] = True
        return outputs

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


def write_outputs(path: Path, count: int, shape: tuple[int, ...], batches: Iterable[np.ndarray]) -> None:
    """Write the file of `count` outputs.

    Args:
        path: the file, which appears when it is complete.
        count: N.
        shape: of one output.
        batches: arrays (B, *shape) float32 of consecutive outputs, N in all.

    Raises: OSError.
    """
    checksums = np.zeros(count, dtype=np.uint64)
    header = [checksums, np.array(shape, dtype=np.int64)]
    with open_atomic(path) as file:
        file.write(packed(header))
        file.write(bytes(_page_aligned(file.tell()) - file.tell()))
        written = 0
        for batch in batches:
            for output in np.ascontiguousarray(batch, dtype=np.float32):
                checksums[written] = image_digest(output)
                file.write(output.data)
                written += 1
        if written != count:
            raise OSError(errno.ESTALE, f"{written} outputs were made, not {count}", str(path))
        file.seek(0)
        file.write(packed(header))


def _page_aligned(position: int) -> int:
    return -(-position // _PAGE) * _PAGE
