"""Warnings, before a sweep starts, of runs with fewer source environments than their method can use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from domainbed.sweep.job import Job
from domainbed.training.config import TrainConfig


def few_sources_warnings(jobs: Sequence[Job]) -> Iterator[str]:
    """A line for each algorithm and dataset of which some runs will fail for want of source environments."""
    from domainbed.algorithms import get_algorithm_class

    failing: Counter[tuple[str, str, int, int]] = Counter()
    environments: dict[str, int] = {}  # a folder is scanned once
    for job in jobs:
        algorithm, dataset = job.train_args["algorithm"], job.train_args["dataset"]
        needed = get_algorithm_class(algorithm).MIN_DOMAINS
        if needed == 1:
            continue
        if dataset not in environments:
            environments[dataset] = len(TrainConfig(**job.train_args).dataset_class().ENVIRONMENTS)
        sources = environments[dataset] - len(job.train_args["test_envs"])
        if sources < needed:
            failing[algorithm, dataset, needed, sources] += 1
    for (algorithm, dataset, needed, sources), runs in failing.items():
        yield (
            f"{algorithm} needs at least {needed} source environments, and {runs} of its runs on {dataset}, "
            f"which train on {sources}, will fail; leave the algorithm out, or hold out fewer environments "
            "(--single_test_envs)"
        )
