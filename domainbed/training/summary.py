"""What a finished run prints last: the step that validation selects, its accuracies, where the files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from domainbed.records.environments import out_acc, validated_sources
from domainbed.records.results_file import RESULTS_FILE, Record, read_records

_TARGET_PARTS = ("test", "in", "out")
"""Parts of a target whose accuracy is shown: the first one that a record has."""


def summary(directory: Path) -> list[str]:
    """Lines that sum up the run in `directory`.

    The step is the first with the highest mean validation accuracy of the sources, as selection by the
    training domains' validation sets has it. Without validation accuracies, it is the last.
    """
    records = read_records(directory / RESULTS_FILE).records
    files = ", ".join(name for name in (RESULTS_FILE, "model.pkl") if (directory / name).exists())
    return [*(_accuracies(records) if records else []), f"Files: {files} in {directory}"]


def _accuracies(records: Sequence[Record]) -> list[str]:
    sources = validated_sources(records)
    candidates = [record for record in records if all(out_acc(i) in record for i in sources)]
    if not sources or not candidates:
        record, how = records[-1], "the last one, because no source has a validation accuracy"
    else:
        means = [float(np.mean([record[out_acc(i)] for i in sources])) for record in candidates]
        best = int(np.nanargmax(means)) if not np.isnan(means).all() else len(means) - 1
        record = candidates[best]
        how = f"by a mean validation accuracy of {means[best]:.2%} on {_names(record, sources)}"
    targets = [part for target in record["args"]["test_envs"] if (part := _target(record, target))]
    shown = [f"Accuracy there on the target {', on '.join(targets)}"] if targets else []
    return [f"Selected step: {record['step']}, {how}", *shown]


def _target(record: Record, target: int) -> str:
    """Name of a target, and its accuracy in a record; empty if the record has none."""
    for part in _TARGET_PARTS:
        accuracy = record.get(f"env{target}_{part}_acc")
        if accuracy is not None:
            return f"{_names(record, [target])}: {accuracy:.2%}"
    return ""


def _names(record: Record, indices: Sequence[int]) -> str:
    names = record.get("environments", {})
    return ", ".join(str(names[i]) if i < len(names) else f"env{i}" for i in indices)
