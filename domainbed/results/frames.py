"""Results of a sweep as pandas frames: means, trials, records, and those of plugins.

A plugin adds one by `FRAMES["name"] = function`; see `MakeFrame`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from domainbed.records.sweep_records import to_frame
from domainbed.registry import Registry
from domainbed.results.accuracies import Accuracies
from domainbed.results.domainbed_tables import tidy_rows
from domainbed.results.loading import default_selection
from domainbed.results.report import ReportContext
from domainbed.results.tables import format_mean

if TYPE_CHECKING:
    import pandas as pd

MakeFrame = Callable[[ReportContext, Sequence[str] | None], "pd.DataFrame"]
"""Makes a frame of the runs in a context, for these selection methods; None stands for a default."""

FRAMES: Registry[MakeFrame] = Registry.of_module("Frame of results")
"""Frames by the name that `domainbed.collect` takes."""


def selected(context: ReportContext, selection: Sequence[str] | None) -> Iterator[tuple[str, Accuracies]]:
    """(short name, results) of each selection method; by default of those of the sweep, else upstream's.

    Raises: UnknownName.
    """
    for name in selection or default_selection(context.manifest):
        accuracies = context.accuracies(name)
        context.runs.explain_missing(accuracies, context.method(name))
        yield name, accuracies


@FRAMES.register("means")
def means(context: ReportContext, selection: Sequence[str] | None) -> pd.DataFrame:
    """One row for each cell of the DomainBed tables, in their order, with the columns of `--format csv`.

    Columns: `selection`, `dataset`, `algorithm`, `environment` ("Avg" for the average over the targets of
    complete trials, or "Worst"), `mean` and `stderr` (standard error, ddof=0) in the unit of `metric`, which
    is % for accuracies, `n` (number of trials), `missing` (targets that trials lack, or why there is no
    result) and `metric`. Without trials, `mean` and `stderr` are NaN.
    """
    import pandas as pd

    columns = ["selection", "dataset", "algorithm", "environment", "mean", "stderr", "n", "missing", "metric"]
    rows: list[list[Any]] = []
    for name, accuracies in selected(context, selection):
        for *cell, trials, missing in tidy_rows(accuracies):
            mean, error, _ = format_mean(trials, latex=False, metric=accuracies.metric)
            rows.append([name, *cell, mean, error, len(trials), missing, accuracies.metric.described])
    return pd.DataFrame(rows, columns=columns).astype({"mean": "float64", "stderr": "float64"})


@FRAMES.register("trials")
def trials(context: ReportContext, selection: Sequence[str] | None) -> pd.DataFrame:
    """One row for each result of a trial on a target.

    Columns: `selection`, `dataset`, `algorithm`, `target` (index of the environment; with sets of targets,
    number of the column), `environment` (its name), `trial_seed`, `repetition`, `value` in the unit of
    `metric`, and `metric`.
    """
    import pandas as pd

    names = ("dataset", "algorithm", "target", "environment", "trial_seed", "repetition", "value", "metric")
    rows: list[list[Any]] = []
    for name, accuracies in selected(context, selection):
        targets = {dataset.name: dataset.targets for dataset in accuracies.datasets}
        for (dataset, algorithm, target), values in accuracies.by_target.items():
            cell = [name, dataset, algorithm, target, targets[dataset][target]]
            for trial, value in sorted(values.items()):
                of_trial = [trial.seed, trial.repetition, accuracies.metric.scale * value]
                rows.append([*cell, *of_trial, accuracies.metric.described])
    return pd.DataFrame(rows, columns=["selection", *names])


@FRAMES.register("records")
def records(context: ReportContext, selection: Sequence[str] | None) -> pd.DataFrame:
    """One row for each record, as `domainbed.records.sweep_records.to_frame` makes it; accuracies in [0, 1].

    No selection takes place, so that `selection` changes nothing.
    """
    return to_frame(context.records)
