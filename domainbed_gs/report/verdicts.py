"""Verdicts: what a comparison bears, in a word, in a row of a table, and in a sentence for the whole report.

The rule: better or worse if the signed-rank test rejects a shift of zero; else equivalent if two one-sided
signed-rank tests place the shift within the rope; else undecided. All p-values are corrected in their family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from domainbed_gs.report.cells import Cell, PairedReport, Verdict
from domainbed_gs.report.statistics import ALPHA

__all__ = ["Verdict", "answer", "remarks", "verdict_of", "verdict_text"]


def verdict_of(p: float, equivalence_p: float, direction: float) -> Verdict:
    """The verdict by the rule above.

    Args:
        p: corrected p-value against a shift of zero.
        equivalence_p: corrected p-value against a shift outside the rope.
        direction: positive if the test speaks for the method.
    """
    if p < ALPHA:
        return Verdict.BETTER if direction > 0 else Verdict.WORSE
    return Verdict.EQUIVALENT if equivalence_p < ALPHA else Verdict.UNDECIDED


def verdict_text(cell: Cell) -> str:
    """The verdict of a cell with its remarks: "better, by less than the rope"; empty without a verdict."""
    return "" if cell.verdict is None else cell.verdict.value + remarks(cell)


def remarks(cell: Cell) -> str:
    """What limits the verdict of a cell, to be appended to its word; empty if nothing does.

    - ", without Sketch": an average that is compared on fewer targets than the table has;
    - ", by less than the rope": better or worse, but the equivalence test rejects too;
    - ", needs 10 trials": undecided, and no result of so few trials could be better or worse;
    - "; the mean differs (p = 0.031)": the permutation test of the mean, with Holm's correction in the same
      family, says otherwise.
    """
    text = f", without {_names(cell.left_out)}" if cell.left_out else ""
    if cell.significant and _below_alpha(cell.holm_equivalence_p):
        text += ", by less than the rope"
    elif cell.verdict is Verdict.UNDECIDED and cell.trials_needed is not None:
        enough = cell.comparison is not None and cell.comparison.pairs >= cell.trials_needed
        text += f", needs {cell.trials_needed} {'untied ' if enough else ''}trials"
    return text + _on_the_mean(cell)


def _on_the_mean(cell: Cell) -> str:
    """Where the test of the mean disagrees with the verdict."""
    comparison, p = cell.comparison, cell.holm_mean_p
    if comparison is None or p is None:
        return ""
    if not _below_alpha(p):
        return f"; the mean may not differ (p = {p:.2g})" if cell.significant else ""
    if not cell.significant:
        return f"; the mean differs (p = {p:.2g})"
    if comparison.gain * comparison.direction < 0:
        return f"; the mean is {'lower' if comparison.difference < 0 else 'higher'} (p = {p:.2g})"
    return ""


def _below_alpha(p: float | None) -> bool:
    return p is not None and p < ALPHA


def answer(report: PairedReport) -> str:
    """What the primary family says, in a few short sentences.

    One dataset: "No method beats ERM. IRM is worse. 10 of 11 remain undecided." Several: "AgrSum beats ERM on
    PACS and VLCS. IRM is worse on all 3 datasets. 5 of 9 comparisons remain undecided."
    """
    if not report.primary:
        return f"No method is compared with {report.baseline}."
    judged = [cell for cell in report.primary if cell.verdict is not None]
    if not judged:
        return f"No method shares a trial with {report.baseline}."
    by_verdict = {verdict: [cell for cell in judged if cell.verdict is verdict] for verdict in Verdict}
    better, worse, equivalent, undecided = by_verdict.values()
    datasets = list(dict.fromkeys(cell.dataset for cell in judged))
    several = len(datasets) > 1
    within = f"within {report.rope_text}"
    sentences = [
        f"{_names(names)} {'beats' if len(names) == 1 else 'beat'} {report.baseline}{where}."
        for names, where in _places(better, datasets)
    ] or [f"No method beats {report.baseline}{' on any dataset' if several else ''}."]
    sentences += [f"{_names(names)} {_are(names)} worse{where}." for names, where in _places(worse, datasets)]
    sentences += [
        f"{_names(names)} {_are(names)} equivalent to {report.baseline} {within}{where}."
        for names, where in _places(equivalent, datasets)
    ]
    if undecided:
        sentences.append(_on_the_undecided(undecided, judged, several))
    return " ".join(sentences)


def _places(cells: Sequence[Cell], datasets: Sequence[str]) -> Iterator[tuple[list[str], str]]:
    """(methods, where) of cells with one verdict; methods with the same datasets are named together.

    `where` is such as " on PACS and VLCS", or empty if there is one dataset.
    """
    places: dict[str, list[str]] = {}
    for cell in cells:
        places.setdefault(cell.algorithm, []).append(cell.dataset)
    methods: dict[tuple[str, ...], list[str]] = {}
    for name, own in places.items():
        methods.setdefault(tuple(own), []).append(name)
    for found, names in methods.items():
        count = "both" if len(found) == 2 else f"all {len(found)}"
        where = f"{count} datasets" if len(found) == len(datasets) else _names(found)
        yield names, f" on {where}" if len(datasets) > 1 else ""


def _on_the_undecided(undecided: Sequence[Cell], judged: Sequence[Cell], several: bool) -> str:
    comparisons = " comparisons" if several else ""
    if len(judged) == 1:
        sentence = f"{undecided[0].algorithm} remains undecided"
    elif len(undecided) == len(judged):
        sentence = f"All {len(judged)}{comparisons} remain undecided"
    else:
        remain = "remains" if len(undecided) == 1 else "remain"
        sentence = f"{len(undecided)} of {len(judged)}{comparisons} {remain} undecided"
    needed = [cell.trials_needed for cell in judged]
    most = max((number for number in needed if number is not None), default=0)
    return f"{sentence}: a verdict needs {most} trials." if None not in needed else f"{sentence}."


def _names(names: Sequence[str]) -> str:
    *others, last = names or [""]
    return f"{', '.join(others)} and {last}" if others else last


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
