"""The file that caches the decoded images of an environment.

Arrays about the images come first, with a checksum (`checked_arrays`), then the pixels of one image after the
other, each with a checksum (`verified_file`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

import numpy as np

from domainbed.images.checked_arrays import packed, read_packed
from domainbed.images.verified_file import VerifiedFile, page_aligned


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

    def end_positions(self) -> np.ndarray:
        """Position after each image's pixels, relative to those of the first, (N,) int64."""
        return np.cumsum(3 * self.sizes.prod(axis=1))


def write_facts(file: BinaryIO, facts: ImageFacts) -> int:
    """Write the first part of a cache file, and return the position at which its pixels start.

    The position depends only on the number of images. `file` must be at its beginning.
    """
    file.write(packed([getattr(facts, each.name) for each in fields(facts)]))
    file.flush()
    return page_aligned(file.tell())


class CacheFile(VerifiedFile):
    """A cache file, open for reading.

    Args:
        path: the file.
        planar: whether an image is (3, H, W) rather than (H, W, 3).

    Attributes:
        planar: see above.
        facts: what the file says of its images.

    Raises: OSError; DamagedCache if the file does not begin or end as it should.
    """

    def __init__(self, path: Path, planar: bool) -> None:
        self.planar = planar
        with path.open("rb") as file:
            self.facts = ImageFacts(*read_packed(file, len(fields(ImageFacts))))
            start = page_aligned(file.tell())
        self._ends = self.facts.end_positions()
        content = "the pixels of image {} have"
        super().__init__(path, start, int(self._ends[-1]), self.facts.checksums, content)

    def read(self, index: int) -> np.ndarray:
        """Image `index`, uint8 of shape (H, W, 3) or (3, H, W). Its checksum is verified the first time.

        Raises: OSError; DamagedCache if the file was cut, or the image has changed.
        """
        height, width = self.facts.sizes[index].tolist()
        pixels = np.empty((3, height, width) if self.planar else (height, width, 3), dtype=np.uint8)
        self.read_into(pixels, index, int(self._ends[index]) - pixels.nbytes)
        return pixels
