"""Tables of methods by a quantity of their models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbed.algorithms import REGISTRY
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
        f"{cell.difference:+{style.number}}",
        _interval(cell.interval, style),
        p_text(compared.p),
        p_text(cell.holm_p),
        cell.verdict(style.lower, style.higher),
    ]


def _interval(ends: tuple[float, float] | None, style: TableStyle) -> str:
    if ends is None:
        return NOTHING
    low, high = (f"{end:+{style.number}}" if math.isfinite(end) else UNBOUNDED for end in ends)
    return f"[{low}, {high}]"


def notes_on_models(
    rows: Sequence[Row], cells: Sequence[MethodCell], baseline: str, without_value: str
) -> list[str]:
    """What differences and p-values in the tables mean, or why there are none; what is averaged or left out.

    Args:
        rows: rows of the study's table.
        cells: the cells of the printed tables.
        baseline: method that the others are compared with.
        without_value: which values of a model are left out, for a note if there are such.
    """
    lines = [*_on_tests(rows, cells, baseline), *_on_targets(cells, baseline), *_on_several_models(rows)]
    missing = sum(cell.missing for cell in cells)
    if missing:
        lines.append(
            f"Note: {missing} of {sum(cell.models for cell in cells)} values of models are left out: "
            f"{without_value}. A trial counts if each of its targets has a value, as the column Trials shows."
        )
    return lines


def _on_tests(rows: Sequence[Row], cells: Sequence[MethodCell], baseline: str) -> list[str]:
    if any(cell.comparison is not None for cell in cells):
        return [
            f"Difference: mean of the method minus mean of {baseline} on the trials and targets of both. p: "
            "two-sided exact signed-rank test, and the exact interval of the shift that it is about. Holm p: "
            f"corrected for all tests of the table; a verdict needs Holm p < {ALPHA}."
        ]
    names = REGISTRY.order({row["algorithm"] for row in rows})
    if len(names) > 1 and baseline not in names:
        return [
            f"Nothing is compared, because no model is of the baseline {baseline}; there are models of "
            f"{', '.join(names)}."
        ]
    return []


def _on_targets(cells: Sequence[MethodCell], baseline: str) -> list[str]:
    """A note for each method that is not compared on all targets."""
    left_out = {(cell.table[0], cell.algorithm, cell.left_out): None for cell in cells if cell.left_out}
    return [
        f"Note: on {Path(dataset).name}, {method} and {baseline} are compared on the targets of both, "
        f"without {', '.join(targets)}."
        for dataset, method, targets in left_out
    ]


def _on_several_models(rows: Sequence[Row]) -> list[str]:
    """A note if a trial of a method has several models, which are averaged."""
    runs: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("algorithm", "dataset", "targets", "trial_seed"))
        runs.setdefault(key, set()).add(str(row["run"]))
    several = [key for key, names in runs.items() if len(names) > 1]
    if not several:
        return []
    methods = ", ".join(REGISTRY.order({algorithm for algorithm, *_ in several}))
    return [
        f"Note: {len(several)} trials of {methods} have several models, such as those of a search, of "
        "several steps or of different networks; their values are averaged."
    ]
