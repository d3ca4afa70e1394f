"""Tables of methods by the sharpness of their models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from domainbed.results.printing import print_paragraphs, print_section_table
from domainbed_gs.report.paired_tables import NOTHING, UNBOUNDED, p_text
from domainbed_gs.report.statistics import ALPHA
from domainbed_gs.sharpness.comparison import GROUPS, SharpnessCell, compare_methods
from domainbed_gs.sharpness.settings import QUANTITIES, SHARPNESS
from domainbed_gs.trained_models.table import Row

COLUMNS = ("Loss", "Method", "Mean", "SD", "Trials", "Difference", "95 % interval", "p", "Holm p", "Verdict")


def print_tables(rows: Sequence[Row], baseline: str, format: str) -> None:
    """Print a table for each dataset, part and quantity, then what the numbers mean.

    Args:
        rows: rows of sharpness.csv.
        baseline: method that the others are compared with.
        format: a format of `domainbed.results.printing`.
    """
    cells = compare_methods(rows, baseline)
    keys = dict.fromkeys((cell.dataset, cell.part, cell.quantity) for cell in cells)
    for dataset, part, quantity in keys:
        own = [
            cell for cell in cells if (cell.dataset, cell.part, cell.quantity) == (dataset, part, quantity)
        ]
        title = f"Dataset: {Path(dataset).name}, part {part}: {QUANTITIES[quantity]}"
        print_section_table(title, list(COLUMNS), [_texts(cell) for cell in own], format)
    print_paragraphs(_explanation(rows, cells, baseline), format)


def _texts(cell: SharpnessCell) -> list[str]:
    start = [cell.group, cell.algorithm, number(cell.mean), number(cell.std), str(len(cell.trials))]
    compared = cell.comparison
    if compared is None or not compared.pairs:
        return [*start, *[NOTHING] * 5]
    return [
        *start,
        _signed(compared.difference),
        _interval(compared.interval),
        p_text(compared.p),
        p_text(cell.holm_p),
        cell.verdict,
    ]


def number(value: float) -> str:
    """A number with four digits; "-" for NaN."""
    return NOTHING if math.isnan(value) else f"{value:.4g}"


def _signed(value: float) -> str:
    return f"{value:+.4g}"


def _interval(ends: tuple[float, float] | None) -> str:
    if ends is None:
        return NOTHING
    low, high = (_signed(end) if math.isfinite(end) else UNBOUNDED for end in ends)
    return f"[{low}, {high}]"


def _explanation(rows: Sequence[Row], cells: Sequence[SharpnessCell], baseline: str) -> list[str]:
    first = rows[0]
    meanings = ", ".join(f"{name}: {meaning}" for name, meaning in GROUPS.items())
    lines = [
        f"{meanings}. All values are in {SHARPNESS}.",
        f"Rises are those of the mean cross-entropy within a ball of radius {first['rho']} around the "
        f"trained parameters, each on the loss of its own row; measured on {first['samples']} samples of "
        "each environment at most, in evaluation mode.",
        "SD: standard deviation over trials. A trial's value is the mean over its targets.",
    ]
    if any(cell.comparison is not None for cell in cells):
        lines.append(
            f"Difference: mean of the method minus mean of {baseline} on the trials of both. p: two-sided "
            "exact signed-rank test, and the exact interval of the shift that it is about. Holm p: corrected "
            f"for all tests of the table; a verdict needs Holm p < {ALPHA}."
        )
    elif len({row["algorithm"] for row in rows}) > 1:
        lines.append(f"Nothing is compared, because no model is of the baseline {baseline}.")
    lines += _on_several_models(rows)
    return lines


def _on_several_models(rows: Sequence[Row]) -> list[str]:
    """A note if a trial of a method has several models, which are averaged."""
    runs: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("dataset", "algorithm", "targets", "trial_seed", "part"))
        runs.setdefault(key, set()).add(str(row["run"]))
    several = sum(len(names) > 1 for names in runs.values())
    if not several:
        return []
    return [
        f"Note: {several} trials have several models, such as those of a search or of several steps; their "
        "values are averaged."
    ]
