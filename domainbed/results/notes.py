"""Notes for the reader of a report: unfinished or missing runs, averages over fewer trials or targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from domainbed.console import shortened_list
from domainbed.records.query import Q
from domainbed.records.results_file import Record
from domainbed.records.sweep_records import SweepRecords, by_run
from domainbed.results.accuracies import Accuracies
from domainbed.results.missing_cells import MissingResult, Reason, trials_text
from domainbed.results.trials import Trial
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
    kinds = {
        "datasets not registered in domainbed.datasets, listed last": list(unregistered),
        "datasets omitted because the records do not tell how many environments they have": left_out,
        "source environments without validation images, which selection leaves out": _unvalidated(accuracies),
    }
    notes = [f"{what}: {shortened_list(items)}" for what, items in kinds.items() if items]
    return [*notes, *_notes_on_cells(accuracies), *note_on_unrecorded_parts(accuracies, records)]


def _unvalidated(accuracies: Mapping[str, Accuracies]) -> list[str]:
    """Sources without a validation accuracy, with the selection methods that would read it."""
    found: dict[str, list[str]] = {}
    for name, results in accuracies.items():
        for dataset in results.datasets:
            lacking: set[int] = set()
            for (own, target), sources in results.validated.items():
                if own == dataset.name:
                    lacking |= {*dataset.sources(target)} - sources
            for source in sorted(lacking):
                found.setdefault(f"{dataset.environments[source]} of {dataset.name}", []).append(name)
    return [f"{source} ({', '.join(names)})" for source, names in found.items()]


def _notes_on_cells(accuracies: Mapping[str, Accuracies]) -> Iterator[str]:
    """A note for each reason why cells, or trials of them, have no result; empty cells come first.

    It lists the cells with the short names of the selection methods.
    """
    empty: _Cells = {}
    partial: _Cells = {}
    for name, results in accuracies.items():
        for cell, has_result, reason, seeds in _missing(results):
            cells = (partial if has_result else empty).setdefault(reason, {})
            words = f"{cell}, {trials_text(seeds)}" if has_result else cell
            cells.setdefault(words, []).append(name)
    for kind, found in (("cells without a result (X)", empty), ("cells with missing trials", partial)):
        for reason, cells in found.items():
            listed = [f"{cell} ({', '.join(names)})" for cell, names in cells.items()]
            yield f"{kind}, {reason}: {shortened_list(listed)}"


_Cells = dict[MissingResult, dict[str, list[str]]]
"""Reason -> cell, in words -> selection methods by their short names."""


def _missing(results: Accuracies) -> Iterator[tuple[str, bool, MissingResult, list[Trial]]]:
    """(cell in words, whether other trials of it have a result, reason, trials without a result)."""
    for dataset in results.datasets:
        for algorithm in results.algorithms:
            for target, environment in enumerate(dataset.targets):
                has_result = bool(results.trials(dataset.name, algorithm, target))
                reasons = results.reasons(dataset.name, algorithm, target)
                if not has_result and not reasons:
                    reasons = {MissingResult(Reason.NO_RUN): []}
                for reason, seeds in reasons.items():
                    cell = f"{algorithm} on {dataset.name}, target {environment}"
                    yield cell, has_result, reason, seeds
