"""Checks that a run makes on a dataset when it builds one, and the identity of the data."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from domainbed.datasets.base import MultipleDomainDataset, labels_of
from domainbed.datasets.file_copies import (
    HashFiles,
    find_copies,
    handle_duplicates,
    hash_each,
    summary_of_copies,
)
from domainbed.datasets.image_files import ImageEnvironment
from domainbed.datasets.reading_rules import count_by_reason
from domainbed.datasets.relative_paths import common_start, paths_of
from domainbed.errors import UsageError

if TYPE_CHECKING:
    from domainbed.datasets.base import Environment


def build(
    dataset_class: type[MultipleDomainDataset],
    root: str | None,
    test_envs: Sequence[int],
    hparams: dict[str, Any],
    duplicates: str = "keep",
    hash_files: HashFiles = hash_each,
) -> MultipleDomainDataset:
    """Build a dataset, check it, and set its `summary`.

    Args:
        dataset_class: class of the dataset.
        root, test_envs, hparams: arguments of its constructor.
        duplicates: what to do with copies of images; see `file_copies.handle_duplicates`.
        hash_files: hashes image files that may be copies.

    Raises: UsageError if the dataset cannot be built or fails `check`; UnreadableImage if the first image of
        an environment cannot be decoded.
    """
    before = _generator_states()
    dataset = dataset_class(root, test_envs, hparams)
    is_random = _generator_states() != before
    for attribute in ("datasets", "input_shape", "num_classes"):
        if not hasattr(dataset, attribute):
            name = dataset_class.__name__
            raise UsageError(f"the constructor of dataset {name} must set self.{attribute}; it does not")
    check(dataset)
    if duplicates != "keep":
        handle_duplicates(dataset, duplicates, hash_files)
        check(dataset)  # all images of a class may be copies
    dataset.summary = {
        "counts": dataset.counts(),
        "checksum": checksum(dataset, is_random),
        "version": dataset.VERSION,
    }
    if dataset.skipped is not None:
        dataset.summary |= {"skipped": count_by_reason(dataset.skipped)}
    for environment in dataset.datasets:
        if isinstance(environment, ImageEnvironment):
            environment.decoded(0)
    return dataset


def identify_contents(dataset: MultipleDomainDataset) -> None:
    """Add to `summary` what the contents of image files say, once a run has decoded them if it does.

    `contents` is there if the contents of all images are known, and `copies` for a user's own files.

    Raises: UsageError if a file has to be read now, and cannot.
    """
    find_copies(dataset)
    more: dict[str, Any] = {}
    if _contents_known(dataset):
        more["contents"] = contents_checksum(dataset)
    if dataset.copies is not None:
        more["copies"] = summary_of_copies(dataset)
    dataset.summary = {**dataset.summary, **more}


def check(dataset: MultipleDomainDataset) -> None:
    """Check that names and counts agree, labels are valid, and every environment has every class.

    Environments may lack classes if the dataset sets `SAME_CLASSES = False`.

    Raises: UsageError that names the environment and what is wrong with it.
    """
    name, environments = type(dataset).__name__, tuple(dataset.ENVIRONMENTS or ())
    if len(environments) != len(dataset.datasets):
        raise UsageError(f"{name} names {len(environments)} environments but has {len(dataset.datasets)}")
    if dataset.class_names and len(dataset.class_names) != dataset.num_classes:
        raise UsageError(f"{name} names {len(dataset.class_names)} classes but has {dataset.num_classes}")
    present = [
        _labels_present(f"environment {environment} of {name}", samples, dataset.num_classes)
        for environment, samples in zip(environments, dataset.datasets, strict=True)
    ]
    all_labels = set().union(*present)
    for environment, labels in zip(environments, present, strict=True):
        absent = [
            dataset.class_names[i] if dataset.class_names else str(i) for i in sorted(all_labels - labels)
        ]
        if dataset.SAME_CLASSES and absent:
            raise UsageError(
                f"environment {environment} of {name} has no samples of class {', '.join(absent[:6])}; every "
                "environment must have every class, unless the dataset class sets SAME_CLASSES = False"
            )


def _labels_present(environment: str, samples: Environment, num_classes: int) -> set[int]:
    """The set of labels in one environment. Raises UsageError for an invalid label."""
    labels, size = labels_of(samples), len(samples)  # type: ignore[arg-type] # torch's Dataset type has no __len__
    if not size:
        raise UsageError(f"{environment} has no samples")
    if len(labels) != size:
        raise UsageError(f"{environment} has {size} samples but {len(labels)} labels")
    invalid = labels[(labels < 0) | (labels >= num_classes)]
    if len(invalid):
        raise UsageError(
            f"{environment} has the label {invalid[0]}; labels must be from 0 to {num_classes - 1}"
        )
    return set(labels.tolist())


def checksum(dataset: MultipleDomainDataset, is_random: bool) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over the environments' names and samples.

    For image files it covers paths (relative to their common folder), sizes and labels, in order. For samples
    in memory it covers inputs and labels, for other samples the labels alone.

    Args:
        dataset: a dataset.
        is_random: whether the dataset was drawn with the random numbers of the run. Samples then depend on
            the seed, so the checksum covers the numbers of samples, the shape of the inputs and
            `source_digest` instead.

    Raises: UsageError if an image file does not exist.
    """
    shape = repr((tuple(dataset.input_shape), dataset.num_classes)).encode()
    digest = hashlib.sha256(shape + dataset.source_digest if is_random else b"")
    files = [paths_of(environment) for environment in dataset.datasets]
    start = common_start(files)
    for name, environment, paths in zip(dataset.ENVIRONMENTS, dataset.datasets, files, strict=True):
        labels = labels_of(environment)
        digest.update(f"{name}\t{len(labels)}\n".encode())
        if is_random:
            continue
        digest.update(np.ascontiguousarray(labels).data)
        for part in _inputs_in_memory(environment) if paths is None else _file_lines(paths, start):
            digest.update(part)
    return digest.hexdigest()[:16]


def contents_checksum(dataset: MultipleDomainDataset) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over the environments' names, labels and files' contents.

    Names of files do not matter, but their order does. The contents of all images must be known.
    """
    digest = hashlib.sha256()
    assert dataset.image_contents is not None
    for name, environment, contents in zip(
        dataset.ENVIRONMENTS, dataset.datasets, dataset.image_contents, strict=True
    ):
        labels = labels_of(environment)
        digest.update(f"{name}\t{len(labels)}\n".encode())
        digest.update(np.ascontiguousarray(labels).data)
        digest.update(contents.tobytes())
    return digest.hexdigest()[:16]


def _contents_known(dataset: MultipleDomainDataset) -> bool:
    sizes = [len(each) for each in dataset.datasets]  # type: ignore[arg-type] # torch's Dataset type has no __len__
    return dataset.image_contents is not None and sizes == [len(each) for each in dataset.image_contents]


def _file_lines(paths: Sequence[str], start: int) -> Iterator[bytes]:
    """A line "path, tab, size" for each file, with paths cut before position `start`."""
    for path in paths:
        try:
            size = os.stat(path).st_size  # noqa: PTH116 - creating a Path for each file is slow
        except OSError as error:
            raise UsageError(f"image {path} cannot be read: {error.strerror}") from None
        yield f"{path[start:]}\t{size}\n".encode("utf-8", "surrogateescape")


def _inputs_in_memory(environment: Environment) -> Iterator[memoryview]:
    if hasattr(environment, "images"):
        yield np.ascontiguousarray(environment.images).data
    elif hasattr(environment, "tensors"):
        yield np.ascontiguousarray(environment.tensors[0]).data


def _generator_states() -> tuple[object, ...]:
    """States of the global generators of Python, NumPy and torch, from which a dataset may draw."""
    import torch

    _, keys, *rest = np.random.get_state()
    return random.getstate(), np.asarray(keys).tobytes(), rest, torch.get_rng_state().numpy().tobytes()
