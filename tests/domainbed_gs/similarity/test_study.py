"""The gradient similarity study from its command line: what it measures, and that training stays the same."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.erm import ERM
from domainbed.datasets.splitting import SplitDataset
from domainbed.errors import UsageError
from domainbed.scripts import train
from domainbed.training.stop_requests import Preempted
from domainbed_gs.scripts import similarity
from domainbed_gs.similarity.probes import Probes
from domainbed_gs.similarity.table import NAME, TABLE

CHANGING = ("step_time", "args")


def flags(path, **more):
    hparams = '{"batch_size": 4, "featurizer": "small_cnn"}'
    settings = {"dataset": "Debug28", "steps": 5, "checkpoint_freq": 2, "hparams": hparams}
    settings |= {"evaluate": "selection", "skip_model_save": True, "output_dir": path} | more
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in settings.items()]


def records_of(path):
    lines = (path / "results.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CHANGING} for line in lines]


def rows_of(path):
    return TABLE.read(path / NAME)


def test_a_study_is_an_ordinary_run_with_measurements(tmp_path, capsys):
    assert similarity.main(flags(tmp_path / "study", samples=3)) == 0
    out = capsys.readouterr().out
    assert "5 measurements. The mean cosine is larger within environments" in out
    assert out.endswith(f"Figure: {tmp_path / 'study' / 'similarity.png'}\n")
    rows = rows_of(tmp_path / "study")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert all((row["samples"], row["within_pairs"], row["between_pairs"]) == (6, 6, 9) for row in rows)
    assert len({row["class"] for row in rows}) > 1
    assert train.main(flags(tmp_path / "plain")) == 0
    assert records_of(tmp_path / "study") == records_of(tmp_path / "plain")


def test_a_finished_study_is_drawn_again_and_other_settings_are_refused(tmp_path, capsys):
    similarity.main(flags(tmp_path, every=2, steps=3))
    (tmp_path / "similarity.png").unlink()
    similarity.main(flags(tmp_path, every=2, steps=3))
    assert "already holds this run, finished" in capsys.readouterr().out
    assert (tmp_path / "similarity.png").is_file()
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 2]
    with pytest.raises(UsageError, match="similarity_every was 2, now 1"):
        similarity.main(flags(tmp_path, steps=3))


def test_a_run_in_bfloat16_is_measured_in_float32_and_trained_as_without_measurements(tmp_path):
    for name, options in {"fast": {"precision": "bf16", "channels_last": True}, "plain": {}}.items():
        similarity.main(flags(tmp_path / name, steps=2, **options))
    train.main(flags(tmp_path / "unmeasured", steps=2, precision="bf16", channels_last=True))
    assert records_of(tmp_path / "fast") == records_of(tmp_path / "unmeasured")
    fast, plain = (rows_of(tmp_path / name)[0] for name in ("fast", "plain"))
    for name, value in plain.items():  # before the first update
        assert fast[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-3))


def test_an_interrupted_study_produces_the_same_table(tmp_path, monkeypatch):
    similarity.main(flags(tmp_path / "uninterrupted", mode="train"))
    at = Probes.at

    def stopping(probes, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return at(probes, step)

    monkeypatch.setattr(Probes, "at", stopping)
    with pytest.raises(Preempted):
        similarity.main(flags(tmp_path / "stopped", mode="train"))
    monkeypatch.undo()
    path = tmp_path / "stopped" / NAME
    assert [row["step"] for row in TABLE.read(path)] == [0, 1, 2, 3]
    TABLE.append(path, TABLE.read(path)[-1] | {"step": 4})  # past the checkpoint, as after a crash
    similarity.main(flags(tmp_path / "stopped", mode="train"))
    assert path.read_text() == (tmp_path / "uninterrupted" / NAME).read_text()
    assert records_of(tmp_path / "stopped") == records_of(tmp_path / "uninterrupted")


@pytest.fixture
def seen():
    """Sets of labels of the minibatches of each update of the algorithm `Watching`."""
    labels = []

    @REGISTRY.register()
    class Watching(ERM):
        def update(self, minibatches, unlabeled=None):
            labels.append([set(y.tolist()) for _, y in minibatches])
            return super().update(minibatches, unlabeled)

    yield labels
    del REGISTRY["Watching"]


def test_training_on_the_measured_class(seen, tmp_path):
    similarity.main(flags(tmp_path, algorithm="Watching", train_on="class", samples=2))
    assert all(len(minibatches) == 2 and len(set.union(*minibatches)) == 1 for minibatches in seen)
    assert len({min(minibatches[0]) for minibatches in seen}) > 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"samples": 1}, "--samples must be at least 2"),
        ({"every": 0}, "--every must be at least 1"),
        ({"mode": "both"}, "--mode takes one of eval, train"),
        ({"train_on": "none"}, "--train_on takes one of all, class"),
        ({"train_on": "class", "every": 2}, "leave out --every"),
        ({"algorithm": "Fish"}, "cannot measure gradients of Fish"),
        ({"compile": True}, "leave out --compile"),
    ],
)
def test_invalid_settings_are_refused_before_the_run_directory_is_created(more, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        similarity.main(flags(tmp_path / "run", **more))
    assert not (tmp_path / "run").exists()


def part(labels):
    """A part with every second sample of an environment, whose inputs are the positions of the samples."""
    labels = torch.tensor(labels)
    environment = TensorDataset(torch.arange(2.0 * len(labels)), labels.repeat_interleave(2))
    return SplitDataset(environment, list(range(0, 2 * len(labels), 2)))


def test_probes_have_one_class_and_distinct_samples_and_depend_only_on_seed_and_step():
    parts = [part([0] * 9 + [1] * 3 + [2] * 5), part([2] * 4 + [1] * 6 + [0] * 6 + [3] * 4)]
    probes, again, other = (Probes(parts, 4, seed) for seed in (0, 0, 1))
    assert probes.classes == [0, 1, 2]
    drawn = {0: set(), 1: set(), 2: set()}
    for step in (*range(60), 3):
        probe, same = probes.at(step), again.at(step)
        for (x, y), (x_again, _) in zip(probe.minibatches, same.minibatches, strict=True):
            assert set(y.tolist()) == {probe.label}
            assert len(set(x.tolist())) == len(x)
            assert torch.equal(x, x_again)
        assert [len(y) for _, y in probe.minibatches] == [3 if probe.label == 1 else 4, 4]
        drawn[probe.label] |= set(probe.minibatches[0][0].tolist())
    assert [len(drawn[label]) for label in (0, 1, 2)] == [9, 3, 5]
    assert any(probes.at(step).label != other.at(step).label for step in range(9))


def test_a_class_needs_two_samples_in_every_source():
    with pytest.raises(UsageError, match="no class has two samples in every source"):
        Probes([part([0, 0, 1]), part([0, 1, 1])], 4, 0)


def test_samples_are_those_of_the_part():
    (x, _), _ = Probes([part([0] * 3), part([0] * 3)], 9, 0).at(0).minibatches
    assert np.sort(x.numpy()).tolist() == [0, 2, 4]
