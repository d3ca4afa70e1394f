"""Image files with the same contents as another one of their environment."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING

import numpy as np

from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.reading_rules import Skipped
from domainbed.errors import UsageError

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset

_SHOWN = 3
"""Number of copies that an error names."""


def first_copies(paths: Sequence[str]) -> np.ndarray:
    """For each file, the position of the first one with the same bytes, which may be its own: (N,) int64.

    Only files that have their size in common with another one are read, in threads.

    Raises: UsageError if a file cannot be read.
    """
    by_size: defaultdict[int, list[int]] = defaultdict(list)
    for position, path in enumerate(paths):
        by_size[_size(path)].append(position)
    candidates = sorted(position for group in by_size.values() if len(group) > 1 for position in group)
    with ThreadPool(os.cpu_count()) as pool:
        hashes = pool.map(_hash, [paths[position] for position in candidates], chunksize=16)
    firsts = np.arange(len(paths))
    seen: dict[bytes, int] = {}
    for position, content in zip(candidates, hashes, strict=True):
        firsts[position] = seen.setdefault(content, position)
    return firsts


def handle_duplicates(dataset: MultipleDomainDataset, duplicates: str) -> None:
    """Find images with the same contents as an earlier one of their environment, and treat them as asked.

    Sets `dataset.copies`. Files of a dataset that upstream knows by name are compared only if copies are not
    to be kept.

    Args:
        dataset: a dataset that was built.
        duplicates: "keep", "error", or "drop", which removes all but the first image, also if they are in
            different classes, and counts the others as skipped.

    Raises: UsageError for copies with "error", and for a dataset without image files unless they are kept.
    """
    files = [each for each in dataset.datasets if isinstance(each, ImageFiles)]
    name = type(dataset).__name__
    if duplicates != "keep" and len(files) < len(dataset.datasets):
        raise UsageError(f"--duplicates {duplicates} needs image files; {name} has none, leave it out")
    if not files or (duplicates == "keep" and not all(each.rules.converts for each in files)):
        return
    dataset.copies = [first_copies(each.paths()) for each in files]
    if duplicates == "keep":
        return
    copies = [np.flatnonzero(firsts != np.arange(len(firsts))).tolist() for firsts in dataset.copies]
    if duplicates == "error" and any(copies):
        raise UsageError(_error(name, files, dataset.copies, copies))
    dropped = []
    for number, (each, positions) in enumerate(zip(files, copies, strict=True)):
        paths, left_out = each.paths(), set(positions)
        dropped += [Skipped(paths[position], "duplicate") for position in positions]
        dataset.keep_samples(number, [i for i in range(len(each)) if i not in left_out])
    dataset.skipped = [*(dataset.skipped or ()), *dropped]
    dataset.copies = [np.arange(len(each)) for each in files]


def _error(
    name: str, files: Sequence[ImageFiles], firsts: Sequence[np.ndarray], copies: Sequence[Sequence[int]]
) -> str:
    pairs = [
        f"{each.samples[int(first[copy])][0]} = {each.samples[copy][0]}"
        for each, first, positions in zip(files, firsts, copies, strict=True)
        for copy in positions
    ]
    more = ", ..." if len(pairs) > _SHOWN else ""
    return (
        f"{len(pairs)} images of {name} have the same contents as an earlier one of their environment: "
        f"{', '.join(pairs[:_SHOWN])}{more}; delete them, or use --duplicates drop or keep"
    )


def summary_of_copies(dataset: MultipleDomainDataset) -> dict[str, int]:
    """Numbers of images with the same contents as an earlier one: in all, and those in another class."""
    images = other_class = 0
    for environment, firsts in zip(dataset.datasets, dataset.copies or (), strict=False):
        assert isinstance(environment, ImageFiles)
        labels = np.asarray(environment.targets)
        images += int((firsts != np.arange(len(firsts))).sum())
        other_class += int((labels != labels[firsts]).sum())
    return {"images": images, "other_class": other_class}


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - creating a Path for each file is slow
    except OSError as error:
        raise UsageError(f"image {path} cannot be read: {error.strerror}") from None


def _hash(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError as error:
        raise UsageError(f"image {path} cannot be read: {error.strerror}") from None
