"""The section of `collect_results` that compares methods with a baseline on the same trials.

python -m domainbed.scripts.collect_results --input_dir DIR --paired --figures DIR/figures
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path
from typing import TextIO

from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute
from domainbed.results.report import ReportContext
from domainbed.results.tables import escape, render
from domainbed_gs import paired_tables
from domainbed_gs.figures import draw
from domainbed_gs.pair_checks import notes
from domainbed_gs.pairs import PairedReport, compare_all

WIDTH = 118
"""Of paragraphs in text."""

TARGETS_ABREAST = 7
"""Columns of targets that fit beside the methods' names in a line of text."""


class PairedSection:
    """`--paired` and `--figures`; a `domainbed.results.report.ReportSection`."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of this section."""
        group = parser.add_argument_group("paired comparison (domainbed_gs)")
        group.add_argument("--paired", action="store_true", help="compare the algorithms on the same trials")
        group.add_argument("--baseline", default="ERM", help="algorithm to compare with (default: ERM)")
        group.add_argument(
            "--figures", type=Path, metavar="DIR", help="write a box plot a dataset as DIR/NAME.png"
        )
        group.add_argument(
            "--paired_selection",
            metavar="NAME",
            help="selection method; by default the sweep's own, else iccv2021 where the records have "
            "accuracies on test splits, else iid",
        )
        group.add_argument(
            "--bootstrap_seed", type=int, default=0, help="seed of the bootstrap intervals (default: 0)"
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether tables or figures are asked for."""
        return bool(args.paired or args.figures)

    def write(self, context: ReportContext) -> None:
        """Print the tables, what their numbers are, and what to know before believing them.

        In CSV only the tables go to stdout; the rest goes to stderr.

        Raises:
            UnknownName: of --paired_selection.
            UsageError: the baseline has no results, or matplotlib is missing.
            RunError: a figure cannot be written.
        """
        args = context.args
        selection = args.paired_selection or _default_selection(context)
        method = METHODS[selection]
        report = compare_all(compute(context.records, method), args.baseline, args.bootstrap_seed)
        if args.paired:
            _print_tables(report, selection, context.format)
            about = paired_tables.footer(report, method.name, args.bootstrap_seed)
            warnings = [f"Note: {note}" for note in notes(report, context.records, context.manifest)]
            _print_paragraphs(about + warnings, context.format)
        if args.figures:
            _print_figures(draw(report, args.figures), context.format)


SECTION = PairedSection()


def _default_selection(context: ReportContext) -> str:
    """What the sweep was launched to be read with, or what its records allow."""
    if context.manifest and context.manifest.selection:
        return context.manifest.selection[0]
    tested = any(re.fullmatch(r"env\d+_test_acc", key) for record in context.records for key in record)
    return "iccv2021" if tested else "iid"


def _print_tables(report: PairedReport, selection: str, format: str) -> None:
    heading = f"Paired comparison with {report.baseline}"
    if format == "csv":
        # The tables above have other columns: an empty line parts them.
        table = paired_tables.everything(report, selection)
        _print("", render(heading, table.columns, table.rows, format))
        return
    if format == "latex":
        _print("", f"\\subsection{{{escape(heading)}}}")
    for dataset in report.datasets:
        cells = report.of(dataset)
        abreast = TARGETS_ABREAST if format == "text" else len(cells)
        for table in paired_tables.side_by_side(paired_tables.accuracies(cells), abreast):
            _print(render(f"Dataset: {dataset}, target accuracy (%)", table.columns, table.rows, format))
        table = paired_tables.differences(cells)
        if table.rows:
            title = f"Dataset: {dataset}, difference to {report.baseline} (percentage points)"
            _print(render(title, table.columns, table.rows, format))


def _print_paragraphs(lines: list[str], format: str) -> None:
    if format == "csv":
        _print(*lines, to=sys.stderr)
    elif format == "latex":
        # In text, TeX's default font has an upside-down exclamation mark in the place of "<".
        _print("", *(escape(line).replace("<", "$<$") + "\n" for line in lines))
    elif format == "markdown":
        _print("", *(f"- {line}" for line in lines))
    else:
        _print("", *(textwrap.fill(line, WIDTH, subsequent_indent="    ") for line in lines))


def _print_figures(paths: list[Path], format: str) -> None:
    prefix = {"latex": "% ", "markdown": "- "}.get(format, "")
    _print(*(f"{prefix}Figure: {path}" for path in paths), to=sys.stderr if format == "csv" else None)


def _print(*lines: str, to: TextIO | None = None) -> None:
    print(*lines, sep="\n", file=to)  # None is the current stdout
