"""Tables of a dataset with sets of targets: an overview with a column for each set, and a table for each."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from domainbed.metrics import ACCURACY
from domainbed.records.target_sets import columns
from domainbed.results.accuracies import Accuracies, ShownDataset
from domainbed.results.averages import Average
from domainbed.results.table_content import DomainBedTable, Style, marked, target_cells
from domainbed.results.tables import format_mean
from domainbed.results.target_sets import set_names
from domainbed.results.trials import Trial

WIDTH = 20
"""Smallest width of a column in plain text."""

_OVERVIEW = (
    "In each trial, a set has the mean over its targets, Avg that over all targets, Worst the {} target."
)


def overview_of_sets(
    table: DomainBedTable, accuracies: Accuracies, averages: Sequence[Average], style: Style
) -> DomainBedTable:
    """The table with the mean over the targets of each set, over all targets, and the worst target.

    Args:
        table: the table with a column for each target.
        accuracies: accuracies of the sweep.
        averages: those of the dataset, one for each row.
        style: how averages are shown.
    """
    dataset = averages[0].dataset
    labels = [*set_names(dataset.target_sets, dataset.environments), "Avg", "Worst"]
    return replace(
        table,
        columns=["Algorithm", *labels],
        cells=[_overview_cells(accuracies, average, style) for average in averages],
        colwidth=max(WIDTH, *map(len, labels)),
        footer=f"{table.footer} {_OVERVIEW.format(_lowest(accuracies))}",
    )


def tables_of_sets(
    table: DomainBedTable,
    accuracies: Accuracies,
    averages: Sequence[Average],
    style: Style,
    selection: str,
) -> Iterator[DomainBedTable]:
    """A table for each set: its targets, and their mean, pooled and worst accuracy.

    Args:
        table, accuracies, averages, style: as for `overview_of_sets`.
        selection: names the selection method in titles.
    """
    dataset = averages[0].dataset
    names = set_names(dataset.target_sets, dataset.environments)
    for name, own in zip(names, _columns_of_sets(dataset), strict=True):
        sums = [summary(accuracies, dataset, each.algorithm, own) for each in averages]
        rows = [
            [*(accuracies.trials(dataset.name, each.algorithm, i) for i in own), *of_row.values()]
            for each, of_row in zip(averages, sums, strict=True)
        ]
        labels = [*(dataset.targets[i] for i in own), *sums[0]]
        yield replace(
            table,
            title=f"Dataset: {dataset.name}, {_what(name)}, {selection}",
            columns=["Algorithm", *labels],
            cells=[
                [format_mean(trials, style.latex, accuracies.metric)[2] for trials in row] for row in rows
            ],
            colwidth=max(WIDTH, *map(len, labels)),
            footer=f"{table.footer} {_meaning(accuracies, sums[0])}",
            incomplete="",
        )


def summaries(accuracies: Accuracies, average: Average) -> dict[str, list[float]]:
    """Label -> the trials' accuracies of what sums up sets of targets; empty for a dataset without sets.

    Labels are such as "photo + sketch: Mean", then "Worst" for all targets.
    """
    dataset = average.dataset
    if not dataset.target_sets:
        return {}
    names = set_names(dataset.target_sets, dataset.environments)
    found = {
        f"{name}: {label}": trials
        for name, own in zip(names, _columns_of_sets(dataset), strict=True)
        for label, trials in summary(accuracies, dataset, average.algorithm, own).items()
    }
    return found | {"Worst": _worst(accuracies, average)}


def summary(
    accuracies: Accuracies, dataset: ShownDataset, algorithm: str, own: Sequence[int]
) -> dict[str, list[float]]:
    """Mean, pooled and worst accuracy over the targets `own` in each trial that has all of them.

    Without "Pooled" if the numbers of images are not recorded, or for another metric than accuracy.
    """
    is_accuracy = accuracies.metric is ACCURACY
    by_target = [accuracies.by_target.get((dataset.name, algorithm, target), {}) for target in own]
    trials = sorted(set.intersection(*(set(each) for each in by_target)))
    shares = {trial: [each[trial] for each in by_target] for trial in trials}
    images = {trial: _images(accuracies, dataset, own, trial) for trial in accuracies.trials_of(dataset.name)}
    found = {"Mean": [fmean(each) for each in shares.values()]}
    if is_accuracy and images and all(images.values()):
        found["Pooled"] = [fmean(each, images[trial]) for trial, each in shares.items()]
    return found | {"Worst": [accuracies.worst(each) for each in shares.values()]}


def _lowest(accuracies: Accuracies) -> str:
    return "lowest" if accuracies.metric.larger_is_better else "highest"


def _meaning(accuracies: Accuracies, labels: Container[str]) -> str:
    pooled = " Pooled over all of their images," if "Pooled" in labels else ""
    return f"In each trial, Mean is over the set's targets,{pooled} Worst the {_lowest(accuracies)} target."


def _images(accuracies: Accuracies, dataset: ShownDataset, own: Sequence[int], trial: Trial) -> list[int]:
    """Number of images of each target in a trial; empty if one is not known."""
    known = [accuracies.images.get((dataset.name, target), {}).get(trial, 0) for target in own]
    return known if all(known) else []


def _overview_cells(accuracies: Accuracies, average: Average, style: Style) -> list[str]:
    """Cells of a row of the overview."""
    dataset = average.dataset
    means = [
        summary(accuracies, dataset, average.algorithm, own)["Mean"] for own in _columns_of_sets(dataset)
    ]
    metric = accuracies.metric
    texts = [format_mean(each, style.latex, metric)[2] for each in means]
    _, _, worst = format_mean(_worst(accuracies, average), style.latex, metric)
    if average.has_empty_target:
        worst = "X"
    mean_over_targets = replace(accuracies, over_targets="mean")
    return [
        *texts,
        target_cells(mean_over_targets, average, style)[-1],
        marked(worst, style) if average.lacking else worst,
    ]


def _worst(accuracies: Accuracies, average: Average) -> list[float]:
    """The worst result over all targets in each complete trial."""
    by_trial = accuracies.by_trial.get((average.dataset.name, average.algorithm), {})
    number = len(accuracies.reported_targets(average.dataset.name))
    complete = [trial for trial in sorted(by_trial) if len(by_trial[trial]) == number]
    return [accuracies.worst(by_trial[trial]) for trial in complete]


def _columns_of_sets(dataset: ShownDataset) -> list[list[int]]:
    """Numbers of the columns of each set."""
    numbered = list(enumerate(columns(dataset.target_sets)))
    return [
        [number for number, column in numbered if column.targets == targets]
        for targets in dataset.target_sets
    ]


def _what(name: str) -> str:
    return f"trained {name}" if name.startswith("from ") else f"targets {name}"
