"""Runs: the subdirectories of a sweep directory, with their records and whether they are finished."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from domainbed.errors import UsageError
from domainbed.records import jsonl as records
from domainbed.records.jsonl import Record, RecordsFile
from domainbed.records.query import Q

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run's directory.

    Attributes:
        path: the directory.
        finished: whether it has the file `done`.
        file: what its `results.jsonl` holds.
    """

    path: Path
    finished: bool
    file: RecordsFile


@dataclass(frozen=True)
class Runs:
    """The runs of a sweep that have a readable `results.jsonl`, in order of their names.

    Attributes:
        runs: the runs.
        complaints: a line for each kind of file or line that could not be read.
    """

    runs: list[Run]
    complaints: tuple[str, ...] = ()

    def records(self) -> Q[Record]:
        """Records of all runs."""
        return Q([record for run in self.runs for record in run.file.records])

    def finished(self) -> Runs:
        """The runs that came to their end."""
        return Runs([run for run in self.runs if run.finished], self.complaints)


def load_runs(sweep_dir: Path) -> Runs:
    """Read every run of `sweep_dir`, with a progress bar on stderr.

    Entries without a `results.jsonl` are skipped silently; files, and lines of files, that cannot be read
    are named in one warning for each kind.

    Raises: UsageError if `sweep_dir` is no directory.
    """
    if not sweep_dir.is_dir():
        raise UsageError(f"sweep directory {sweep_dir} does not exist; give the folder that `sweep` printed")
    runs, unreadable = [], []
    entries = sorted(sweep_dir.iterdir(), key=lambda entry: entry.name)
    with _no_garbage():
        for entry in tqdm(entries, ncols=80, leave=False):
            try:
                file = records.read_records(entry / records.NAME)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                unreadable.append(f"{entry / records.NAME} ({error.strerror})")
                continue
            runs.append(Run(entry, (entry / "done").exists(), file))
    complaints = tuple(_complaints(runs, unreadable))
    for line in complaints:
        _log.warning("warning: %s", line)
    return Runs(runs, complaints)


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Nobody looks for cycles meanwhile: records are none, and would be looked through again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _complaints(runs: list[Run], unreadable: list[str]) -> Iterator[str]:
    torn = [f"{run.path / records.NAME}:{run.file.torn}" for run in runs if run.file.torn is not None]
    damaged = [f"{run.path / records.NAME}:{line}" for run in runs for line in run.file.damaged]
    for places, what in (
        (unreadable, "results that cannot be read are left out"),
        (torn, "a last line that was cut off is skipped"),
        (damaged, "lines that are no records are skipped"),
    ):
        if places:
            yield f"{what}: {listing(places)}"


def listing(items: list[str], most: int = 10) -> str:
    """`items` in one line; of many the first `most` and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
