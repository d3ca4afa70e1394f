"""The results of a sweep by function calls: as frames, and as a report in files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.errors import check_choice
from domainbed.metrics import get_metric
from domainbed.results.accuracies import OVER_TARGETS
from domainbed.results.collect import collect_results
from domainbed.results.domainbed_tables import FORMATS
from domainbed.results.frames import FRAMES
from domainbed.results.loading import LoadedSweep, load_sweep
from domainbed.results.report import ReportContext, section_args

if TYPE_CHECKING:
    import pandas as pd

Texts = Sequence[str] | str | None
"""Several texts, or a single one."""


def collect(
    input_dir: str | os.PathLike[str],
    frame: str = "means",
    *,
    selection: Texts = None,
    metric: str = "acc",
    over_targets: str = "mean",
    finished_only: bool = False,
    mix_data: bool = False,
    where: Texts = None,
    by: str | None = None,
    target_sets: Texts = None,
    **options: object,
) -> pd.DataFrame:
    """The results of a sweep as a frame, with the numbers of `python -m domainbed.scripts.collect_results`.

    Nothing is printed or written but notes on missing runs, which go to the log.

    Args:
        input_dir: the sweep directory.
        frame: which frame. "means": a row for each cell of the tables, mean and standard error over trials.
            "trials": a row for each trial and target. "records": a row for each checkpoint of each run.
            "paired": a row for each comparison with a baseline on the same trials. Plugins add others;
            `domainbed.results.frames` describes the columns.
        selection: short names of selection methods, such as "iid"; by default those of the sweep, else
            upstream's.
        metric: what to report of the selected steps: "acc", or a name in `domainbed.metrics.METRICS`. It
            changes no selection.
        over_targets: how the results of a trial on several targets become one number: "mean" or "worst".
        finished_only: leave out unfinished runs.
        mix_data: pool runs of one dataset that used different data.
        where: conditions that runs must meet, such as "steps>=300".
        by: name of a setting or hyper-parameter: results for each of its values, which are texts in a last
            column of this name unless the frame has one.
        target_sets: sets of targets such as "0 1" and "2 3"; by default those of the sweep's launch.
        options: options of the report's sections by the names of their flags, which frames of plugins read:
            `baseline="ERM"`, `rope=1.0` and `correction="none"` of "paired".

    Returns: one row for each result. Shares such as accuracies are in %, but for "records", where they are in
        [0, 1]. Missing numbers are NaN.

    Raises:
        UsageError: the directory does not exist, or an argument is unknown or invalid.
        UnknownName: no frame, selection method or metric has the name.
        RunError: there are no records, or no run meets the conditions.
    """
    import pandas as pd

    make = FRAMES[frame]
    get_metric(metric)
    check_choice("over_targets is", over_targets, OVER_TARGETS)
    args = section_args(options)
    sweep = load_sweep(
        Path(input_dir),
        finished_only=finished_only,
        mix_data=mix_data,
        where=_texts(where) or (),
        target_sets=_texts(target_sets),
    )

    def of_runs(part: LoadedSweep) -> pd.DataFrame:
        context = ReportContext(
            records=part.records,
            input_dir=part.directory,
            args=args,
            format="csv",
            manifest=part.manifest,
            runs=part.runs,
            metric=metric,
            over_targets=over_targets,
        )
        return make(context, _texts(selection))

    if by is None:
        return of_runs(sweep)
    frames = {value: of_runs(part) for value, part in sweep.by_value(by).items()}
    for value, each in frames.items():
        if by not in each:
            each[by] = value
    return pd.concat(frames.values(), ignore_index=True)


def report(
    input_dir: str | os.PathLike[str],
    *,
    html: str | os.PathLike[str] | None = None,
    selection: Texts = None,
    metric: str = "acc",
    over_targets: str = "mean",
    finished_only: bool = False,
    mix_data: bool = False,
    where: Texts = None,
    by: str | None = None,
    strict: bool = False,
    format: str = "text",
    output_dir: str | os.PathLike[str] | None = None,
    relaunch_best: str | os.PathLike[str] | None = None,
    relaunch_from: int | None = None,
    ensembles: bool = False,
    target_sets: Texts = None,
    **options: object,
) -> list[Path]:
    """Print the report on a sweep, like `python -m domainbed.scripts.collect_results`, and keep it in files.

    Args:
        input_dir: the sweep directory.
        html: file for one page with all results; by default none is written.
        selection, metric, over_targets, finished_only, mix_data, where, target_sets: as in `collect`.
        by: name of a setting or hyper-parameter; the report has a part, and a page, for each of its values.
        strict: raise RunError at the end if the runs of a method are several experiments.
        format: "text", "latex", "markdown" or "csv".
        output_dir: folder of the copy of what is printed; by default `input_dir`.
        relaunch_best: sweep file (.toml) for the best setting of each algorithm by the first selection
            method; by default none is written.
        relaunch_from: number of the first trial in that file; by default the one after those of this sweep.
        ensembles: also report averages of the trials' predictions and weights.
        options: options of the report's sections by the names of their flags, such as `paired=True`,
            `baseline="ERM"` and `figures="figures"`.

    Returns: the files written: the copy (results.txt, .tex, .md or .csv), the pages, the sweep file. Figures
        are in the folder that was asked for, and are not listed.

    Raises:
        UsageError: the directory does not exist, or an argument is unknown or invalid.
        UnknownName: no selection method or metric has the name.
        RunError: there are no records, no run meets the conditions, a file cannot be written; see also
            `strict`.
    """
    check_choice("format is", format, FORMATS)
    return collect_results(
        Path(input_dir),
        selection=_texts(selection),
        metric=metric,
        over_targets=over_targets,
        finished_only=finished_only,
        mix_data=mix_data,
        where=_texts(where) or (),
        by=by,
        strict=strict,
        format=format,
        output_dir=_path(output_dir),
        html=_path(html),
        relaunch_best=_path(relaunch_best),
        relaunch_from=relaunch_from,
        ensembles=ensembles,
        section_args=section_args(options),
        target_sets=_texts(target_sets),
    )


def _texts(texts: Texts) -> list[str] | None:
    if texts is None:
        return None
    return [texts] if isinstance(texts, str) else list(texts)


def _path(path: str | os.PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)
