"""What follows from the settings of a run: its splits, names of files, learning rates and networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed import hparams_registry
from domainbed.hparams import Value, option
from domainbed.training.config import TrainConfig
from domainbed.training.run_hparams import resolved_hparams
from domainbed.training.splits import SplitRequest, parse_scheme

if TYPE_CHECKING:
    from domainbed.algorithms.schedules import Schedule
    from domainbed.networks.base import FeaturizerModule


def split_request(config: TrainConfig) -> SplitRequest:
    """What the splits of a run depend on."""
    scheme, options = parse_scheme(fill_placeholders(config, config.splits))
    return SplitRequest(
        test_envs=tuple(config.test_envs),
        trial_seed=config.trial_seed,
        holdout_fraction=config.holdout_fraction,
        uda_holdout_fraction=config.uda_holdout_fraction,
        options=options,
        scheme=scheme,
    )


def fill_placeholders(config: TrainConfig, text: str) -> str:
    """`text` with a run's values for `{dataset}`, `{trial_seed}` and `{test_envs}`."""
    values = {
        "dataset": Path(config.dataset).stem,
        "trial_seed": config.trial_seed,
        "test_envs": "_".join(map(str, config.test_envs)),
    }
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def make_schedule(config: TrainConfig, hparams: Mapping[str, Any]) -> Schedule | None:
    """The schedule of learning rates that `hparams` choose; None for constant ones. Raises UsageError."""
    from domainbed.algorithms import schedules

    own = {**hparams_registry.table(config.algorithm), **hparams_registry.switches(config.algorithm)}
    return schedules.make_schedule(hparams, config.n_steps(), own)


def tracker_names(config: TrainConfig) -> list[str]:
    """Names of the trackers that get the records."""
    return [*(["tensorboard"] if config.tensorboard else []), *(config.trackers or [])]


def make_featurizer(config: TrainConfig, **overrides: Value) -> FeaturizerModule:
    """A new featurizer as a run uses it; `overrides` win over the run's hyper-parameters.

    Raises: UsageError if its pretrained weights are missing; it says which file to put where.
    """
    from domainbed import networks

    hparams = resolved_hparams(config) | overrides
    if "clip_head" in hparams:
        hparams["clip_head"] = "random"  # it may need the names of classes, which only the dataset knows
    side = int(option(hparams, "input_size"))
    return networks.Featurizer(config.dataset_class().INPUT_SHAPE or (3, side, side), hparams)
