"""What a dataset must keep to, checked when a run builds one, and what identifies its data afterwards."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from domainbed.datasets.base import MultipleDomainDataset, labels_of
from domainbed.datasets.image_files import ImageEnvironment
from domainbed.errors import UsageError

if TYPE_CHECKING:
    from domainbed.datasets.base import Environment


def build(
    kind: type[MultipleDomainDataset], root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]
) -> MultipleDomainDataset:
    """A dataset that keeps the contract, with its `summary`; the arguments are those of its class.

    Raises: UsageError if it can't be built, or does not keep the contract; RunError (UnreadableImage) if
        the first image of an environment can't be decoded.
    """
    before = _generators()
    dataset = kind(root, test_envs, hparams)
    drawn = _generators() != before
    check(dataset)
    dataset.summary = {
        "counts": dataset.counts(),
        "checksum": checksum(dataset, drawn),
        "version": dataset.VERSION,
    }
    for environment in dataset.datasets:
        if isinstance(environment, ImageEnvironment):
            environment.image(0)
    return dataset


def check(dataset: MultipleDomainDataset) -> None:
    """Refuse an empty environment, labels out of range, and classes that are not in every environment.

    Raises: UsageError that says what is wrong where.
    """
    name, environments = type(dataset).__name__, tuple(dataset.ENVIRONMENTS)
    if len(environments) != len(dataset.datasets):
        raise UsageError(f"{name} names {len(environments)} environments and has {len(dataset.datasets)}")
    if dataset.class_names and len(dataset.class_names) != dataset.num_classes:
        raise UsageError(f"{name} names {len(dataset.class_names)} classes and has {dataset.num_classes}")
    present = [
        _classes(f"environment {environment} of {name}", samples, dataset.num_classes)
        for environment, samples in zip(environments, dataset.datasets, strict=True)
    ]
    every = set().union(*present)
    for environment, classes in zip(environments, present, strict=True):
        lacking = [dataset.class_names[i] if dataset.class_names else str(i) for i in sorted(every - classes)]
        if dataset.SAME_CLASSES and lacking:
            raise UsageError(
                f"environment {environment} of {name} has no samples of class {', '.join(lacking[:6])}; all "
                "environments must have the same classes (SAME_CLASSES = False in its class allows others)"
            )


def _classes(place: str, samples: Environment, num_classes: int) -> set[int]:
    """The labels that there are in one environment; raises UsageError for one that makes no sense."""
    labels, size = labels_of(samples), len(samples)  # type: ignore[arg-type] # torch's Dataset type has no __len__
    if not size:
        raise UsageError(f"{place} has no samples")
    if len(labels) != size:
        raise UsageError(f"{place} has {size} samples and {len(labels)} labels")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise UsageError(f"{place} has a label {wrong[0]}; they go from 0 to {num_classes - 1}")
    return set(labels.tolist())


def checksum(dataset: MultipleDomainDataset, drawn: bool) -> str:
    """16 hexadecimal digits of a SHA-256 over the environments' names and samples.

    Of files that is path, size and label, in order, wherever their common folder lies; of samples in memory
    inputs and labels; of others the labels.

    Args:
        dataset: a dataset.
        drawn: whether it was made with random numbers of the run. Every seed gives others then: only the
            numbers of samples, the shape of the inputs and what they were drawn from count.
    """
    shape = repr((tuple(dataset.input_shape), dataset.num_classes)).encode()
    digest = hashlib.sha256(shape + dataset.drawn_from if drawn else b"")
    files = [_paths(environment) for environment in dataset.datasets]
    known = [path for paths in files for path in paths or ()]
    # What the first and the last path share, all do.
    ends = min(known, default=""), max(known, default="")
    start = os.path.commonprefix(ends).rfind(os.sep) + 1  # noqa: RUF071 - cut at a folder's end
    for name, environment, paths in zip(dataset.ENVIRONMENTS, dataset.datasets, files, strict=True):
        labels = labels_of(environment)
        digest.update(f"{name}\t{len(labels)}\n".encode())
        if drawn:
            continue
        digest.update(np.ascontiguousarray(labels).data)
        for part in _arrays(environment) if paths is None else _lines(paths, start):
            digest.update(part)
    return digest.hexdigest()[:16]


def _paths(environment: Environment) -> Sequence[str] | None:
    paths: Sequence[str] | None = environment.paths() if hasattr(environment, "paths") else None
    return paths


def _lines(paths: Sequence[str], start: int) -> Iterator[bytes]:
    for path in paths:
        try:
            size = os.stat(path).st_size  # noqa: PTH116 - a Path each is slow
        except OSError as error:
            raise UsageError(f"image {path} cannot be read: {error.strerror}") from None
        yield f"{path[start:]}\t{size}\n".encode("utf-8", "surrogateescape")


def _arrays(environment: Environment) -> Iterator[memoryview]:
    """What an environment holds in memory."""
    if hasattr(environment, "images"):
        yield np.ascontiguousarray(environment.images).data
    elif hasattr(environment, "tensors"):
        yield np.ascontiguousarray(environment.tensors[0]).data


def _generators() -> tuple[object, ...]:
    """State of the generators that a dataset may draw from."""
    import torch

    _, keys, *rest = np.random.get_state()
    return random.getstate(), np.asarray(keys).tobytes(), rest, torch.get_rng_state().numpy().tobytes()
