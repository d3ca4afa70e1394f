"""Tables of text cells, as text, LaTeX, Markdown, CSV and HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from domainbed.console import format_row, print_row
from domainbed.escaping import csv_line, html_escape, latex_escape, latex_label, markdown_escape, visible
from domainbed.metrics import ACCURACY, Metric

_NUMBER = re.compile(r"\[?[+\-]?\d.*|[-X]", re.DOTALL)
"""A cell with a number, several numbers, or no result."""

LONGEST_LABEL = 40
"""Characters of the longest cell that is a label. HTML wraps columns with longer cells like sentences."""

_LATEX_END = "\\bottomrule\n\\end{tabular}}\n\\end{center}"


def format_mean(
    data: Iterable[float], latex: bool, metric: Metric = ACCURACY
) -> tuple[float | None, float | None, str]:
    """Mean and standard error of accuracies, in percent, and both as text (upstream's function).

    Those of another metric are in its unit.

    The standard error is the population standard deviation (ddof=0) divided by the square root of their
    number, as in upstream. Without accuracies the result is (None, None, "X").
    """
    values = list(data)
    if not values:
        return None, None, "X"
    mean = metric.scale * float(np.mean(values))
    err = metric.scale * float(np.std(values / np.sqrt(len(values))))
    sign = "$\\pm$" if latex else "+/-"
    digits = 1 + metric.extra_digits
    return mean, err, f"{mean:.{digits}f} {sign} {err:.{digits}f}"


def print_table(
    table: Sequence[Sequence[object]],
    header_text: str,
    row_labels: Sequence[str],
    col_labels: Sequence[str],
    colwidth: int = 10,
    latex: bool = True,
) -> None:
    """Print a table in upstream's layout, in text or LaTeX (see docs/compatibility.md, "Tables").

    Args:
        table: one list of cells for each row, without the row labels. It is not changed.
        header_text: the line above the table in text. LaTeX omits it.
        row_labels: one label for each row.
        col_labels: one label for each column, including that of the row labels.
        colwidth: number of characters to which every cell is cut or padded.
        latex: print LaTeX, with escaped labels.
    """
    if latex:
        print(_latex_begin(len(table[0])))  # noqa: T201 - this function prints
        print_row(_bold(col_labels), colwidth, latex)
        print("\\midrule")  # noqa: T201
    else:
        print(f"\n-------- {visible(header_text)}")  # noqa: T201
        print_row(col_labels, colwidth)
    for label, row in zip(row_labels, table, strict=True):
        print_row([latex_label(label) if latex else label, *row], colwidth, latex)
    if latex:
        print(_LATEX_END)  # noqa: T201


def render_table(title: str, columns: list[str], rows: list[list[str]], format: str) -> str:
    """One table as a string without a final newline.

    Args:
        title: heading of the table. CSV has it in a first column, `table`.
        columns: labels of the columns.
        rows: one list of plain-text cells for each row. LaTeX and HTML show "+/-" as a plus-minus sign.
        format: "text", "latex" (booktabs), "markdown", "csv" or "html".
    """
    if format == "html":
        return _html(title, columns, rows)
    if format == "csv":
        lines = [["table", *columns], *([title, *row] for row in rows)]
        return "".join(map(csv_line, lines)).removesuffix("\n")
    if format == "markdown":
        rule = ["---"] + ["---:"] * (len(columns) - 1)
        lines = [[markdown_escape(cell) for cell in row] for row in (columns, *rows)]
        table = [f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:])]
        return "\n".join(["", f"### {markdown_escape(title)}", "", *table])
    latex = format == "latex"
    lines = [[visible(cell) for cell in row] for row in (columns, *rows)]
    if latex:
        lines = [_bold(columns), *([latex_label(row[0]), *map(latex_escape, row[1:])] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    header, *body = [format_row(line, widths, latex) for line in lines]
    if latex:
        caption = f"\n\\subsubsection{{{latex_escape(title)}}}"
        return "\n".join([caption, _latex_begin(len(columns) - 1), header, "\\midrule", *body, _LATEX_END])
    return "\n".join(["", f"-------- {visible(title)}", header, *body])


def _html(title: str, columns: list[str], rows: list[list[str]]) -> str:
    return f"<h3>{html_escape(title)}</h3>\n{html_table(title, columns, rows)}"


def html_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts in a box that scrolls if the table is wider. `title` names it for screen readers."""
    own = [_kind(column) for column in list(zip(*rows, strict=True))[1:]]
    kinds = ["", *(own or [""] * (len(columns) - 1))]  # a table may have no rows
    head = "".join(
        f'<th scope="col"{kind}>{html_escape(label)}</th>' for kind, label in zip(kinds, columns, strict=True)
    )
    body = "\n".join(f"<tr>{_html_cells(row, kinds)}</tr>" for row in rows)
    return (
        f'<div class="table" role="region" aria-label="{html_escape(title)}" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _kind(cells: Sequence[str]) -> str:
    """The HTML attribute for a column of numbers or of sentences; empty for other columns."""
    if all(_NUMBER.fullmatch(cell) for cell in cells):
        return ' class="number"'
    return ' class="long"' if max(map(len, cells)) > LONGEST_LABEL else ""


def _html_cells(row: Sequence[str], kinds: Sequence[str]) -> str:
    cells = [f"<td{kind}>{html_escape(cell)}</td>" for kind, cell in zip(kinds[1:], row[1:], strict=True)]
    return f'<th scope="row">{html_escape(row[0])}</th>' + "".join(cells)


def _bold(labels: Iterable[str]) -> list[str]:
    """Column labels for LaTeX, escaped and in bold."""
    return [f"\\textbf{{{latex_escape(str(label))}}}" for label in labels]


def latex_width(least: int, row_labels: Iterable[str], col_labels: Iterable[str]) -> int:
    """Smallest column width, but at least `least`, at which `print_table` cuts no LaTeX command.

    Long row labels without special characters are not counted: they are cut, as in upstream.
    """
    escaped = [latex_label(label) for label in row_labels if latex_label(label) != label]
    return max([least, *map(len, _bold(col_labels)), *map(len, escaped)])


def _latex_begin(columns: int) -> str:
    """The lines above the header row of a table with `columns` columns besides the row labels."""
    return "\n".join(
        [
            "",
            "\\begin{center}",
            "\\adjustbox{max width=\\textwidth}{%",
            f"\\begin{{tabular}}{{l{'c' * columns}}}",
            "\\toprule",
        ]
    )
