"""The fixed samples of each environment that a trained model is measured on."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from domainbed.errors import UsageError, check_choice
from domainbed.networks.stages import shared_frozen_stages
from domainbed.seeds import generator
from domainbed.training.evaluation import without_augmentation
from domainbed.training.minibatches import load_minibatch
from domainbed_gs.trained_models.loading import TrainedModel
from domainbed_gs.trained_models.parts import KINDS as KINDS

_log = logging.getLogger(__name__)

_FROZEN_CHUNK = 32


@enum.unique
class StudyPurpose(enum.IntEnum):
    """Uses of random numbers in studies of trained models, beside `domainbed.seeds.Purpose`."""

    SAMPLES = 1000
    """Which samples are measured."""
    PROBES = 1001
    """Random vectors of Hutchinson's estimates."""
    LANCZOS = 1002
    """First basis vectors of Lanczos's method."""
    DIRECTIONS = 1003
    """Random directions in the space of parameters."""
    SKETCH = 1004
    """Random signs of compressed vectors."""


@dataclass(frozen=True)
class EnvironmentSamples:
    """Samples of one environment, on the model's device.

    Attributes:
        index: index of the environment.
        name: its name.
        is_target: whether the run held it out.
        x: inputs (N, ...), or outputs of the frozen stages for them if the network has such.
        y: int64 labels (N,).
    """

    index: int
    name: str
    is_target: bool
    x: Tensor
    y: Tensor


def draw_samples(model: TrainedModel, kind: str, number: int, seed: int = 0) -> list[EnvironmentSamples]:
    """Up to `number` samples of each environment that has a part of this kind, without augmentation.

    They are drawn without replacement, and depend on the splits, the trial, the environment and `seed`, but
    not on the method, so that methods are measured on the same samples.

    Args:
        model: a trained model.
        kind: one of `KINDS`.
        number: number of samples; a smaller part gives all of its samples.
        seed: seed of the draw.

    Raises: UsageError if the kind is unknown, or some source environment has no such part. A target without
        it is left out, with a warning.
    """
    check_choice("--parts takes", kind, KINDS)
    if number < 1:
        raise UsageError(f"--samples must be at least 1, not {number}")
    found = [_draw(model, index, kind, number, seed) for index in range(len(model.splits))]
    lacking = [index for index, samples in enumerate(found) if samples is None]
    names = {index: model.dataset.ENVIRONMENTS[index] for index in lacking}
    sources = [name for index, name in names.items() if index in model.sources]
    if sources:
        raise UsageError(
            f"no samples in the part {kind!r} of the source environments {', '.join(sources)} of "
            f"{model.path}; choose another of --parts"
        )
    if names:
        _log.warning(
            "warning: no samples in the part %r of the target environments %s of %s; measured without them",
            kind,
            ", ".join(names.values()),
            model.path,
        )
    return [samples for samples in found if samples is not None]


def _draw(model: TrainedModel, index: int, kind: str, number: int, seed: int) -> EnvironmentSamples | None:
    """The samples of one environment; None if it has no such part."""
    part = model.splits[index].get(kind)
    if part is None or not len(part):
        return None
    counters = (seed, StudyPurpose.SAMPLES, model.args["trial_seed"], index, KINDS.index(kind))
    positions = generator(*counters).choice(len(part), min(number, len(part)), replace=False)
    x, y = load_minibatch(without_augmentation(part), positions, counters)
    name = model.dataset.ENVIRONMENTS[index]
    return EnvironmentSamples(index, name, index in model.targets, _inputs(model, x), y.to(model.device))


def _inputs(model: TrainedModel, x: Tensor) -> Tensor:
    """`x` on the model's device, or the outputs of its frozen stages, which no measurement changes."""
    stages = None if model.algorithm.CHANGES_INPUTS else shared_frozen_stages(model.algorithm)
    if stages is None or stages.frozen_shape is None:
        return x.to(model.device)
    return torch.cat([stages.frozen_outputs(each.to(model.device)) for each in x.split(_FROZEN_CHUNK)])
