"""Tables of methods by a quantity of their models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domainbed.results.printing import print_section_table
from domainbed_gs.report.paired_tables import NOTHING, UNBOUNDED, p_text
from domainbed_gs.report.statistics import ALPHA
from domainbed_gs.studies.comparison import MethodCell
from domainbed_gs.trained_models.table import Row

_HEADINGS = ("Method", "Mean", "SD", "Trials", "Difference", "95 % interval", "p", "Holm p", "Verdict")


@dataclass(frozen=True)
class TableStyle:
    """How the tables of a study show its cells.

    Attributes:
        label: heading of the cells' labels.
        number: format of a number, such as ".4f".
        lower: verdict on a method whose values are lower than the baseline's.
        higher: verdict on one whose values are higher.
    """

    label: str
    number: str
    lower: str = "lower"
    higher: str = "higher"


def print_method_tables(
    cells: Sequence[MethodCell], title: Callable[[tuple[str, ...]], str], style: TableStyle, format: str
) -> None:
    """Print a table for each `table` of the cells.

    Args:
        cells: cells of several tables.
        title: the title of a table.
        style: how cells are shown.
        format: a format of `domainbed.results.printing`.
    """
    for table in dict.fromkeys(cell.table for cell in cells):
        lines = [_texts(cell, style) for cell in cells if cell.table == table]
        print_section_table(title(table), [style.label, *_HEADINGS], lines, format)


def _texts(cell: MethodCell, style: TableStyle) -> list[str]:
    mean, std = (NOTHING if math.isnan(each) else f"{each:{style.number}}" for each in (cell.mean, cell.std))
    start = [cell.label, cell.algorithm, mean, std, str(len(cell.trials))]
    compared = cell.comparison
    if compared is None or not compared.pairs:
        return [*start, *[NOTHING] * 5]
    return [
        *start,
        f"{compared.difference:+{style.number}}",
        _interval(compared.interval, style),
        p_text(compared.p),
        p_text(cell.holm_p),
        cell.verdict(style.lower, style.higher),
    ]


def _interval(ends: tuple[float, float] | None, style: TableStyle) -> str:
    if ends is None:
        return NOTHING
    low, high = (f"{end:+{style.number}}" if math.isfinite(end) else UNBOUNDED for end in ends)
    return f"[{low}, {high}]"


def notes_on_tests(rows: Sequence[Row], cells: Sequence[MethodCell], baseline: str) -> list[str]:
    """What differences and p-values in the tables mean; or why there are none."""
    if any(cell.comparison is not None for cell in cells):
        return [
            f"Difference: mean of the method minus mean of {baseline} on the trials of both. p: two-sided "
            "exact signed-rank test, and the exact interval of the shift that it is about. Holm p: corrected "
            f"for all tests of the table; a verdict needs Holm p < {ALPHA}."
        ]
    if len({row["algorithm"] for row in rows}) > 1:
        return [f"Nothing is compared, because no model is of the baseline {baseline}."]
    return []
