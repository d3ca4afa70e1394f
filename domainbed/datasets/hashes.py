"""Hashes of image files and of pixels."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np

CONTENT_BYTES = 32
"""Length of a `content_hash`."""

_WORDS = 2**15
"""Number of 64-bit words that one product covers: 256 kB stay in the processor's cache."""


def content_hash(data: bytes) -> bytes:
    """BLAKE2b of the bytes of a file, `CONTENT_BYTES` long."""
    return _blake2b(data).digest()


def file_hash(path: str) -> bytes:
    """The `content_hash` of the file at `path`. Raises OSError."""
    with open(path, "rb") as file:  # noqa: PTH123 - creating a Path for each file is slow
        return hashlib.file_digest(file, _blake2b).digest()


def hash_array(hashes: Sequence[bytes]) -> np.ndarray:
    """Content hashes as an array (N, `CONTENT_BYTES`) uint8."""
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, CONTENT_BYTES)


def image_digest(pixels: np.ndarray) -> int:
    """64-bit hash of an array's shape, dtype and values, such as the pixels of an image.

    It takes a tenth of the time of a cryptographic hash, and is for accidents only. Each 64-bit word is
    multiplied by an odd number of its own, so that no single word can change without the sum.
    """
    flat = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    end = len(flat) // 8 * 8
    words = flat[:end].view("<u8")
    blocks = [words[first : first + _WORDS] for first in range(0, len(words), _WORDS)]
    sums = np.array([np.dot(block, _multipliers()[: len(block)]) for block in blocks], dtype="<u8")
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=8)
    digest.update(sums.tobytes() + flat[end:].tobytes())
    return int.from_bytes(digest.digest(), "little")


def _blake2b(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=CONTENT_BYTES)


@functools.cache
def _multipliers() -> np.ndarray:
    """Odd numbers (`_WORDS`,) uint64. The stream of PCG64 is the same in every version of NumPy."""
    numbers = np.random.PCG64(0).random_raw(_WORDS)
    return np.asarray(numbers, dtype=np.uint64) | np.uint64(1)
