"""Accuracies on the part of the target that a selection method tests on, and on all images of the target."""

from __future__ import annotations

import math

from domainbed.errors import UsageError
from domainbed.model_selection import SelectionMethod, on_all_images
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.results.accuracies import Accuracies, compute_accuracies

TARGET_PARTS = ("test", "all")
"""Values of `--target_part`: what the selection method tests on, and all images of the target."""


def accuracies_by_part(
    records: Q[Record], method: type[SelectionMethod], target_part: str | None = None
) -> dict[str, Accuracies]:
    """Accuracies by the part of the target.

    Args:
        records: records of a sweep.
        method: selection method.
        target_part: one of `TARGET_PARTS`; None for "test", and after it for "all" if those accuracies were
            recorded and differ.

    Raises: UsageError if `target_part` is "all" and there are no such accuracies.
    """
    if target_part == "all":
        return {"all": _on_all_images(records, method)}
    found = {"test": compute_accuracies(records, method)}
    if target_part is None:
        try:
            every = _on_all_images(records, method)
        except UsageError:
            return found
        if _differ(found["test"], every):
            found["all"] = every
    return found


def _on_all_images(records: Q[Record], method: type[SelectionMethod]) -> Accuracies:
    accuracies = compute_accuracies(records, on_all_images(method))
    if all(math.isnan(share) for trials in accuracies.by_target.values() for share in trials.values()):
        raise UsageError(
            "--target_part all needs the accuracies and the sizes of all parts of the target, which these "
            "records lack (--evaluate reported records one part); use --target_part test"
        )
    return accuracies


def _differ(one: Accuracies, other: Accuracies) -> bool:
    """Whether an accuracy that both have differs. NaN counts as missing."""
    return any(
        abs(share - other.by_target[key].get(trial, math.nan)) > 1e-9
        for key, trials in one.by_target.items()
        if key in other.by_target
        for trial, share in trials.items()
    )
