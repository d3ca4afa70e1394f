"""The section of `collect_results` on the control experiment.

python -m domainbed.scripts.collect_results --input_dir DIR --control --control_figures DIR/figures
"""

from __future__ import annotations

import argparse
from pathlib import Path

from domainbed.model_selection import METHODS
from domainbed.results.report import ReportContext
from domainbed.results.writing import print_figure_names, print_paragraphs
from domainbed_gs.report import paired_tables
from domainbed_gs.report.box_rows import print_boxes
from domainbed_gs.report.control import BASELINE, compare_conditions, with_conditions
from domainbed_gs.report.figures import draw
from domainbed_gs.report.paired import default_selection, print_tables

ABOUT = (
    "Methods in these tables are conditions (--grouping) of the algorithm that stands beside the dataset. "
    "What an update sees as environments is: domain: one minibatch from each source; single_domain: all from "
    "one source, drawn for each update; pooled: the samples of domain, dealt out at random."
)


class ControlSection:
    """`--control` and `--control_figures`; a `domainbed.results.report.PageSection`."""

    title = "Control experiment"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of this section."""
        group = parser.add_argument_group("control experiment (domainbed_gs)")
        group.add_argument(
            "--control", action="store_true", help="compare the runs of each algorithm by their --grouping"
        )
        group.add_argument(
            "--control_figures", type=Path, metavar="DIR", help="write a box plot a dataset and algorithm"
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether tables or figures are asked for."""
        return bool(args.control or args.control_figures)

    def belongs(self, context: ReportContext) -> bool:
        """Whether an algorithm ran under several conditions."""
        return bool(with_conditions(context.records))

    def write(self, context: ReportContext) -> None:
        """Print the tables, what their numbers are, and what to know before believing them.

        Raises:
            UnknownName: of --paired_selection.
            UsageError: no algorithm ran under two conditions, or matplotlib is missing.
            RunError: a figure cannot be written.
        """
        args = context.args
        selection = args.paired_selection or default_selection(context)
        method = METHODS[selection]
        report, notes = compare_conditions(context.records, context.manifest, method, args.bootstrap_seed)
        if args.control or context.format == "html":
            heading = f"Control experiment: conditions compared with {BASELINE}"
            print_tables(report, selection, context.format, heading)
            about = paired_tables.footer(report, method.name, args.bootstrap_seed)
            print_paragraphs([ABOUT, *about, *(f"Note: {note}" for note in notes)], context.format)
        if context.format == "html":
            print_boxes(report)
        elif args.control_figures:
            print_figure_names(draw(report, args.control_figures), context.format)


SECTION = ControlSection()
