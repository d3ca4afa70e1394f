"""Artificial records of sweeps, and losses whose sharpness is known in closed form."""

from __future__ import annotations

import json

import pytest
import torch

from domainbed.records.query import Q
from domainbed.scripts import collect_results, train


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


class Quadratic:
    """a^T t + t^T H t / 2 in float64; implements `Loss`."""

    def __init__(self, hessian, slope):
        self.hessian, self.slope = hessian, slope

    def value(self, parameters):
        return float(self.slope @ parameters + parameters @ self.hessian @ parameters / 2)

    def add_gradient(self, parameters, out, factor=1.0):
        out.add_(self.slope + self.hessian @ parameters, alpha=factor)

    def add_hessian_product(self, parameters, vector, out, factor=1.0):
        out.add_(self.hessian @ vector, alpha=factor)


@pytest.fixture
def quadratic():
    """`quadratic(eigenvalues)`: a quadratic loss with a Hessian of these eigenvalues in a random basis."""

    def make(eigenvalues, seed=0):
        draws = torch.Generator().manual_seed(seed)
        values = torch.as_tensor(eigenvalues, dtype=torch.float64)
        basis, _ = torch.linalg.qr(
            torch.randn(len(values), len(values), generator=draws, dtype=torch.float64)
        )
        slope = torch.randn(len(values), generator=draws, dtype=torch.float64)
        return Quadratic(basis @ torch.diag(values) @ basis.T, slope)

    return make


@pytest.fixture(scope="session")
def train_run(tmp_path_factory):
    """`train_run(folder, **settings)`: train two updates on Debug28 into `folder`, and return it."""

    def make(folder, **settings):
        flags = {"dataset": "Debug28", "steps": 2, "hparams": '{"batch_size": 4, "featurizer": "small_cnn"}'}
        flags |= {"output_dir": folder, **settings}
        assert train.main([f"--{name}={value}" for name, value in flags.items()]) == 0
        return folder

    return make


@pytest.fixture(scope="session")
def finished_run(train_run, tmp_path_factory):
    """The directory of a finished run of ERM with target 0; tests do not change it."""
    return train_run(tmp_path_factory.mktemp("runs") / "erm")
