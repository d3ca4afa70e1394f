"""What is refused before a sweep makes anything: what every one of its runs would refuse."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from domainbed.errors import UsageError
from domainbed.sweep.job import Job
from domainbed.sweep.launchers import launcher_named

_ONE_OR_MORE = ("n_trials", "n_hparams", "workers", "slurm_array", "slurm_time", "slurm_gpus", "slurm_cpus")


def check_jobs(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Refuse now what every run would refuse: each algorithm on each dataset, and the launcher.

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
    check_numbers(args)
    if args.n_hparams <= args.n_hparams_from:
        raise UsageError(f"--n_hparams {args.n_hparams} is one past the last seed: above --n_hparams_from")
    for name, value in parse_overrides(args.hparams).items():
        if isinstance(value, dict):
            get_algorithm_class(name)
    first_of_kind = {(job.train_args["dataset"], job.train_args["algorithm"]): job for job in reversed(jobs)}
    for job in first_of_kind.values():
        TrainConfig(**job.train_args).check()
    if launcher.waits:
        # Runs elsewhere may have weights that this machine lacks.
        for job in {dataset: job for (dataset, _), job in first_of_kind.items()}.values():
            TrainConfig(**job.train_args).featurizer()


def check_numbers(args: argparse.Namespace) -> None:
    """Refuse numbers that make no sense, whatever the command; raises UsageError."""
    for name in (*_ONE_OR_MORE, "retries", "n_hparams_from", "time_limit"):
        value, least = getattr(args, name), int(name in _ONE_OR_MORE)
        if value is not None and value < least:
            raise UsageError(f"--{name} takes {least} or more, not {value}")
    if args.time_limit == 0:
        raise UsageError("--time_limit takes minutes, more than 0")
