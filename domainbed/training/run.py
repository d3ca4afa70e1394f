"""Build a run from its settings: data, algorithm, schedule and averaging."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from domainbed.algorithms import optimizers
from domainbed.algorithms.base import Algorithm
from domainbed.datasets.base import MultipleDomainDataset
from domainbed.errors import UsageError
from domainbed.hparams import option
from domainbed.networks import clip_models
from domainbed.networks.classifier import check_text_heads
from domainbed.seeds import seed_all
from domainbed.training.acceleration import accelerate, check_device
from domainbed.training.averaging import Averaging, SimpleAverage
from domainbed.training.config import TrainConfig
from domainbed.training.derived import make_schedule
from domainbed.training.devices import choose_device, set_determinism
from domainbed.training.frozen_outputs import FrozenStages
from domainbed.training.grouping import group_minibatches
from domainbed.training.initialization import initial_seed, weights_checksum
from domainbed.training.loss_valley import COUNTINGS
from domainbed.training.minibatches import Minibatches
from domainbed.training.run_data import (
    build_data,
    choose_num_workers,
    environment_minibatches,
    name_classes,
)
from domainbed.training.run_hparams import resolved_hparams
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
    set_determinism(config.deterministic)

    dataset, splits, folder = build_data(config, hparams, device)
    sources = [index for index in range(len(dataset)) if index not in config.test_envs]
    n_steps = config.steps or dataset.N_STEPS
    images = environment_minibatches(config, hparams, splits, sources, "in", n_steps)
    unlabeled_images = None
    if config.task == "domain_adaptation":
        unlabeled_images = environment_minibatches(
            config, hparams, splits, list(config.test_envs), "uda", n_steps
        )

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


def check_learning_rates(algorithm: Algorithm, schedule: Schedule | None) -> None:
    """Check that the optimizers of `algorithm` are those that its hyper-parameters choose.

    Raises: UsageError if they are not, or if `schedule` cannot change their learning rates.
    """
    own = {**algorithm.hparams_table(), **algorithm.switches_table()}
    given = [name for name in optimizers.CHOICE if name in algorithm.hparams and name not in own]
    optimizers.refuse_unused(algorithm.optimizer_choice(algorithm.hparams), given, algorithm)
    if schedule is not None:
        schedule.check(algorithm)


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
