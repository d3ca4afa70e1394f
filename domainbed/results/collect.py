"""Collect the results of a sweep: load records, apply selection methods, print the report, write files."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from domainbed.errors import RunError, UsageError, check_choice
from domainbed.escaping import encodable, visible
from domainbed.files import write_atomic
from domainbed.metrics import get_metric
from domainbed.model_selection import SelectionMethod
from domainbed.results.accuracies import OVER_TARGETS
from domainbed.results.domainbed_tables import FORMATS
from domainbed.results.ensembles import ModelPredictions, ensemble_tables
from domainbed.results.experiments import conflicts
from domainbed.results.loading import LoadedSweep, load_sweep
from domainbed.results.notes import notes_on_accuracies
from domainbed.results.page.content import PageContent
from domainbed.results.pooling_notes import notes_on_pooling
from domainbed.results.printing import note_formulas, print_lines
from domainbed.results.report import ReportContext, ReportPart, default_section_args, print_report


def collect_results(
    input_dir: Path,
    *,
    selection: Sequence[str] | None = None,
    metric: str = "acc",
    over_targets: str = "mean",
    finished_only: bool = False,
    mix_data: bool = False,
    where: Sequence[str] = (),
    by: str | None = None,
    strict: bool = False,
    format: str = "text",
    output_dir: Path | None = None,
    html: Path | None = None,
    relaunch_best: Path | None = None,
    relaunch_from: int | None = None,
    ensembles: bool = False,
    section_args: argparse.Namespace | None = None,
    command: str = "",
    target_sets: Sequence[str] | None = None,
) -> list[Path]:
    """Print the report on a sweep to `sys.stdout` and keep a copy of it; notes go to stderr.

    Args:
        input_dir: the sweep directory.
        selection: short names of selection methods; by default those of the sweep, else upstream's.
        metric: what to report of the selected steps: "acc", or a name in `domainbed.metrics.METRICS`. It
            changes no selection.
        over_targets: how the results of a trial on several targets become one number: "mean" or "worst".
        finished_only: leave out unfinished runs.
        mix_data: pool runs of one dataset that used different data.
        where: conditions that runs must meet, such as "steps>=300".
        by: name of a setting or hyper-parameter; the report has a part for each of its values.
        strict: raise RunError at the end if the runs of a method are several experiments.
        format: "text", "latex", "markdown" or "csv".
        output_dir: folder of the copy; by default `input_dir`.
        html: file for a page with all results; by default none is written. With `by`, each value has a page
            of its own, whose name ends with the setting and the value.
        relaunch_best: sweep file (.toml) for the best setting of each algorithm by the first selection
            method; by default none is written.
        relaunch_from: number of the first trial in that file; by default the one after those of this sweep.
        ensembles: also report averages of the trials' predictions and weights.
        section_args: options of the report sections; by default the report has no sections.
        command: the command line that made the report, for the page to show.
        target_sets: sets of targets such as "0 1" and "2 3"; by default those of the sweep's launch.

    Returns: the files written: the copy unless that failed, the pages, the sweep file. Figures are not among
        them.

    Raises:
        UsageError: `input_dir` does not exist, `html` is no file, a condition or `by` names no setting, or
            the options of a section make no sense.
        UnknownName: no selection method, or no metric, has the name.
        RunError: there are no records, no run meets the conditions, a file cannot be written; see also
            `strict`.
        BrokenPipeError: the reader of stdout has closed the pipe. All files have been written.
    """
    if html is not None:
        check_page_path(html)
    if by is not None and relaunch_best is not None:
        raise UsageError("--relaunch_best needs one experiment; choose it with --where, without --by")
    get_metric(metric)
    check_choice("--over_targets is", over_targets, OVER_TARGETS)
    sweep = load_sweep(
        input_dir,
        finished_only=finished_only,
        mix_data=mix_data,
        where=where,
        target_sets=target_sets,
    )
    methods = sweep.selection_methods(selection)
    args = default_section_args() if section_args is None else section_args
    parts = [
        _part(each, methods, args, format, by or "", value, ensembles, metric, over_targets)
        for value, each in (sweep.by_value(by) if by is not None else {"": sweep}).items()
    ]
    copy = io.StringIO()
    try:
        with contextlib.redirect_stdout(copy):
            print_report(parts)
    finally:
        report = encodable(copy.getvalue())
        has_reader = _print(report)
    written = _keep_copy(report, output_dir or input_dir, f"results{FORMATS[format].suffix}")
    if format == "csv":
        note_formulas(report)
    for note in dict.fromkeys(note for part in parts for note in _notes(part)):
        print_lines(f"note: {visible(note)}", to=sys.stderr)
    if html is not None:
        for part in parts:
            context = replace(part.context, format="html")
            notes = (*sweep.notes, *_pooling(part))
            content = PageContent(context, methods, part.accuracies, notes, command, part.ensembles)
            written.append(_page_of(html, part))
            _write_page(written[-1], content)
    if relaunch_best is not None:
        _write_relaunch(relaunch_best, sweep, methods, relaunch_from)
        written.append(relaunch_best)
    several = [conflict for part in parts for conflict in conflicts(part.context.records)]
    if strict and several:
        raise RunError(f"--strict: {'. '.join(map(str, several))}")
    if not has_reader:
        raise BrokenPipeError
    return written


def _part(
    sweep: LoadedSweep,
    methods: Mapping[str, type[SelectionMethod]],
    args: argparse.Namespace,
    format: str,
    setting: str,
    value: str,
    ensembles: bool,
    metric: str,
    over_targets: str,
) -> ReportPart:
    """The part of the report on the runs of `sweep`, which have this value of a setting."""
    context = ReportContext(
        records=sweep.records,
        input_dir=sweep.directory,
        args=args,
        format=format,
        manifest=sweep.manifest,
        runs=sweep.runs,
        metric=metric,
        over_targets=over_targets,
    )
    accuracies = {name: context.accuracies(name) for name in methods}
    for name, method in methods.items():
        sweep.runs.explain_missing(accuracies[name], method)
    tables = {}
    if ensembles:
        models = ModelPredictions()
        for name, method in methods.items():
            tables[name] = ensemble_tables(sweep.directory, sweep.records, accuracies[name], method, models)
    return ReportPart(context, accuracies, setting, value, tables)


def _pooling(part: ReportPart) -> list[str]:
    heading = f"{part.setting}={part.value}: " if part.setting else ""
    return [f"{heading}{note}" for note in notes_on_pooling(part.context.records)]


def _notes(part: ReportPart) -> list[str]:
    """Notes on the numbers of a part."""
    heading = f"{part.setting}={part.value}: " if part.setting else ""
    notes = notes_on_accuracies(part.accuracies, part.context.records)
    return [*_pooling(part), *(f"{heading}{note}" for note in notes)]


def _page_of(path: Path, part: ReportPart) -> Path:
    """Path of the page of a part, such as report-steps-300.html."""
    suffix = re.sub(r"[^\w.+-]+", "_", f"-{part.setting}-{part.value}") if part.setting else ""
    return path.with_name(f"{path.stem}{suffix}{path.suffix}")


def check_page_path(path: Path) -> None:
    """Raise UsageError if `path` is a folder, a pipe or a device: a page is written to a file, as a whole."""
    place = Path(os.path.abspath(path))  # noqa: PTH100 - /dev/stdout must not be resolved
    is_special = place.is_relative_to("/dev") or place.is_relative_to("/proc")
    if is_special or (path.exists() and not path.is_file()):
        raise UsageError(f"--html {path} is not a file; name one, and print it with cat")


def _print(report: str) -> bool:
    """Print the report, and return False if stdout is a pipe that its reader, such as `head`, has closed."""
    try:
        sys.stdout.write(report)
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    return True


def _keep_copy(report: str, folder: Path, name: str) -> list[Path]:
    """Write the copy of the report and return its path. If that fails, only warn: stdout has the report."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, report)
    except OSError as error:
        reason = error.strerror or error
        print_lines(
            f"warning: cannot write {folder / name} ({reason}); use --output_dir to choose another folder",
            to=sys.stderr,
        )
        return []
    return [folder / name]


def _write_page(path: Path, content: PageContent) -> None:
    from domainbed.results.page.html_page import render_page

    page = render_page(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page)
    except OSError as error:
        raise RunError(f"cannot write the page to {path}: {error.strerror or error}") from None
    print_lines(f"Page: {path}", to=sys.stderr)


def _write_relaunch(
    path: Path,
    sweep: LoadedSweep,
    methods: Mapping[str, type[SelectionMethod]],
    trials_from: int | None,
) -> None:
    """Write the sweep file of the best settings by the first of `methods`, and print how to launch it."""
    from domainbed.results.hparam_search import ranked_candidates
    from domainbed.results.relaunch import OPTION, write_sweep_of_best

    for conflict in conflicts(sweep.records):
        raise RunError(f"{OPTION}: {conflict}")
    name, method = next(iter(methods.items()))
    candidates = ranked_candidates(sweep.records, method)
    commands = write_sweep_of_best(
        path, candidates, selection=name, method=method, sweep_dir=sweep.directory, trials_from=trials_from
    )
    lines = [f"Wrote the best settings to {path}. To run them:", *(f"    {each}" for each in commands)]
    print_lines(*lines, to=sys.stderr)
