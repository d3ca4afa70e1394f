"""Whether images can be decoded, all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

_AT_ONCE = 1000  # a future for each of half a million images would take half a gigabyte


def flawed_images(folder: Path, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of `paths` below `folder` that cannot be decoded, and those that are read but end too early.

    Decoding runs in threads, with a bar on stderr.
    """
    with _strict():
        flawed = _failing(folder, paths, _decode)
    unreadable = _failing(folder, flawed, _read)
    return unreadable, [path for path in flawed if path not in set(unreadable)]


def _failing(folder: Path, paths: Sequence[str], read: Callable[[str], None]) -> list[str]:
    def fails(path: str) -> bool:
        try:
            read(str(folder / path))
        except Exception:  # damaged files make PIL raise a dozen unrelated classes
            return True
        return False

    failing = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(None, "reading images", len(paths), unit="image", leave=False, disable=None) as bar,
    ):
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            failing += [path for path, failed in zip(some, pool.map(fails, some), strict=True) if failed]
            bar.update(len(some))
    return failing


def _decode(path: str) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def _read(path: str) -> None:
    from domainbed.datasets.image_files import open_image

    open_image(path)


@contextmanager
def _strict() -> Iterator[None]:
    """Let PIL refuse images that end too early, which our datasets tolerate."""
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
