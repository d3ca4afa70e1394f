"""The preprocessing of a dataset, derived from its environments or from its hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainbed.datasets.base import MultipleDomainDataset
from domainbed.datasets.image_files import ImageEnvironment
from domainbed.datasets.image_transforms import PlainTransform
from domainbed.datasets.preprocessing import Preprocessing
from domainbed.datasets.reading_rules import ReadingRules
from domainbed.plugins import is_of_plugin


def preprocessing_of(dataset: MultipleDomainDataset) -> Preprocessing | None:
    """How an image file becomes an input like those of `dataset`, without augmentation.

    Returns: None if the dataset is not made of images, or if a plugin's code reads or transforms them.
    """
    if dataset.PREPROCESSING is not None:
        fits = tuple(dataset.input_shape) == dataset.PREPROCESSING.input_shape
        return dataset.PREPROCESSING if fits else None
    # A run's environments may be views of those with the files.
    found = {_of_environment(getattr(each, "files", each)) for each in dataset.datasets}
    return found.pop() if len(found) == 1 else None


def preprocessing_by_hparams(hparams: Mapping[str, Any], rules: ReadingRules) -> Preprocessing:
    """The preprocessing of a dataset of image files with these hyper-parameters."""
    return _of_transform(PlainTransform(hparams), rules)


def _of_environment(environment: object) -> Preprocessing | None:
    if not isinstance(environment, ImageEnvironment) or environment.rules is None:
        return None
    readers = [each for each in type(environment).__mro__ if {"image", "__getitem__"} & vars(each).keys()]
    transform = environment.plain().transform
    if any(map(is_of_plugin, readers)) or type(transform) is not PlainTransform:
        return None
    return _of_transform(transform, environment.rules)


def _of_transform(transform: PlainTransform, rules: ReadingRules) -> Preprocessing:
    return Preprocessing(
        side=transform.side,
        mean=transform.mean,
        std=transform.std,
        stored_size=transform.stored_size,
        reencode=transform.reencode,
        rules=rules,
    )
