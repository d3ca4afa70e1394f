"""Measure the sharpness of trained models, and read what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_gs.sharpness.measure import SharpnessMeasurement
from domainbed_gs.sharpness.settings import CURVES, LAYOUTS, SHARPNESS, Sharpness
from domainbed_gs.studies.measured_frame import measured_frame
from domainbed_gs.trained_models.loading import LoadOptions
from domainbed_gs.trained_models.over_models import Measured, measure_models
from domainbed_gs.trained_models.table import Row, Table

if TYPE_CHECKING:
    import pandas as pd


def run(
    files: Sequence[Path],
    how: Sharpness,
    output_dir: Path,
    options: LoadOptions | None = None,
    restart: bool = False,
) -> Measured:
    """Measure the models in `files`; writes sharpness.csv and loss_curves.csv into `output_dir`.

    Models that the tables have are skipped.

    Returns: the tables, and which models could not be measured.

    Raises: UsageError for invalid settings; else as `trained_models.over_models.measure_models`.
    """
    how.check()
    return measure_models(files, SharpnessMeasurement(how), output_dir, options, restart)


def measure(
    runs: str | Path | Iterable[str | Path],
    output_dir: str | Path | None = None,
    data_dir: str | None = None,
    device: str = "auto",
    **settings: object,
) -> pd.DataFrame:
    """Measure the sharpness of trained models, for programs and notebooks.

    Args:
        runs: directories of runs, or model files.
        output_dir: folder of the tables, from which the measurement resumes. By default nothing is kept.
        data_dir: root folder of the datasets, if it is another one than that of the runs.
        device: as the setting `device` of a run.
        settings: fields of `Sharpness`, such as `rho=0.1`.

    Returns: the rows of sharpness.csv, see docs/studies.md.

    Raises: UsageError, RunError as `run`; RunError also if no model can be measured.
    """
    how = Sharpness.from_keywords(settings)
    options = LoadOptions(data_dir=data_dir, device=device)
    return measured_frame(lambda files, folder: run(files, how, folder, options), SHARPNESS, runs, output_dir)


def read(folder: Path) -> tuple[list[Row], list[Row]]:
    """Rows of sharpness.csv and of loss_curves.csv in `folder`; empty if there is no such file.

    Raises: UsageError if a file is not such a table.
    """
    return Table(folder / SHARPNESS, LAYOUTS[SHARPNESS]).rows, Table(folder / CURVES, LAYOUTS[CURVES]).rows
