"""Checks on all images of a dataset: can they be decoded, and are they in one environment only?

A method that memorises an image of a source environment is evaluated on what it saw in training if the target
environment has a copy of it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from domainbed.datasets.image_files import UnreadableImage
from domainbed.errors import RunError

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset

_SHOWN = 3
"""Number of images that a message names."""

_log = logging.getLogger(__name__)


def image_digest(pixels: np.ndarray) -> int:
    """64-bit hash of an image's shape, dtype and pixels."""
    hasher = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=8)
    hasher.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(hasher.digest(), "little")


def check_images(dataset: MultipleDomainDataset) -> None:
    """Read all samples in threads, with a progress bar on stderr, and set `dataset.image_digests`.

    Raises: RunError with the number of unreadable images and the names of the first ones.
    """
    sizes = [len(environment) for environment in dataset.datasets]  # type: ignore[arg-type] # torch's Dataset type has no __len__
    all_digests, unreadable = [], []
    with (
        ThreadPool(os.cpu_count()) as pool,
        tqdm(None, "reading images", sum(sizes), unit="image", leave=False, disable=None) as bar,
    ):
        for number, environment in enumerate(dataset.datasets):
            digests = np.zeros(sizes[number], dtype=np.uint64)
            results = pool.imap(partial(_sample_digest, environment), range(sizes[number]), chunksize=16)
            for index, digest in enumerate(results):
                bar.update()
                if digest is None:
                    unreadable.append((number, index))
                else:
                    digests[index] = digest
            all_digests.append(digests)
    if unreadable:
        names = [_sample_name(dataset, *sample) for sample in unreadable[:_SHOWN]]
        raise RunError(
            f"{len(unreadable)} of {sum(sizes)} images of {type(dataset).__name__} cannot be read: "
            f"{_listed(names, len(unreadable))}; replace or delete them"
        )
    dataset.image_digests = all_digests


def warn_about_copies(dataset: MultipleDomainDataset, digests: Sequence[np.ndarray]) -> None:
    """Log a warning with the number of images that are also in an earlier environment, and the first ones.

    Args:
        dataset: a dataset.
        digests: for each environment, the `image_digest` (N,) uint64 of its images; empty if they were not
            read.
    """
    sizes = [len(each) for each in digests]
    starts = np.cumsum([0, *sizes])
    owners = np.repeat(np.arange(len(sizes)), sizes)
    _, first, groups = np.unique(np.concatenate(digests), return_index=True, return_inverse=True)
    originals = first[groups]
    copies = np.flatnonzero(owners[originals] != owners)
    if not len(copies):
        return

    def name(sample: int) -> str:
        return _sample_name(dataset, int(owners[sample]), int(sample - starts[owners[sample]]))

    pairs = [f"{name(originals[copy])} = {name(copy)}" for copy in copies[:_SHOWN].tolist()]
    _log.warning(
        "warning: %d of %d images of %s are also in another environment: %s",
        len(copies),
        len(owners),
        type(dataset).__name__,
        _listed(pairs, len(copies)),
    )


def _sample_digest(environment: Any, index: int) -> int | None:  # noqa: ANN401 - any map-style dataset
    """Digest of one sample's image, or of its input; None if it cannot be decoded."""
    try:
        if hasattr(environment, "image"):
            return image_digest(np.asarray(environment.image(index)))
        return image_digest(np.asarray(environment[index][0]))
    except UnreadableImage:
        return None


def _sample_name(dataset: MultipleDomainDataset, number: int, index: int) -> str:
    """Path of sample `index` of environment `number`, or "environment[index]" if it has no file."""
    environment: Any = dataset.datasets[number]
    paths = environment.paths() if hasattr(environment, "paths") else None
    return f"{dataset.ENVIRONMENTS[number]}[{index}]" if paths is None else str(paths[index])


def _listed(names: Sequence[str], count: int) -> str:
    """`names`, the first of `count`, as one text."""
    return ", ".join(names) + (", ..." if count > len(names) else "")
