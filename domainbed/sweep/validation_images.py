"""Warnings, before a sweep starts, of environments without validation images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from domainbed.errors import DomainBedError
from domainbed.sweep.job import Job
from domainbed.training.config import TrainConfig
from domainbed.training.derived import split_request
from domainbed.training.run_hparams import resolved_hparams
from domainbed.training.splits import make_splits
from domainbed.training.validation_parts import effect, share_of, validation_warning

_SCHEMES = ("holdout", "stratified", "whole", "list")
"""Split schemes that need no more of a dataset than its samples. Others are only known in the run."""


def validation_warnings(jobs: Sequence[Job]) -> Iterator[str]:
    """A line for each dataset with source environments that have no validation images.

    Reads the listings of folders and lists of images. Other datasets are large enough, unless the share of
    validation images is 0.
    """
    first = {job.train_args["dataset"]: job for job in reversed(jobs)}
    for dataset in reversed(first):
        config = TrainConfig(**first[dataset].train_args)
        own = [job.train_args["test_envs"] for job in jobs if job.train_args["dataset"] == dataset]
        with contextlib.suppress(DomainBedError):  # the run says what is wrong
            if line := _warning(config, own):
                yield f"{dataset}: {line}"


def _warning(config: TrainConfig, targets: Sequence[Sequence[int]]) -> str:
    """One line on the dataset of a run; empty if all sources have validation images.

    Args:
        config: the settings of a run.
        targets: the target environments of each run on the dataset.
    """
    from domainbed.datasets.image_folder import MultipleEnvironmentImageFolder
    from domainbed.datasets.list_file import ListFileDataset

    dataset_class: Any = config.dataset_class()  # constructors of base classes take other arguments
    number = len(dataset_class.ENVIRONMENTS)
    if split_request(config).scheme == "holdout" and not config.holdout_fraction:
        return f"{share_of(config)} leaves no validation images in any environment: {effect(number, number)}"
    read = issubclass(dataset_class, MultipleEnvironmentImageFolder | ListFileDataset)
    if not read or split_request(config).scheme not in _SCHEMES:
        return ""
    dataset = dataset_class(config.data_dir, [], resolved_hparams(config))
    sources = [index for index in range(number) if not all(index in held_out for held_out in targets)]
    return validation_warning(dataset, make_splits(dataset, split_request(config)), sources, config)
