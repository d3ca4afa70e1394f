"""Load a sweep for a report: its records, the runs that were launched, and notes on missing results.

Runs of one algorithm under several conditions (`--grouping`) are several methods to a report
(`domainbed.results.method_names`).
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from domainbed import model_selection
from domainbed.errors import RunError
from domainbed.escaping import visible
from domainbed.model_selection import METHODS, SelectionMethod
from domainbed.records.query import Q
from domainbed.records.results_file import RESULTS_FILE, Record
from domainbed.records.sweep_records import by_run, read_sweep_records
from domainbed.results.dataset_spellings import (
    Spellings,
    records_with_one_spelling,
    spellings_of,
    with_one_spelling,
)
from domainbed.results.environment_names import add_environment_names
from domainbed.results.launched_runs import LaunchedRuns
from domainbed.results.machines import notes_on_machines
from domainbed.results.method_names import with_method_name, with_method_names
from domainbed.results.notes import notes_on_runs
from domainbed.results.resumed_runs import complete_resumed_runs
from domainbed.sweep.manifest import Manifest, read_manifest

_log = logging.getLogger(__name__)

SELECTION_HELP = (
    "selection methods by short name: iid, loo, oracle, autolr, or a plugin's "
    "(default: those named in the sweep's file, else iid loo oracle)"
)
"""Help of the flag `--selection`."""


@dataclass(frozen=True)
class LoadedSweep:
    """A sweep as found on disk.

    Attributes:
        directory: the sweep directory.
        records: records of its runs, at least one. Their `args["algorithm"]` is the name of a method.
        manifest: the runs that were launched, also by the names of methods; None without `sweep.json`.
        notes: one line for each kind of unfinished, missing or damaged run.
        spellings: other spellings of the datasets in `records`.
        runs: the runs that were launched or left records.
    """

    directory: Path
    records: Q[Record]
    manifest: Manifest | None
    notes: tuple[str, ...]
    runs: LaunchedRuns
    spellings: Spellings = field(default_factory=dict)

    def selection_methods(self, names: Sequence[str] | None = None) -> dict[str, type[SelectionMethod]]:
        """Selection methods by short name: `names`, by default those of the manifest, else upstream's.

        Raises: UnknownName.
        """
        names = names or (self.manifest.selection if self.manifest else ()) or model_selection.UPSTREAM
        return {name: METHODS[name] for name in names}


def load_sweep(directory: Path, *, finished_only: bool = False, mix_data: bool = False) -> LoadedSweep:
    """Read the sweep in `directory`. The notes are also written to the log.

    Args:
        directory: the sweep directory.
        finished_only: leave out unfinished runs.
        mix_data: accept runs of one dataset that used different data.

    Raises:
        UsageError: `directory` does not exist.
        RunError: there are no records, or the runs used different data and `mix_data` is False.
    """
    runs = read_sweep_records(directory)
    complete_resumed_runs(runs.runs)
    add_environment_names(runs.runs)
    try:
        manifest = read_manifest(directory)
    except RunError as error:
        _log.warning("warning: %s", visible(str(error)))
        manifest = None
    notes = [
        *notes_on_runs(runs, manifest, finished_only),
        *notes_on_machines(run.path for run in runs.runs),
    ]
    for note in notes:
        _log.warning("note: %s", visible(note))
    records = Q(with_method_names((runs.finished() if finished_only else runs).records()))
    if not records:
        raise RunError(_no_records(directory, finished_only))
    spellings = spellings_of(records)
    records = Q(records_with_one_spelling(records, spellings))
    if not mix_data:
        check_same_data(records)
    if manifest is not None:
        jobs = {
            name: with_one_spelling(with_method_name(args), spellings) for name, args in manifest.jobs.items()
        }
        manifest = replace(manifest, jobs=jobs)
    with_records = {run.path.name: run.file.records[0]["args"] for run in runs.runs if run.file.records}
    named = {
        name: with_one_spelling(with_method_name(args), spellings) for name, args in with_records.items()
    }
    launched = LaunchedRuns(directory, named | (manifest.jobs if manifest else {}))
    return LoadedSweep(directory, records, manifest, (*runs.warnings, *notes), launched, spellings)


def add_loading_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the arguments of `load_sweep`."""
    parser.add_argument("--input_dir", type=Path, required=True, help="sweep directory, one folder a run")
    parser.add_argument("--finished_only", action="store_true", help="leave out unfinished runs")
    parser.add_argument(
        "--mix_data", action="store_true", help="accept runs of one dataset that used different data"
    )


def check_same_data(records: Q[Record]) -> None:
    """Check that all runs on a dataset used the same data: checksum, version and contents in their records.

    Records without them, such as upstream's, are not checked. A run that does not know the contents of its
    files counts as one with any contents.

    Raises: RunError, which names one run for each version of the data.
    """
    runs: dict[str, dict[_Identity, dict[str, None]]] = {}
    for args, records_of_run in by_run(records):
        for data, _ in itertools.groupby(record.get("data") for record in records_of_run):
            if isinstance(data, dict):
                identity = str(data.get("checksum")), str(data.get("version")), data.get("contents")
                paths = runs.setdefault(args["dataset"], {}).setdefault(identity, {})
                paths[str(args.get("output_dir"))] = None
    for dataset, by_data in runs.items():
        kinds = _kinds_of_data(by_data)
        if len(kinds) > 1:
            text = ", ".join(
                f"{kind} ({len(paths)} runs, e.g. {next(iter(paths))})" for kind, paths in kinds.items()
            )
            raise RunError(f"runs on {dataset} used different data: {text}; use --mix_data to pool them")


_Identity = tuple[str, str, str | None]
"""Checksum, version, and contents if they are known."""


def _kinds_of_data(by_data: Mapping[_Identity, Iterable[str]]) -> dict[str, list[str]]:
    """Text on each kind of data -> runs. Contents tell kinds apart where at least two are known."""
    known: dict[tuple[str, str], set[str]] = {}
    for checksum, version, contents in by_data:
        known.setdefault((checksum, version), set()).update([contents] if contents else [])
    kinds: dict[str, list[str]] = {}
    for (checksum, version, contents), paths in by_data.items():
        kind = f"checksum {checksum} version {version}"
        if len(known[checksum, version]) > 1:
            kind += f" contents {contents or 'not known'}"
        kinds.setdefault(kind, []).extend(paths)
    return kinds


def _no_records(directory: Path, finished_only: bool) -> str:
    if (directory / RESULTS_FILE).exists():
        return f"{directory} is the folder of one run; use the sweep directory that contains it"
    what = "finished run" if finished_only else "record"
    place = f"{directory} (looked for */{RESULTS_FILE})"
    return f"no {what} found in {place}; launch the sweep, or wait for its runs"
