"""The meaning of the numbers in a paired comparison, one sentence or two for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from domainbed_gs.report.cells import Cell, PairedReport
from domainbed_gs.report.comparison import AVERAGE
from domainbed_gs.report.paired_tables import span
from domainbed_gs.report.power import POWER
from domainbed_gs.report.statistics import ALPHA


def meanings(report: PairedReport, selection: str) -> list[str]:
    """The meaning of each number in the tables.

    Args:
        report: the comparison.
        selection: the selection method, in words.
    """
    name, metric = report.baseline, report.metric
    unit = f", in {metric.unit}" if metric.unit else ""
    lines = [
        f"Model selection: {selection}.",
        f"{metric.capitalized}: mean (standard deviation, ddof=1) over all trials of the method{unit}.",
    ]
    if any(cell.verdict is not None for cell in report.cells):
        lines[-1] += f" A star marks a method that is better or worse than {name} ({_p(report)} < {ALPHA})."
        lines += _of_differences(report)
    if any(cell.target is None for cell in report.cells):
        what = "mean over" if report.over_targets == "mean" else "worst of"
        title = next(cell.target_name for cell in report.cells if cell.target is None)
        lines.append(f"{title}: {what} the targets shown, in each trial that has all of them.")
    if any(cell.left_out and cell.verdict is not None for cell in report.cells):
        lines.append(
            f"Without: the method or {name} has no results on the targets named there. Their averages are "
            "compared over the other targets only."
        )
    return lines + list(_detectable(report))


def _p(report: PairedReport) -> str:
    return "Holm p" if report.correction == "holm" else "p"


def _of_differences(report: PairedReport) -> list[str]:
    name, metric = report.baseline, report.metric
    direction = (
        "" if metric.larger_is_better else " Lower is better: a negative difference is for the method."
    )
    corrected = ", with the same correction" if report.correction == "holm" else ""
    return [
        f"Mean: mean of method - {name} over the trials both have, in {metric.points}.{direction} Shift: the "
        "Hodges-Lehmann estimate of the same difference, which the signed-rank test is about.",
        "95 % interval: exact, of the shift. It excludes 0 if and only if p < 0.05. Simultaneous: the same "
        "at the level 1 - 0.05 / (tests in the family), for all comparisons of a family at once. It is a "
        "little wider than Holm's verdict needs. Unbounded: too few trials for that level.",
        "p: two-sided exact Wilcoxon signed-rank test of the shift, without zero differences.",
        _correction(report),
        "Better: probability that the method is better in a trial, from wins and half the ties.",
        f"Verdict: better or worse if {_p(report)} < {ALPHA}. Else equivalent, if two one-sided signed-rank "
        f"tests place the shift within +/- {report.rope_text} (--rope){corrected}. Else undecided. By less "
        "than the rope: better or worse, but within it. A verdict mentions the mean where the permutation "
        "test of the mean disagrees.",
    ]


def _correction(report: PairedReport) -> str:
    if report.correction == "none":
        return "Nothing is corrected for the number of comparisons (--correction none)."
    families = [
        f"{len(tested)} {noun}"
        for noun, cells in (_named(report.primary), ("comparisons on single targets", report.secondary))
        if (tested := [cell for cell in cells if cell.verdict is not None])
    ]
    which = " and another for the " if len(families) > 1 else ""
    return f"Holm p: corrected in {'one family' if not which else 'a family'} for the {which.join(families)}."


def _named(primary: Sequence[Cell]) -> tuple[str, Sequence[Cell]]:
    averages = [cell.target_name for cell in primary if cell.target is None]
    if not averages:
        return "comparisons", primary
    return ("averages over targets" if averages[0] == AVERAGE else "worst targets"), primary


def _detectable(report: PairedReport) -> Iterator[str]:
    """The smallest differences that the present trials can find, in each family."""
    texts = []
    for (noun, cells), place in (
        (_named(report.primary), "for"),
        (("single targets", report.secondary), "on"),
    ):
        numbers = [cell.smallest_detectable for cell in cells if cell.smallest_detectable is not None]
        if numbers:
            texts.append(f"{span(numbers, report.metric)} {report.metric.short_points} {place} {noun}")
    if texts:
        yield (
            f"Smallest detectable difference, which as many trials find with a probability of "
            f"{100 * POWER:g} %: {', '.join(texts)}."
        )
