"""Measure trained models, and read what was measured."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from domainbed_gs.trained_models.over_models import Measured, measure_models
from domainbed_gs.trained_models.table import Row, Table

if TYPE_CHECKING:
    import pandas as pd


def run(
    files: Sequence[Path],
    how: Alignment,
    output_dir: Path,
    options: LoadOptions | None = None,
    restart: bool = False,
) -> Measured:
    """Measure the models in `files`; writes alignment.csv into `output_dir`.

    Models that it has are skipped.

    Returns: the table, and which models could not be measured.

    Raises: UsageError for invalid settings; else as `trained_models.over_models.measure_models`.
    """
    how.check()
    return measure_models(files, AlignmentMeasurement(how), output_dir, options, restart)


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

    Raises: UsageError, RunError as `run`; RunError also if no model can be measured.
    """
    how = Alignment.from_keywords(settings)
    options = LoadOptions(data_dir=data_dir, device=device)
    return measured_frame(lambda files, folder: run(files, how, folder, options), ALIGNMENT, runs, output_dir)


def read(folder: Path) -> list[Row]:
    """Rows of alignment.csv in `folder`; empty if there is none. Raises UsageError for another table."""
    return Table(folder / ALIGNMENT, LAYOUTS[ALIGNMENT]).rows


@dataclass(frozen=True)
class TrainingRuns:
    """Runs of one dataset that were measured during training.

    Attributes:
        dataset: the dataset, as a run names it.
        methods: method -> rows of alignment_training.csv of each of its runs.
    """

    dataset: str
    methods: Mapping[str, Sequence[Sequence[StepRow]]]

    @property
    def parts(self) -> list[str]:
        """The parts of the environments that some run was measured on."""
        return list(dict.fromkeys(str(row["part"]) for row in self._rows()))

    def of_part(self, part: str) -> dict[str, list[list[StepRow]]]:
        """`methods` with the rows of one part. Runs and methods that have none are left out."""
        found: dict[str, list[list[StepRow]]] = {}
        for method, runs in self.methods.items():
            kept = [own for rows in runs if (own := [row for row in rows if row["part"] == part])]
            if kept:
                found[method] = kept
        return found

    def title(self, part: str) -> str:
        """Title of the figure of one part."""
        runs = self.of_part(part)
        number = sum(map(len, runs.values()))
        own = [row for of_method in runs.values() for rows in of_method for row in rows]
        targets = dict.fromkeys(str(row["first"]) for row in own if row["pair"] == "within-target")
        words = [
            Path(self.dataset).name,
            *([f"target{'s' * (len(targets) > 1)} {', '.join(targets)}"] if targets else []),
            f"part {part}",
            f"{number} run{'s' * (number > 1)}",
        ]
        return f"Distances between environments over training: {', '.join(words)}"

    def _rows(self) -> Iterator[StepRow]:
        for runs in self.methods.values():
            for rows in runs:
                yield from rows


def read_training(folders: Sequence[Path]) -> TrainingRuns:
    """The runs in `folders` that were measured during training.

    Args:
        folders: directories of runs, or directories whose subdirectories are runs that were measured.

    Raises:
        UsageError: a folder is neither, or the runs are of several datasets.
        RunError: a table is damaged.
    """
    datasets: dict[str, Path] = {}
    found: dict[str, list[list[StepRow]]] = {}
    for folder in [run for each in folders for run in _runs_in(each)]:
        settings = (read_json(folder / "run.json") or {}).get("settings")
        if not isinstance(settings, dict) or not {"algorithm", "dataset"} <= settings.keys():
            raise UsageError(f"{folder} is not the directory of a run; give folders that train has written")
        if not (folder / TRAINING).exists():
            raise UsageError(
                f"{folder} was not measured during training; train it with domainbed_gs.scripts.alignment"
            )
        datasets.setdefault(settings["dataset"], folder)
        method = with_method_name(settings)["algorithm"]
        found.setdefault(method, []).append(TABLE.read(folder / TRAINING))
    if len(datasets) > 1:
        (first, second), *_ = itertools.pairwise(datasets.items())
        raise UsageError(
            f"a figure is of one dataset, but {first[1]} is a run of {first[0]} and {second[1]} of "
            f"{second[0]}; name runs of one"
        )
    (dataset,) = datasets
    return TrainingRuns(dataset, {name: found[name] for name in REGISTRY.order(found)})


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
