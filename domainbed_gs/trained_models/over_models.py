"""Measure many trained models, one after the other; an interrupted command resumes with the next one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from domainbed.errors import RunError, UsageError
from domainbed_gs.trained_models.loading import LoadOptions, TrainedModel, file_hash, load
from domainbed_gs.trained_models.output_folder import cannot_write, create_output_folder
from domainbed_gs.trained_models.table import Layout, Row, Table, identity

_log = logging.getLogger(__name__)

Failure = UsageError | RunError
"""Why a model could not be measured."""


class Measurement(Protocol):
    """A measurement of one trained model, whose results are rows of tables."""

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """Columns of each table, by name of its file. The last one is written last."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Names and values of the columns that say how it was measured."""

    def units(self, model: TrainedModel) -> int:
        """How often `measure` calls `advance` at most."""

    def measure(self, model: TrainedModel, advance: Callable[[], None]) -> Mapping[str, Sequence[Row]]:
        """The rows of each table, without the columns of the model and the settings."""


@dataclass(frozen=True)
class Measured:
    """Tables of measurements, which may also have rows of models that the command does not name.

    Attributes:
        tables: the tables by the names of their files.
        runs: values of the column `run` of the models that were named and have rows.
        number: how many models were named.
        failures: why the others of them could not be measured.
    """

    tables: Mapping[str, Table]
    runs: frozenset[str]
    number: int
    failures: Sequence[Failure]

    def rows(self, name: str) -> list[Row]:
        """The rows of one table that are of the named models."""
        return [row for row in self.tables[name].rows if row["run"] in self.runs]

    def check(self) -> None:
        """Raise RunError if some models could not be measured."""
        if self.failures:
            raise RunError(
                f"{len(self.failures)} of {self.number} models could not be measured ({self.failures[0]}); "
                "train them again or remove them, and repeat the command"
            )


def measure_models(
    files: Sequence[Path],
    measurement: Measurement,
    output_dir: Path,
    options: LoadOptions | None = None,
    restart: bool = False,
) -> Measured:
    """Measure the models in `files`, and write their rows to tables in `output_dir`.

    Models that the tables have are skipped, unless their files have changed. A model that cannot be loaded or
    measured is named in a warning, and loses the rows of an earlier file; the others are measured. Rows of
    models that are not in `files` stay, and a warning counts them.

    Args:
        files: model files.
        measurement: what is measured.
        output_dir: folder of the tables, created if missing.
        options: how models are loaded.
        restart: discard earlier rows.

    Returns: the tables, and what could not be measured.

    Raises:
        UsageError: a table was written with other settings, or by something else, or the folder cannot be
            created.
        RunError: a table cannot be written.
        UsageError, RunError: the only model cannot be measured.
    """
    tables = _open_tables(measurement, output_dir, restart)
    failures: dict[str, Failure] = {}
    names = [_run_name(file, output_dir) for file in files]
    with tqdm(files, desc="models", unit="model", leave=False, disable=None) as bar:
        for file, name in zip(bar, names, strict=True):
            error = _measure_unless_done(file, name, measurement, tables, options)
            if error is not None:
                failures[name] = error
                if len(files) > 1:
                    _log.warning("warning: not measured: %s", error)
    _warn_of_others(tables, names)
    if failures and len(files) == 1:
        raise failures[names[0]]
    return Measured(tables, frozenset(names) - failures.keys(), len(files), list(failures.values()))


def _open_tables(measurement: Measurement, output_dir: Path, restart: bool) -> dict[str, Table]:
    create_output_folder(output_dir)
    try:
        if restart:
            for name in measurement.layouts:
                (output_dir / name).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(output_dir, error) from None
    tables = {name: Table(output_dir / name, layout) for name, layout in measurement.layouts.items()}
    for table in tables.values():
        table.check_settings(measurement.settings)
    return tables


def _measure_unless_done(
    file: Path,
    name: str,
    measurement: Measurement,
    tables: Mapping[str, Table],
    options: LoadOptions | None,
) -> Failure | None:
    """Put the rows of a model into the tables that lack them; returns why that is not possible."""
    *_, last = tables.values()
    try:
        sha256 = file_hash(file)
    except UsageError as error:  # the rows may still be those of the file
        return error
    if last.has(name, sha256):
        return None
    found: Mapping[str, Sequence[Row]]
    try:
        found, failure = _measure(load(file, options), name, measurement), None
    except (UsageError, RunError) as error:
        found, failure = {}, error  # without rows, since those of the tables are of an earlier file
    for table_name, table in tables.items():
        table.replace(name, found.get(table_name, ()))
    return failure


def _measure(model: TrainedModel, name: str, measurement: Measurement) -> dict[str, list[Row]]:
    """The rows of a model with all columns."""
    with tqdm(total=measurement.units(model), desc=name, leave=False, disable=None) as bar:

        def advance() -> None:
            bar.update()

        found = measurement.measure(model, advance)
    shared = {**identity(model, name), **measurement.settings}
    return {table: [{**shared, **row} for row in rows] for table, rows in found.items()}


def _warn_of_others(tables: Mapping[str, Table], names: Sequence[str]) -> None:
    """Warn of rows of the last table that are of none of the named models."""
    *_, last = tables.values()
    others = sum(row["run"] not in names for row in last.rows)
    if others:
        _log.warning(
            "warning: %s also has %d rows of models that are not among those named; they stay in the file, "
            "but tables and figures leave them out",
            last.path,
            others,
        )


def _run_name(file: Path, output_dir: Path) -> str:
    """Name of a run's folder, with its path unless it lies in `output_dir`, and of a file of another name."""
    folder = file.parent.resolve()
    is_near = output_dir.resolve() in (folder, folder.parent)
    name = folder.name if is_near else str(folder)
    return name if file.name == "model.pkl" else f"{name}/{file.name}"
