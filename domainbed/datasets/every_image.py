"""Reading every image of a dataset once: can all be decoded, and are some in several environments?"""

from __future__ import annotations

import hashlib
import logging
import os
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
from tqdm import tqdm

from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.image_files import UnreadableImage
from domainbed.errors import RunError

SHOWN = 3
"""Instances that a message names."""

_log = logging.getLogger(__name__)


def check_images(dataset: MultipleDomainDataset) -> None:
    """Read all samples, in threads, with a bar on stderr; warn of images that are in several environments.

    Two images are the same if all their pixels are.

    Raises: RunError that names the first ones that can't be decoded, and says how many there are.
    """
    sizes = [len(environment) for environment in dataset.datasets]  # type: ignore[arg-type] # see contract
    first: dict[bytes, tuple[int, int]] = {}
    unreadable, repeated = [], []
    with (
        ThreadPool(os.cpu_count()) as pool,
        tqdm(None, "reading images", sum(sizes), unit="image", leave=False, disable=None) as bar,
    ):
        for number, environment in enumerate(dataset.datasets):
            contents = pool.imap(partial(_content, environment), range(sizes[number]), chunksize=16)
            for index, content in enumerate(contents):
                bar.update()
                if content is None:
                    unreadable.append((number, index))
                    continue
                before = first.setdefault(content, (number, index))
                if before[0] != number:
                    repeated.append((before, (number, index)))
    name = type(dataset).__name__
    if unreadable:
        places = [_place(dataset, *sample) for sample in unreadable[:SHOWN]]
        raise RunError(
            f"{len(unreadable)} of {sum(sizes)} images of {name} cannot be read: "
            f"{_listed(places, unreadable)}; replace or delete them"
        )
    if repeated:
        pairs = [" = ".join(_place(dataset, *sample) for sample in pair) for pair in repeated[:SHOWN]]
        _log.warning(
            "warning: %d of %d images of %s are also in another environment: %s",
            *(len(repeated), sum(sizes), name, _listed(pairs, repeated)),
        )


def _content(environment: Any, index: int) -> bytes | None:  # noqa: ANN401 - any map-style dataset
    """A hash of an image's pixels; None if it can't be decoded."""
    try:
        if hasattr(environment, "image"):
            pixels = np.asarray(environment.image(index))
        else:
            pixels = np.asarray(environment[index][0])
    except UnreadableImage:
        return None
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def _place(dataset: MultipleDomainDataset, number: int, index: int) -> str:
    """Where a sample is, for a message."""
    environment: Any = dataset.datasets[number]
    paths = environment.paths() if hasattr(environment, "paths") else None
    return f"{dataset.ENVIRONMENTS[number]}[{index}]" if paths is None else str(paths[index])


def _listed(some: list[str], every: list[Any]) -> str:
    return ", ".join(some) + (", ..." if len(every) > len(some) else "")
