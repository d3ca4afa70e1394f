"""The DomainBed tables as a whole document: text, LaTeX, Markdown, CSV or HTML, printed to `sys.stdout`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass

from domainbed.results.accuracies import Accuracies
from domainbed.results.main_tables import main_tables, tidy_rows
from domainbed.results.tables import escape, format_mean, latex_width, print_table, render
from domainbed.results.writing import print_footer


@dataclass(frozen=True)
class Document:
    """How one format is written.

    Attributes:
        suffix: suffix of the report's file.
        begin: prints what comes first, given the number of records.
        method: prints the tables of one selection method, given its short name and its results.
        end: prints what comes last.
    """

    suffix: str
    begin: Callable[[int], None]
    method: Callable[[str, Accuracies], None]
    end: Callable[[], None]


def _write(*lines: str) -> None:
    print(*lines, sep="\n")  # noqa: T201 - the job of this module


def print_tables(accuracies: Accuracies, latex: bool) -> None:
    """Print the tables of one selection method as upstream does, in text or LaTeX (CLI spec 7.4).

    LaTeX columns are widened where a label would lose its closing brace. What the numbers are stands under
    each table.
    """
    for table in main_tables(accuracies, latex):
        width = table.colwidth
        if latex:
            _write("", f"\\subsubsection{{{escape(table.subject)}}}")
            width = latex_width(width, table.rows, table.columns)
        print_table(table.cells, table.title, table.rows, table.columns, width, latex)
        print_footer(table.footer, "latex" if latex else "text")


def _text_begin(records: int) -> None:
    _write(f"Total records: {records}")


def _text_method(short_name: str, accuracies: Accuracies) -> None:
    print_tables(accuracies, latex=False)


def _latex_begin(records: int) -> None:
    _write(
        "\\documentclass{article}",
        "\\usepackage{booktabs}",
        "\\usepackage{adjustbox}",
        "\\begin{document}",
        "\\section{Full DomainBed results}",
        f"% Total records: {records}",
    )


def _latex_method(short_name: str, accuracies: Accuracies) -> None:
    _write("", f"\\subsection{{Model selection: {escape(accuracies.method)}}}")
    print_tables(accuracies, latex=True)


def _latex_end() -> None:
    _write("\\end{document}")


def print_rendered(accuracies: Accuracies, format: str) -> None:
    """Print the tables of one selection method as "markdown" or "html"."""
    for table in main_tables(accuracies):
        rows = [[label, *cells] for label, cells in zip(table.rows, table.cells, strict=True)]
        _write(render(table.title, table.columns, rows, format))
        print_footer(table.footer, format)


def _markdown_method(short_name: str, accuracies: Accuracies) -> None:
    print_rendered(accuracies, "markdown")


def _csv_begin(records: int) -> None:
    _write("selection,dataset,algorithm,environment,mean,stderr,n")


def _csv_method(short_name: str, accuracies: Accuracies) -> None:
    """One line a cell: percent at full precision; mean and stderr are empty where n is 0."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for dataset, algorithm, environment, trials in tidy_rows(accuracies):
        mean, err, _ = format_mean(trials, latex=False)
        writer.writerow([short_name, dataset, algorithm, environment, mean, err, len(trials)])
    for footer in dict.fromkeys(table.footer for table in main_tables(accuracies)):
        print_footer(f"{short_name}: {footer}", "csv")


def _nothing() -> None:
    """Most formats need no end."""


DOCUMENTS = {
    "text": Document(".txt", _text_begin, _text_method, _nothing),
    "latex": Document(".tex", _latex_begin, _latex_method, _latex_end),
    "markdown": Document(".md", _text_begin, _markdown_method, _nothing),
    "csv": Document(".csv", _csv_begin, _csv_method, _nothing),
}
"""Format of a report -> how it is written."""
