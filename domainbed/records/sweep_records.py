"""Records of all runs in a sweep directory: read, grouped, or as a pandas frame."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from domainbed.console import shortened_list
from domainbed.errors import UsageError
from domainbed.escaping import visible
from domainbed.records.query import Q
from domainbed.records.results_file import RESULTS_FILE, Record, ResultsFile, read_records

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRecords:
    """The records in one run's directory.

    Attributes:
        path: the directory.
        finished: whether it contains the file `done`.
        file: content of its `results.jsonl`.
    """

    path: Path
    finished: bool
    file: ResultsFile


@dataclass(frozen=True)
class SweepRecords:
    """The records of a sweep.

    Attributes:
        runs: every run with a readable `results.jsonl`, sorted by name.
        warnings: one line for each kind of file or line that could not be read.
    """

    runs: list[RunRecords]
    warnings: tuple[str, ...] = ()

    def records(self) -> Q[Record]:
        """Records of all runs."""
        return Q([record for run in self.runs for record in run.file.records])

    def finished(self) -> SweepRecords:
        """The same without the unfinished runs."""
        return SweepRecords([run for run in self.runs if run.finished], self.warnings)


def read_sweep_records(sweep_dir: Path) -> SweepRecords:
    """Read the records of every run in `sweep_dir`, with a progress bar on stderr.

    Entries without a `results.jsonl` are skipped. Files and lines that cannot be read are skipped and named
    in the log, in one warning for each kind.

    Raises: UsageError if `sweep_dir` is not a directory.
    """
    if not sweep_dir.is_dir():
        raise UsageError(f"sweep directory {sweep_dir} does not exist; give the folder that `sweep` printed")
    runs, unreadable = [], []
    entries = sorted(sweep_dir.iterdir(), key=lambda entry: entry.name)
    with _without_garbage_collection():
        for entry in tqdm(entries, ncols=80, leave=False):
            try:
                file = read_records(entry / RESULTS_FILE)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                unreadable.append(f"{entry / RESULTS_FILE} ({error.strerror})")
                continue
            runs.append(RunRecords(entry, (entry / "done").exists(), file))
    warnings = tuple(_warnings(runs, unreadable))
    for line in warnings:
        _log.warning("warning: %s", visible(line))
    return SweepRecords(runs, warnings)


def load_records(path: str | Path) -> Q[Record]:
    """Records of all runs in the sweep directory `path`, sorted by the runs' names (upstream's function).

    A progress bar is shown on stderr. Lines that are not records are skipped with a warning in the log.
    Records of one run share equal `args`, `hparams` and `sizes` objects: copy one before changing it.

    Raises: UsageError if `path` is not a directory.
    """
    return read_sweep_records(Path(path)).records()


def by_run(records: Iterable[Record]) -> Iterator[tuple[dict[str, Any], list[Record]]]:
    """(args, records) of each run: consecutive records with equal `args`."""
    for args, records_of_run in itertools.groupby(records, key=itemgetter("args")):
        yield args, list(records_of_run)


def get_grouped_records(records: Iterable[Record]) -> Q[dict[str, Any]]:
    """Group by trial seed, dataset, algorithm and target, in order of first appearance (upstream's function).

    Returns: dicts with keys `trial_seed`, `dataset`, `algorithm`, `test_env` and `records` (a Q). A record
        with two target environments is in two groups.
    """
    groups: dict[tuple[int, str, str, int], list[Record]] = {}
    for args, records_of_run in by_run(records):
        for target in args["test_envs"]:
            key = (args["trial_seed"], args["dataset"], args["algorithm"], target)
            groups.setdefault(key, []).extend(records_of_run)
    names = ("trial_seed", "dataset", "algorithm", "test_env")
    return Q([dict(zip(names, key, strict=True)) | {"records": Q(group)} for key, group in groups.items()])


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Records as a pandas frame: one row for each record, one column for each key.

    Entries of `args`, `hparams` and `sizes` become columns `args.*` and so on. Missing values are NaN.
    """
    import pandas as pd

    return pd.DataFrame([_flattened(record) for record in records])


def _flattened(record: Record) -> Record:
    row: Record = {}
    for key, value in record.items():
        if isinstance(value, dict):
            row |= {f"{key}.{name}": entry for name, entry in value.items()}
        else:
            row[key] = value
    return row


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable the cycle collector: it would scan the growing list of records, which have no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _warnings(runs: list[RunRecords], unreadable: list[str]) -> Iterator[str]:
    torn = [f"{run.path / RESULTS_FILE}:{run.file.torn}" for run in runs if run.file.torn is not None]
    kinds = {
        "skipped results that cannot be read": unreadable,
        "skipped a last line that was cut short": torn,
    }
    for run in runs:
        for line, problem in run.file.damaged.items():
            what = f"skipped lines that are not records ({problem})"
            kinds.setdefault(what, []).append(f"{run.path / RESULTS_FILE}:{line}")
    for what, places in kinds.items():
        number = f", {len(places)} in all" if len(places) > 1 else ""
        if places:
            yield f"{what}{number}: {shortened_list(places)}"
