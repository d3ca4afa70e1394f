"""Verdicts: their rule, the remarks in rows, and the answer of a whole report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domainbed_gs.report.comparison import Cell, PairedReport, compare
from domainbed_gs.report.families import judge
from domainbed_gs.report.verdicts import Verdict, answer, verdict_of, verdict_text

RISING = [0.5 + 0.002 * i for i in range(1, 11)]


@pytest.mark.parametrize(
    ("p", "equivalence_p", "direction", "verdict"),
    [
        (0.049, 0.9, 3, Verdict.BETTER),
        (0.049, 0.9, -3, Verdict.WORSE),
        (0.049, 0.001, 3, Verdict.BETTER),  # better comes before equivalent
        (0.05, 0.049, 3, Verdict.EQUIVALENT),
        (0.05, 0.05, 3, Verdict.UNDECIDED),
    ],
)
def test_rule(p, equivalence_p, direction, verdict):
    assert verdict_of(p, equivalence_p, direction) is verdict


def cell(algorithm, gains, rope=0.01, **changes):
    """A cell of the primary family whose differences to a baseline of 0.5 are `gains`."""
    comparison = compare([0.5 + gain for gain in gains], [0.5] * len(gains), rope)
    return replace(Cell("PACS", None, "Average", algorithm, {}, comparison=comparison), **changes)


def text(gains, others=0, **changes):
    """`verdict_text` of a cell in a family with `others` more cells, none of which is decided."""
    noise = [cell(f"Other{i}", [0.04, -0.05] * (len(gains) // 2), **changes) for i in range(others)]
    return verdict_text(judge([cell("AgrSum", gains, **changes), *noise])[0])


def test_texts():
    assert text([0.03 + 0.001 * i for i in range(10)]) == "better"
    assert text([-0.03 - 0.001 * i for i in range(10)]) == "worse"
    assert text([0.001 * i for i in range(1, 9)]) == "better, by less than the rope"
    assert text([-0.001 * i for i in range(1, 9)]) == "worse, by less than the rope"
    assert text([0.001, -0.001] * 5) == "equivalent"
    assert text([0.05, -0.04] * 5) == "undecided"
    assert text([0.001, -0.001] * 5, rope=0.0005) == "undecided"


def test_an_undecided_row_with_too_few_trials_says_how_many_are_needed():
    assert text([0.05, 0.06, 0.07, 0.08, 0.09]) == "undecided, needs 6 trials"
    assert text([0.05 + 0.01 * i for i in range(6)], others=2) == "undecided, needs 7 trials"
    assert text([0.05, 0.06, 0.07, 0.08] + [0.0] * 8) == "undecided, needs 6 untied trials"
    assert text([0.001, -0.001] * 3, others=4) == "undecided, needs 8 trials"


def test_more_trials_of_other_rows_can_make_a_verdict_possible():
    few = cell("AgrSum", [0.05 + 0.01 * i for i in range(6)])
    many = cell("PCGrad", [0.05 + 0.01 * i for i in range(20)])
    assert [verdict_text(each) for each in judge([few, many])] == ["better", "better"]


def test_a_row_says_where_the_test_of_the_mean_disagrees():
    skewed = [-0.001 * i for i in range(10, 22)] + [0.14]
    assert text(skewed) == "worse; the mean may not differ (p = 0.96)"
    different = replace(cell("A", skewed), verdict=Verdict.UNDECIDED, holm_p=0.06, holm_mean_p=0.031)
    assert verdict_text(different) == "undecided; the mean differs (p = 0.031)"
    opposite = replace(cell("A", [*skewed[:12], 0.5]), verdict=Verdict.WORSE, holm_p=0.01, holm_mean_p=0.002)
    assert verdict_text(opposite) == "worse; the mean is higher (p = 0.002)"


def test_cells_without_a_test_have_no_verdict():
    untested = judge([cell("AgrSum", []), Cell("PACS", None, "Average", "ERM", {0: 0.5})])
    assert [verdict_text(each) for each in untested] == ["", ""]


BETTER = [0.03 + 0.001 * i for i in range(12)]
WORSE = [-gain for gain in BETTER]
EQUAL = [0.001, -0.001] * 6
NOISE = [0.05, -0.04] * 6


def answered(**gains):
    return answer(PairedReport("ERM", judge([cell(name, each) for name, each in gains.items()])))


def test_answers():
    assert answered(A=NOISE, IRM=WORSE, B=NOISE) == (
        "No method beats ERM. IRM is worse. 2 of 3 remain undecided."
    )
    assert answered(A=BETTER, B=BETTER, C=EQUAL, D=NOISE) == (
        "A and B beat ERM. C is equivalent to ERM within 1 point. 1 of 4 remains undecided."
    )
    assert answered(A=BETTER) == "A beats ERM."
    assert answered(A=NOISE) == "No method beats ERM. A remains undecided."
    assert answered(A=NOISE, B=NOISE) == "No method beats ERM. All 2 remain undecided."
    assert answered(A=NOISE[:4], B=NOISE[:4]) == (
        "No method beats ERM. All 2 remain undecided: a verdict needs 7 trials."
    )
    assert answered(A=[]) == "No method shares a trial with ERM."
    assert answered() == "No method is compared with ERM."


def test_several_datasets_have_one_answer():
    def on(dataset, **gains):
        return [replace(cell(name, each), dataset=dataset) for name, each in gains.items()]

    def answered(*cells, rope=0.01):
        return answer(PairedReport("ERM", judge(cells), rope=rope))

    pacs = on("PACS", A=BETTER, B=BETTER, IRM=WORSE, C=EQUAL)
    vlcs = on("VLCS", A=BETTER, B=NOISE, IRM=WORSE, C=NOISE)
    assert answered(*pacs, *vlcs, rope=0.02) == (
        "A beats ERM on both datasets. B beats ERM on PACS. IRM is worse on both datasets. C is equivalent "
        "to ERM within 2 points on PACS. 2 of 8 comparisons remain undecided."
    )
    third = on("OfficeHome", A=BETTER, B=BETTER, IRM=WORSE)
    assert answered(*pacs, *vlcs, *third).startswith(
        "A beats ERM on all 3 datasets. B beats ERM on PACS and OfficeHome. IRM is worse on all 3 datasets. "
    )
    assert answered(*on("PACS", A=NOISE), *on("VLCS", A=NOISE)) == (
        "No method beats ERM on any dataset. All 2 comparisons remain undecided."
    )
    # A dataset without a verdict is no place where anything holds.
    assert answered(*on("PACS", A=BETTER), *on("VLCS", A=[])) == "A beats ERM."
