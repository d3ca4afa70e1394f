"""Checks of a run's settings, before anything is computed or written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domainbed import hparams_registry
from domainbed.errors import UsageError, misspelt
from domainbed.hparams import parse_overrides, synonym_in
from domainbed.training.config import SETTINGS, TrainConfig
from domainbed.training.derived import make_schedule, split_request, tracker_names
from domainbed.training.hparam_readers import refuse_unread
from domainbed.training.run_hparams import known_hparams, optional_hparams, resolved_hparams, unread_hparams
from domainbed.training.splits import SUFFIX, check_request
from domainbed.training.trackers.registry import check_names as check_tracker_names

_log = logging.getLogger(__name__)


def from_settings(settings: Mapping[str, Any]) -> TrainConfig:
    """A config from keyword arguments.

    Args:
        settings: by name; paths may be `Path`s, numbers NumPy's, `hparams` a dict, and environments in
            `test_envs` names, which become indices.

    Raises: UsageError for an unknown name or a value of a wrong type.
    """
    for name in settings:
        if name not in SETTINGS:
            raise misspelt(f"unknown setting {name!r}", name, SETTINGS, _as_hparam(name))
    values = {name: SETTINGS[name].converted(value) for name, value in settings.items()}
    if any(isinstance(target, str) for target in values.get("test_envs", ())):
        values["test_envs"] = _target_indices(values)
    return TrainConfig(**values)


def _target_indices(values: Mapping[str, Any]) -> list[int]:
    """The indices of the target environments, some of which are given by name."""
    from domainbed.datasets import get_dataset_class
    from domainbed.datasets.environment_names import environment_indices

    dataset = values.get("dataset", SETTINGS["dataset"].default)
    return environment_indices(values["test_envs"], get_dataset_class(dataset).ENVIRONMENTS, dataset)


def _as_hparam(name: str) -> str | None:
    """How the hyper-parameter that is called `name` is given to a function call; None if there is none."""
    found = hparam_called(name)
    return None if found is None else f"hparams={{{found!r}: ...}}"


def hparam_called(name: str) -> str | None:
    """The hyper-parameter of any run that we, or others, call `name`; None if there is none."""
    return synonym_in(name, {**hparams_registry.table("ERM"), **optional_hparams()})


def check_config(config: TrainConfig) -> None:
    """Check the settings, alone and together, before anything is computed or written.

    Raises: UsageError (UnknownName for an unknown algorithm, dataset or split scheme).
    """
    algorithm_class = config.algorithm_class()
    dataset_class = config.dataset_class()
    missing = dataset_class.missing_for(config.data_dir, parse_overrides(config.hparams))
    if missing:
        raise UsageError(missing)
    for name, declared in SETTINGS.items():
        declared.check(getattr(config, name))
    if not config.shared_hparams:
        _check_unread(config)
    check_test_envs(config.test_envs, dataset_class.ENVIRONMENTS, config.dataset)
    if config.compile and not algorithm_class.COMPILABLE:
        raise UsageError(
            f"{config.algorithm} needs second derivatives of its network, which torch.compile does not "
            "support; leave out --compile"
        )
    if config.task == "domain_adaptation" and not config.uda_holdout_fraction:
        raise UsageError(
            "domain adaptation needs unlabeled images of the target environments: "
            "give --uda_holdout_fraction a share of them, e.g. 0.5"
        )
    check_tracker_names(tracker_names(config))
    check_request(split_request(config))
    if config.write_splits is not None and not config.write_splits.endswith(SUFFIX):
        raise UsageError(f"--write_splits takes a name that ends with .json, not {config.write_splits!r}")
    hparams = resolved_hparams(config)
    given = parse_overrides(config.hparams)
    if config.earlier_swad and (given.get("weight_averaging") != "swad" or "swad_counting" in given):
        raise UsageError(
            "--earlier_swad has no effect unless --hparams has weight_averaging swad, without "
            "swad_counting; leave it out"
        )
    algorithm_class.optimizer_choice(hparams)
    make_schedule(config, hparams)
    if hparams["class_balanced"] and config.sampling != "replacement":
        raise UsageError("class_balanced draws with replacement: leave out --sampling epochs")


def _check_unread(config: TrainConfig) -> None:
    """Refuse hyper-parameters that no part of the run reads.

    A run that earlier releases began with some resumes, with a warning.
    """
    unread = unread_hparams(config)
    begun = Path(config.output_dir, "run.json").exists() and not config.restart
    known = known_hparams(config)
    if begun and all(name in known for name in unread):
        for name, reason in unread.items():
            _log.warning("hyper-parameter %r has no effect in this run, because %s", name, reason)
    else:
        refuse_unread(unread, known)


def check_test_envs(
    test_envs: Sequence[int], environments: Sequence[str], dataset: str, flag: str = "--test_envs"
) -> None:
    """Check that target environments exist, are distinct, and leave at least one source.

    Raises: UsageError, which names `flag`.
    """
    listed = ", ".join(f"{i} ({name})" for i, name in enumerate(environments))
    for index in test_envs:
        if not 0 <= index < len(environments):
            raise UsageError(f"{flag} {index} is out of range: {dataset} has environments {listed}")
    if len(set(test_envs)) < len(test_envs):
        raise UsageError(f"{flag} {' '.join(map(str, test_envs))} names an environment twice")
    if len(test_envs) == len(environments):
        raise UsageError(f"{flag} holds out all environments of {dataset} ({listed}); leave one to train on")
