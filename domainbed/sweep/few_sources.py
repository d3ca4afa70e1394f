"""Warnings, before a sweep starts, of runs with fewer source environments than their method can use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from domainbed.sweep.job import Job
from domainbed.training.config import TrainConfig


def few_sources_warnings(jobs: Sequence[Job]) -> Iterator[str]:
    """A line for each algorithm and dataset of which some runs will fail for want of source environments."""
    failing: Counter[tuple[str, str, int, int]] = Counter()
    limits: dict[tuple[str, str], tuple[int, int]] = {}  # classes of folders are made once
    for job in jobs:
        kind = job.train_args["algorithm"], job.train_args["dataset"]
        if kind not in limits:
            config = TrainConfig(**job.train_args)
            limits[kind] = config.algorithm_class().MIN_DOMAINS, len(config.dataset_class().ENVIRONMENTS)
        needed, environments = limits[kind]
        sources = environments - len(job.train_args["test_envs"])
        if sources < needed:
            failing[*kind, needed, sources] += 1
    for (algorithm, dataset, needed, sources), runs in failing.items():
        yield (
            f"{algorithm} needs at least {needed} source environments, and {runs} of its runs on {dataset}, "
            f"which train on {sources}, will fail; leave the algorithm out, or hold out fewer environments "
            "(--single_test_envs)"
        )
