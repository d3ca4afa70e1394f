"""Averages over targets where some trials lack a target: upstream's in text, complete trials elsewhere."""

from __future__ import annotations

import csv
import html
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed.model_selection import METHODS
from domainbed.records.query import Q
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.averages import average_of
from domainbed.scripts import collect_results

EASY, HARD = 0.8, 0.5
TARGETS = {0: EASY, 1: EASY, 2: HARD, 3: EASY}
"""Accuracy of both methods on each target of VLCS (C, L, S, V), in every trial: 72.5 on average."""


def record(algorithm, target, trial, accuracy):
    args = {"dataset": "VLCS", "algorithm": algorithm, "test_envs": [target], "trial_seed": trial}
    found = {"args": args | {"hparams_seed": 0}, "step": 0}
    return found | {f"env{i}_out_acc": 0.5 for i in range(4)} | {f"env{target}_in_acc": accuracy}


def half_done():
    """Two methods equal in every cell; IRM lacks trials 1 and 2 on the hard target."""
    return [
        record(algorithm, target, trial, accuracy)
        for algorithm in ("ERM", "IRM")
        for target, accuracy in TARGETS.items()
        for trial in range(3)
        if not (algorithm == "IRM" and target == 2 and trial > 0)
    ]


@pytest.fixture
def report(tmp_path, capsys):
    """stdout and stderr of collect_results on `half_done()` with some flags."""
    for i, each in enumerate(half_done()):
        run = tmp_path / "sweep" / f"{i:03d}"
        run.mkdir(parents=True)
        (run / "results.jsonl").write_text(json.dumps(each) + "\n")
        (run / "done").touch()

    def run(*flags):
        collect_results.main(["--input_dir", str(tmp_path / "sweep"), "--selection", "iid", *flags])
        return capsys.readouterr()

    return run


LACKING = "IRM on VLCS lacks S (trials 1, 2); 1 of 3 trials complete: 72.5 +/- 0.0."


def test_half_done_sweep_in_text_keeps_upstreams_number_with_a_mark_and_a_note(report):
    lines = report().out.splitlines()
    averages = next(i for i, line in enumerate(lines) if line.startswith("-------- Averages"))
    erm, irm = lines[averages + 2 : averages + 4]
    assert erm.split() == ["ERM", "72.5", "+/-", "0.0", "72.5"]
    assert irm.split() == ["IRM", "77.5", "+/-", "2.0*", "77.5*"]  # (72.5 + 80 + 80) / 3
    assert f"* Averages over the targets that each trial has. {LACKING}" in " ".join(map(str.strip, lines))


@pytest.mark.parametrize(
    ("flags", "cell"),
    [
        (["--format", "markdown"], "| IRM | 72.5 +/- 0.0 (1 of 3 trials)† | 72.5† |"),
        (["--latex"], r"IRM & 72.5 $\pm$ 0.0 (1 of 3 trials)$^\dag$ & 72.5$^\dag$ \\"),
    ],
    ids=["markdown", "latex"],
)
def test_half_done_sweep_elsewhere_has_the_average_over_complete_trials(report, flags, cell):
    text = report(*flags).out
    assert cell in [" ".join(line.split()) for line in text.splitlines()]
    assert LACKING.replace("+/-", r"$\pm$" if "--latex" in flags else "+/-") in text
    assert "77.5" not in text


def test_half_done_sweep_in_csv_counts_the_complete_trials(report):
    rows = {
        (row["algorithm"], row["environment"]): row
        for row in csv.DictReader(io.StringIO(report("--format", "csv").out))
    }
    average = rows["IRM", "Avg"]
    assert (float(average["mean"]), average["n"]) == (pytest.approx(72.5), "1")
    assert average["missing"] == "S (trials 1, 2)"
    complete = rows["ERM", "Avg"]
    assert (float(complete["mean"]), complete["n"], complete["missing"]) == (pytest.approx(72.5), "3", "")
    assert (rows["IRM", "S"]["mean"], rows["IRM", "S"]["n"]) == ("50.0", "1")


def test_half_done_sweep_on_a_page(report, tmp_path):
    report("--html", str(tmp_path / "page.html"))
    page = html.unescape((tmp_path / "page.html").read_text())
    assert "72.5 ± 0.0 (1 of 3 trials)†" in page
    assert LACKING.replace(" +/- ", " ± ") in page
    assert "77.5" not in page


def test_no_complete_trial_is_an_x_with_a_note():
    accuracies = compute_accuracies(
        Q([record("ERM", target, target % 2, 0.5) for target in range(4)]), METHODS["iid"]
    )
    average = average_of(accuracies, accuracies.datasets[0], "ERM")
    assert average.cell() == "X"
    assert "0 of 2 trials complete: X" in average.sentence()


@given(
    cells=st.dictionaries(
        st.tuples(st.sampled_from(["ERM", "IRM"]), st.integers(0, 3), st.integers(0, 2)),
        st.sampled_from([0.25, 0.5, 0.75]),
        min_size=1,
    )
)
def test_averages_equal_an_independent_computation(cells):
    """A trial counts if it has every target that some method has; upstream's average takes any trial."""
    records = [record(*key, accuracy) for key, accuracy in cells.items()]
    accuracies = compute_accuracies(Q(records), METHODS["iid"])
    targets = {target for _, target, _ in cells}
    trials = {trial for _, _, trial in cells}
    for algorithm in {name for name, _, _ in cells}:
        found = average_of(accuracies, accuracies.datasets[0], algorithm)
        by_trial = {
            trial: [cells[algorithm, i, trial] for i in targets if (algorithm, i, trial) in cells]
            for trial in sorted(trials)
        }
        partial = [own for own in by_trial.values() if own and len(own) < len(targets)]
        complete = [np.mean(own) for own in by_trial.values() if len(own) == len(targets)]
        assert found.complete == pytest.approx(complete)
        assert found.upstream == pytest.approx([np.mean(own) for own in by_trial.values() if own])
        assert (found.trials, bool(found.lacking)) == (len(trials), bool(partial))
