"""Measure many trained models, one after the other; an interrupted command resumes with the next one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from domainbed.errors import RunError, UsageError
from domainbed_gs.trained_models.loading import LoadOptions, TrainedModel, file_hash, load
from domainbed_gs.trained_models.table import Layout, Row, Table, identity

_log = logging.getLogger(__name__)


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


def measure_models(
    files: Sequence[Path],
    measurement: Measurement,
    output_dir: Path,
    options: LoadOptions | None = None,
    restart: bool = False,
) -> dict[str, Table]:
    """Measure the models in `files`, and write their rows to tables in `output_dir`.

    Models that the tables have are skipped, unless their files have changed. A model that cannot be loaded or
    measured is named in a warning, and the others are measured.

    Args:
        files: model files.
        measurement: what is measured.
        output_dir: folder of the tables, created if missing.
        options: how models are loaded.
        restart: discard earlier rows.

    Returns: the tables by the names of their files.

    Raises:
        UsageError: a table was written with other settings, or by something else; the only model cannot be
            measured.
        RunError: some models could not be measured, or a table cannot be written.
    """
    tables = _open_tables(measurement, output_dir, restart)
    *_, last = tables.values()
    failed: list[UsageError] = []
    with tqdm(files, desc="models", unit="model", leave=False, disable=None) as models:
        for file in models:
            name = _run_name(file, output_dir)
            try:
                if not last.has(name, file_hash(file)):
                    _measure(load(file, options), name, measurement, tables)
            except UsageError as error:
                if len(files) == 1:
                    raise
                failed.append(error)
                _log.warning("warning: not measured: %s", error)
    if failed:
        raise RunError(
            f"{len(failed)} of {len(files)} models could not be measured ({failed[0]}); the others are in "
            f"{last.path}"
        )
    return tables


def _open_tables(measurement: Measurement, output_dir: Path, restart: bool) -> dict[str, Table]:
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if restart:
            for name in measurement.layouts:
                (output_dir / name).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write to {output_dir}: {error.strerror}; choose another --output_dir"
        ) from None
    tables = {name: Table(output_dir / name, layout) for name, layout in measurement.layouts.items()}
    for table in tables.values():
        table.check_settings(measurement.settings)
    return tables


def _measure(model: TrainedModel, name: str, measurement: Measurement, tables: Mapping[str, Table]) -> None:
    with tqdm(total=measurement.units(model), desc=name, leave=False, disable=None) as bar:

        def advance() -> None:
            bar.update()

        found = measurement.measure(model, advance)
    shared = {**identity(model, name), **measurement.settings}
    for file, table in tables.items():
        table.replace(name, [{**shared, **row} for row in found[file]])


def _run_name(file: Path, output_dir: Path) -> str:
    """Name of a run's folder, with its path unless it lies in `output_dir`, and of a file of another name."""
    folder = file.parent.resolve()
    is_near = output_dir.resolve() in (folder, folder.parent)
    name = folder.name if is_near else str(folder)
    return name if file.name == "model.pkl" else f"{name}/{file.name}"
