"""The file that caches a network's outputs for N inputs: float32, one output after the other.

Checksums of the outputs and their shape come first, themselves with a checksum (`checked_arrays`). Each
output is verified when a process first reads it (`verified_file`).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from domainbed.datasets.hashes import image_digest
from domainbed.files import open_atomic
from domainbed.images.checked_arrays import packed, read_packed
from domainbed.images.verified_file import VerifiedFile, page_aligned


class OutputsFile(VerifiedFile):
    """A file of outputs, open for reading.

    Args:
        path: the file.

    Attributes:
        shape: shape of one output.

    Raises: OSError; DamagedCache if the file does not begin or end as it should.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            checksums, shape = read_packed(file, 2)
            start = page_aligned(file.tell())
        self.shape: tuple[int, ...] = tuple(shape.tolist())
        self._bytes_each = 4 * int(np.prod(self.shape))
        super().__init__(path, start, len(checksums) * self._bytes_each, checksums, "output {} has")

    def __len__(self) -> int:
        return len(self._checksums)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The outputs at `indices` (B,), float32 of shape (B, *shape). Each is verified the first time.

        Raises: OSError; DamagedCache if the file was cut, or an output has changed.
        """
        outputs = np.empty((len(indices), *self.shape), dtype=np.float32)
        for output, index in zip(outputs, indices.tolist(), strict=True):
            self.read_into(output, index, index * self._bytes_each)
        return outputs


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
        file.write(bytes(page_aligned(file.tell()) - file.tell()))
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
