"""What a reader of a report should know: what is unfinished, missing, or averaged over less than the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from domainbed.records.jsonl import Record, by_run
from domainbed.records.query import Q
from domainbed.records.runs import Runs, listing
from domainbed.results.accuracies import Accuracies
from domainbed.sweep.manifest import Manifest


def on_runs(runs: Runs, manifest: Manifest | None, finished_only: bool) -> list[str]:
    """Notes, one line each, on unfinished runs and on runs of the manifest that have no records."""
    notes = []
    started = [run for run in runs.runs if run.file.records]
    unfinished = sum(not run.finished for run in started)
    if unfinished:
        what = (
            "are left out" if finished_only else "count with what they have; --finished_only leaves them out"
        )
        notes.append(f"{unfinished} of {len(started)} runs are unfinished (no file `done`) and {what}")
    if manifest is not None:
        missing = len(manifest.jobs.keys() - {run.path.name for run in started})
        if missing:
            notes.append(f"{missing} of the {len(manifest.jobs)} runs in sweep.json have no records yet")
    return notes


def on_tables(accuracies: Mapping[str, Accuracies], records: Q[Record]) -> list[str]:
    """Notes, one line each, on datasets that we don't know and on cells of an incomplete sweep.

    Args:
        accuracies: short name of each selection method -> its results.
        records: the records that these were made of.
    """
    shown = [columns for results in accuracies.values() for columns in results.datasets]
    unknown = dict.fromkeys(columns.name for columns in shown if not columns.known)
    seeds = {(args["dataset"], args["trial_seed"]) for args, _ in by_run(records)}
    left_out = sorted({dataset for dataset, _ in seeds} - {columns.name for columns in shown})
    trials = Counter(dataset for dataset, _ in seeds)
    kinds = {
        "datasets that domainbed.datasets lacks, shown last": list(unknown),
        "datasets left out, since nothing tells how many environments they have": left_out,
        "cells without a result (X)": _per_method(accuracies, _empty),
        "cells over fewer trials than the dataset has": _per_method(
            accuracies, lambda results: _short(results, trials)
        ),
        "averages over fewer environments than the dataset has": _per_method(accuracies, _uneven),
    }
    return [f"{what}: {listing(items)}" for what, items in kinds.items() if items]


def _per_method(accuracies: Mapping[str, Accuracies], count: Callable[[Accuracies], int]) -> list[str]:
    counts = {name: count(results) for name, results in accuracies.items()}
    return [f"{name} {number}" for name, number in counts.items() if number]


def _trials(results: Accuracies) -> list[tuple[str, int]]:
    """(dataset, number of trials) for each cell of the datasets' tables."""
    return [
        (columns.name, len(results.trials(columns.name, algorithm, i)))
        for columns in results.datasets
        for algorithm in results.algorithms
        for i in range(len(columns.environments))
    ]


def _empty(results: Accuracies) -> int:
    return sum(cell == 0 for _, cell in _trials(results))


def _short(results: Accuracies, trials: Mapping[str, int]) -> int:
    return sum(0 < cell < trials[dataset] for dataset, cell in _trials(results))


def _uneven(results: Accuracies) -> int:
    environments = {columns.name: len(columns.environments) for columns in results.datasets}
    return sum(
        any(len(targets) < environments[dataset] for targets in trials.values())
        for (dataset, _), trials in results.by_trial.items()
        if dataset in environments
    )
