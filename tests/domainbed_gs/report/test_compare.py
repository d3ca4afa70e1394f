"""Two sweeps side by side: pairing, tests, and the report section in each format."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from scipy.stats import ttest_ind

from domainbed.errors import UsageError
from domainbed.model_selection import METHODS
from domainbed.results.accuracies import compute_accuracies
from domainbed_gs.report.signed_rank import signed_rank_p
from domainbed_gs.report.statistics import holm
from domainbed_gs.report.sweep_pairs import compare_sweeps, sweep_of

ERM = {0: [0.50, 0.52, 0.54, 0.55, 0.56, 0.57], 1: [0.60, 0.61, 0.62, 0.63, 0.64, 0.65]}
BETTER = {0: [acc + 0.01 + i / 1000 for i, acc in enumerate(ERM[0])], 1: [acc + 0.02 for acc in ERM[1]]}


def cells_of(one, another):
    sweeps = [sweep_of(records, compute_accuracies(records, METHODS["iid"])) for records in (one, another)]
    return {(cell.target, cell.algorithm): cell for cell in compare_sweeps(*sweeps)}


@pytest.fixture
def write_other(tmp_path):
    """Write another sweep; returns its directory."""

    def write(records):
        for i, record in enumerate(records):
            run = tmp_path / "other" / f"{i:03d}"
            run.mkdir(parents=True)
            (run / "results.jsonl").write_text(json.dumps(record) + "\n")
            (run / "done").write_text("done")
        return tmp_path / "other"

    return write


def test_trials_are_paired_where_seeds_and_splits_match(sweep):
    cells = cells_of(sweep({"ERM": BETTER, "IRM": {0: [0.5]}}), sweep({"ERM": ERM}))
    assert [target for target, _ in cells] == ["Flat", "Gradient", "Average"]
    first, second, average = cells.values()
    assert all(cell.paired for cell in cells.values())
    assert first.difference == pytest.approx(0.0125)
    assert first.p == signed_rank_p([0.01 + i / 1000 for i in range(6)])
    assert first.interval[0] <= 0.0125 <= first.interval[1]
    assert [first.holm_p, second.holm_p] == holm([first.p, second.p])
    assert average.holm_p == average.p
    assert average.difference == pytest.approx((0.0125 + 0.02) / 2)


def test_a_missing_trial_is_left_out_of_both(sweep):
    cells = cells_of(sweep({"ERM": {0: [0.5, None, 0.7]}}), sweep({"ERM": {0: [0.4, 0.5]}}))
    (cell,) = cells.values()
    assert (cell.this, cell.other, cell.paired) == ((0.5,), (0.4,), True)


@pytest.mark.parametrize("change", [{"holdout_fraction": 0.3}, {"splits": "70/10/20:per_trial"}])
def test_other_splits_are_not_paired(sweep, change):
    (cell,) = cells_of(sweep({"ERM": {0: BETTER[0]}}), sweep({"ERM": {0: ERM[0]}}, **change)).values()
    assert not cell.paired
    welch = ttest_ind(BETTER[0], ERM[0], equal_var=False)
    assert cell.p == pytest.approx(welch.pvalue)
    assert cell.interval == pytest.approx(tuple(welch.confidence_interval()))


OLD = {"checksum": "a", "version": 1}
"""Data of a record that does not know the contents of its files."""


@pytest.mark.parametrize(
    ("this", "other", "paired"),
    [
        ({}, OLD, True),
        (OLD, OLD, True),
        (OLD, OLD | {"checksum": "b"}, False),
        (OLD, OLD | {"version": 2}, False),
        (OLD | {"contents": "c"}, OLD, True),
        (OLD | {"contents": "c"}, OLD | {"contents": "c"}, True),
        (OLD | {"contents": "c"}, OLD | {"contents": "d"}, False),
    ],
)
def test_other_data_are_not_paired_but_unknown_data_are(sweep, with_data, this, other, paired):
    records = sweep({"ERM": {0: ERM[0]}})
    (cell,) = cells_of(with_data(records, this), with_data(records, other)).values()
    assert cell.paired == paired
    (cell,) = cells_of(with_data(records, other), with_data(records, this)).values()
    assert cell.paired == paired


def test_a_run_of_unknown_contents_has_those_of_the_other_runs_of_its_sweep(sweep, with_data):
    old = with_data(sweep({"ERM": {0: [0.5]}}), OLD)
    new = with_data(sweep({"ERM": {0: [None, 0.6]}}), OLD | {"contents": "c"})
    for contents, paired in (("c", True), ("d", False)):
        other = with_data(sweep({"ERM": {0: [0.7]}}), OLD | {"contents": contents})
        (cell,) = cells_of(type(old)([*old, *new]), other).values()
        assert cell.paired == paired


@pytest.fixture
def with_data():
    """`with_data(records, data)`: the records with this entry `data`."""
    return lambda records, data: type(records)([{**each, "data": data} for each in records])


def test_one_trial_or_no_spread_has_no_welch_test(sweep):
    for mine, theirs in (([0.5], [0.4, 0.6]), ([0.5, 0.5], [0.4, 0.4])):
        one, another = sweep({"ERM": {0: mine}}), sweep({"ERM": {0: theirs}}, holdout_fraction=0.3)
        (cell,) = cells_of(one, another).values()
        assert (cell.p, cell.interval, cell.holm_p) == (None, None, None)


def test_in_text(sweep, collect, write_other):
    other = write_other(sweep({"ERM": {0: ERM[0]}, "IRM": {0: [0.5]}}, steps=200))
    out = collect(sweep({"ERM": BETTER, "AgrSum": {0: [0.5]}}, steps=100), "--compare", str(other)).out
    assert re.search(
        r"-------- Dataset: EmojiStyles, two sweeps side by side \(%\)\n"
        r"Target +Algorithm +This +Other +Difference +95 % interval +p +Holm p +Trials *\n"
        r"\w+ +ERM +55.25 +54.00 +\+1.25 +\[\+1.00, \+1.50\] +0.0312 +0.0312 \* +6 pairs *\n",
        out,
    )
    words = " ".join(out.split())
    assert f"Other:thatin{other}." in "".join(out.split())  # lines are also broken at hyphens
    assert "Note: only in this sweep: AgrSum. Note: only in the other sweep: IRM." in words
    assert re.search(r"Note: EmojiStyles, ERM: only one sweep has \w+\.", words)
    assert "Note: the settings differ: steps is 100 here and 200 there." in words
    assert "unpaired" not in words
    assert "can be below" not in words


def test_too_few_pairs_and_many_values_are_said_in_short(sweep, collect, write_other):
    other = write_other(sweep({"ERM": {0: [0.5, 0.6], 1: [0.5, 0.6]}}))
    runs = sweep({name: {0: [0.51, 0.62], 1: [0.5, 0.6]} for name in ("ERM", "IRM", "Mixup", "MLDG")})
    for run in runs:
        run["args"]["steps"] = ["ERM", "IRM", "Mixup", "MLDG"].index(run["args"]["algorithm"]) + 1
    words = " ".join(collect(runs, "--compare", str(other)).out.split())
    assert "Note: with so few pairs no Holm p of the averages (1 test) can be below 0.05; at least 6" in words
    assert (
        "no Holm p of the single targets (2 tests) can be below 0.05; at least 7 pairs are needed." in words
    )
    assert "the settings differ: steps is one of 4 values here and None there." in words


def test_unpaired_sweeps_say_so(sweep, collect, write_other):
    other = write_other(sweep({"ERM": {0: ERM[0][:4]}}, splits="stratified"))
    out = collect(sweep({"ERM": {0: BETTER[0]}}), "--compare", str(other)).out
    assert re.search(r"ERM .* 6 and 4 *\n", out)
    assert "Trials such as 5 and 6: unpaired" in " ".join(out.split())


def test_in_csv_and_on_a_page(sweep, collect, write_other, tmp_path):
    other = write_other(sweep({"ERM": {0: [0.5, 0.6]}}))
    flags = ["--compare", str(other), "--format", "csv", "--html", str(tmp_path / "page.html")]
    (row,) = csv.DictReader(
        io.StringIO(collect(sweep({"ERM": {0: [0.51, 0.62]}}), *flags).out.split("\n\n")[1])
    )
    assert float(row["difference_points"]) == pytest.approx(1.5)
    assert (row["low_points"], row["high_points"], row["paired"]) == ("", "", "True")
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Beside another sweep</h2>" in page
    assert "[unbounded, unbounded]" in page


def test_nothing_in_common(sweep, collect, write_other, tmp_path):
    other = write_other(sweep({"IRM": {0: [0.5]}}))
    with pytest.raises(UsageError, match="no algorithm has results in both sweeps on the same target"):
        collect(sweep({"ERM": {0: [0.5]}}), "--compare", str(other))


def test_no_other_sweep(sweep, collect, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        collect(sweep({"ERM": {0: [0.5]}}), "--compare", str(tmp_path / "nowhere"))
