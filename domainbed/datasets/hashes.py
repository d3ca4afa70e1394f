"""Hashes of image files and of pixels."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np

CONTENT_BYTES = 32
"""Length of a `content_hash`."""

_WORDS = 2**12
"""Number of 64-bit words in one sum. Their factors take 32 kB, which stay in the processor's cache."""


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

    It takes a fifth of the time of a cryptographic hash, and is for accidents only: different arrays have
    equal digests with a probability of 2^-64, or 2^-32 in the worst case.
    """
    flat = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    words = flat[: len(flat) // 8 * 8].view("<u8")
    # A product modulo 2^64 has little of a word's upper bits, so they are mixed into the lower ones.
    mixed = words >> np.uint64(32)
    mixed ^= words
    rows, factors = len(words) // _WORDS, _factors()
    sums = np.dot(mixed[: rows * _WORDS].reshape(rows, _WORDS), factors)
    rest = mixed[rows * _WORDS :]
    digest = hashlib.blake2b(_kind(pixels.shape, pixels.dtype), digest_size=8)
    digest.update(sums.tobytes() + np.dot(rest, factors[: len(rest)]).tobytes())
    digest.update(flat[8 * len(words) :].tobytes())
    return int.from_bytes(digest.digest(), "little")


def _blake2b(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=CONTENT_BYTES)


@functools.lru_cache
def _kind(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    return f"{shape} {dtype}".encode()


@functools.cache
def _factors() -> np.ndarray:
    """Odd numbers (`_WORDS`,) uint64. The stream of PCG64 is the same in every version of NumPy."""
    numbers = np.random.PCG64(0).random_raw(_WORDS)
    return np.asarray(numbers, dtype="<u8") | np.uint64(1)
