"""Corrects the tests of a paired comparison in two families, and gives each its verdict.

The primary family are the methods' averages over targets (of a dataset with one target, that target); the
secondary one are all single targets. Each is corrected on its own, since they answer different questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from domainbed_gs.report.cells import Cell, Comparison
from domainbed_gs.report.signed_rank import shift_curve
from domainbed_gs.report.statistics import ALPHA, holm, pairs_needed
from domainbed_gs.report.verdicts import verdict_of

CORRECTIONS = ("holm", "none")
"""Values of `--correction`."""


def judge(cells: Sequence[Cell], correction: str = "holm") -> tuple[Cell, ...]:
    """The cells with corrected p-values, simultaneous intervals and verdicts, in the same order.

    Args:
        cells: cells with uncorrected comparisons. Those without a p-value are returned unchanged.
        correction: "holm"; with "none" every test is a family of its own.
    """
    tested = [i for i, cell in enumerate(cells) if cell.comparison and cell.comparison.p is not None]
    families = [[i for i in tested if cells[i].primary is primary] for primary in (True, False)]
    if correction == "none":
        families = [[i] for i in tested]
    judged = dict(enumerate(cells))
    for family in families:
        judged |= zip(family, _judge_family([cells[i] for i in family]), strict=True)
    return tuple(judged.values())


def _judge_family(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of one family, all with p-values."""
    comparisons = [cell.comparison for cell in cells if cell.comparison is not None]
    adjusted = _adjusted(comparisons, lambda each: each.p)
    equivalence = _adjusted(comparisons, lambda each: each.equivalence_p)
    means = _adjusted(comparisons, lambda each: each.mean_p)
    # Holm's p-values grow with each of the p-values, so none can be below these.
    least = _adjusted(comparisons, lambda each: each.smallest_p)
    return [
        replace(
            cell,
            comparison=replace(each, simultaneous=shift_curve(each.differences).interval(ALPHA / len(cells))),
            family=len(cells),
            holm_p=adjusted[i],
            holm_equivalence_p=equivalence[i],
            holm_mean_p=means[i],
            trials_needed=pairs_needed(len(cells)) if least[i] >= ALPHA else None,
            verdict=verdict_of(adjusted[i], equivalence[i], each.direction),
        )
        for i, (cell, each) in enumerate(zip(cells, comparisons, strict=True))
    ]


def _adjusted(comparisons: Sequence[Comparison], p: Callable[[Comparison], float | None]) -> list[float]:
    return holm([value if (value := p(each)) is not None else 1.0 for each in comparisons])
