"""Tables as text, LaTeX, Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence

import numpy as np

from domainbed.console import format_row, print_row

_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\\": "\\textbackslash{}"}
)

_NUMBER = re.compile(r"\[?[+\-]?\d.*|[-X]", re.DOTALL)
"""A cell that is a number, several, or none."""

LONG = 40
"""Characters of a cell from which on it is a sentence."""

_LATEX_END = "\\bottomrule\n\\end{tabular}}\n\\end{center}"


def format_mean(data: Iterable[float], latex: bool) -> tuple[float | None, float | None, str]:
    """Mean and standard error, in percent, of fractions, and both as text; (None, None, "X") of none.

    The standard error is that of the population's standard deviation (ddof 0), as upstream has it.
    """
    values = list(data)
    if not values:
        return None, None, "X"
    mean = 100 * float(np.mean(values))
    err = 100 * float(np.std(values / np.sqrt(len(values))))
    sign = "$\\pm$" if latex else "+/-"
    return mean, err, f"{mean:.1f} {sign} {err:.1f}"


def print_table(
    table: Sequence[Sequence[object]],
    header_text: str,
    row_labels: Sequence[str],
    col_labels: Sequence[str],
    colwidth: int = 10,
    latex: bool = True,
) -> None:
    """Print rows of cells with their labels as upstream does (CLI spec 7.4).

    Every cell is cut to `colwidth`. In LaTeX the labels are escaped, and `header_text` is not shown.
    """
    if latex:
        print(_latex_begin(len(table[0])))  # noqa: T201 - its job
        print_row(bold(col_labels), colwidth, latex)
        print("\\midrule")  # noqa: T201
    else:
        print(f"\n-------- {header_text}")  # noqa: T201
        print_row(col_labels, colwidth)
    for label, row in zip(row_labels, table, strict=True):
        print_row([escape(label) if latex else label, *row], colwidth, latex)
    if latex:
        print(_LATEX_END)  # noqa: T201


def render(title: str, columns: list[str], rows: list[list[str]], format: str, colwidth: int = 0) -> str:
    """One table of plain-text cells as "text", "latex" (booktabs, escaped), "markdown", "csv" or "html".

    The string ends without a newline; it begins with an empty line except in CSV, where the first column,
    `table`, holds the title. In text, columns are `colwidth` wide (longer cells are cut), or as wide as
    needed if it is 0; LaTeX is never cut, and has, as HTML has, a plus-minus sign for "+/-".
    """
    if format == "html":
        return _html(title, columns, rows)
    if format == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([["table", *columns], *([title, *row] for row in rows)])
        return text.getvalue().removesuffix("\n")
    if format == "markdown":
        rule = ["---"] + ["---:"] * (len(columns) - 1)
        lines = [[cell.replace("|", "\\|") for cell in row] for row in (columns, *rows)]
        table = [f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:])]
        return "\n".join(["", f"### {title}", "", *table])
    latex = format == "latex"
    lines = [bold(columns), *([escape(cell) for cell in row] for row in rows)] if latex else [columns, *rows]
    longest = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths = [max(colwidth, width) if latex else colwidth or width for width in longest]
    header, *body = [format_row(line, widths, latex) for line in lines]
    if latex:
        caption = f"\n\\subsubsection{{{escape(title)}}}"
        return "\n".join([caption, _latex_begin(len(columns) - 1), header, "\\midrule", *body, _LATEX_END])
    return "\n".join(["", f"-------- {title}", header, *body])


def _html(title: str, columns: list[str], rows: list[list[str]]) -> str:
    """A heading and a table in a box that scrolls where it is narrower than the table."""
    kinds = [""] + [_kind(column) for column in list(zip(*rows, strict=True))[1:]]
    head = "".join(
        f'<th scope="col"{kind}>{html_text(label)}</th>' for kind, label in zip(kinds, columns, strict=True)
    )
    body = "\n".join(f"<tr>{_html_cells(row, kinds)}</tr>" for row in rows)
    about = html_text(title)
    return (
        f'<h3>{about}</h3>\n<div class="table" role="region" aria-label="{about}" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _kind(cells: Sequence[str]) -> str:
    """The class, as an attribute, of a column of numbers or of sentences."""
    if all(_NUMBER.fullmatch(cell) for cell in cells):
        return ' class="number"'
    return ' class="long"' if max(map(len, cells)) > LONG else ""


def _html_cells(row: list[str], kinds: list[str]) -> str:
    cells = [f"<td{kind}>{html_text(cell)}</td>" for kind, cell in zip(kinds[1:], row[1:], strict=True)]
    return f'<th scope="row">{html_text(row[0])}</th>' + "".join(cells)


def html_text(text: str) -> str:
    """`text` for HTML: escaped, with "+/-" as a plus-minus sign."""
    return html.escape(text.replace(" +/- ", " ± "))


def escape(text: str) -> str:
    """`text` for LaTeX, its special characters escaped and "+/-" as a plus-minus sign."""
    return " $\\pm$ ".join(part.translate(_LATEX) for part in text.split(" +/- "))


def bold(labels: Iterable[str]) -> list[str]:
    """Column labels for LaTeX."""
    return [f"\\textbf{{{escape(str(label))}}}" for label in labels]


def latex_width(least: int, row_labels: Iterable[str], col_labels: Iterable[str]) -> int:
    """The column width, at least `least`, at which `print_table` cuts no LaTeX command or its brace.

    A long row label without special characters is cut all the same, as in upstream.
    """
    escaped = [escape(label) for label in row_labels if escape(label) != label]
    return max([least, *map(len, bold(col_labels)), *map(len, escaped)])


def _latex_begin(columns: int) -> str:
    """The lines above the header row of a table with `columns` columns besides that of the row labels."""
    return "\n".join(
        [
            "",
            "\\begin{center}",
            "\\adjustbox{max width=\\textwidth}{%",
            f"\\begin{{tabular}}{{l{'c' * columns}}}",
            "\\toprule",
        ]
    )
