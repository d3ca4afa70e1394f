"""A cache of decoded images: one file for each list of image files, shared by all runs on a machine.

Its name has a hash of the files' names, sizes and times and of what is kept of an image, so that it is never
out of date; the folder may be deleted at any time. One process builds a file, others wait for it; a process
that dies while it builds lets go of the lock and leaves nothing that is taken for a cache.
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

from domainbed.datasets.copies import digest
from domainbed.datasets.image_files import ImageEnvironment, image_size
from domainbed.datasets.image_transforms import PlainTransform
from domainbed.files import file_lock, open_atomic
from domainbed.images.decoded import HeldImages, read_images, write_header

_FORMAT = 2
Result = TypeVar("Result")

_SHARE = 0.5
"""Share of the free disk that a file may take."""


def cache_folder(asked: str | None) -> Path | None:
    """The folder that `--cache_dir` means; None for "none".

    By default `$DOMAINBED_CACHE`, else `domainbed` in `$XDG_CACHE_HOME` or in `~/.cache`.
    """
    if asked is not None:
        return None if asked == "none" else Path(asked)
    if os.environ.get("DOMAINBED_CACHE"):
        return Path(os.environ["DOMAINBED_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "domainbed"


def held(
    folder: Path, name: str, environment: ImageEnvironment, paths: Sequence[str], transform: PlainTransform
) -> HeldImages:
    """The images of an environment, decoded now if no run did it before.

    Args:
        folder: of the cache; it is made.
        name: of the environment, for people.
        environment: its images.
        paths: its files.
        transform: what is kept of an image.

    Raises:
        OSError: the cache can't be read or written, or there is too little room.
        UnreadableImage: names an image file.
    """
    stem = f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}-{_key(paths, transform.recipe())}"
    path = folder / f"{stem}.images"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / f".{stem}.lock"):
            if not path.exists():
                for leftover in folder.glob(f".{path.name}.*"):  # of a process that died
                    leftover.unlink()
                _build(path, name, environment, paths, transform)
    return read_images(path, transform.planar)


def _key(paths: Sequence[str], recipe: str) -> str:
    """Hash of a list of files and of what is kept of them; where their folder lies plays no part."""
    digest = hashlib.blake2b(f"{_FORMAT} {recipe}".encode(), digest_size=8)
    # What the first and the last path share, all do.
    common = os.path.commonprefix([min(paths), max(paths)]).rfind(os.sep) + 1  # noqa: RUF071 - cut at a folder
    with ThreadPool(8) as pool:  # on a network each file's answer takes its time
        for path, stat in zip(paths, pool.imap(os.stat, paths, chunksize=64), strict=True):
            digest.update(f"\n{path[common:]} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def _build(
    path: Path, name: str, environment: ImageEnvironment, paths: Sequence[str], transform: PlainTransform
) -> None:
    """Decode all images into a file, as many at a time as there are cores."""

    def kept_size(index: int) -> tuple[int, int]:
        width, height = transform.kept_size(image_size(paths[index]))
        return height, width

    sizes = np.array(_for_all(kept_size, len(paths), f"{name}: sizes"), dtype=np.int64)
    lengths = 3 * sizes.prod(axis=1)
    starts = np.cumsum(lengths) - lengths
    needed, free = int(lengths.sum()), shutil.disk_usage(path.parent).free
    if needed > _SHARE * free:
        gigabytes = f"{needed / 1e9:.1f} GB are needed, and {free / 1e9:.1f} GB are free"
        raise OSError(errno.ENOSPC, f"{gigabytes}, of which a file may take half")
    with open_atomic(path) as file:
        first = write_header(file, sizes, np.zeros(len(sizes), dtype=np.uint64))

        def keep(index: int) -> int:
            image = environment.image(index)
            pixels = np.ascontiguousarray(transform.kept_bytes(image))
            assert pixels.nbytes == lengths[index]
            if os.pwrite(file.fileno(), pixels.data, first + int(starts[index])) < pixels.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return digest(np.asarray(image))

        digests = _for_all(keep, len(paths), f"{name}: decoding")
        file.seek(0)
        write_header(file, sizes, np.array(digests, dtype=np.uint64))


def _for_all(work: Callable[[int], Result], count: int, what: str) -> list[Result]:
    """Results of `work` for 0 to `count` - 1, by threads: PIL lets go of the interpreter while it decodes."""
    with ThreadPool(os.cpu_count()) as pool:
        results = pool.imap(work, range(count), chunksize=8)
        return list(tqdm(results, what, total=count, unit="image", leave=False, disable=None))
