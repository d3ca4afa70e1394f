"""Sentences and figures beside tables, in every format, printed to `sys.stdout`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from domainbed.results.tables import escape, html_text, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 118
"""Of paragraphs in text."""


def print_lines(*lines: str, to: TextIO | None = None) -> None:
    """Print lines to the current stdout, or to another stream."""
    print(*lines, sep="\n", file=to)


def print_table(title: str, columns: list[str], rows: list[list[str]], format: str) -> None:
    """Print one table (`tables.render`) below others; in CSV, where those have other columns, after a gap."""
    print_lines(*([""] if format == "csv" else []), render(title, columns, rows, format))


def print_paragraphs(lines: Sequence[str], format: str) -> None:
    """Print sentences below tables; in CSV to stderr."""
    if format == "csv":
        print_lines(*lines, to=sys.stderr)
    elif format == "latex":
        print_lines("", *(f"{latex_text(line)}\n" for line in lines))
    elif format == "markdown":
        print_lines("", *(f"- {line}" for line in lines))
    elif format == "html":
        print_lines("<ul>", *(f"<li>{html_text(line)}</li>" for line in lines), "</ul>")
    else:
        print_lines("", *(textwrap.fill(line, WIDTH, subsequent_indent="    ") for line in lines))


def print_footer(line: str, format: str) -> None:
    """Print the sentence under a table.

    In text and CSV it goes to stderr: stdout is upstream's there, or data.
    """
    if format == "latex":
        print_lines(f"\n\\noindent{{\\footnotesize {latex_text(line)}}}")
    elif format == "markdown":
        print_lines("", f"*{line}*")
    elif format == "html":
        print_lines(f'<p class="footer">{html_text(line)}</p>')
    else:
        print_lines(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="  "), to=sys.stderr)


def print_figure_names(paths: Sequence[Path], format: str) -> None:
    """Say where figures are."""
    prefix = {"latex": "% ", "markdown": "- "}.get(format, "")
    print_lines(*(f"{prefix}Figure: {path}" for path in paths), to=sys.stderr if format == "csv" else None)


def print_panels(title: str, panels: Sequence[tuple[str, Figure]], caption: str) -> None:
    """Print figures into a page, side by side where there is room; nothing where there are none.

    Args:
        title: what they are; no other group of figures of the page may have it.
        panels: what each shows, different for each, and the figure.
        caption: how to read them.
    """
    from domainbed.results.plots import inline_svg

    if panels:
        drawn = [f"<div>{inline_svg(figure, f'{title}: {name}')}</div>" for name, figure in panels]
        print_lines(f"<h3>{html_text(title)}</h3>", '<figure><div class="panels">', *drawn, "</div>")
        print_lines(f"<figcaption>{html_text(caption)}</figcaption></figure>")


def latex_text(line: str) -> str:
    """`line` for LaTeX's running text: TeX's default font has an upside-down "!" in the place of "<"."""
    return escape(line).replace("<", "$<$").replace(">", "$>$")
