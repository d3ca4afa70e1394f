"""Tables of a paired comparison, made from the rows of its frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from domainbed.metrics import ACCURACY, Metric
from domainbed.results.printing import print_section_table
from domainbed_gs.report.comparison import AVERAGE
from domainbed_gs.report.frame import Row

NOTHING = "-"
"""Text of a table cell without a value."""

UNBOUNDED = "unbounded"
"""Text of an interval, or of an end, that the data do not bound."""

HOLM = "Holm p"
"""Head of the column that is left out if nothing is corrected."""

TARGETS_PER_TABLE = 7
"""Number of target columns that fit beside the method names in one line of text."""

ACCURACIES = {
    "test": "target {}",
    "all": "{} on all images of the target",
}
"""Titles of tables of accuracies, or another metric, by the part of the target."""


class Table(NamedTuple):
    """Labels of the `columns` (C,), and `rows` of C texts."""

    columns: list[str]
    rows: list[list[str]]


class Column(NamedTuple):
    """A column of the tables of differences.

    Attributes:
        label: its head.
        text: the text of its cell in a row with at least one pair.
        in_text: whether it is also in the text format, whose lines are short.
    """

    label: str
    text: Callable[[Row], str]
    in_text: bool = True


def print_paired_tables(rows: Sequence[Row], format: str, heading: str) -> None:
    """Print, dataset by dataset, accuracies, and differences: averages over targets, then single targets.

    Args:
        rows: the frame of one report.
        format: "text", "latex", "markdown", "html", or "csv" for a single table with all numbers.
        heading: title of that table.
    """
    if format == "csv":
        table = csv_table(rows)
        print_section_table(heading, table.columns, table.rows, format)
        return
    for dataset in dict.fromkeys(row.dataset for row in rows):
        own = [row for row in rows if row.dataset == dataset]
        for table in divide(accuracy_table(own), TARGETS_PER_TABLE if format == "text" else len(own)):
            title = f"Dataset: {dataset}, {_title_of_accuracies(own[0])}"
            print_section_table(title, table.columns, table.rows, format)
        for family in ("primary", "secondary"):
            compared = [row for row in own if row.family == family]
            if compared:
                table = difference_table(compared, wide=format != "text")
                print_section_table(_title(compared[0]), table.columns, table.rows, format)


def _title_of_accuracies(row: Row) -> str:
    unit = f" ({row.measure.unit})" if row.measure.unit else ""
    return ACCURACIES[row.target_part].format(row.measure.title) + unit


def _title(row: Row) -> str:
    """Title of a table of differences; `row` is one of its rows."""
    average = "average over targets" if row.target == AVERAGE else "worst target"
    place = average if row.target_env is None else row.target
    place = "single targets" if row.family == "secondary" else place
    images = ", all images" if row.target_part == "all" else ""
    unit = row.measure.points
    metric = "" if row.measure is ACCURACY else f", {row.measure.title}"
    return f"Dataset: {row.dataset}, {place}{images}{metric}: difference to {row.baseline} ({unit})"


def accuracy_table(rows: Sequence[Row]) -> Table:
    """Methods by targets of one dataset as in the paper's Table 1: mean (standard deviation), star."""
    by_method: dict[str, list[str]] = {}
    for row in rows:
        by_method.setdefault(row.algorithm, []).append(_mean_and_std(row))
    targets = list(dict.fromkeys(row.target for row in rows))
    return Table(["Method", *targets], [[method, *texts] for method, texts in by_method.items()])


def divide(table: Table, most: int) -> list[Table]:
    """Tables with the first column and at most `most` of the other columns each."""
    starts = range(1, len(table.columns), most)
    parts = [[[row[0], *row[i : i + most]] for row in (table.columns, *table.rows)] for i in starts]
    return [Table(columns, rows) for columns, *rows in parts]


def difference_table(rows: Sequence[Row], *, wide: bool = True) -> Table:
    """The comparisons of one family and dataset: differences in percentage points, tests and verdicts.

    Args:
        rows: the comparisons.
        wide: whether to include the columns that text has no room for.
    """
    corrected = any(row.holm_p is not None for row in rows)
    columns = [
        column for column in COLUMNS if (wide or column.in_text) and (corrected or column.label != HOLM)
    ]
    labels = ["Method", *(column.label for column in columns)]
    texts = [
        [row.algorithm, *(column.text(row) if row.pairs else NOTHING for column in columns)] for row in rows
    ]
    if rows[0].family == "secondary":
        labels = ["Target", *labels]
        texts = [[row.target, *cells] for row, cells in zip(rows, texts, strict=True)]
    return Table(labels, texts)


def csv_table(rows: Sequence[Row]) -> Table:
    """All numbers at full precision, a row for each cell; missing values are empty."""
    texts = [row.csv() for row in rows]
    return Table(list(texts[0]) if texts else [], [list(text.values()) for text in texts])


def points(number: float | None, metric: Metric = ACCURACY) -> str:
    """A difference in percentage points, or the metric's unit, with its sign and two decimals or more."""
    digits = 2 + metric.extra_digits
    # + 0.0 makes a rounded -0.0 positive.
    return NOTHING if number is None else f"{round(number, digits) + 0.0:+.{digits}f}"


def span(values: Sequence[float], metric: Metric = ACCURACY) -> str:
    """The smallest and the largest of values in records, in points with one decimal: "1.2 to 3.5", "1.2"."""
    low, high = metric.text(min(values), 1), metric.text(max(values), 1)
    return low if low == high else f"{low} to {high}"


def interval_text(low: float | None, high: float | None, metric: Metric = ACCURACY) -> str:
    """An interval as `points`: "[-0.20, +1.40]"; "unbounded" if neither end is bounded."""
    if low is None or high is None:
        return NOTHING
    if math.isinf(low) and math.isinf(high):
        return UNBOUNDED
    ends = (UNBOUNDED if math.isinf(end) else points(end, metric) for end in (low, high))
    return f"[{', '.join(ends)}]"


def p_text(p: float | None) -> str:
    """A p-value with four decimals, or with two digits if it is below 0.001."""
    if p is None:
        return NOTHING
    return f"{p:.4f}" if p >= 0.001 else f"{p:.1e}"


def _mean_and_std(row: Row) -> str:
    if row.mean_percent is None:
        return NOTHING
    digits = 2 + row.measure.extra_digits
    std = NOTHING if row.std_percent is None else f"{row.std_percent:.{digits}f}"
    return f"{row.mean_percent:.{digits}f} ({std})" + ("*" if row.significant else "")


def _share(row: Row) -> str:
    return NOTHING if row.probability_better is None else f"{100 * row.probability_better:.0f} %"


def _detectable(row: Row) -> str:
    number = row.smallest_detectable_points
    return NOTHING if number is None else f"{number:.{2 + row.measure.extra_digits}f}"


COLUMNS = (
    Column("Trials", lambda row: str(row.pairs), in_text=False),
    Column("Mean", lambda row: points(row.difference_points, row.measure)),
    Column("Shift", lambda row: points(row.shift_points, row.measure)),
    Column("95 % interval", lambda row: interval_text(row.low_points, row.high_points, row.measure)),
    Column(
        "Simultaneous",
        lambda row: interval_text(row.low_simultaneous, row.high_simultaneous, row.measure),
    ),
    Column("p", lambda row: p_text(row.p)),
    Column(HOLM, lambda row: p_text(row.holm_p)),
    Column("W/T/L", lambda row: f"{row.wins}/{row.ties}/{row.losses}", in_text=False),
    Column("Better", _share),
    Column("Detectable", _detectable, in_text=False),
    Column("Verdict", lambda row: row.verdict_text),
)
