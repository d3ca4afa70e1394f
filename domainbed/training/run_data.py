"""The data of a run: its dataset, splits, names of classes, minibatches and loader processes."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from domainbed.algorithms.base import Algorithm
from domainbed.datasets import contract
from domainbed.datasets.base import MultipleDomainDataset, labels_of
from domainbed.datasets.image_checks import converts_images, report_findings
from domainbed.datasets.image_files import ImageEnvironment, refuse_truncated_images
from domainbed.datasets.splitting import balanced_class_weights
from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.images.cache import cache_folder
from domainbed.images.known_contents import remembered_hashes
from domainbed.images.prepared import prepare
from domainbed.networks.class_prompts import text_of_names
from domainbed.seeds import seed_all
from domainbed.training.config import TrainConfig
from domainbed.training.copies import split_copies
from domainbed.training.derived import split_request
from domainbed.training.minibatches import EnvironmentSampler, Minibatches, is_in_memory
from domainbed.training.splits import make_splits

if TYPE_CHECKING:
    from domainbed.training.splits import Parts

_log = logging.getLogger(__name__)


def build_data(
    config: TrainConfig, hparams: dict[str, Any], device: torch.device
) -> tuple[MultipleDomainDataset, list[Parts], Path | None]:
    """Build the dataset of the run that `config` describes, and its splits.

    Seeds the global generators of random numbers.

    Args:
        config: the settings.
        hparams: the hyper-parameters in force.
        device: device that images go to.

    Returns: the dataset, the parts of every environment, and the cache folder, which may be None.

    Raises: UsageError, or RunError if images cannot be read.
    """
    # Debug and the datasets derived from MNIST draw from the global generators.
    seed_all(config.seed)
    dataset = contract.build(
        config.dataset_class(),
        config.data_dir,
        config.test_envs,
        hparams,
        config.duplicates,
        remembered_hashes(cache_folder(config.cache_dir, needed=False)),
    )
    if config.truncated == "stop":
        refuse_truncated_images(dataset.datasets)
    has_images = any(isinstance(each, ImageEnvironment) for each in dataset.datasets)
    folder = cache_folder(config.cache_dir, needed=has_images)
    prepare(dataset, folder, device, config.check_images)
    report_findings(dataset, keep_truncated=config.truncated == "keep")
    contract.identify_contents(dataset)
    if converts_images(dataset):
        # Earlier releases made other pixels of the same files.
        dataset.summary = {**dataset.summary, "version": dataset.VERSION + 1}

    request = split_request(config)
    splits = split_copies(dataset, make_splits(dataset, request), request, Path(config.output_dir))
    return dataset, splits, folder


def environment_minibatches(
    config: TrainConfig,
    hparams: Mapping[str, Any],
    splits: Sequence[Parts],
    environments: Sequence[int],
    kind: str,
    n_steps: int,
) -> Minibatches:
    """Minibatches from the part `kind` of some environments.

    Raises: UsageError if one of these parts is missing or empty.
    """
    parts, samplers = [], []
    for index in environments:
        part = splits[index].get(kind)
        if part is None or not len(part):
            flag = "increase --uda_holdout_fraction" if kind == "uda" else "reduce --holdout_fraction"
            raise UsageError(
                f"environment {index} has no images in its {kind!r} part; {flag}, or add images to it"
            )
        weights = balanced_class_weights(labels_of(part)) if hparams["class_balanced"] else None
        sampler = EnvironmentSampler(
            size=len(part),
            batch_size=hparams["batch_size"],
            seeds=(config.seed, index),
            sampling=config.sampling,
            weights=weights,
        )
        parts.append(part)
        samplers.append(sampler)
    return Minibatches(parts, samplers, n_steps)


def name_classes(
    hparams: dict[str, Any], dataset: MultipleDomainDataset, algorithm_class: type[Algorithm]
) -> None:
    """Set the hyper-parameter `class_names` to those of the dataset, if the run reads it and does not set it.

    Warns if the classes have no names. Prompts then have their numbers.
    """
    is_read = algorithm_class.NAMES_CLASSES or option(hparams, "clip_head") == "text"
    if not is_read or option(hparams, "class_names"):
        return
    if not dataset.class_names:
        _log.warning(
            "the classes of %s have no names, and are called 0, 1, ... in prompts; give their names with the "
            "hyper-parameter class_names",
            type(dataset).__name__,
        )
    names = dataset.class_names or [str(label) for label in range(dataset.num_classes)]
    hparams["class_names"] = text_of_names(names)


def choose_num_workers(requested: int | None, dataset: MultipleDomainDataset, splits: Sequence[Parts]) -> int:
    """Number of loader processes: 0 for data in memory, else `requested`, by default one per core.

    In a daemonic process, which may have no children, 0 and a warning.
    """
    if all(is_in_memory(part) for parts in splits for part in parts.values()):
        return 0
    number = min(dataset.N_WORKERS, torch.get_num_threads()) if requested is None else requested
    if number and multiprocessing.current_process().daemon:
        _log.warning(
            "this process is a daemonic worker of a pool, which cannot start loader processes; it reads the "
            "images itself, with the same numbers but more slowly"
        )
        return 0
    return number
