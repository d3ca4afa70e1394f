"""The content of one DomainBed table, its style, and the cells of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainbed.metrics import Metric
from domainbed.results.accuracies import Accuracies
from domainbed.results.averages import Average
from domainbed.results.tables import format_mean

ERROR = "mean +/- standard error over trials (ddof=0)"
"""Meaning of the numbers, for footers."""


@dataclass(frozen=True)
class DomainBedTable:
    """One table, as text.

    Attributes:
        subject: name of the dataset, or "Averages".
        title: the line above the table.
        columns: labels of all columns, including that of the row labels.
        rows: labels of the rows.
        cells: one list of texts for each row.
        colwidth: width of a column in plain text.
        footer: one sentence on the selection method and the meaning of the numbers.
        incomplete: which targets which trials lack, of the marked averages; empty without any.
        absent: targets that no average includes; empty without any.
    """

    subject: str
    title: str
    columns: list[str]
    rows: list[str]
    cells: list[list[str]]
    colwidth: int
    footer: str
    incomplete: str = ""
    absent: str = ""


@dataclass(frozen=True)
class Style:
    """How averages are shown.

    Attributes:
        mark: written behind averages where trials lack targets.
        upstream: show upstream's averages, of every trial over the targets that it has, instead of averages
            over complete trials. The two are equal unless trials lack targets of the table.
        latex: write plus-minus signs for LaTeX.
    """

    mark: str
    upstream: bool = False
    latex: bool = False


TEXT = Style(mark="*", upstream=True)
LATEX = Style(mark="$^\\dag$", latex=True)
RENDERED = Style(mark="†")


def target_cells(accuracies: Accuracies, average: Average, style: Style) -> list[str]:
    """Cells of a row in a dataset's table: mean and error on each target, then the average over targets.

    The average is the mean of the targets' means, as in upstream, or X if a target has none. With trials that
    lack targets, it is that over complete trials unless `style` shows upstream's. The worst target instead
    (`--over_targets worst`) is always that of each complete trial, averaged over these trials.
    """
    metric, worst = accuracies.metric, accuracies.over_targets == "worst"
    targets = range(len(average.dataset.targets))
    columns = [accuracies.trials(average.dataset.name, average.algorithm, target) for target in targets]
    *cells, mean = mean_cells(columns, style.latex, metric)
    if (average.lacking or worst) and not average.has_empty_target:
        if worst or not style.upstream:
            mean = metric.text(float(np.mean(average.complete)), 1) if average.complete else "X"
        if average.lacking:
            mean = marked(mean, style)
    return [*cells, mean]


def marked(cell: str, style: Style) -> str:
    """`cell` with the mark for trials that lack targets; X stays X."""
    return cell if cell == "X" else cell + style.mark


def mean_cells(columns: Sequence[list[float]], latex: bool, metric: Metric) -> list[str]:
    """Mean and error of each column, then the mean of the means, or X if a column has no accuracies."""
    formatted = [format_mean(trials, latex, metric) for trials in columns]
    means = [mean for mean, _, _ in formatted if mean is not None]
    complete = bool(means) and len(means) == len(columns)
    digits = 1 + metric.extra_digits
    return [text for _, _, text in formatted] + [f"{sum(means) / len(means):.{digits}f}" if complete else "X"]
