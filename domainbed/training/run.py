"""Build a run from its settings: dataset, splits, minibatches, algorithm."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from domainbed.accelerators import default_device
from domainbed.algorithms import optimizers
from domainbed.algorithms.base import Algorithm
from domainbed.datasets import contract
from domainbed.datasets.base import MultipleDomainDataset, labels_of
from domainbed.datasets.image_checks import converts_images, report_findings
from domainbed.datasets.image_files import ImageEnvironment, refuse_truncated_images
from domainbed.datasets.reading_rules import text_of_counts
from domainbed.datasets.splitting import balanced_class_weights
from domainbed.errors import UsageError
from domainbed.escaping import visible
from domainbed.hparams import option
from domainbed.images.cache import cache_folder
from domainbed.images.known_contents import remembered_hashes
from domainbed.images.prepared import prepare
from domainbed.networks import clip_models
from domainbed.networks.base import provenance_of
from domainbed.networks.class_prompts import text_of_names
from domainbed.networks.classifier import check_text_heads
from domainbed.seeds import seed_all
from domainbed.training.acceleration import accelerate, check_device
from domainbed.training.averaging import Averaging, SimpleAverage
from domainbed.training.config import TrainConfig
from domainbed.training.copies import describe_copies, split_copies
from domainbed.training.derived import make_schedule, split_request
from domainbed.training.frozen_outputs import FrozenStages
from domainbed.training.grouping import group_minibatches
from domainbed.training.initialization import initial_seed, weights_checksum
from domainbed.training.loss_valley import COUNTINGS
from domainbed.training.minibatches import EnvironmentSampler, Minibatches, is_in_memory
from domainbed.training.run_hparams import resolved_hparams
from domainbed.training.splits import make_splits
from domainbed.training.swad import SWAD

if TYPE_CHECKING:
    from domainbed.algorithms.schedules import Schedule
    from domainbed.training.splits import Parts

_log = logging.getLogger(__name__)


@dataclass
class Run:
    """A run, ready to be trained by `loop.train`.

    Building it finds most of a user's mistakes; training takes the time.

    Attributes:
        config: the settings.
        hparams: the hyper-parameters in force.
        device: device of the algorithm.
        dataset: the dataset.
        splits: parts of every environment, in the dataset's order.
        sources: indices of the source environments.
        minibatches: minibatches of the source environments, for every step.
        unlabeled: minibatches of the targets' `uda` parts; None unless the task is domain adaptation.
        algorithm: the algorithm with its initial weights.
        initial_weights: checksum of these weights.
        frozen: the frozen stages of its featurizer.
        schedule: learning rates of each update; None if the algorithm's own stay.
        averaging: decides which weights are evaluated and saved.
        num_workers: number of worker processes that load data.
        n_steps: number of updates.
        checkpoint_freq: number of updates from one record to the next.
    """

    config: TrainConfig
    hparams: dict[str, Any]
    device: torch.device
    dataset: MultipleDomainDataset
    splits: list[Parts]
    sources: list[int]
    minibatches: Minibatches
    unlabeled: Minibatches | None
    algorithm: Algorithm
    initial_weights: str
    frozen: FrozenStages
    schedule: Schedule | None
    averaging: Averaging
    num_workers: int
    n_steps: int
    checkpoint_freq: int


def build(config: TrainConfig) -> Run:
    """Build the run that `config` describes.

    Raises:
        UsageError: settings or data cannot be used.
        RunError: images cannot be read.
    """
    hparams = resolved_hparams(config)
    device = choose_device(config.device)
    check_device(config, device)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
    torch.use_deterministic_algorithms(config.deterministic)

    dataset, splits, folder = build_data(config, hparams, device)
    sources = [index for index in range(len(dataset)) if index not in config.test_envs]
    n_steps = config.steps or dataset.N_STEPS
    images = _minibatches(config, hparams, splits, sources, "in", n_steps)
    unlabeled_images = None
    if config.task == "domain_adaptation":
        unlabeled_images = _minibatches(config, hparams, splits, list(config.test_envs), "uda", n_steps)

    name_classes(hparams, dataset, config.algorithm_class())
    if "clip_model" in hparams:
        # Of a user's file, so that records and models are complete without it.
        hparams["clip_model"] = clip_models.contents_of(str(hparams["clip_model"]))
    # Seeding again gives every algorithm and dataset with this seed the same initial weights.
    seed_all(initial_seed(hparams, config.seed))
    algorithm = config.algorithm_class()(dataset.input_shape, dataset.num_classes, len(sources), hparams)
    check_text_heads(algorithm, config.algorithm)
    initial_weights = weights_checksum(algorithm)
    schedule = make_schedule(config, hparams)
    check_learning_rates(algorithm, schedule)
    algorithm.to(device)
    accelerate(algorithm, config)
    frozen = FrozenStages(algorithm, dataset, folder, device)
    minibatches, unlabeled = frozen.minibatches(images, unlabeled_images)
    has_validation = all(len(splits[index].get("out", [])) for index in sources)
    return Run(
        config=config,
        hparams=hparams,
        device=device,
        dataset=dataset,
        splits=splits,
        sources=sources,
        minibatches=group_minibatches(config.grouping, minibatches, config.seed),
        unlabeled=unlabeled,
        algorithm=algorithm,
        initial_weights=initial_weights,
        frozen=frozen,
        schedule=schedule,
        averaging=make_averaging(algorithm, hparams, n_steps, has_validation),
        num_workers=choose_num_workers(config.num_workers, dataset, splits),
        n_steps=n_steps,
        checkpoint_freq=config.checkpoint_freq or dataset.CHECKPOINT_FREQ,
    )


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

    Raises: as `build`.
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


def replacements(run: Run) -> dict[str, str]:
    """What plugins have replaced (`register(override=True)`) of what the run uses.

    Returns: module of the plugin by "algorithm", "dataset" and "featurizer"; empty for most runs.
    """
    from domainbed import algorithms, datasets, networks
    from domainbed.networks.featurizer import by_shape

    featurizer = str(option(run.hparams, "featurizer"))
    if featurizer == "auto":
        with contextlib.suppress(UsageError):  # an algorithm may do without a featurizer
            featurizer = by_shape(tuple(run.dataset.input_shape), run.hparams)
    found = {
        "algorithm": algorithms.REGISTRY.replacement(run.config.algorithm),
        "dataset": datasets.REGISTRY.replacement(run.config.dataset),
        "featurizer": networks.FEATURIZERS.replacement(featurizer),
    }
    return {kind: module for kind, module in found.items() if module is not None}


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


def check_learning_rates(algorithm: Algorithm, schedule: Schedule | None) -> None:
    """Check that the optimizers of `algorithm` are those that its hyper-parameters choose.

    Raises: UsageError if they are not, or if `schedule` cannot change their learning rates.
    """
    own = {**algorithm.hparams_table(), **algorithm.switches_table()}
    given = [name for name in optimizers.CHOICE if name in algorithm.hparams and name not in own]
    optimizers.refuse_unused(algorithm.optimizer_choice(algorithm.hparams), given, algorithm)
    if schedule is not None:
        schedule.check(algorithm)


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the machine's accelerator, else the CPU.

    Raises: UsageError if the device cannot be used.
    """
    if name == "auto":
        name = default_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from None
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError):
        raise UsageError(
            f"--device {name} has no float64, in which products of gradients are summed; use --device cpu"
        ) from None
    return device


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


def make_averaging(
    algorithm: Algorithm, hparams: Mapping[str, Any], n_steps: int, has_validation: bool
) -> Averaging:
    """The averaging that hyper-parameter `weight_averaging` selects.

    Args:
        algorithm: the algorithm whose weights are averaged.
        hparams: hyper-parameters of the run.
        n_steps: number of updates. A simple average starts in the middle of the run at the latest.
        has_validation: whether every source environment has validation samples.

    Raises: UsageError for an invalid value, or for SWAD without validation samples.
    """
    kind = option(hparams, "weight_averaging")
    if kind == "sma":
        start = int(option(hparams, "sma_start"))
        return SimpleAverage(algorithm, min(start, max(1, n_steps // 2)))
    if kind == "swad":
        if not has_validation:
            raise UsageError(
                "weight_averaging swad needs validation images in every source environment; increase "
                "--holdout_fraction, or use weight_averaging sma"
            )
        valley = COUNTINGS[str(option(hparams, "swad_counting"))](
            n_s=int(option(hparams, "swad_n_s")),
            n_e=int(option(hparams, "swad_n_e")),
            r=float(option(hparams, "swad_r")),
        )
        return SWAD(algorithm, valley)
    return Averaging(algorithm)


def _minibatches(
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


def describe(run: Run) -> Iterator[str]:
    """Lines about the data: skipped files, counts for each environment, and small minibatches.

    With `check_images`, every skipped file and folder has a line.
    """
    if not run.algorithm.TRAINS and run.n_steps > 1:
        yield f"{run.config.algorithm} trains nothing: --steps 1 gives the same accuracies."
    yield "Data:"
    if run.dataset.skipped is not None:
        skipped = text_of_counts(run.dataset.summary["skipped"])
        listed = "" if run.config.check_images or not skipped else "; --check_images lists them"
        yield f"\tfiles that are not read: {skipped or 'none'}{listed}"
        if run.config.check_images:
            yield from (f"\t\t{each.line()}" for each in run.dataset.skipped)
    yield from (f"\t{visible(note)}" for note in run.dataset.notes)
    yield from describe_copies(run.dataset.summary.get("copies", {}))
    for index, (name, counts) in enumerate(run.dataset.counts().items()):
        role = "target" if index in run.config.test_envs else "source"
        parts = ", ".join(f"{kind} {len(part)}" for kind, part in run.splits[index].items())
        classes = ", ".join(f"{label} {count}" for label, count in counts.items())
        if len(counts) > 10:
            classes = f"{len(counts)} classes, {min(counts.values())} to {max(counts.values())} images each"
        line = f"environment {index} ({name}, {role}): {sum(counts.values())} images ({classes}); {parts}"
        yield f"\t{visible(line)}"
    if adapted := provenance_of(run.algorithm).get("adapted"):
        yield f"\tinitial weights: {visible(adapted)}"
    if run.frozen.note:
        yield f"\tfrozen stages of the featurizer are {run.frozen.note}"
    for index, sampler in zip(run.sources, run.minibatches.samplers, strict=True):
        if sampler.batch_size < run.hparams["batch_size"]:
            yield (
                f"\tenvironment {index} has {sampler.size} training images, fewer than batch_size "
                f"{run.hparams['batch_size']}: its minibatches have {sampler.batch_size}"
            )
