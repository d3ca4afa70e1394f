"""A cache of decoded images: one file for each environment, shared by all runs on a machine.

The name of a cache file contains a hash of the image files' names, sizes and modification times and of the
transform, so a file is never out of date, and the folder may be deleted at any time. One process writes a
file while others wait for it. If that process dies, its lock is released and no partial cache file remains.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from domainbed.datasets.image_checks import digest_and_finding
from domainbed.datasets.image_decoding import Finding
from domainbed.datasets.image_files import ImageEnvironment, image_size
from domainbed.datasets.image_transforms import PlainTransform
from domainbed.files import file_lock, open_atomic
from domainbed.images.decoded import DecodedImages, read_images, write_header

_FORMAT = 3
Result = TypeVar("Result")

_DISK_SHARE = 0.5
"""Largest share of the free disk space that one cache file may take."""


def cache_folder(option: str | None) -> Path | None:
    """The folder that `--cache_dir` selects; None for "none", which disables the cache.

    By default, $DOMAINBED_CACHE, or else the folder `domainbed` in $XDG_CACHE_HOME or in ~/.cache.
    """
    if option is not None:
        return None if option == "none" else Path(option)
    if os.environ.get("DOMAINBED_CACHE"):
        return Path(os.environ["DOMAINBED_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "domainbed"


def cached_images(
    folder: Path, name: str, environment: ImageEnvironment, paths: Sequence[str], transform: PlainTransform
) -> DecodedImages:
    """The decoded images of an environment. They are decoded and cached now if no other run has done so.

    Args:
        folder: the cache folder, created if necessary.
        name: name of the environment, for file names and progress bars.
        environment: the environment.
        paths: its image files.
        transform: determines the cached images.

    Raises:
        OSError: the cache cannot be read or written, or the disk has too little space.
        UnreadableImage: an image file cannot be decoded.
    """
    key = _key(paths, f"{transform.cache_key()} {environment.cache_key()}")
    stem = f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}-{key}"
    path = folder / f"{stem}.images"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / f".{stem}.lock"):
            if not path.exists():
                for leftover in folder.glob(f".{path.name}.*"):  # of a process that was killed
                    leftover.unlink()
                _build(path, name, environment, paths, transform)
    return read_images(path, transform.planar)


def _key(paths: Sequence[str], transform_key: str) -> str:
    """Hash of a list of files and of a transform. It does not depend on the common folder of the files."""
    digest = hashlib.blake2b(f"{_FORMAT} {transform_key}".encode(), digest_size=8)
    # A prefix that the first and the last path share is shared by all.
    common = os.path.commonprefix([min(paths), max(paths)]).rfind(os.sep) + 1  # noqa: RUF071 - cut after a separator
    with ThreadPool(8) as pool:  # network file systems answer slowly
        for path, stat in zip(paths, pool.imap(os.stat, paths, chunksize=64), strict=True):
            line = f"\n{path[common:]} {stat.st_size} {stat.st_mtime_ns}"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _build(
    path: Path, name: str, environment: ImageEnvironment, paths: Sequence[str], transform: PlainTransform
) -> None:
    """Decode all images into the cache file `path`, in parallel."""

    def height_and_width(index: int) -> tuple[int, int]:
        width, height = transform.cached_size(image_size(paths[index]))
        return height, width

    sizes = np.array(_map_in_threads(height_and_width, len(paths), f"{name}: sizes"), dtype=np.int64)
    lengths = 3 * sizes.prod(axis=1)
    starts = np.cumsum(lengths) - lengths
    needed, free = int(lengths.sum()), shutil.disk_usage(path.parent).free
    if needed > _DISK_SHARE * free:
        gigabytes = f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free"
        raise OSError(errno.ENOSPC, f"{gigabytes}, of which a cache file may take half")
    with open_atomic(path) as file:
        first = write_header(
            file, sizes, np.zeros(len(sizes), dtype=np.uint64), np.zeros(len(sizes), dtype=np.uint8)
        )

        def write_image(index: int) -> tuple[int, Finding]:
            image, finding = environment.decoded(index)
            pixels = np.ascontiguousarray(transform.cached_pixels(image))
            assert pixels.nbytes == lengths[index]
            if os.pwrite(file.fileno(), pixels.data, first + int(starts[index])) < pixels.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return digest_and_finding(np.asarray(image), finding)

        results = _map_in_threads(write_image, len(paths), f"{name}: decoding")
        digests, findings = zip(*results, strict=True)
        file.seek(0)
        write_header(file, sizes, np.array(digests, dtype=np.uint64), np.array(findings, dtype=np.uint8))


def _map_in_threads(function: Callable[[int], Result], count: int, description: str) -> list[Result]:
    """Results of `function` for 0 to `count` - 1. PIL releases the interpreter's lock while it decodes."""
    with ThreadPool(os.cpu_count()) as pool:
        results = pool.imap(function, range(count), chunksize=8)
        return list(tqdm(results, description, total=count, unit="image", leave=False, disable=None))
