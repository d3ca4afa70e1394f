"""Making a cache file: all images of an environment are read, hashed, decoded and written in one pass."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from tqdm import tqdm

from domainbed.console import format_bytes
from domainbed.datasets.hashes import CONTENT_BYTES, file_hash, hash_array, image_digest
from domainbed.datasets.image_checks import digest_and_finding
from domainbed.datasets.image_decoding import Finding
from domainbed.datasets.image_files import ImageEnvironment, image_size
from domainbed.datasets.image_transforms import PlainTransform
from domainbed.files import open_atomic
from domainbed.images.cache_file import ImageFacts, write_facts
from domainbed.threads import in_threads

Result = TypeVar("Result")

_DISK_SHARE = 0.5
"""Largest share of the free disk space that one cache file may take."""


def build(
    path: Path, name: str, environment: ImageEnvironment, paths: Sequence[str], transform: PlainTransform
) -> np.ndarray:
    """Decode all images of an environment into the cache file `path`, in parallel.

    Returns: the `content_hash` of each image file, (N, 32) uint8.

    Raises: OSError; UnreadableImage.
    """
    for leftover in path.parent.glob(f".{path.name}.*"):  # of a process that was killed
        leftover.unlink()
    sizes = _cached_sizes(name, paths, transform)
    check_space(path.parent, int(3 * sizes.prod(axis=1).sum()))
    with open_atomic(path) as file:
        facts = _decode_all(file, sizes, name, environment, paths, transform)
    return facts.contents


def _decode_all(
    file: BinaryIO,
    sizes: np.ndarray,
    name: str,
    environment: ImageEnvironment,
    paths: Sequence[str],
    transform: PlainTransform,
) -> ImageFacts:
    """Write all images to `file`, then the facts about them at its beginning."""
    count = len(sizes)
    unknown = np.zeros(count, dtype=np.uint64)
    empty = ImageFacts(
        sizes=sizes,
        digests=unknown,
        findings=np.zeros(count, dtype=np.uint8),
        contents=np.zeros((count, CONTENT_BYTES), dtype=np.uint8),
        checksums=unknown,
    )
    starts = write_facts(file, empty) + empty.end_positions() - 3 * sizes.prod(axis=1)

    def write_image(index: int) -> tuple[int, Finding, bytes, int]:
        image, finding, contents = environment.decoded(index)
        original, stored = np.asarray(image), transform.cached(image)
        pixels = np.ascontiguousarray(transform.arranged(original if stored is image else np.asarray(stored)))
        height_and_width = pixels.shape[1:] if transform.planar else pixels.shape[:2]
        if list(height_and_width) != sizes[index].tolist():
            raise OSError(errno.ESTALE, "an image file has changed while it was read", paths[index])
        if os.pwrite(file.fileno(), pixels.data, int(starts[index])) < pixels.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        digest, finding = digest_and_finding(original, finding)
        checksum = digest if pixels is original else image_digest(pixels)
        return digest, finding, contents or file_hash(paths[index]), checksum

    results = map_in_threads(write_image, count, f"{name}: decoding")
    digests, findings, contents, checksums = zip(*results, strict=True)
    facts = ImageFacts(
        sizes=sizes,
        digests=np.array(digests, dtype=np.uint64),
        findings=np.array(findings, dtype=np.uint8),
        contents=hash_array(contents),
        checksums=np.array(checksums, dtype=np.uint64),
    )
    file.seek(0)
    write_facts(file, facts)
    return facts


def _cached_sizes(name: str, paths: Sequence[str], transform: PlainTransform) -> np.ndarray:
    """Height and width of each cached image, (N, 2) int64. Files are opened only if it depends on them."""
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        return np.tile(np.array([height, width], dtype=np.int64), (len(paths), 1))

    def height_and_width(index: int) -> tuple[int, int]:
        width, height = transform.cached_size(image_size(paths[index]))
        return height, width

    return np.array(map_in_threads(height_and_width, len(paths), f"{name}: sizes"), dtype=np.int64)


def check_space(folder: Path, needed: int) -> None:
    """Raise OSError if a file of `needed` bytes would take too much of the free disk space."""
    free = shutil.disk_usage(folder).free
    if needed > _DISK_SHARE * free:
        sizes = f"{format_bytes(needed)} are needed and {format_bytes(free)} are free"
        raise OSError(errno.ENOSPC, f"{sizes}, of which a cache file may take half")


def map_in_threads(function: Callable[[int], Result], count: int, description: str) -> list[Result]:
    """Results of `function` for 0 to `count` - 1. PIL releases the interpreter's lock while it decodes."""
    results = in_threads(function, range(count), chunk=8)
    return list(tqdm(results, description, total=count, unit="image", leave=False, disable=None))
