"""Reading every image of a dataset once: can all be decoded?"""

from __future__ import annotations

import os
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
from tqdm import tqdm

from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.copies import SHOWN, digest, listed, place_of
from domainbed.datasets.image_files import UnreadableImage
from domainbed.errors import RunError


def check_images(dataset: MultipleDomainDataset) -> None:
    """Read all samples, in threads, with a bar on stderr; their digests are the dataset's afterwards.

    Raises: RunError that names the first ones that can't be decoded, and says how many there are.
    """
    sizes = [len(environment) for environment in dataset.datasets]  # type: ignore[arg-type] # see contract
    read, unreadable = [], []
    with (
        ThreadPool(os.cpu_count()) as pool,
        tqdm(None, "reading images", sum(sizes), unit="image", leave=False, disable=None) as bar,
    ):
        for number, environment in enumerate(dataset.datasets):
            digests = np.zeros(sizes[number], dtype=np.uint64)
            found = pool.imap(partial(_digest, environment), range(sizes[number]), chunksize=16)
            for index, value in enumerate(found):
                bar.update()
                if value is None:
                    unreadable.append((number, index))
                else:
                    digests[index] = value
            read.append(digests)
    if unreadable:
        places = [place_of(dataset, *sample) for sample in unreadable[:SHOWN]]
        raise RunError(
            f"{len(unreadable)} of {sum(sizes)} images of {type(dataset).__name__} cannot be read: "
            f"{listed(places, len(unreadable))}; replace or delete them"
        )
    dataset.digests = read


def _digest(environment: Any, index: int) -> int | None:  # noqa: ANN401 - any map-style dataset
    """Of an image's pixels; None if it can't be decoded."""
    try:
        if hasattr(environment, "image"):
            return digest(np.asarray(environment.image(index)))
        return digest(np.asarray(environment[index][0]))
    except UnreadableImage:
        return None
