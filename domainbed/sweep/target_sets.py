"""Runs that hold out several environments at once: sets of targets, and training on a single source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from domainbed.datasets.environment_names import environment_indices, is_environment
from domainbed.errors import UsageError
from domainbed.sweep.manifest import Manifest
from domainbed.training.config_checks import check_test_envs

FLAG = "--target_sets"

SINGLE_SOURCE = "single_source"
"""Value of the flag for training on one environment at a time; all others are targets."""

TargetSet = list[int]
"""Indices of the environments that a run holds out, in ascending order."""


def parse_target_sets(texts: Iterable[str], environments: Sequence[str], dataset: str) -> list[TargetSet]:
    """The sets of targets that the flag `--target_sets` names, in order, each once.

    Args:
        texts: texts such as "0 1", "2,3" and "photo sketch", with commas between names that have spaces; or
            `SINGLE_SOURCE`, for each source the set of all others.
        environments: names of the dataset's environments.
        dataset: its name.

    Raises: UsageError if a text has something else than distinct environments, or all of them.
    """
    sets: list[TargetSet] = []
    for text in texts:
        if text == SINGLE_SOURCE:
            named = _single_sources(len(environments))
        else:
            named = [_indices(text, environments, dataset)]
        for targets in named:
            check_test_envs(targets, environments, dataset, FLAG)
            if targets not in sets:
                sets.append(targets)
    return sets


def _single_sources(n: int) -> list[TargetSet]:
    return [[target for target in range(n) if target != source] for source in range(n)]


def _indices(text: str, environments: Sequence[str], dataset: str) -> TargetSet:
    words: list[str] = []
    for part in text.split(","):
        # A name may have spaces.
        words += [part.strip()] if is_environment(part.strip(), environments, dataset) else part.split()
    if not words:
        raise UsageError(
            f'{FLAG} takes sets of indices or names, such as "0 1" "2 3", or {SINGLE_SOURCE}; not {text!r}'
        )
    return sorted(environment_indices(words, environments, dataset, FLAG))


def check_same_protocol(
    manifest: Manifest | None, output_dir: str, datasets: Iterable[str], has_sets: bool
) -> None:
    """Check that a dataset has either sets of targets in all launches into a sweep directory, or in none.

    Tables average over targets, and an accuracy with fewer sources is another experiment.

    Args:
        manifest: the earlier launches, if any.
        output_dir: the sweep directory.
        datasets: names of the datasets of the new launch.
        has_sets: whether its runs hold out sets of targets.

    Raises: UsageError.
    """
    if manifest is None:
        return
    earlier = {args.get("dataset") for args in manifest.jobs.values()}
    for dataset in datasets:
        had_sets = dataset in manifest.target_sets
        if dataset in earlier and had_sets != has_sets:
            before, now = ("sets of targets", "one target or a pair")[:: 1 if had_sets else -1]
            raise UsageError(
                f"{output_dir} has runs on {dataset} with {before}, this launch has some with {now}; tables "
                "do not mix them: launch into another --output_dir"
            )
