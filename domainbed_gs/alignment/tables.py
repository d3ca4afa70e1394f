"""Tables of methods by the distances between environments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from domainbed.results.printing import print_paragraphs, print_section_table
from domainbed_gs.alignment.comparison import AlignmentCell, compare_methods
from domainbed_gs.alignment.settings import ALIGNMENT, ALL, PAIRS, QUANTITIES
from domainbed_gs.report.paired_tables import NOTHING, UNBOUNDED, p_text
from domainbed_gs.report.statistics import ALPHA
from domainbed_gs.trained_models.table import Row

COLUMNS = ("Pairs", "Method", "Mean", "SD", "Trials", "Difference", "95 % interval", "p", "Holm p", "Verdict")


def print_tables(rows: Sequence[Row], baseline: str, format: str) -> None:
    """Print a table for each dataset, part, kind of parameters and quantity, then what the numbers mean.

    Args:
        rows: rows of alignment.csv.
        baseline: method that the others are compared with.
        format: a format of `domainbed.results.printing`.
    """
    cells = compare_methods(rows, baseline)
    for dataset, part, parameters, quantity in dict.fromkeys(cell.table for cell in cells):
        own = [cell for cell in cells if cell.table == (dataset, part, parameters, quantity)]
        which = "all trained parameters" if parameters == ALL else f"the {parameters}"
        title = f"Dataset: {Path(dataset).name}, part {part}: distance of {QUANTITIES[quantity]}, {which}"
        print_section_table(title, list(COLUMNS), [_texts(cell) for cell in own], format)
    print_paragraphs(_explanation(rows, cells, baseline), format)


def _texts(cell: AlignmentCell) -> list[str]:
    std = NOTHING if math.isnan(cell.std) else f"{cell.std:.4f}"
    start = [cell.pair, cell.algorithm, f"{cell.mean:.4f}", std, str(len(cell.trials))]
    compared = cell.comparison
    if compared is None:
        return [*start, *[NOTHING] * 5]
    return [
        *start,
        f"{compared.difference:+.4f}",
        _interval(compared.interval),
        p_text(compared.p),
        p_text(cell.holm_p),
        cell.verdict,
    ]


def _interval(ends: tuple[float, float] | None) -> str:
    if ends is None:
        return NOTHING
    low, high = (f"{end:+.4f}" if math.isfinite(end) else UNBOUNDED for end in ends)
    return f"[{low}, {high}]"


def _explanation(rows: Sequence[Row], cells: Sequence[AlignmentCell], baseline: str) -> list[str]:
    shown = dict.fromkeys(cell.pair for cell in cells)
    lines = [
        f"Pairs: {'; '.join(f'{pair}: {PAIRS[pair]}' for pair in shown)}. All pairs are in {ALIGNMENT}.",
        "Distance of two vectors u and v: |u - v|^2 / (|u|^2 + |v|^2), which is 0 if they are equal and 1 if "
        "they are orthogonal. Each environment gives two groups of samples; a distance between environments "
        "is over the pairs of their groups. Those within an environment show what chance alone makes.",
        f"Measured on {rows[0]['samples']} samples of each environment at most, in evaluation mode. Of "
        f"Hessians: estimated from {rows[0]['probes']} random vectors without bias, so it can be below 0.",
        "SD: standard deviation over trials. A trial's value is the mean over pairs and targets.",
    ]
    if any(cell.comparison is not None for cell in cells):
        lines.append(
            f"Difference: mean of the method minus mean of {baseline} on the trials of both. p: two-sided "
            "exact signed-rank test, and the exact interval of the shift that it is about. Holm p: corrected "
            f"for all tests of the table; a verdict needs Holm p < {ALPHA}."
        )
    elif len({row["algorithm"] for row in rows}) > 1:
        lines.append(f"Nothing is compared, because no model is of the baseline {baseline}.")
    return lines
