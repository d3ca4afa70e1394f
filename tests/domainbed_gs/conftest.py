"""Artificial records of sweeps."""

from __future__ import annotations

import json

import pytest

from domainbed.records.query import Q
from domainbed.scripts import collect_results


def make_record(algorithm, target, trial, accuracy, *, step=100, environments=4, **args):
    """One record with 70/10/20 splits; methods share the seed of a trial unless `args` overrides it."""
    own = {"dataset": "EmojiStyles", "algorithm": algorithm, "test_envs": [target], "trial_seed": trial}
    shared = {"hparams_seed": 0, "seed": 17 + trial, "splits": "70/10/20", "holdout_fraction": 0.2}
    record = {"step": step, "hparams": {}, "args": own | shared | args}
    record["sizes"] = {f"env{i}_out": 100 for i in range(environments)}
    record |= {f"env{i}_out_acc": 0.7 for i in range(environments)}
    return record | {f"env{target}_test_acc": accuracy, f"env{target}_in_acc": accuracy}


@pytest.fixture
def record():
    """`make_record(algorithm, target, trial, accuracy, step=, environments=, **args)`."""
    return make_record


@pytest.fixture
def sweep():
    """Records from {algorithm: {target: accuracies of trials 0, 1, ...}}; None is a missing trial."""

    def make(accuracies, **args):
        return Q(
            [
                make_record(algorithm, target, trial, accuracy, **args)
                for algorithm, of_target in accuracies.items()
                for target, of_trial in of_target.items()
                for trial, accuracy in enumerate(of_trial)
                if accuracy is not None
            ]
        )

    return make


@pytest.fixture
def write(tmp_path):
    """Write each record as the `results.jsonl` of a finished run; returns the sweep directory."""

    def make(records):
        for i, record in enumerate(records):
            run = tmp_path / "sweep" / f"{i:03d}"
            run.mkdir(parents=True)
            (run / "results.jsonl").write_text(json.dumps(record, sort_keys=True) + "\n")
            (run / "done").write_text("done")
        return tmp_path / "sweep"

    return make


@pytest.fixture
def collect(write, capsys):
    """Standard output and error of `collect_results` on some records, with some flags."""

    def run(records, *flags):
        assert collect_results.main(["--input_dir", str(write(records)), "--selection", "iid", *flags]) == 0
        return capsys.readouterr()

    return run
