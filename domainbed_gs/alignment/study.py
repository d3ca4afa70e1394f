"""Measure trained models, and read what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.algorithms import REGISTRY
from domainbed.errors import UsageError
from domainbed.results.method_names import with_method_name
from domainbed.training.run_state import read_json
from domainbed_gs.alignment.measure import AlignmentMeasurement
from domainbed_gs.alignment.settings import ALIGNMENT, LAYOUTS, TRAINING, Alignment
from domainbed_gs.alignment.training import TABLE
from domainbed_gs.studies.measured_frame import measured_frame
from domainbed_gs.studies.step_table import Row as StepRow
from domainbed_gs.trained_models.loading import LoadOptions
from domainbed_gs.trained_models.over_models import measure_models
from domainbed_gs.trained_models.table import Row, Table

if TYPE_CHECKING:
    import pandas as pd


def run(
    files: Sequence[Path],
    how: Alignment,
    output_dir: Path,
    options: LoadOptions | None = None,
    restart: bool = False,
) -> Table:
    """Measure the models in `files`; writes alignment.csv into `output_dir`, and returns it.

    Models that it has are skipped.

    Raises: UsageError for invalid settings; else as `trained_models.over_models.measure_models`.
    """
    how.check()
    return measure_models(files, AlignmentMeasurement(how), output_dir, options, restart)[ALIGNMENT]


def measure(
    runs: str | Path | Iterable[str | Path],
    output_dir: str | Path | None = None,
    data_dir: str | None = None,
    device: str = "auto",
    **settings: object,
) -> pd.DataFrame:
    """Compare the environments of trained models, for programs and notebooks.

    Args:
        runs: directories of runs, or model files.
        output_dir: folder of the table, from which the measurement resumes. By default nothing is kept.
        data_dir: root folder of the datasets, if it is another one than that of the runs.
        device: as the setting `device` of a run.
        settings: fields of `Alignment`, such as `samples=128`.

    Returns: the rows of alignment.csv, see docs/studies.md.

    Raises: UsageError, RunError as `run`.
    """
    how = Alignment.from_keywords(settings)
    options = LoadOptions(data_dir=data_dir, device=device)
    return measured_frame(lambda files, folder: run(files, how, folder, options), runs, output_dir)


def read(folder: Path) -> list[Row]:
    """Rows of alignment.csv in `folder`; empty if there is none. Raises UsageError for another table."""
    return Table(folder / ALIGNMENT, LAYOUTS[ALIGNMENT]).rows


def read_training(folders: Sequence[Path]) -> dict[str, list[list[StepRow]]]:
    """Method -> rows of each of its runs that were measured during training.

    Args:
        folders: directories of runs, or directories whose subdirectories are runs that were measured.

    Raises: UsageError for a folder that is neither; RunError if a run has no such table.
    """
    found: dict[str, list[list[StepRow]]] = {}
    for folder in [run for each in folders for run in _runs_in(each)]:
        settings = (read_json(folder / "run.json") or {}).get("settings")
        if not isinstance(settings, dict) or "algorithm" not in settings:
            raise UsageError(f"{folder} is not the directory of a run; give folders that train has written")
        method = with_method_name(settings)["algorithm"]
        found.setdefault(method, []).append(TABLE.read(folder / TRAINING))
    return {name: found[name] for name in REGISTRY.order(found)}


def _runs_in(folder: Path) -> list[Path]:
    """The runs in a directory that is none itself and has such runs; else the directory."""
    if (folder / "run.json").exists():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{TRAINING}")) or [folder]


def by_dataset(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Name of dataset and part -> its rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(f"{Path(row['dataset']).name}, part {row['part']}", []).append(row)
    return found
