"""Arrays with a checksum, as files of the cache hold them: damage is noticed, whatever it is."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from domainbed.errors import RunError

_MAGIC = b"domainbd"
_START = struct.Struct("<8sQ32s")
"""Magic, length of the arrays' bytes, and their BLAKE2b."""


class DamagedCache(RunError):
    """A file of the cache that does not hold what was written; the message says how it shows."""


def packed(arrays: Sequence[np.ndarray]) -> bytes:
    """Arrays as bytes, with a checksum. The length depends only on their shapes and dtypes."""
    file = io.BytesIO()
    for array in arrays:
        np.save(file, array, allow_pickle=False)
    content = file.getvalue()
    return _START.pack(_MAGIC, len(content), hashlib.blake2b(content, digest_size=32).digest()) + content


def read_packed(file: BinaryIO, count: int) -> list[np.ndarray]:
    """The `count` arrays that `packed` made, from the current position of `file`.

    Raises: DamagedCache.
    """
    start = file.read(_START.size)
    if len(start) < _START.size or not start.startswith(_MAGIC):
        raise DamagedCache("it does not begin as expected")
    _, length, expected = _START.unpack(start)
    position = file.tell()
    if length > file.seek(0, io.SEEK_END) - position:
        raise DamagedCache("it ends early")
    file.seek(position)
    content = file.read(length)
    if hashlib.blake2b(content, digest_size=32).digest() != expected:
        raise DamagedCache("its first part has changed")
    arrays = io.BytesIO(content)
    return [np.load(arrays, allow_pickle=False) for _ in range(count)]
