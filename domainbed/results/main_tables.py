"""The DomainBed tables: for each dataset algorithms by targets, then averages by datasets (CLI spec 7.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from domainbed.results.accuracies import Accuracies, Columns
from domainbed.results.tables import format_mean

_ERROR = "mean +/- standard error over trials (ddof=0)"


@dataclass(frozen=True)
class MainTable:
    """One table of text cells; the first column's label is that of the rows' names.

    Attributes:
        subject: the dataset's name, or "Averages".
        title: the line above it.
        columns: labels of all columns, that of the row labels included.
        rows: labels of the rows.
        cells: the texts, one row for each label.
        colwidth: width of a column in plain text.
        footer: a sentence on what is selected by what, and what the numbers are.
    """

    subject: str
    title: str
    columns: list[str]
    rows: list[str]
    cells: list[list[str]]
    colwidth: int
    footer: str


def main_tables(accuracies: Accuracies, latex: bool = False) -> Iterator[MainTable]:
    """A table for each dataset, then that of the averages."""
    selection = f"model selection method: {accuracies.method}"
    for dataset in accuracies.datasets:
        yield MainTable(
            subject=dataset.name,
            title=f"Dataset: {dataset.name}, {selection}",
            columns=["Algorithm", *dataset.environments, "Avg"],
            rows=accuracies.algorithms,
            cells=[
                _cells(_by_target(accuracies, dataset, algorithm), latex)
                for algorithm in accuracies.algorithms
            ],
            colwidth=20,
            footer=f"{accuracies.about} in %, {_ERROR}.",
        )
    yield MainTable(
        subject="Averages",
        title=f"Averages, {selection}",
        columns=["Algorithm", *(dataset.name for dataset in accuracies.datasets), "Avg"],
        rows=accuracies.algorithms,
        cells=[_cells(_by_dataset(accuracies, algorithm), latex) for algorithm in accuracies.algorithms],
        colwidth=25,
        footer=f"{accuracies.about} in %, averaged over the targets in each trial, {_ERROR}.",
    )


def tidy_rows(accuracies: Accuracies) -> Iterator[tuple[str, str, str, list[float]]]:
    """(dataset, algorithm, environment, accuracies of the trials) for each cell of all tables.

    Environment "Avg" is a cell of the table of averages.
    """
    for dataset in accuracies.datasets:
        for algorithm in accuracies.algorithms:
            by_target = _by_target(accuracies, dataset, algorithm)
            for environment, trials in zip(dataset.environments, by_target, strict=True):
                yield dataset.name, algorithm, environment, trials
            yield dataset.name, algorithm, "Avg", accuracies.averages(dataset.name, algorithm)


def _by_target(accuracies: Accuracies, dataset: Columns, algorithm: str) -> list[list[float]]:
    targets = range(len(dataset.environments))
    return [accuracies.trials(dataset.name, algorithm, target) for target in targets]


def _by_dataset(accuracies: Accuracies, algorithm: str) -> list[list[float]]:
    return [accuracies.averages(dataset.name, algorithm) for dataset in accuracies.datasets]


def _cells(columns: Sequence[list[float]], latex: bool) -> list[str]:
    """Texts of a row: each column's mean and error, then the mean of the means, or X if one is missing."""
    formatted = [format_mean(trials, latex) for trials in columns]
    means = [mean for mean, _, _ in formatted if mean is not None]
    complete = bool(means) and len(means) == len(columns)
    return [text for _, _, text in formatted] + [f"{sum(means) / len(means):.1f}" if complete else "X"]
