"""Notes for the reader of a report: unfinished or missing runs, averages over fewer trials or targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from domainbed.console import shortened_list
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import SweepRecords, by_run
from domainbed.results.accuracies import Accuracies
from domainbed.results.missing_cells import MissingResult, Reason
from domainbed.results.unrecorded_parts import note_on_unrecorded_parts
from domainbed.sweep.manifest import Manifest


def notes_on_runs(sweep: SweepRecords, manifest: Manifest | None, finished_only: bool) -> list[str]:
    """Notes, of one line each, on unfinished runs and on launched runs without records."""
    notes = []
    started = [run for run in sweep.runs if run.file.records]
    unfinished = sum(not run.finished for run in started)
    if unfinished:
        effect = "excluded" if finished_only else "included with their records so far (see --finished_only)"
        notes.append(f"{unfinished} of {len(started)} runs are unfinished (no file `done`): {effect}")
    if manifest is not None:
        missing = len(manifest.jobs.keys() - {run.path.name for run in started})
        if missing:
            notes.append(f"{missing} of the {len(manifest.jobs)} runs in sweep.json have no records yet")
    return notes


def notes_on_accuracies(accuracies: Mapping[str, Accuracies], records: Q[Record]) -> list[str]:
    """Notes, of one line each, on unknown datasets and on table cells of an incomplete sweep.

    Args:
        accuracies: results by the short name of their selection method.
        records: the records that the accuracies were computed from.
    """
    shown = [dataset for results in accuracies.values() for dataset in results.datasets]
    unregistered = dict.fromkeys(dataset.name for dataset in shown if not dataset.registered)
    seeds = {(args["dataset"], args["trial_seed"]) for args, _ in by_run(records)}
    left_out = sorted({dataset for dataset, _ in seeds} - {dataset.name for dataset in shown})
    trials = Counter(dataset for dataset, _ in seeds)
    kinds = {
        "datasets not registered in domainbed.datasets, listed last": list(unregistered),
        "datasets omitted because the records do not tell how many environments they have": left_out,
        "cells with missing trials": _per_method(
            accuracies, lambda results: _incomplete_cells(results, trials)
        ),
        "averages with missing environments (compare only averages over the same environments)": _per_method(
            accuracies, _incomplete_averages
        ),
    }
    notes = [f"{what}: {shortened_list(items)}" for what, items in kinds.items() if items]
    return [*notes, *_notes_on_empty_cells(accuracies), *note_on_unrecorded_parts(accuracies, records)]


def _notes_on_empty_cells(accuracies: Mapping[str, Accuracies]) -> Iterator[str]:
    """A note for each reason why cells have no result, with the cells and their selection methods."""
    found: dict[MissingResult, dict[str, list[str]]] = {}
    for name, results in accuracies.items():
        for dataset in results.datasets:
            for algorithm in results.algorithms:
                for target, environment in enumerate(dataset.environments):
                    if results.trials(dataset.name, algorithm, target):
                        continue
                    cell = f"{algorithm} on {dataset.name}, target {environment}"
                    trials = results.missing.get((dataset.name, algorithm, target), {})
                    for missing in dict.fromkeys(trials.values()) or (MissingResult(Reason.NO_RUN),):
                        found.setdefault(missing, {}).setdefault(cell, []).append(name)
    for missing, cells in found.items():
        listed = [f"{cell} ({', '.join(names)})" for cell, names in cells.items()]
        detail = f" ({missing.detail})" if missing.detail else ""
        yield f"cells without a result (X), {missing.reason.value}{detail}: {shortened_list(listed)}"


def _per_method(accuracies: Mapping[str, Accuracies], count: Callable[[Accuracies], int]) -> list[str]:
    counts = {name: count(results) for name, results in accuracies.items()}
    return [f"{name} {number}" for name, number in counts.items() if number]


def _cells(results: Accuracies) -> list[tuple[str, int]]:
    """(dataset, number of trials) of each cell in the datasets' tables."""
    return [
        (dataset.name, len(results.trials(dataset.name, algorithm, i)))
        for dataset in results.datasets
        for algorithm in results.algorithms
        for i in range(len(dataset.environments))
    ]


def _incomplete_cells(results: Accuracies, trials_of_dataset: Mapping[str, int]) -> int:
    return sum(0 < trials < trials_of_dataset[dataset] for dataset, trials in _cells(results))


def _incomplete_averages(results: Accuracies) -> int:
    return sum(
        bool(results.missing_targets(dataset, algorithm))
        for dataset in results.datasets
        for algorithm in results.algorithms
    )
