"""Paths of a dataset's image files, relative to the folder that contains them all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domainbed.datasets.base import Environment, MultipleDomainDataset


def paths_of(environment: Environment) -> Sequence[str] | None:
    """Path of each image's file in an environment; None if its samples have no files."""
    paths: Sequence[str] | None = environment.paths() if hasattr(environment, "paths") else None
    return paths


def common_start(files: Sequence[Sequence[str] | None]) -> int:
    """Number of characters of the folder that contains all files, with its separator.

    Args:
        files: paths of each environment's files.
    """
    known = [path for paths in files for path in paths or ()]
    # A prefix that the first and the last path share is shared by all.
    extremes = min(known, default=""), max(known, default="")
    return os.path.commonprefix(extremes).rfind(os.sep) + 1  # noqa: RUF071 - cut after a separator


def relative_paths(dataset: MultipleDomainDataset) -> list[list[str] | None]:
    """For each environment, the paths of its files relative to the folder of all; None without files."""
    files = [paths_of(environment) for environment in dataset.datasets]
    start = common_start(files)
    return [None if paths is None else [path[start:] for path in paths] for paths in files]
