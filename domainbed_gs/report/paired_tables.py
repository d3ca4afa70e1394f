"""Paired comparisons as tables of text: columns and rows, one function for each table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from domainbed_gs.report.comparison import AVERAGE, Cell, PairedReport
from domainbed_gs.report.statistics import ALPHA, RESAMPLES

NOTHING = "-"


class Table(NamedTuple):
    """Columns (C,) and rows of C cells."""

    columns: list[str]
    rows: list[list[str]]


def accuracies(cells: Sequence[Cell]) -> Table:
    """Methods by targets of one dataset as in the paper's Table 1: mean (standard deviation) in %, star."""
    by_method: dict[str, list[str]] = {}
    for cell in cells:
        by_method.setdefault(cell.algorithm, []).append(_mean_and_std(cell))
    targets = list(dict.fromkeys(cell.target_name for cell in cells))
    return Table(["Method", *targets], [[method, *texts] for method, texts in by_method.items()])


def side_by_side(table: Table, most: int) -> list[Table]:
    """`table` cut into tables with the first column and at most `most` others each."""
    starts = range(1, len(table.columns), most)
    cut = [[[row[0], *row[i : i + most]] for row in (table.columns, *table.rows)] for i in starts]
    return [Table(columns, rows) for columns, *rows in cut]


def differences(cells: Sequence[Cell]) -> Table:
    """Each method of one dataset against the baseline: difference in percentage points and its tests."""
    columns = ["Target", "Method", "Difference", "95 % interval", "p", "Holm p", "W/T/L", "Pairs"]
    return Table(columns, [_difference_row(cell) for cell in cells if cell.comparison])


def everything(report: PairedReport, selection: str) -> Table:
    """All numbers in full precision, a row for each dataset, target and method; empty where there is none."""
    columns = [
        *("dataset", "target_env", "target", "algorithm", "baseline", "selection", "trials"),
        *("mean_percent", "std_percent", "pairs", "difference_points", "low_points", "high_points"),
        *("p", "holm_p", "wins", "ties", "losses", "significant"),
    ]
    return Table(columns, [_full_row(cell, report.baseline, selection) for cell in report.cells])


def footer(report: PairedReport, selection: str, seed: int) -> list[str]:
    """What the numbers are, in short sentences."""
    lines = [
        f"Model selection: {selection}.",
        "Accuracy: mean (standard deviation, ddof=1) over all trials of the method, in %.",
        f"Difference: mean of method - {report.baseline} on the trials that both have, in percentage points.",
        f"95 % interval: percentile bootstrap ({RESAMPLES:,} resamples of trials, seed {seed}); too narrow "
        "with few trials.",
        "p: two-sided exact Wilcoxon signed-rank test, zeros dropped.",
        f"Holm p: corrected over the family shown: {report.family} of methods x targets x datasets.",
        f"The star marks p < {ALPHA} before correction, better or worse, as in Table 1 of arXiv 2108.01621.",
        f"W/T/L: trials in which the method is better than, equal to, worse than {report.baseline}.",
    ]
    if any(cell.target is None for cell in report.cells):
        lines.append(f"{AVERAGE}: over the targets shown, in each trial that has all; not in Holm's family.")
    return lines


def _mean_and_std(cell: Cell) -> str:
    if cell.mean is None:
        return NOTHING
    std = NOTHING if cell.std is None else f"{100 * cell.std:.2f}"
    return f"{100 * cell.mean:.2f} ({std})" + ("*" if cell.significant else "")


def _difference_row(cell: Cell) -> list[str]:
    it = cell.comparison
    if it is None or it.p is None:
        return [cell.target_name, cell.algorithm, *[NOTHING] * 5, "0"]
    low_high = NOTHING if it.interval is None else f"[{_signed(it.interval[0])}, {_signed(it.interval[1])}]"
    return [
        *(cell.target_name, cell.algorithm, _signed(it.difference), low_high),
        _p(it.p) + (" *" if it.significant else ""),
        NOTHING if cell.holm_p is None else _p(cell.holm_p),
        f"{it.wins}/{it.ties}/{it.losses}",
        str(it.pairs),
    ]


def _signed(share: float) -> str:
    # + 0.0 makes a rounded -0.0 positive.
    return f"{round(100 * share, 2) + 0.0:+.2f}"


def _p(p: float) -> str:
    return f"{p:.4f}" if p >= 0.001 else f"{p:.1e}"


def _full_row(cell: Cell, baseline: str, selection: str) -> list[str]:
    row: list[object] = [cell.dataset, cell.target, cell.target_name, cell.algorithm, baseline, selection]
    row += [len(cell.trials), _percent(cell.mean), _percent(cell.std)]
    it = cell.comparison
    if it is None or it.p is None:
        row += [0 if it else None, *[None] * 9]
    else:
        low, high = it.interval or (None, None)
        row += [it.pairs, _percent(it.difference), _percent(low), _percent(high), it.p, cell.holm_p]
        row += [it.wins, it.ties, it.losses, it.significant]
    return ["" if value is None else str(value) for value in row]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
