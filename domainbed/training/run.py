"""One run, built from its settings: data, splits, minibatches, algorithm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from domainbed.algorithms.base import Algorithm
from domainbed.datasets import contract
from domainbed.datasets.base import MultipleDomainDataset, labels_of
from domainbed.datasets.image_checks import check_images
from domainbed.datasets.splitting import balanced_class_weights
from domainbed.errors import UsageError
from domainbed.images.cache import cache_folder
from domainbed.images.prepared import prepare
from domainbed.seeds import seed_all
from domainbed.training.acceleration import accelerate, check_device
from domainbed.training.averaging import Averaging, make_averaging
from domainbed.training.config import TrainConfig
from domainbed.training.grouping import grouped
from domainbed.training.minibatches import EnvironmentSampler, Minibatches, in_memory
from domainbed.training.splits import make_splits

if TYPE_CHECKING:
    from domainbed.training.splits import Parts


@dataclass
class Run:
    """Everything that a run consists of, built from its settings; `loop.train` does the work.

    Building is the part that a user's mistake can fail, training the part that takes time.
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
    averaging: Averaging
    num_workers: int
    n_steps: int
    checkpoint_freq: int


def build(config: TrainConfig) -> Run:
    """Data, splits, minibatches and algorithm of a run.

    Raises: UsageError for settings or data that can't be used, RunError for images that can't be read.
    """
    hparams = config.resolved_hparams()
    device = choose_device(config.device)
    check_device(config, device)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(config.deterministic)
    # Debug and MNIST-derived datasets draw from the global generator.
    seed_all(config.seed)
    dataset = contract.build(config.dataset_class(), config.data_dir, config.test_envs, hparams)
    if config.check_images:
        check_images(dataset)
    prepare(dataset, cache_folder(config.cache_dir), device)
    splits = make_splits(dataset, config.split_request())
    sources = [index for index in range(len(dataset)) if index not in config.test_envs]
    n_steps = config.steps or dataset.N_STEPS
    minibatches = _minibatches(config, hparams, splits, sources, "in", n_steps)
    minibatches = grouped(config.grouping, minibatches, config.seed)
    unlabeled = None
    if config.task == "domain_adaptation":
        unlabeled = _minibatches(config, hparams, splits, list(config.test_envs), "uda", n_steps)
    # The same initial weights for every algorithm and dataset with this seed.
    seed_all(config.seed)
    algorithm = config.algorithm_class()(dataset.input_shape, dataset.num_classes, len(sources), hparams)
    algorithm.to(device)
    accelerate(algorithm, config)
    has_validation = all(len(splits[index].get("out", [])) for index in sources)
    return Run(
        *(config, hparams, device, dataset, splits, sources, minibatches, unlabeled, algorithm),
        make_averaging(algorithm, hparams, n_steps, has_validation),
        choose_num_workers(config.num_workers, dataset, splits),
        n_steps,
        config.checkpoint_freq or dataset.CHECKPOINT_FREQ,
    )


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} can't be used here: {str(error).splitlines()[0]}") from None
    return device


def choose_num_workers(asked: int | None, dataset: MultipleDomainDataset, splits: list[Parts]) -> int:
    """Loader processes: none for data in memory, else as many as asked for, else one a core."""
    if all(in_memory(part) for parts in splits for part in parts.values()):
        return 0
    return min(dataset.N_WORKERS, torch.get_num_threads()) if asked is None else asked


def _minibatches(
    config: TrainConfig,
    hparams: dict[str, Any],
    splits: list[Parts],
    environments: list[int],
    kind: str,
    n_steps: int,
) -> Minibatches:
    parts, samplers = [], []
    for index in environments:
        part = splits[index].get(kind)
        if part is None or not len(part):
            flag = "raise --uda_holdout_fraction" if kind == "uda" else "lower --holdout_fraction"
            raise UsageError(
                f"environment {index} has no images in its {kind!r} part; {flag} or give it more images"
            )
        weights = balanced_class_weights(labels_of(part)) if hparams["class_balanced"] else None
        samplers.append(
            EnvironmentSampler(
                len(part), hparams["batch_size"], (config.seed, index), config.sampling, weights
            )
        )
        parts.append(part)
    return Minibatches(parts, samplers, n_steps)


def describe(run: Run) -> Iterator[str]:
    """Lines on the data: counts of each environment, and which minibatches are smaller than asked for."""
    yield "Data:"
    for index, (name, counts) in enumerate(run.dataset.counts().items()):
        role = "target" if index in run.config.test_envs else "source"
        parts = ", ".join(f"{kind} {len(part)}" for kind, part in run.splits[index].items())
        classes = ", ".join(f"{label} {count}" for label, count in counts.items())
        if len(counts) > 10:
            classes = f"{len(counts)} classes, {min(counts.values())} to {max(counts.values())} images each"
        yield f"\tenvironment {index} ({name}, {role}): {sum(counts.values())} images ({classes}); {parts}"
    for index, sampler in zip(run.sources, run.minibatches.samplers, strict=True):
        if sampler.batch_size < run.hparams["batch_size"]:
            yield (
                f"\tenvironment {index} has {sampler.size} images to train on, fewer than "
                f"batch_size {run.hparams['batch_size']}: its minibatches have {sampler.batch_size}"
            )
