"""A cache of decoded images: one file for each environment, shared by all runs on a machine.

The name of a cache file contains a hash of the image files' contents and of the transform, so a file is never
out of date, and the folder may be deleted at any time. Contents are hashed when files are decoded, and
remembered (`known_contents`). One process writes a file while others wait for it. If that process dies, its
lock is released and no partial cache file remains.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from domainbed.datasets.image_decoding import UnreadableImage
from domainbed.datasets.image_files import ImageEnvironment
from domainbed.datasets.image_transforms import PlainTransform
from domainbed.errors import RunError
from domainbed.files import file_lock
from domainbed.images.building import build
from domainbed.images.cache_file import CacheFile
from domainbed.images.checked_arrays import DamagedCache
from domainbed.images.decoded import CachedImages, FileImages
from domainbed.images.known_contents import KnownContents, common_folder, file_stem

_FORMAT = 4
_NOT_MADE = "warning: image cache %s cannot be made again (%s); images are decoded at each access"
_DAMAGED = "warning: image cache %s is damaged (%s); it is made again"

_log = logging.getLogger(__name__)


def cache_folder(option: str | None, needed: bool = True) -> Path | None:
    """The folder that `--cache_dir` selects; None for "none", which disables the cache.

    By default, $DOMAINBED_CACHE, or else the folder `domainbed` in $XDG_CACHE_HOME or in ~/.cache. Without a
    home directory there is no cache; a warning says so where one is `needed`.
    """
    if option is not None:
        return None if option == "none" else Path(option)
    if os.environ.get("DOMAINBED_CACHE"):
        return Path(os.environ["DOMAINBED_CACHE"])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "domainbed"
    except RuntimeError:  # HOME is not set, and the system does not know this user
        if needed:
            _log.warning(
                "images are decoded at each access, because there is no home directory for their cache; set "
                "DOMAINBED_CACHE or --cache_dir to a folder"
            )
        return None


def cached_images(
    folder: Path, name: str, environment: ImageEnvironment, paths: Sequence[str], transform: PlainTransform
) -> CachedImages:
    """The decoded images of an environment. They are decoded and cached now if no other run has done so.

    A damaged or missing cache file is made again, and a line is logged.

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
    cache = EnvironmentCache(folder, name, environment, paths, transform)
    return CachedImages(cache.open(), cache.repaired, FileImages(environment, transform))


class EnvironmentCache:
    """The cache files of one environment and transform; arguments as for `cached_images`."""

    def __init__(
        self,
        folder: Path,
        name: str,
        environment: ImageEnvironment,
        paths: Sequence[str],
        transform: PlainTransform,
    ) -> None:
        self._folder, self._name = folder, name
        self._environment, self._paths, self._transform = environment, paths, transform
        self._known = KnownContents(folder, name, paths)
        key = f"{_FORMAT} {transform.cache_key()} {environment.cache_key()}"
        self._stem = f"{file_stem(name)}-{_names_key(paths, self._known.states[:, 0], key)}"
        self._lock = folder / f".{self._stem}.lock"

    def open(self) -> CacheFile:
        """The cache file, which is made if there is none. Raises as `cached_images` does."""
        file = self._existing()
        if file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self._lock):
                file = self._existing(say=True) or self._new()
        return file

    def repaired(self, file: CacheFile, reason: str) -> CacheFile | None:
        """Make a cache file again that turned out to be damaged, and log a line.

        Returns: the new file; None if it cannot be made.

        Raises: RunError if the image files have changed since `file` was made.
        """
        _log.warning(_DAMAGED, file.path, reason)
        try:
            with file_lock(self._lock):
                if file.is_at_its_path():
                    file.path.unlink()
                cache = EnvironmentCache(
                    self._folder, self._name, self._environment, self._paths, self._transform
                )
                new = cache._existing() or cache._new()
        except (OSError, UnreadableImage) as error:
            reason = getattr(error, "strerror", None) or str(error)
            _log.warning(_NOT_MADE, file.path, reason)
            return None
        if not np.array_equal(new.facts.contents, file.facts.contents):
            raise RunError(f"image files of {self._name} were changed during the run; start it again")
        return new

    def _existing(self, say: bool = False) -> CacheFile | None:
        """The cache file of the image files' present contents; None if it is missing or damaged.

        Files of unknown contents are hashed only if there is a cache file of the same names and sizes.

        Args:
            say: log a line if a file is damaged, or missing although it was made.
        """
        hashes, known = self._known.recall()
        if not known.all():
            if not any(self._folder.glob(f"{self._stem}-*.images")):
                return None
            hashes = self._known.hashes_at(range(len(known)))
        path = self._path(hashes)
        try:
            return CacheFile(path, self._transform.planar)
        except FileNotFoundError:
            if say and _marker(path).exists():
                _log.warning("warning: image cache %s is missing; it is made again", path)
        except DamagedCache as error:
            if say:
                _log.warning(_DAMAGED, path, error)
        return None

    def _new(self) -> CacheFile:
        """Make the cache file. The lock must be held."""
        unnamed = self._folder / f"{self._stem}.images"
        contents = build(unnamed, self._name, self._environment, self._paths, self._transform)
        path = unnamed.replace(self._path(contents))
        _marker(path).touch()
        self._known.remember(contents)
        return CacheFile(path, self._transform.planar)

    def _path(self, contents: np.ndarray) -> Path:
        key = hashlib.blake2b(contents.tobytes(), digest_size=16).hexdigest()
        return self._folder / f"{self._stem}-{key}.images"


def _marker(path: Path) -> Path:
    """An empty file that stays if the cache file `path` is deleted."""
    return path.with_name(f".{path.stem}.made")


def _names_key(paths: Sequence[str], sizes: np.ndarray, more: str) -> str:
    """Hash of the names and sizes of files, which does not depend on their common folder, and of `more`."""
    start = len(common_folder(paths))
    lines = [more, *(f"{path[start:]} {size}" for path, size in zip(paths, sizes.tolist(), strict=True))]
    text = "\n".join(lines).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=8).hexdigest()
