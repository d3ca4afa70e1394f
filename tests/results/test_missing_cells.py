"""Every cell without a result has its reason: notes, CSV, and errors about a baseline."""

from __future__ import annotations

import csv
import io
import json

import pytest

from domainbed.errors import UsageError
from domainbed.model_selection import METHODS, SelectionMethod
from domainbed.records.query import Q
from domainbed.results.accuracies import compute_accuracies
from domainbed.results.missing_cells import MissingResult, Reason, explain
from domainbed.scripts import collect_results
from domainbed.training.claims import this_process
from domainbed.training.run_state import mark_queued, record_failure, record_preemption

TRIALS = {"trial_seed": 0, "hparams_seed": 0, "dataset": "VLCS"}


def record(algorithm, targets, outs=range(4), ins=None, step=0):
    found = {"args": {**TRIALS, "algorithm": algorithm, "test_envs": list(targets)}, "step": step}
    found |= {f"env{i}_out_acc": 0.5 for i in outs}
    return found | {f"env{i}_in_acc": 0.6 for i in (targets if ins is None else ins)}


@pytest.fixture
def sweep(tmp_path):
    """A sweep directory from {name of the folder: (algorithm, targets, records)}, all in sweep.json."""

    def make(runs):
        jobs = {}
        for name, (algorithm, targets, records) in runs.items():
            jobs[name] = {**TRIALS, "algorithm": algorithm, "test_envs": targets}
            (tmp_path / name).mkdir()
            if records:
                (tmp_path / name / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
                (tmp_path / name / "done").touch()
        (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs, "selection": ["iid"]}))
        return tmp_path

    return make


def test_each_cell_without_a_result_has_its_reason(sweep, capsys):
    """A failed run, one at work, one that waits, one that was stopped, one without validation images."""
    directory = sweep(
        {
            "done": ("ERM", [0], [record("ERM", [0])]),
            "no_validation": ("IRM", [0], [record("IRM", [0], outs=[0])]),
            "failed": ("ERM", [1], []),
            "running": ("ERM", [2], []),
            "queued": ("ERM", [3], []),
            "stopped": ("IRM", [1], []),
        }
    )
    record_failure(directory / "failed", "out of memory (tried 3 GiB)", 1)
    (directory / "running" / "claim-1.json").write_text(json.dumps(this_process()))
    mark_queued(directory / "queued")
    record_preemption(directory / "stopped", "time limit")
    collect_results.main(["--input_dir", str(directory)])
    out, err = capsys.readouterr()
    assert out.splitlines()[5].split() == ["IRM", "X", "X", "X", "X", "X"]
    notes = {line for line in err.splitlines() if "without a result" in line}
    assert notes == {
        f"note: cells without a result (X), {reason} (iid)"
        for reason in (
            "failed (out of memory (tried 3 GiB)): ERM on VLCS, target L",
            "running: ERM on VLCS, target S",
            "not started: ERM on VLCS, target V",
            "stopped before the end: IRM on VLCS, target L",
            "no run: IRM on VLCS, target S (iid), IRM on VLCS, target V",
            "no validation images (no source environment has any; increase --holdout_fraction, or add "
            "images): IRM on VLCS, target C",
        )
    }
    collect_results.main(["--input_dir", str(directory), "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    missing = {(row["algorithm"], row["environment"]): row["missing"] for row in rows}
    assert missing["ERM", "L"] == "failed (out of memory (tried 3 GiB))"
    assert missing["IRM", "V"] == "no run"
    assert missing["ERM", "C"] == ""


def test_unfinished_runs_that_are_left_out_are_the_reason(sweep, capsys):
    directory = sweep({"a": ("ERM", [0], [record("ERM", [0])]), "b": ("ERM", [1], [record("ERM", [1])])})
    (directory / "b" / "done").unlink()
    (directory / "sweep.json").unlink()
    (directory / "b" / "claim-1.json").write_text(json.dumps(this_process()))
    collect_results.main(["--input_dir", str(directory), "--finished_only", "--selection", "iid"])
    assert "cells without a result (X), running: ERM on VLCS, target L (iid)" in capsys.readouterr().err


def test_runs_with_three_targets_have_a_reason(sweep, capsys):
    directory = sweep({"a": ("ERM", [0, 1, 2], [record("ERM", [0, 1, 2])])})
    collect_results.main(["--input_dir", str(directory), "--selection", "iid", "loo"])
    err = capsys.readouterr().err
    assert "not recorded (the method needs a run that holds out this target alone" in err
    assert "these runs hold out 3 environments each): ERM on VLCS, target C (iid)" in err
    assert "no run: ERM on VLCS, target V (iid, loo)" in err


def test_a_baseline_without_results_has_a_reason(sweep):
    directory = sweep(
        {
            "a": ("IRM", [0], [record("IRM", [0])]),
            "b": ("ERM", [0], [record("ERM", [0], outs=[0])]),
            "c": ("CORAL", [0], []),
        }
    )
    record_failure(directory / "c", "diverged", 1)
    for baseline, reason in (
        ("ERM", "no validation images (no source environment has any; increase --holdout_fraction, or add"),
        ("CORAL", "failed (diverged)"),
        ("MMD", "the sweep has no run of it"),
    ):
        flags = ["--paired", "--paired_selection", "iid", "--baseline", baseline]
        with pytest.raises(UsageError) as error:
            collect_results.main(["--input_dir", str(directory), *flags])
        expected = f"--baseline {baseline} has no results under this selection method: {reason}"
        assert str(error.value).startswith(expected)
        assert str(error.value).endswith("algorithms with results: IRM")


def test_sources_that_selection_leaves_out_are_named(sweep, capsys):
    """Environment 3 (V) is a source without validation images in the runs that hold out C and L."""
    lacking = {target: [record("ERM", [target], outs=[0, 1, 2])] for target in (0, 1)}
    directory = sweep({f"run{t}": ("ERM", [t], records) for t, records in lacking.items()})
    collect_results.main(["--input_dir", str(directory), "--selection", "iid", "loo", "oracle"])
    out, err = capsys.readouterr()
    assert out.splitlines()[4].split()[:4] == ["ERM", "60.0", "+/-", "0.0"]
    assert (
        "note: source environments without validation images, which selection leaves out: V of VLCS (iid)"
    ) in err.splitlines()


def test_a_method_that_does_not_say_what_it_needs():
    class Silent(SelectionMethod):
        name = "silent"

        @classmethod
        def run_acc(cls, run_records):
            return None

    found = explain(Silent, [record("ERM", [0])])
    assert found == MissingResult(Reason.NOT_RECORDED, "the method reads other accuracies")
    accuracies = compute_accuracies(Q([record("ERM", [0])]), METHODS["autolr"])
    ((_, found),) = accuracies.missing["VLCS", "ERM", 0].items()
    assert str(found).startswith("not recorded (the method needs both stages of a run of train_autolr")
