"""Print the parts of a report (tables, sentences, figures) to `sys.stdout`, in each format."""

from __future__ import annotations

import csv
import io
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from domainbed.console import shortened_list
from domainbed.escaping import html_escape, is_formula, latex_escape, markdown_escape, visible
from domainbed.results.tables import html_table, render_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT_WIDTH = 118
"""Characters in a line of a paragraph."""


def print_lines(*lines: str, to: TextIO | None = None) -> None:
    """Print lines to `to`, by default the current `sys.stdout`."""
    print(*lines, sep="\n", file=to)


def print_section_table(title: str, columns: list[str], rows: list[list[str]], format: str) -> None:
    """Print a table below the DomainBed tables (see `tables.render_table`).

    In CSV an empty line comes first, since the table above has other columns.
    """
    print_lines(*([""] if format == "csv" else []), render_table(title, columns, rows, format))


def print_paragraphs(lines: Sequence[str], format: str) -> None:
    """Print sentences below a table, in CSV to stderr."""
    if format == "csv":
        print_lines(*map(visible, lines), to=sys.stderr)
    elif format == "latex":
        print_lines("", *(f"{latex_escape(line)}\n" for line in lines))
    elif format == "markdown":
        print_lines("", *(f"- {markdown_escape(line, starts_line=True)}" for line in lines))
    elif format == "html":
        print_lines("<ul>", *(f"<li>{html_escape(line)}</li>" for line in lines), "</ul>")
    else:
        print_lines(
            "", *(textwrap.fill(visible(line), TEXT_WIDTH, subsequent_indent="    ") for line in lines)
        )


def print_footer(line: str, format: str) -> None:
    """Print the sentence under a table.

    In text and CSV it goes to stderr, so that stdout stays equal to upstream's, or pure data.
    """
    if format == "latex":
        print_lines(f"\n\\noindent{{\\footnotesize {latex_escape(line)}}}")
    elif format == "markdown":
        print_lines("", f"*{markdown_escape(line, in_emphasis=True)}*")
    elif format == "html":
        print_lines(f'<p class="footer">{html_escape(line)}</p>')
    else:
        print_lines(*wrapped_footer(line), to=sys.stderr)


def wrapped_footer(line: str) -> list[str]:
    """The lines of a footer in text."""
    return textwrap.wrap(
        visible(line), TEXT_WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )


def note_formulas(text: str) -> None:
    """Note on stderr the cells of a CSV file that a spreadsheet would calculate, in one line if any."""
    rows = csv.reader(io.StringIO(text, newline=""))
    note_formula_cells(visible(cell) for row in rows for cell in row if is_formula(cell))


def note_formula_cells(formulas: Iterable[str]) -> None:
    """Note on stderr, in one line, cells of a CSV file that a spreadsheet would calculate, if any."""
    cells = dict.fromkeys(formulas)
    if cells:
        print_lines(
            f"note: a spreadsheet would calculate these cells: {shortened_list(list(cells), 5)}; import the "
            "CSV file with all columns as text",
            to=sys.stderr,
        )


def print_figure_names(paths: Sequence[Path], format: str) -> None:
    """Print the paths of figures, in CSV to stderr."""
    prefix = {"latex": "% ", "markdown": "- "}.get(format, "")
    escape = markdown_escape if format == "markdown" else visible
    lines = [f"{prefix}Figure: {escape(str(path))}" for path in paths]
    print_lines(*lines, to=sys.stderr if format == "csv" else None)


@dataclass(frozen=True)
class FigureData:
    """The numbers that figures show, as a table.

    Attributes:
        columns: labels of the columns.
        rows: one list of texts for each row.
    """

    columns: list[str]
    rows: list[list[str]]


def print_panels(
    title: str, panels: Sequence[tuple[str, Figure]], caption: str, data: FigureData | None = None
) -> None:
    """Print figures into a page, side by side if the page is wide enough. An empty list prints nothing.

    Args:
        title: heading above the figures, unique on the page.
        panels: (name, figure) of each panel. Names are unique among the panels.
        caption: sentences below the figures.
        data: the numbers in the figures, for a folded table below them.
    """
    from domainbed.results.plots import inline_svg

    if panels:
        drawn = [f"<div>{inline_svg(figure, f'{title}: {name}')}</div>" for name, figure in panels]
        print_lines(f"<h3>{html_escape(title)}</h3>", '<figure><div class="panels">', *drawn, "</div>")
        print_lines(f"<figcaption>{html_escape(caption)}</figcaption></figure>")
        if data is not None:
            print_figure_data(title, data)


def print_figure_data(title: str, data: FigureData) -> None:
    """Print the numbers of the figures called `title` into a page, folded, and only for a screen."""
    table = html_table(f"Figure data: {title}", data.columns, data.rows)
    print_lines('<details class="data screen"><summary>Data of the figure</summary>', table, "</details>")
