"""Accuracies on the part of the target that a selection method tests on, and on all images of the target."""

from __future__ import annotations

import contextlib
import math

from domainbed.errors import UsageError
from domainbed.metrics import ACCURACY
from domainbed.model_selection import SelectionMethod
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.results.accuracies import Accuracies, compute_accuracies
from domainbed.results.launched_runs import LaunchedRuns

TARGET_PARTS = ("test", "all")
"""Values of `--target_part`: what the selection method tests on, and all images of the target."""

_PARTS = ("in", "out", "uda", "test")
"""Parts of a target in records."""


def accuracies_by_part(
    records: Q[Record],
    method: type[SelectionMethod],
    target_part: str | None = None,
    runs: LaunchedRuns | None = None,
    over_targets: str = "mean",
) -> dict[str, Accuracies]:
    """Accuracies by the part of the target.

    Args:
        records: records of a sweep.
        method: selection method.
        target_part: one of `TARGET_PARTS`; None for "test", and after it for "all" if those accuracies were
            recorded and differ.
        runs: the runs of the sweep, whose states explain why trials have no result.
        over_targets: how results on several targets become one, one of `OVER_TARGETS`.

    Raises: UsageError if `target_part` is "all" and there are no such accuracies.
    """
    if target_part == "all":
        found = {"all": _on_all_images(records, method, over_targets)}
    else:
        found = {"test": compute_accuracies(records, method, over_targets)}
    if target_part is None:
        with contextlib.suppress(UsageError):
            every = _on_all_images(records, method, over_targets)
            if _differ(found["test"], every):
                found["all"] = every
    if runs is not None:
        for accuracies in found.values():
            runs.explain_missing(accuracies, method)
    return found


def _on_all_images(records: Q[Record], method: type[SelectionMethod], over_targets: str) -> Accuracies:
    accuracies = compute_accuracies(records, on_all_images(method), over_targets)
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


def on_all_images(method: type[SelectionMethod]) -> type[SelectionMethod]:
    """A variant of `method` that selects the same, and reports the accuracy on all images of the target.

    The accuracy is pooled over the parts of the target by their numbers of images, `sizes` in records. It is
    NaN if the accuracy on a part or its size was not recorded.

    Raises: UsageError if `method` selects by images of the target, does not say which part it tests on, or
        reports another metric, which cannot be pooled over parts.
    """
    if method.metric is not ACCURACY:
        raise UsageError(
            f"no {method.metric.title} on all images of the target: only accuracies are pooled over its "
            "parts; use --target_part test"
        )
    if method.selects_on_target or not method.test_key:
        reason = "selects by some of them" if method.selects_on_target else "does not declare its test_key"
        raise UsageError(
            f"no accuracy on all images of the target: the selection method {method.name} {reason}"
        )
    stage = method.test_key.partition("env")[0]

    class OnAllImages(method):  # type: ignore[misc, valid-type] # a base that is only known at run time
        reported = "the accuracy on all images of the target at that step"

        @classmethod
        def reported_acc(cls, record: Record) -> float | None:
            # A step that `method` cannot select, for want of its accuracy, is not selected here either.
            return None if super().reported_acc(record) is None else _pooled_acc(record, stage)

    return OnAllImages


def _pooled_acc(record: Record, stage: str) -> float:
    """Accuracy on all images of the target; NaN if a part lacks its accuracy or its size."""
    (target,) = record["args"]["test_envs"]
    sizes = record.get("sizes", {})
    parts = [
        (record.get(f"{stage}env{target}_{part}_acc"), sizes.get(f"env{target}_{part}")) for part in _PARTS
    ]
    recorded = [(acc, size) for acc, size in parts if acc is not None and size is not None]
    complete = len(recorded) == sum(acc is not None or size is not None for acc, size in parts)
    images = sum(size for _, size in recorded)
    return sum(acc * size for acc, size in recorded) / images if complete and images else math.nan
