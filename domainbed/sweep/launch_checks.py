"""Checks of a launch, before anything is written."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.sweep.job import Job
from domainbed.sweep.launchers import launcher_named
from domainbed.sweep.manifest import read_manifest
from domainbed.sweep.shared_hparams import check_shared
from domainbed.sweep.target_sets import check_same_protocol
from domainbed.training.config import TrainConfig
from domainbed.training.config_checks import check_config
from domainbed.training.derived import make_featurizer
from domainbed.training.run_hparams import resolved_hparams


def check_protocol(args: argparse.Namespace) -> None:
    """Check the flags that choose what the runs hold out, together and with those of earlier launches.

    Raises: UsageError.
    """
    has_sets = args.target_sets is not None
    if has_sets and args.single_test_envs:
        raise UsageError(
            "--target_sets and --single_test_envs choose other targets; leave out one of them (with "
            "--no-single_test_envs, if a sweep file has it)"
        )
    check_same_protocol(read_manifest(Path(args.output_dir)), args.output_dir, args.datasets, has_sets)


def check_jobs(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Check the launcher, the selection methods, and one run of each algorithm on each dataset.

    Raises: UsageError.
    """
    from domainbed.algorithms import get_algorithm_class
    from domainbed.hparams import option, parse_overrides
    from domainbed.model_selection import METHODS

    launcher = launcher_named(args.command_launcher)
    launcher.check()
    for name in args.selection or ():
        METHODS[name]
    if args.n_hparams <= args.n_hparams_from:
        raise UsageError(f"--n_hparams must be more than --n_hparams_from ({args.n_hparams_from})")
    for name, value in parse_overrides(args.hparams).items():
        if isinstance(value, dict):
            get_algorithm_class(name)
    first_of_kind = {(job.train_args["dataset"], job.train_args["algorithm"]): job for job in reversed(jobs)}
    check_shared(args.hparams, list(first_of_kind.values()))
    for job in first_of_kind.values():
        check_config(TrainConfig(**job.train_args))
    for job in {dataset: job for (dataset, _), job in first_of_kind.items()}.values():
        config = TrainConfig(**job.train_args)
        if launcher.waits and not launcher.elsewhere:
            make_featurizer(config)
        elif option(resolved_hparams(config), "freeze") != "none":
            # Runs on other machines may have pretrained weights that this one lacks; the stages are the same.
            make_featurizer(config, pretrained=False, weights_file="")
