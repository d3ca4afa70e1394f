"""Image files with the same contents as another one of their environment."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from domainbed.datasets.hashes import file_hash, hash_array
from domainbed.datasets.image_files import ImageFiles
from domainbed.datasets.reading_rules import Skipped
from domainbed.errors import UsageError
from domainbed.threads import in_threads

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset

HashFiles = Callable[[str, Sequence[str], Sequence[int]], np.ndarray]
"""Takes the name of an environment, the paths of all its files, and the positions (K,) of those to hash.
Returns their content hashes, (K, 32) uint8, or raises OSError."""

_SHOWN = 3
"""Number of copies that an error names."""


def hash_each(name: str, paths: Sequence[str], positions: Sequence[int]) -> np.ndarray:
    """Read files, in threads, and return their hashes; see `HashFiles`."""
    return hash_array(list(in_threads(file_hash, [paths[position] for position in positions])))


def environment_title(dataset: MultipleDomainDataset, number: int) -> str:
    """Name of an environment, with that of its dataset, for names of files and progress bars."""
    return f"{type(dataset).__name__} {dataset.ENVIRONMENTS[number]}"


def first_copies(
    paths: Sequence[str],
    contents: np.ndarray | None = None,
    hash_files: HashFiles = hash_each,
    name: str = "",
) -> np.ndarray:
    """For each file, the position of the first one with the same bytes, which may be its own: (N,) int64.

    Args:
        paths: the files.
        contents: their content hashes (N, 32) uint8. If they are not known, files that have their size in
            common with another one are hashed.
        hash_files: hashes these files.
        name: name of their environment, for `hash_files`.

    Raises: UsageError if a file cannot be read.
    """
    if contents is not None and len(contents) == len(paths):
        first: dict[bytes, int] = {}
        return np.array(
            [first.setdefault(row.tobytes(), i) for i, row in enumerate(contents)], dtype=np.int64
        )
    by_size: defaultdict[int, list[int]] = defaultdict(list)
    for position, path in enumerate(paths):
        by_size[_size(path)].append(position)
    candidates = sorted(position for group in by_size.values() if len(group) > 1 for position in group)
    try:
        hashes = hash_files(name, paths, candidates)
    except OSError as error:
        raise UsageError(f"image {error.filename} cannot be read: {error.strerror}") from None
    firsts = np.arange(len(paths))
    seen: dict[bytes, int] = {}
    for position, content in zip(candidates, hashes, strict=True):
        firsts[position] = seen.setdefault(content.tobytes(), position)
    return firsts


def handle_duplicates(
    dataset: MultipleDomainDataset, duplicates: str, hash_files: HashFiles = hash_each
) -> None:
    """Find images with the same contents as an earlier one of their environment, unless they are kept.

    Sets `dataset.copies`. Copies that are kept are found by `find_copies`.

    Args:
        dataset: a dataset that was built.
        duplicates: "keep", "error", or "drop", which removes all but the first image, also if they are in
            different classes, and counts the others as skipped.
        hash_files: hashes files of equal size.

    Raises: UsageError for copies with "error", and for a dataset without image files unless they are kept.
    """
    if duplicates == "keep":
        return
    files = _image_files(dataset)
    name = type(dataset).__name__
    if len(files) < len(dataset.datasets):
        raise UsageError(f"--duplicates {duplicates} needs image files; {name} has none, leave it out")
    dataset.copies = [
        first_copies(each.paths(), None, hash_files, environment_title(dataset, number))
        for number, each in enumerate(files)
    ]
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


def find_copies(dataset: MultipleDomainDataset, hash_files: HashFiles = hash_each) -> None:
    """Set `dataset.copies` of a user's own files if `handle_duplicates` has not, without reading known ones.

    Args:
        dataset: a dataset.
        hash_files: hashes files of equal size whose contents the dataset does not know.

    Raises: UsageError if a file cannot be read.
    """
    files = _image_files(dataset)
    if dataset.copies is not None or not files or len(files) < len(dataset.datasets):
        return
    if not all(each.rules.converts for each in files):
        return
    known = dataset.image_contents or [hash_array(())] * len(files)
    dataset.copies = [
        first_copies(each.paths(), contents, hash_files, environment_title(dataset, number))
        for number, (each, contents) in enumerate(zip(files, known, strict=True))
    ]


def _image_files(dataset: MultipleDomainDataset) -> list[ImageFiles]:
    """The environments that read image files, without what a run wraps around them."""
    environments = [getattr(each, "files", each) for each in dataset.datasets]
    return [each for each in environments if isinstance(each, ImageFiles)]


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
    for environment, firsts in zip(_image_files(dataset), dataset.copies or (), strict=False):
        labels = np.asarray(environment.targets)
        images += int((firsts != np.arange(len(firsts))).sum())
        other_class += int((labels != labels[firsts]).sum())
    return {"images": images, "other_class": other_class}


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - creating a Path for each file is slow
    except OSError as error:
        raise UsageError(f"image {path} cannot be read: {error.strerror}") from None
