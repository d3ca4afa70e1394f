"""Report section `paired`: compares methods with a baseline on the same trials.

python -m domainbed.scripts.collect_results --input_dir DIR --paired --figures DIR/figures
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.printing import print_figure_names, print_lines, print_paragraphs, print_section_table
from domainbed.results.report import ReportContext
from domainbed.results.tables import latex_escape
from domainbed_gs.report import first_screen
from domainbed_gs.report.box_plots import print_box_plots, write_box_plots
from domainbed_gs.report.cautions import cautions
from domainbed_gs.report.comparison import Cell, PairedReport, compare_all
from domainbed_gs.report.statistics import ALPHA

NOTHING = "-"
"""Text of a table cell without a value."""

TARGETS_PER_TABLE = 7
"""Number of target columns that fit beside the method names in one line of text."""


class Table(NamedTuple):
    """Labels of the columns (C,) and rows of C texts."""

    columns: list[str]
    rows: list[list[str]]


class PairedSection:
    """`--paired` and `--figures`; implements `domainbed.results.report.HeadlineSection`."""

    title = "Paired comparisons"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of this section."""
        group = parser.add_argument_group("paired comparison (domainbed_gs)")
        group.add_argument("--paired", action="store_true", help="compare the algorithms on the same trials")
        group.add_argument("--baseline", default="ERM", help="algorithm to compare with (default: ERM)")
        group.add_argument(
            "--figures",
            type=Path,
            metavar="DIR",
            help="write a box plot for each dataset to DIR/DATASET.png",
        )
        group.add_argument(
            "--paired_selection",
            metavar="NAME",
            help="selection method (default: the sweep's own, otherwise iccv2021 if the records contain "
            "accuracies on test splits, otherwise iid)",
        )
        group.add_argument(
            "--bootstrap_seed", type=int, default=0, help="seed of the bootstrap intervals (default: 0)"
        )

    def wanted(self, args: argparse.Namespace) -> bool:
        """Whether tables or figures are requested."""
        return bool(args.paired or args.figures)

    def belongs(self, context: ReportContext) -> bool:
        """Whether the sweep has more than one method."""
        return len(context.records.select("args.algorithm").unique()) > 1

    def write(self, context: ReportContext) -> None:
        """Print the tables, the meaning of their numbers, and cautions.

        In CSV the tables go to stdout and everything else to stderr. A page also has box plots.

        Raises:
            UnknownName: --paired_selection is unknown.
            UsageError: the baseline has no results, or matplotlib is missing.
            RunError: a figure cannot be written.
        """
        args = context.args
        selection = selection_name(context)
        report = report_of(context)
        if args.paired or context.format == "html":
            print_tables(report, selection, context.format, f"Paired comparison with {report.baseline}")
            warnings = cautions(report, context.records, context.manifest)
            print_notes(report, selection, args.bootstrap_seed, warnings, context.format)
        print_figures(report, args.figures, context.format)

    def headline_style(self) -> str:
        """The style of the first screen."""
        return first_screen.style()

    def write_headline(self, context: ReportContext) -> None:
        """Print the answer, the facts that limit it, the forest plot, and tables of accuracies.

        Raises: UnknownName and UsageError as `write`.
        """
        first_screen.print_first_screen(report_of(context), context, METHODS[selection_name(context)].name)


SECTION = PairedSection()


def selection_name(context: ReportContext) -> str:
    """Name of the selection method: --paired_selection, else the sweep's own, else one the records allow."""
    if context.args.paired_selection:
        return str(context.args.paired_selection)
    if context.manifest and context.manifest.selection:
        return context.manifest.selection[0]
    tested = any(re.fullmatch(r"env\d+_test_acc", key) for record in context.records for key in record)
    return "iccv2021" if tested else "iid"


def report_of(context: ReportContext) -> PairedReport:
    """The comparison that the options of `context` ask for.

    Raises:
        UnknownName: --paired_selection is unknown.
        UsageError: the baseline has no results.
    """
    accuracies = compute_accuracies(context.records, METHODS[selection_name(context)])
    return compare_all(accuracies, context.args.baseline)


def print_tables(report: PairedReport, selection: str, format: str, heading: str) -> None:
    """Print accuracies and differences, dataset by dataset; in CSV a single table with all numbers."""
    if format == "csv":
        table = csv_table(report, selection)
        print_section_table(heading, table.columns, table.rows, format)
        return
    if format == "latex":
        print_lines(f"\n\\subsection{{{latex_escape(heading)}}}")
    for dataset in report.datasets:
        cells = report.of(dataset)
        targets = TARGETS_PER_TABLE if format == "text" else len(cells)
        for table in divide(accuracy_table(cells), targets):
            title = f"Dataset: {dataset}, target accuracy (%)"
            print_section_table(title, table.columns, table.rows, format)
        table = difference_table(cells)
        if table.rows:
            title = f"Dataset: {dataset}, difference to {report.baseline} (percentage points)"
            print_section_table(title, table.columns, table.rows, format)


def print_notes(
    report: PairedReport,
    selection: str,
    bootstrap_seed: int,
    warnings: Sequence[str],
    format: str,
    introduction: Sequence[str] = (),
) -> None:
    """Print, below the tables, `introduction`, the meaning of the numbers, and `warnings`."""
    notes = [f"Note: {warning}" for warning in warnings]
    meanings = describe_numbers(report, METHODS[selection].name, bootstrap_seed)
    print_paragraphs([*introduction, *meanings, *notes], format)


def print_figures(report: PairedReport, folder: Path | None, format: str) -> None:
    """Print box plots into a page. In other formats write them to `folder`, if given, and print the names."""
    if format == "html":
        print_box_plots(report)
    elif folder is not None:
        print_figure_names(write_box_plots(report, folder), format)


def accuracy_table(cells: Sequence[Cell]) -> Table:
    """Methods by targets of one dataset as in the paper's Table 1: mean (standard deviation) in %, star."""
    by_method: dict[str, list[str]] = {}
    for cell in cells:
        by_method.setdefault(cell.algorithm, []).append(_mean_and_std(cell))
    targets = list(dict.fromkeys(cell.target_name for cell in cells))
    return Table(["Method", *targets], [[method, *texts] for method, texts in by_method.items()])


def divide(table: Table, most: int) -> list[Table]:
    """Tables with the first column and at most `most` of the other columns each."""
    starts = range(1, len(table.columns), most)
    parts = [[[row[0], *row[i : i + most]] for row in (table.columns, *table.rows)] for i in starts]
    return [Table(columns, rows) for columns, *rows in parts]


def difference_table(cells: Sequence[Cell]) -> Table:
    """Methods of one dataset compared with the baseline: differences in percentage points, and tests."""
    columns = ["Target", "Method", "Difference", "95 % interval", "p", "Holm p", "W/T/L", "Pairs"]
    return Table(columns, [_difference_row(cell) for cell in cells if cell.comparison])


def csv_table(report: PairedReport, selection: str) -> Table:
    """All numbers at full precision, a row for each cell; missing values are empty."""
    rows = [_csv_row(cell, report.baseline, selection) for cell in report.cells]
    texts = [["" if value is None else str(value) for value in row.values()] for row in rows]
    return Table(list(rows[0]) if rows else [], texts)


def describe_numbers(report: PairedReport, selection: str, bootstrap_seed: int) -> list[str]:
    """Meaning of each number in the tables.

    Args:
        report: the comparison.
        selection: the selection method, in words.
        bootstrap_seed: seed of the bootstrap intervals.
    """
    lines = [
        f"Model selection: {selection}.",
        "Accuracy: mean (standard deviation, ddof=1) over all trials of the method, in %.",
        f"Difference: mean of method - {report.baseline} over the trials both have, in percentage points.",
        "95 % interval: exact, of the shift (Hodges-Lehmann) that the signed-rank test is about.",
        "p: two-sided exact Wilcoxon signed-rank test, without zero differences.",
        f"Holm p: corrected in two families, {len(report.primary)} averages and {len(report.secondary)} "
        "comparisons on single targets.",
        f"A star marks Holm p < {ALPHA}, better or worse.",
        f"W/T/L: numbers of trials with the method better than, equal to, worse than {report.baseline}.",
    ]
    return lines


def _mean_and_std(cell: Cell) -> str:
    if cell.mean is None:
        return NOTHING
    std = NOTHING if cell.std is None else f"{100 * cell.std:.2f}"
    return f"{100 * cell.mean:.2f} ({std})" + ("*" if cell.significant else "")


def _difference_row(cell: Cell) -> list[str]:
    comparison = cell.comparison
    if comparison is None or comparison.p is None:
        return [cell.target_name, cell.algorithm, *[NOTHING] * 5, "0"]
    interval = NOTHING
    if comparison.interval is not None:
        low, high = comparison.interval
        interval = f"[{_points(low)}, {_points(high)}]"
    return [
        cell.target_name,
        cell.algorithm,
        _points(comparison.difference),
        interval,
        _p_value(comparison.p) + (" *" if cell.significant else ""),
        NOTHING if cell.holm_p is None else _p_value(cell.holm_p),
        f"{comparison.wins}/{comparison.ties}/{comparison.losses}",
        str(comparison.pairs),
    ]


def _points(share: float) -> str:
    # + 0.0 makes a rounded -0.0 positive.
    return f"{round(100 * share, 2) + 0.0:+.2f}"


def _p_value(p: float) -> str:
    return f"{p:.4f}" if p >= 0.001 else f"{p:.1e}"


def _csv_row(cell: Cell, baseline: str, selection: str) -> dict[str, object]:
    comparison = cell.comparison
    tested = comparison if comparison is not None and comparison.p is not None else None
    low, high = (tested.interval if tested else None) or (None, None)
    return {
        "dataset": cell.dataset,
        "target_env": cell.target,
        "target": cell.target_name,
        "algorithm": cell.algorithm,
        "baseline": baseline,
        "selection": selection,
        "trials": len(cell.trials),
        "mean_percent": _percent(cell.mean),
        "std_percent": _percent(cell.std),
        "pairs": comparison.pairs if comparison else None,
        "difference_points": _percent(tested.difference) if tested else None,
        "low_points": _percent(low),
        "high_points": _percent(high),
        "p": tested.p if tested else None,
        "holm_p": cell.holm_p,
        "wins": tested.wins if tested else None,
        "ties": tested.ties if tested else None,
        "losses": tested.losses if tested else None,
        "significant": cell.significant if tested else None,
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
