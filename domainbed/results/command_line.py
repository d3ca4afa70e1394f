"""What the scripts that read a sweep have in common."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from domainbed import model_selection
from domainbed.errors import RunError
from domainbed.model_selection import METHODS, SelectionMethod
from domainbed.records.jsonl import NAME, Record
from domainbed.records.query import Q
from domainbed.records.runs import load_runs
from domainbed.results import notes
from domainbed.results.conditions import named, with_method_names
from domainbed.results.same_data import check_same_data
from domainbed.sweep.manifest import Manifest, read_manifest

_log = logging.getLogger(__name__)

SELECTION_HELP = (
    "selection methods by short name: iid, loo, oracle, autolr, or a plugin's "
    "(default: those that the sweep's file names, else iid loo oracle)"
)


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was found on disk.

    Attributes:
        records: records of its runs, never empty.
        manifest: what it was asked to hold, if it says so.
        notes: what is unfinished, missing or damaged.
    """

    records: Q[Record]
    manifest: Manifest | None
    notes: tuple[str, ...]

    def methods(self, names: list[str] | None) -> dict[str, type[SelectionMethod]]:
        """Short name -> selection method: those named, else those of the manifest, else upstream's.

        Raises: UnknownName.
        """
        wanted = names or (self.manifest.selection if self.manifest else ()) or model_selection.UPSTREAM
        return {name: METHODS[name] for name in wanted}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what to read."""
    parser.add_argument("--input_dir", type=Path, required=True, help="sweep directory, one folder a run")
    parser.add_argument(
        "--finished_only", action="store_true", help="leave out runs that have not come to their end"
    )
    parser.add_argument(
        "--mix_data", action="store_true", help="take runs over different data of one dataset together"
    )


def load(input_dir: Path, finished_only: bool, mix_data: bool = False) -> Sweep:
    """Read a sweep; what is unfinished, missing or damaged is named in the log.

    Its `algorithm`s are names of methods: "AgrSum/pooled" for runs with `--grouping pooled`.

    Raises: UsageError if there is no such directory, RunError if it holds no records, or records of runs over
        different data and `mix_data` is not given.
    """
    runs = load_runs(input_dir)
    try:
        manifest = read_manifest(input_dir)
    except RunError as error:
        _log.warning("warning: %s", error)
        manifest = None
    said = notes.on_runs(runs, manifest, finished_only)
    for note in said:
        _log.warning("note: %s", note)
    records = Q(with_method_names((runs.finished() if finished_only else runs).records()))
    if not records:
        raise RunError(_no_records(input_dir, finished_only))
    if not mix_data:
        check_same_data(records)
    if manifest is not None:
        manifest = replace(manifest, jobs={name: named(job) for name, job in manifest.jobs.items()})
    return Sweep(records, manifest, (*runs.complaints, *said))


def _no_records(input_dir: Path, finished_only: bool) -> str:
    if (input_dir / NAME).exists():
        return f"{input_dir} is the folder of one run; give the sweep directory above it"
    what = "finished run" if finished_only else "record"
    return f"no {what} found in {input_dir} (looked for */{NAME}); launch the sweep, or wait for its runs"
