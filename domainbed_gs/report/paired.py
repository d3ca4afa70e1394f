"""The section of `collect_results` that compares methods with a baseline on the same trials.

python -m domainbed.scripts.collect_results --input_dir DIR --paired --figures DIR/figures
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute
from domainbed.results.report import ReportContext
from domainbed.results.tables import escape
from domainbed.results.writing import print_figure_names, print_lines, print_paragraphs, print_table
from domainbed_gs.report import paired_tables
from domainbed_gs.report.box_rows import print_boxes
from domainbed_gs.report.cautions import notes
from domainbed_gs.report.comparison import PairedReport, compare_all
from domainbed_gs.report.figures import draw

TARGETS_ABREAST = 7
"""Columns of targets that fit beside the methods' names in a line of text."""


class PairedSection:
    """`--paired` and `--figures`; a `domainbed.results.report.PageSection`."""

    title = "Paired comparisons"

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

    def belongs(self, context: ReportContext) -> bool:
        """Whether there is something to compare."""
        return len(context.records.select("args.algorithm").unique()) > 1

    def write(self, context: ReportContext) -> None:
        """Print the tables, what their numbers are, and what to know before believing them.

        In CSV only the tables go to stdout; the rest goes to stderr. A page has box plots too.

        Raises:
            UnknownName: of --paired_selection.
            UsageError: the baseline has no results, or matplotlib is missing.
            RunError: a figure cannot be written.
        """
        args = context.args
        selection = args.paired_selection or default_selection(context)
        method = METHODS[selection]
        report = compare_all(compute(context.records, method), args.baseline, args.bootstrap_seed)
        if args.paired or context.format == "html":
            print_tables(report, selection, context.format, f"Paired comparison with {report.baseline}")
            about = paired_tables.footer(report, method.name, args.bootstrap_seed)
            warnings = [f"Note: {note}" for note in notes(report, context.records, context.manifest)]
            print_paragraphs(about + warnings, context.format)
        if context.format == "html":
            print_boxes(report)
        elif args.figures:
            print_figure_names(draw(report, args.figures), context.format)


SECTION = PairedSection()


def default_selection(context: ReportContext) -> str:
    """Name of the selection that the sweep was launched to be read with, or that its records allow."""
    if context.manifest and context.manifest.selection:
        return context.manifest.selection[0]
    tested = any(re.fullmatch(r"env\d+_test_acc", key) for record in context.records for key in record)
    return "iccv2021" if tested else "iid"


def print_tables(report: PairedReport, selection: str, format: str, heading: str) -> None:
    """Print accuracies and differences, dataset by dataset; in CSV one table of everything."""
    if format == "csv":
        # The tables above have other columns: an empty line parts them.
        table = paired_tables.everything(report, selection)
        print_table(heading, *table, format)
        return
    if format == "latex":
        print_lines(f"\n\\subsection{{{escape(heading)}}}")
    for dataset in report.datasets:
        cells = report.of(dataset)
        abreast = TARGETS_ABREAST if format == "text" else len(cells)
        for table in paired_tables.side_by_side(paired_tables.accuracies(cells), abreast):
            print_table(f"Dataset: {dataset}, target accuracy (%)", *table, format)
        table = paired_tables.differences(cells)
        if table.rows:
            title = f"Dataset: {dataset}, difference to {report.baseline} (percentage points)"
            print_table(title, *table, format)
