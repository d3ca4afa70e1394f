"""Warnings, before runs train, of source environments that have no validation images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from domainbed.console import shortened_list
from domainbed.training.config import TrainConfig
from domainbed.training.derived import split_request

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.training.splits import Parts


def validation_warning(
    dataset: MultipleDomainDataset, splits: Sequence[Parts], sources: Collection[int], config: TrainConfig
) -> str:
    """One line on the `sources` without validation images; empty if all have some.

    Args:
        dataset: the dataset.
        splits: parts of every environment.
        sources: indices of environments that are sources, in one run or in some run of a sweep.
        config: settings of a run, of which the line names the share of validation images.
    """
    lacking = [index for index in sources if not len(splits[index].get("out", ()))]
    if not lacking:
        return ""
    names = dataset.ENVIRONMENTS
    sizes = {index: sum(map(len, splits[index].values())) for index in lacking}
    listed = shortened_list([f"environment {i} ({names[i]}, {_images(sizes[i])})" for i in lacking])
    return f"{share_of(config)} leaves no validation images in {listed}: {effect(len(lacking), len(sources))}"


def share_of(config: TrainConfig) -> str:
    """The flag that decides on the share of validation images."""
    holdout = split_request(config).scheme == "holdout"
    return f"--holdout_fraction {config.holdout_fraction:g}" if holdout else f"--splits {config.splits}"


def effect(lacking: int, sources: int) -> str:
    """What follows if some of the sources lack validation images, and what to do."""
    if lacking == sources:
        follows = "selection by validation accuracy of the sources will have no result"
    else:
        follows = "selection will average over the validation accuracies of the other sources"
    return f"{follows}; increase the share, or add images"


def _images(number: int) -> str:
    return f"{number} image" if number == 1 else f"{number} images"
