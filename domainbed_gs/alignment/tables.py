"""Tables of methods by the distances between environments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainbed.results.printing import print_paragraphs
from domainbed_gs.alignment.comparison import NORMS, compare_methods
from domainbed_gs.alignment.settings import ALIGNMENT, ALL, PAIRS, QUANTITIES
from domainbed_gs.studies.comparison import MethodCell
from domainbed_gs.studies.tables import TableStyle, notes_on_tests, print_method_tables
from domainbed_gs.trained_models.table import Row

STYLE = TableStyle("Pairs", ".4f", lower="closer", higher="further apart")
NORM_STYLE = TableStyle("Quantity", ".4g")


def print_tables(rows: Sequence[Row], baseline: str, format: str) -> None:
    """Print a table for each dataset, part, kind of parameters and quantity, then what the numbers mean.

    Args:
        rows: rows of alignment.csv.
        baseline: method that the others are compared with.
        format: a format of `domainbed.results.printing`.
    """
    cells = compare_methods(rows, baseline)
    print_method_tables([cell for cell in cells if cell.table[-1] != NORMS], _title, STYLE, format)
    print_method_tables([cell for cell in cells if cell.table[-1] == NORMS], _title, NORM_STYLE, format)
    print_paragraphs(_explanation(rows, cells, baseline), format)


def _title(table: tuple[str, ...]) -> str:
    dataset, part, parameters, quantity = table
    which = "all trained parameters" if parameters == ALL else f"the {parameters}"
    what = "squared norms, sources" if quantity == NORMS else f"distance of {QUANTITIES[quantity]}"
    return f"Dataset: {Path(dataset).name}, part {part}: {what}, {which}"


def _explanation(rows: Sequence[Row], cells: Sequence[MethodCell], baseline: str) -> list[str]:
    shown = dict.fromkeys(cell.label for cell in cells if cell.table[-1] != NORMS)
    lines = [
        f"Pairs: {'; '.join(f'{pair}: {PAIRS[pair]}' for pair in shown if pair in PAIRS)}. All pairs are in "
        f"{ALIGNMENT}.",
        "Distance of two vectors u and v: |u - v|^2 / (|u|^2 + |v|^2), which is 0 if they are equal and 1 if "
        "they are orthogonal. Each environment gives two groups of samples; a distance between environments "
        "is over the pairs of their groups. Those within an environment show what chance alone makes.",
        "Beyond chance: |u - v|^2 minus half of what it is within each of the two environments, before the "
        "division. This estimates the distance that all samples would have; it can be below 0.",
        "Squared norms: mean |u|^2 of the sources. Distances are divided by them, so a method that makes all "
        "vectors smaller brings them no closer.",
        f"Measured on {rows[0]['samples']} samples of each environment at most, in evaluation mode. Of "
        f"Hessians: estimated from {rows[0]['probes']} random vectors without bias, so it can be below 0.",
        "SD: standard deviation over trials. A trial's value is the mean over pairs and targets.",
    ]
    return [*lines, *notes_on_tests(rows, cells, baseline)]
