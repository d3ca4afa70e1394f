"""Checks on all images of a dataset: can they be decoded, wholly, and are they in one environment only?

A method that memorises an image of a source environment is evaluated on what it saw in training if the target
environment has a copy of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from domainbed.datasets.hashes import hash_array, image_digest
from domainbed.datasets.image_decoding import CONVERTED, Finding, UnreadableImage, conversion, is_constant
from domainbed.datasets.image_files import ImageFiles
from domainbed.errors import RunError
from domainbed.threads import in_threads

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset

_SHOWN = 3
"""Number of images that a message names."""

_SHOWN_TRUNCATED = 20
"""Number of truncated images that stop a run and are named."""

_log = logging.getLogger(__name__)


def digest_and_finding(pixels: np.ndarray, finding: Finding) -> tuple[int, Finding]:
    """The `image_digest` of an RGB image (H, W, 3), and its finding with `CONSTANT` if it has one colour."""
    return image_digest(pixels), finding | Finding.CONSTANT if is_constant(pixels) else finding


def check_images(dataset: MultipleDomainDataset) -> None:
    """Read all samples of the environments that are not known yet in threads, with a progress bar on stderr.

    An environment is known if `dataset.image_digests` and `dataset.image_findings` have all of its images.
    Sets these, and `dataset.image_contents`.

    Raises: RunError with the number of unreadable images and the names of the first ones.
    """
    sizes = [len(environment) for environment in dataset.datasets]  # type: ignore[arg-type] # torch's Dataset type has no __len__
    nothing = [hash_array(())] * len(sizes)
    all_digests, all_findings, all_contents = (
        list(known or nothing)
        for known in (dataset.image_digests, dataset.image_findings, dataset.image_contents)
    )
    unread = [
        number
        for number, size in enumerate(sizes)
        if not len(all_digests[number]) == len(all_findings[number]) == size
    ]
    unreadable = []
    total = sum(sizes[number] for number in unread)
    with tqdm(None, "reading images", total, unit="image", leave=False, disable=None) as bar:
        for number in unread:
            digests = np.zeros(sizes[number], dtype=np.uint64)
            findings = np.zeros(sizes[number], dtype=np.uint8)
            contents = []
            results = in_threads(partial(_check_sample, dataset.datasets[number]), range(sizes[number]))
            for index, result in enumerate(results):
                bar.update()
                if result is None:
                    unreadable.append((number, index))
                else:
                    digests[index], findings[index], hashed = result
                    contents += [hashed] if hashed is not None else []
            all_digests[number], all_findings[number] = digests, findings
            all_contents[number] = hash_array(contents if len(contents) == sizes[number] else ())
    if unreadable:
        names = [_sample_name(dataset, *sample) for sample in unreadable[:_SHOWN]]
        raise RunError(
            f"{len(unreadable)} of {sum(sizes)} images of {type(dataset).__name__} cannot be read: "
            f"{_listed(names, len(unreadable))}; replace or delete them"
        )
    dataset.image_digests, dataset.image_findings = all_digests, all_findings
    dataset.image_contents = all_contents


def report_findings(dataset: MultipleDomainDataset, keep_truncated: bool) -> None:
    """Say how many images are truncated, converted or constant, and name the first ones.

    Args:
        dataset: a dataset with `image_findings`. Without, nothing is known and nothing is said.
        keep_truncated: whether truncated images of a user's own files are used.

    Raises: RunError for truncated images that are not used.
    """
    findings = dataset.image_findings or []
    total = sum(map(len, findings))
    for finding in (Finding.TRUNCATED, Finding.SCALED, Finding.TRANSPARENT, Finding.CONSTANT):
        found = [
            (number, int(index))
            for number, each in enumerate(findings)
            for index in np.flatnonzero(each & finding)
        ]
        if not found:
            continue
        stops = finding is Finding.TRUNCATED and not keep_truncated and is_users_own(dataset)
        names = [_sample_name(dataset, *sample) for sample in found[: _SHOWN_TRUNCATED if stops else _SHOWN]]
        numbers = f"{len(found)} of {total} images of {type(dataset).__name__}"
        if stops:
            raise RunError(
                f"{numbers} are truncated or damaged: {_listed(names, len(found))}; replace or delete them, "
                "or use --truncated keep to read them as far as possible"
            )
        _log.warning("warning: %s %s: %s", numbers, finding.text, _listed(names, len(found)))


def is_users_own(dataset: MultipleDomainDataset) -> bool:
    """Whether a dataset reads a user's own folder or list, and not files that others know by name."""
    return bool(_own_files(dataset))


def _own_files(dataset: MultipleDomainDataset) -> list[ImageFiles]:
    """The environments of a user's own files."""
    environments = [getattr(each, "files", each) for each in dataset.datasets]
    return [each for each in environments if isinstance(each, ImageFiles) and each.rules.converts]


def converts_images(dataset: MultipleDomainDataset) -> bool:
    """Whether an image was laid on white or scaled to 8 bits, which earlier releases did not do.

    If the images were not read, those whose file says that this is possible are read now, in threads.
    """
    for number, each in enumerate(_own_files(dataset)):
        known = dataset.image_findings[number] if dataset.image_findings else None
        if known is not None and len(known) == len(each):
            found = bool((known & CONVERTED).any())
        else:
            found = any(in_threads(partial(conversion, rules=each.rules), each.paths(), chunk=64))
        if found:
            return True
    return False


def warn_about_copies(dataset: MultipleDomainDataset, digests: Sequence[np.ndarray]) -> None:
    """Log a warning with the number of images that are also in an earlier environment, and the first ones.

    Another warning is about images that are equal to an earlier one of their environment, except for those
    whose files are equal (`dataset.copies`).

    Args:
        dataset: a dataset.
        digests: for each environment, the `image_digest` (N,) uint64 of its images; empty if they were not
            read.
    """
    sizes = [len(each) for each in digests]
    starts = np.cumsum([0, *sizes])
    owners = np.repeat(np.arange(len(sizes)), sizes)
    originals = _first_equal(np.concatenate(digests))
    copies = np.flatnonzero(owners[originals] != owners)

    def name(sample: int) -> str:
        return _sample_name(dataset, int(owners[sample]), int(sample - starts[owners[sample]]))

    def warn(firsts: np.ndarray, copies: np.ndarray, text: str) -> None:
        if len(copies):
            pairs = [f"{name(firsts[copy])} = {name(copy)}" for copy in copies[:_SHOWN].tolist()]
            numbers = f"{len(copies)} of {len(owners)} images of {type(dataset).__name__}"
            _log.warning("warning: %s %s: %s", numbers, text, _listed(pairs, len(copies)))

    warn(originals, copies, "are also in another environment")
    within, is_copy = np.arange(len(owners)), np.zeros(len(owners), dtype=bool)
    for number, each in enumerate(digests):
        inside = slice(starts[number], starts[number + 1])
        firsts = _first_equal(each)
        within[inside] = firsts + starts[number]
        is_copy[inside] = firsts != np.arange(len(each))
        if dataset.copies is not None and len(each):
            is_copy[inside] &= dataset.copies[number] == np.arange(len(each))
    warn(within, np.flatnonzero(is_copy), "have the same pixels as an earlier one of their environment")


def _first_equal(values: np.ndarray) -> np.ndarray:
    """For each value (N,), the position of the first equal one."""
    _, first, groups = np.unique(values, return_index=True, return_inverse=True)
    return first[groups]


def _check_sample(environment: Any, index: int) -> tuple[int, Finding, bytes | None] | None:  # noqa: ANN401 - any map-style dataset
    """Digest, finding and content hash of one sample's image, or of its input; None if it is unreadable."""
    try:
        if hasattr(environment, "decoded"):
            image, finding, contents = environment.decoded(index)
            return *digest_and_finding(np.asarray(image), finding), contents
        return image_digest(np.asarray(environment[index][0])), Finding.NOTHING, None
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
