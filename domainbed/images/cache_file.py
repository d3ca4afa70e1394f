"""The file that caches the decoded images of an environment.

Arrays about the images come first, with a checksum (`checked_arrays`), then the pixels of one image after the
other. Each image has a checksum, which is verified when a process first reads it. Pixels are copied out of
the file, not mapped: a file that is cut while it is in use then gives an error instead of a fatal signal.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from domainbed.datasets.hashes import image_digest
from domainbed.images.checked_arrays import DamagedCache, packed, read_packed

_PAGE = 4096


@dataclass(frozen=True)
class ImageFacts:
    """What a cache file says of its N images.

    Attributes:
        sizes: height and width of each cached image, (N, 2) int64.
        digests: `hashes.image_digest` of the image in each file, (N,) uint64.
        findings: `image_decoding.Finding` of each file, (N,) uint8.
        contents: `hashes.content_hash` of each file, (N, 32) uint8.
        checksums: `image_digest` of each cached image, (N,) uint64.
    """

    sizes: np.ndarray
    digests: np.ndarray
    findings: np.ndarray
    contents: np.ndarray
    checksums: np.ndarray

    def ends(self) -> np.ndarray:
        """Position after each image's pixels, relative to those of the first, (N,) int64."""
        return np.cumsum(3 * self.sizes.prod(axis=1))


def write_facts(file: BinaryIO, facts: ImageFacts) -> int:
    """Write the first part of a cache file, and return the position at which its pixels start.

    The position depends only on the number of images. `file` must be at its beginning.
    """
    file.write(packed([getattr(facts, each.name) for each in fields(facts)]))
    file.flush()
    return _page_aligned(file.tell())


class CacheFile:
    """A cache file, open for reading. Copies in other processes open it again.

    Args:
        path: the file.
        planar: whether an image is (3, H, W) rather than (H, W, 3).

    Attributes:
        path, planar: see above.
        facts: what the file says of its images.

    Raises: OSError; DamagedCache if the file does not begin or end as it should.
    """

    def __init__(self, path: Path, planar: bool) -> None:
        self.path = path
        self.planar = planar
        with path.open("rb") as file:
            self.facts = ImageFacts(*read_packed(file, len(fields(ImageFacts))))
            self._start = _page_aligned(file.tell())
        self._ends = self.facts.ends()
        self._verified = np.zeros(len(self._ends), dtype=bool)
        self._descriptor: int | None = None
        size = os.fstat(self._open()).st_size
        if size != self._start + self.nbytes:
            raise DamagedCache(f"it has {size} bytes, not {self._start + self.nbytes}")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_descriptor": None}

    @property
    def nbytes(self) -> int:
        """Number of bytes of all pixels."""
        return int(self._ends[-1])

    def read(self, index: int) -> np.ndarray:
        """Image `index`, uint8 of shape (H, W, 3) or (3, H, W). Its checksum is verified the first time.

        Raises: OSError; DamagedCache if the file was cut, or the image has changed.
        """
        height, width = self.facts.sizes[index].tolist()
        pixels = np.empty((3, height, width) if self.planar else (height, width, 3), dtype=np.uint8)
        position = self._start + int(self._ends[index]) - pixels.nbytes
        if os.preadv(self._open(), [pixels.data], position) < pixels.nbytes:
            raise DamagedCache("it was cut while it was in use")
        if not self._verified[index]:
            if image_digest(pixels) != int(self.facts.checksums[index]):
                raise DamagedCache(f"the pixels of image {index} have changed")
            self._verified[index] = True
        return pixels

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


def _page_aligned(position: int) -> int:
    return -(-position // _PAGE) * _PAGE
