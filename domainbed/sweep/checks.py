"""Checks of a sweep before it writes anything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from domainbed.errors import UsageError
from domainbed.sweep.job import Job
from domainbed.sweep.launchers import launcher_named


def check_jobs(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Check the launcher, the selection methods, and one run of each algorithm on each dataset.

    Raises: UsageError.
    """
    from domainbed.algorithms import get_algorithm_class
    from domainbed.hparams import parse_overrides
    from domainbed.model_selection import METHODS
    from domainbed.training.config import TrainConfig

    launcher = launcher_named(args.command_launcher)
    launcher.check()
    for name in args.selection or ():
        METHODS[name]
    if args.n_hparams <= args.n_hparams_from:
        raise UsageError(
            f"--n_hparams, the last seed plus 1, must be more than --n_hparams_from {args.n_hparams_from}, "
            f"not {args.n_hparams}"
        )
    for name, value in parse_overrides(args.hparams).items():
        if isinstance(value, dict):
            get_algorithm_class(name)
    first_of_kind = {(job.train_args["dataset"], job.train_args["algorithm"]): job for job in reversed(jobs)}
    for job in first_of_kind.values():
        TrainConfig(**job.train_args).check()
    if launcher.waits:
        # Runs on other machines may have pretrained weights that this one lacks.
        for job in {dataset: job for (dataset, _), job in first_of_kind.items()}.values():
            TrainConfig(**job.train_args).featurizer()
