"""Load a sweep for a report: its records, the runs that were launched, and notes on missing results.

Runs of one algorithm under several conditions (`--grouping`) are several methods to a report
(`domainbed.results.method_names`).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from domainbed import model_selection
from domainbed.errors import RunError
from domainbed.escaping import visible
from domainbed.model_selection import METHODS, SelectionMethod
from domainbed.records.query import Q
from domainbed.records.results_file import RESULTS_FILE, Record
from domainbed.records.sweep_records import read_sweep_records
from domainbed.results.conditions import Choice, Condition, parse_condition, run_of_args
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
from domainbed.results.target_sets import named_sets, notes_on_several_targets, with_target_sets
from domainbed.sweep.manifest import Manifest, read_manifest
from domainbed.training.run_settings import DATA, as_text, runs_of

_log = logging.getLogger(__name__)

SELECTION_HELP = (
    "selection methods by short name: iid, loo, oracle, autolr, iid_nll, iid_worst, or a plugin's "
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
        return {name: METHODS[name] for name in names or default_selection(self.manifest)}

    def chosen(self, conditions: Sequence[Condition]) -> LoadedSweep:
        """The runs that meet all `conditions`.

        Raises: UsageError for an unknown name; RunError if no run meets them.
        """
        runs = runs_of(self.records)
        choice = Choice(runs)
        choice.check(conditions)
        records = [record for run in runs if choice.meets(run, conditions) for record in run.records]
        launched, manifest = self.runs.args, self.manifest
        names = {name for name, args in launched.items() if choice.meets(run_of_args(args), conditions)}
        if manifest is not None:
            jobs = {name: args for name, args in manifest.jobs.items() if name in names}
            manifest = replace(manifest, jobs=jobs)
        return replace(
            self,
            records=Q(records),
            manifest=manifest,
            runs=replace(self.runs, args={name: launched[name] for name in launched if name in names}),
        )

    def by_value(self, name: str) -> dict[str, LoadedSweep]:
        """The runs with each value of the setting or hyper-parameter `name`: value as text -> runs.

        Raises: UsageError if no run has it.
        """
        choice = Choice(runs_of(self.records))
        choice.check_name(name, "--by")
        values = map(as_text, choice.values(name))
        return {value: self.chosen([Condition(name, "=", value)]) for value in values}


def default_selection(manifest: Manifest | None) -> Sequence[str]:
    """Short names of the selection methods that a launch named, else of upstream's."""
    return (manifest.selection if manifest else ()) or model_selection.UPSTREAM


def load_sweep(
    directory: Path,
    *,
    finished_only: bool = False,
    mix_data: bool = False,
    where: Sequence[str] = (),
    target_sets: Sequence[str] | None = None,
) -> LoadedSweep:
    """Read the sweep in `directory`. The notes are also written to the log.

    Args:
        directory: the sweep directory.
        finished_only: leave out unfinished runs.
        mix_data: pool runs of one dataset that used different data.
        where: conditions that runs must meet, such as "steps>=300"; see `domainbed.results.conditions`.
        target_sets: sets of targets, as `sweep launch --target_sets` takes them; by default those of its
            sweep.json.

    Raises:
        UsageError: `directory` does not exist, or a condition or a set of targets cannot be read.
        RunError: there are no records, or no run meets the conditions or holds out a set of targets.
    """
    conditions = [parse_condition(text) for text in where]
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
    records = with_method_names((runs.finished() if finished_only else runs).records())
    if not records:
        raise RunError(_no_records(directory, finished_only))
    spellings = spellings_of(records)
    records = records_with_one_spelling(records, spellings)
    if mix_data:
        records = without_data_identity(records)
    if manifest is not None:
        jobs = {
            name: with_one_spelling(with_method_name(args), spellings) for name, args in manifest.jobs.items()
        }
        manifest = replace(manifest, jobs=jobs)
    launched_sets = manifest.target_sets if manifest else {}
    sets = {spellings.get(name, name): of_dataset for name, of_dataset in launched_sets.items()}
    records, left_out = with_target_sets(
        records, sets if target_sets is None else named_sets(records, target_sets)
    )
    notes += notes_on_several_targets(records)
    notes += [
        f"{number} runs on {dataset} hold out other environments than the sets of targets; left out"
        for dataset, number in left_out.items()
    ]
    if not records:
        raise RunError(f"no run in {directory} holds out one of the sets of targets; give --target_sets")
    with_records = {run.path.name: run.file.records[0]["args"] for run in runs.runs if run.file.records}
    named = {
        name: with_one_spelling(with_method_name(args), spellings) for name, args in with_records.items()
    }
    launched = LaunchedRuns(directory, named | (manifest.jobs if manifest else {}))
    sweep = LoadedSweep(directory, Q(records), manifest, (), launched, spellings)
    if conditions:
        sweep = sweep.chosen(conditions)
        counts = [len(runs_of(each)) for each in (sweep.records, records)]
        flags = " ".join(f"--where {condition}" for condition in conditions)
        notes.append(f"{flags}: {counts[0]} of {counts[1]} runs")
    for note in notes:
        _log.warning("note: %s", visible(note))
    return replace(sweep, notes=(*runs.warnings, *notes))


def add_loading_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags for the arguments of `load_sweep`."""
    parser.add_argument(
        "--input_dir", type=Path, required=True, metavar="DIR", help="sweep directory, one folder a run"
    )
    parser.add_argument("--finished_only", action="store_true", help="leave out unfinished runs")
    parser.add_argument(
        "--mix_data", action="store_true", help="pool runs of one dataset that used different data"
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only runs with this value of a setting or hyper-parameter, also with != >= <= > <, such as "
        "'steps>=300'; several are combined",
    )
    parser.add_argument(
        "--target_sets",
        nargs="+",
        metavar="SET",
        help='sets of environments that runs hold out at once, by index or name, such as "0 1" "2 3", or '
        "single_source (default: those of the sweep's launch)",
    )


def without_data_identity(records: Iterable[Record]) -> list[Record]:
    """Copies of `records` that do not tell which data their runs used."""
    hidden = {name.removeprefix("data.") for name in DATA}
    return [
        record | {"data": {name: value for name, value in record["data"].items() if name not in hidden}}
        if isinstance(record.get("data"), dict)
        else record
        for record in records
    ]


def _no_records(directory: Path, finished_only: bool) -> str:
    if (directory / RESULTS_FILE).exists():
        return f"{directory} is the folder of one run; use the sweep directory that contains it"
    what = "finished run" if finished_only else "record"
    place = f"{directory} (looked for */{RESULTS_FILE})"
    return f"no {what} found in {place}; launch the sweep, or wait for its runs"
