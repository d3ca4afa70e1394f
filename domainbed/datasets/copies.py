"""Images that are in several environments: a method that learns them by heart is measured on what it saw."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset

SHOWN = 3
"""Instances that a message names."""

_log = logging.getLogger(__name__)


def digest(pixels: np.ndarray) -> int:
    """64 bits that two images share, but for chance, only if shape, type and every pixel are equal."""
    hasher = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=8)
    hasher.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(hasher.digest(), "little")


def warn_of_copies(dataset: MultipleDomainDataset, digests: Sequence[np.ndarray]) -> None:
    """Say how many images are also in an earlier environment, and name the first ones.

    Args:
        dataset: a dataset.
        digests: of the images of each environment, (N,) uint64; empty for one whose images nobody read.
    """
    sizes = [len(each) for each in digests]
    starts = np.cumsum([0, *sizes])
    owners = np.repeat(np.arange(len(sizes)), sizes)
    _, first, groups = np.unique(np.concatenate(digests), return_index=True, return_inverse=True)
    originals = first[groups]
    copies = np.flatnonzero(owners[originals] != owners)
    if not len(copies):
        return

    def place(sample: int) -> str:
        return place_of(dataset, int(owners[sample]), int(sample - starts[owners[sample]]))

    pairs = [f"{place(originals[copy])} = {place(copy)}" for copy in copies[:SHOWN].tolist()]
    _log.warning(
        "warning: %d of %d images of %s are also in another environment: %s",
        *(len(copies), len(owners), type(dataset).__name__, listed(pairs, len(copies))),
    )


def place_of(dataset: MultipleDomainDataset, number: int, index: int) -> str:
    """Where a sample is, for a message."""
    environment: Any = dataset.datasets[number]
    paths = environment.paths() if hasattr(environment, "paths") else None
    return f"{dataset.ENVIRONMENTS[number]}[{index}]" if paths is None else str(paths[index])


def listed(some: Sequence[str], count: int) -> str:
    """The instances that a message names, of so many."""
    return ", ".join(some) + (", ..." if count > len(some) else "")
