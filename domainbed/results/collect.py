"""Collect the results of a sweep: load records, apply selection methods, print the report, write files."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from domainbed.console import Tee
from domainbed.errors import RunError
from domainbed.escaping import visible
from domainbed.files import write_atomic
from domainbed.model_selection import SelectionMethod
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.domainbed_tables import FORMATS
from domainbed.results.experiments import conflicts
from domainbed.results.loading import LoadedSweep, load_sweep
from domainbed.results.notes import notes_on_accuracies
from domainbed.results.page.content import PageContent
from domainbed.results.printing import note_formulas, print_lines
from domainbed.results.report import ReportContext, default_section_args, print_report


def collect_results(
    input_dir: Path,
    *,
    selection: Sequence[str] | None = None,
    finished_only: bool = False,
    mix_data: bool = False,
    format: str = "text",
    output_dir: Path | None = None,
    html: Path | None = None,
    relaunch_best: Path | None = None,
    section_args: argparse.Namespace | None = None,
    command: str = "",
) -> None:
    """Print the report on a sweep to `sys.stdout` and keep a copy of it; notes go to stderr.

    Args:
        input_dir: the sweep directory.
        selection: short names of selection methods; by default those of the sweep, else upstream's.
        finished_only: leave out unfinished runs.
        mix_data: accept runs of one dataset that used different data.
        format: "text", "latex", "markdown" or "csv".
        output_dir: folder of the copy; by default `input_dir`.
        html: file for a page with all results; by default none is written.
        relaunch_best: sweep file (.toml) for the best setting of each algorithm by the first selection
            method; by default none is written.
        section_args: options of the report sections; by default the report has no sections.
        command: the command line that made the report, for the page to show.

    Raises:
        UsageError: `input_dir` does not exist, or the options of a section make no sense.
        UnknownName: no selection method has the name.
        RunError: there are no records, runs used different data, or a file cannot be written.
    """
    sweep = load_sweep(input_dir, finished_only=finished_only, mix_data=mix_data)
    methods = sweep.selection_methods(selection)
    accuracies = {name: compute_accuracies(sweep.records, method) for name, method in methods.items()}
    for name, method in methods.items():
        sweep.runs.explain_missing(accuracies[name], method)
    context = ReportContext(
        records=sweep.records,
        input_dir=input_dir,
        args=default_section_args() if section_args is None else section_args,
        format=format,
        manifest=sweep.manifest,
        runs=sweep.runs,
    )
    copy = io.StringIO()
    with contextlib.redirect_stdout(Tee(copy, controls=format == "csv")):
        print_report(context, accuracies)
    _keep_copy(copy.getvalue(), output_dir or input_dir, f"results{FORMATS[format].suffix}")
    if format == "csv":
        note_formulas(copy.getvalue())
    for note in notes_on_accuracies(accuracies, sweep.records):
        print_lines(f"note: {visible(note)}", to=sys.stderr)
    if html is not None:
        content = PageContent(
            context=replace(context, format="html"),
            methods=methods,
            accuracies=accuracies,
            notes=sweep.notes,
            command=command,
        )
        _write_page(html, content)
    if relaunch_best is not None:
        _write_relaunch(relaunch_best, sweep, methods)


def _keep_copy(report: str, folder: Path, name: str) -> None:
    """Write the copy of the report. If that fails, only warn, since stdout has the report."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, report)
    except OSError as error:
        reason = error.strerror or error
        print_lines(
            f"warning: cannot write {folder / name} ({reason}); use --output_dir to choose another folder",
            to=sys.stderr,
        )


def _write_page(path: Path, content: PageContent) -> None:
    from domainbed.results.page.html_page import render_page

    page = render_page(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page)
    except OSError as error:
        raise RunError(f"cannot write the page to {path}: {error.strerror or error}") from None
    print_lines(f"Page: {path}", to=sys.stderr)


def _write_relaunch(path: Path, sweep: LoadedSweep, methods: Mapping[str, type[SelectionMethod]]) -> None:
    """Write the sweep file of the best settings by the first of `methods`, and print how to launch it."""
    from domainbed.results.hparam_search import ranked_candidates
    from domainbed.results.relaunch import OPTION, write_sweep_of_best

    for conflict in conflicts(sweep.records):
        raise RunError(f"{OPTION}: {conflict}")
    name, method = next(iter(methods.items()))
    candidates = ranked_candidates(sweep.records, method)
    commands = write_sweep_of_best(path, candidates, selection=name, method=method, sweep_dir=sweep.directory)
    lines = [f"Wrote the best settings to {path}. To run them:", *(f"    {each}" for each in commands)]
    print_lines(*lines, to=sys.stderr)
