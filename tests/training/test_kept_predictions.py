"""Which predictions a run keeps, and that it keeps them through kills."""

import json
import logging
import math

import numpy as np
import pytest
import torch

import domainbed
from domainbed.model_selection import METHODS, IIDAccuracySelectionMethod, SelectionMethod, selected_step
from domainbed.predictions import NAME, accuracy, read_predictions
from domainbed.predictions.file import saved_steps
from domainbed.records.query import Q
from domainbed.scripts import sweep
from domainbed.sweep.job import Job
from domainbed.training import checkpoint, loop
from domainbed.training.config import TrainConfig
from domainbed.training.evaluation import PartOutputs
from domainbed.training.kept_predictions import KeptPredictions, Predicted
from domainbed.training.run import build
from domainbed.training.run_dir import RunDir

QUICK = {"dataset": "Debug28", "checkpoint_freq": 1, "hparams": {"batch_size": 4, "featurizer": "small_cnn"}}


def records_of(path):
    return [json.loads(line) for line in (path / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("which", ["none", "last", "selected", "all"])
def test_the_setting_says_which_steps_are_saved(tmp_path, which):
    domainbed.train(output_dir=tmp_path, save_predictions=which, steps=6, **QUICK)
    assert not saved_steps(tmp_path)
    if which == "none":
        assert not (tmp_path / NAME).exists()
        return
    predictions, records = read_predictions(tmp_path), records_of(tmp_path)
    selected = predictions.about["selected"]
    assert selected["iid"] == selected_step(IIDAccuracySelectionMethod, Q(records))
    assert selected["oracle"] == 5
    expected = {"last": [5], "selected": sorted(set(selected.values())), "all": [*range(6)]}
    assert predictions.steps == expected[which]
    for step in predictions.steps:
        for part in predictions.parts:
            assert accuracy(predictions.part(part, step)) == records[step][f"{part}_acc"]


def test_selected_steps_are_those_of_every_rule_that_reads_one_run(tmp_path):
    hparams = QUICK["hparams"] | {"lr": 0.01}
    domainbed.train(output_dir=tmp_path, save_predictions="selected", steps=12, splits="70/10/20",
                    holdout_fraction=0, **QUICK | {"hparams": hparams})  # fmt: skip
    predictions, records = read_predictions(tmp_path), Q(records_of(tmp_path))
    expected = {name: selected_step(METHODS[name], records) for name in METHODS}
    assert predictions.about["selected"] == {
        name: step for name, step in expected.items() if step is not None
    }
    assert {"iccv2021", "last", "oracle"} <= predictions.about["selected"].keys()
    assert predictions.steps == sorted(set(predictions.about["selected"].values()))


def test_the_selected_step_is_that_whose_accuracy_a_rule_reports():
    records = [
        {"step": 10 * i, "args": {"test_envs": [0]}, "env0_in_acc": i / 10, "env1_out_acc": accuracy_}
        | {"env0_out_acc": 0.5}
        for i, accuracy_ in enumerate([0.2, math.nan, 0.7, 0.7, 0.1])
    ]
    assert METHODS["iid"].run_acc(Q(records)) == {"val_acc": 0.7, "test_acc": 0.2}
    assert selected_step(METHODS["iid"], Q(records)) == 20
    assert selected_step(METHODS["oracle"], Q(records)) == 40
    assert selected_step(METHODS["loo"], Q(records)) is None

    class OwnAccuracy(SelectionMethod):
        name = "reads its accuracy by itself"

        @classmethod
        def run_acc(cls, run_records):
            return {"val_acc": 1.0, "test_acc": run_records[0]["env0_in_acc"]}

    assert selected_step(OwnAccuracy, Q(records)) is None


def outputs_of(logits, labels=None):
    labels = torch.zeros(len(logits), dtype=torch.int64) if labels is None else labels
    return PartOutputs("env0_in", logits, labels)


def test_the_class_is_decided_before_rounding_and_a_single_column_is_two_classes():
    predicted = Predicted()
    predicted(outputs_of(torch.tensor([[0.0, 1e-6], [1e-6, 0.0]])))
    arrays = predicted.arrays(7, 2)
    assert arrays["7/env0_in/predicted"].tolist() == [1, 0]
    assert (np.diff(arrays["7/env0_in/log_probabilities"]) == 0).all()
    predicted(outputs_of(torch.tensor([[2.0], [-1.0]])))
    arrays = predicted.arrays(7, 2)
    assert arrays["7/env0_in/predicted"].tolist() == [1, 0]
    expected = torch.tensor([[0.0, 2.0], [0.0, -1.0]]).log_softmax(1)
    np.testing.assert_allclose(arrays["7/env0_in/log_probabilities"], expected, atol=1e-3)


@pytest.mark.parametrize("classes", [100, 101])
def test_beyond_100_classes_the_20_most_probable_and_the_label_are_kept(classes):
    logits = torch.randn(30, classes, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30)
    predicted = Predicted()
    predicted(outputs_of(logits, labels))
    arrays = predicted.arrays(0, classes)
    log_probabilities = arrays["0/env0_in/log_probabilities"]
    if classes == 100:
        assert log_probabilities.shape == (30, 100)
        assert "0/env0_in/classes" not in arrays
        return
    kept = arrays["0/env0_in/classes"]
    assert log_probabilities.shape == kept.shape == (30, 21)
    assert (kept[:, 20] == labels.numpy()).all()
    assert (kept[:, 0] == arrays["0/env0_in/predicted"]).all()
    assert (np.diff(log_probabilities[:, :20]) <= 0).all()
    expected = np.take_along_axis(logits.log_softmax(1).numpy(), kept.astype(np.int64), axis=1)
    np.testing.assert_allclose(log_probabilities, expected, atol=5e-3)


def test_identities_are_paths_below_the_dataset_or_positions(tmp_path, exported):
    settings = {"steps": 1, "test_envs": [1], "hparams": {"batch_size": 2, "featurizer": "small_cnn"}}
    domainbed.train(dataset=str(exported["png"]), output_dir=tmp_path, save_predictions="last", **settings)
    predictions = read_predictions(tmp_path)
    for part in map(predictions.part, predictions.parts):
        for image, label in zip(part.images, part.labels, strict=True):
            assert (exported["png"] / image).is_file()
            assert image.split("/")[:2] == [
                predictions.about["environments"][part.environment],
                predictions.classes[label],
            ]


def test_parts_of_unlabeled_images_belong_to_their_target(tmp_path):
    settings = {"task": "domain_adaptation", "uda_holdout_fraction": 0.5, "test_envs": [2], "steps": 1}
    domainbed.train(output_dir=tmp_path, save_predictions="last", **settings, **QUICK)
    predictions = read_predictions(tmp_path)
    assert predictions.about["parts"]["env0_uda"] == 2
    names = [part.name for part in predictions.environment(2)]
    assert sorted(names) == ["env0_uda", "env2_in", "env2_out"]
    positions = np.concatenate([part.positions for part in predictions.environment(2)])
    assert sorted(positions) == list(range(16))


class Stop:
    """Stop requests that end the run at the given call of `check`, with a checkpoint or as by SIGKILL."""

    def __init__(self, calls, error):
        self.calls, self.error = calls, error

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def check(self):
        self.calls -= 1
        if self.calls == 0:
            raise self.error("stopped")


class Killed(BaseException):
    """As SIGKILL: nothing is written."""


def attempt(path, monkeypatch, which, stop_at=0, error=loop.Preempted, checkpoint_every=5):
    config = TrainConfig(
        dataset="Debug28",
        steps=10,
        checkpoint_freq=1,
        hparams='{"batch_size": 4, "featurizer": "small_cnn", "lr": 0.01}',
        output_dir=str(path),
        save_predictions=which,
        checkpoint_every=checkpoint_every,
    )
    with monkeypatch.context() as patch:
        if stop_at:
            patch.setattr(loop, "StopRequests", lambda notice: Stop(stop_at, error))
        try:
            with RunDir(path, config.compared() | {"output_dir": None}) as directory:
                loop.train(build(config), directory)
        except error:
            assert stop_at


@pytest.mark.parametrize(
    ("which", "error", "checkpoint_every"),
    [
        ("selected", Killed, 0),
        pytest.param("selected", loop.Preempted, 5, marks=pytest.mark.slow),
        pytest.param("all", Killed, 0, marks=pytest.mark.slow),
        ("last", loop.Preempted, 5),
    ],
)
def test_a_run_that_was_stopped_or_killed_ends_with_the_same_file(
    tmp_path, monkeypatch, which, error, checkpoint_every
):
    attempt(tmp_path / "straight", monkeypatch, which)
    for stop_at in (20, 15):
        attempt(tmp_path / "run", monkeypatch, which, stop_at, error, checkpoint_every)
    assert 3 < checkpoint.load(tmp_path / "run")["updates"] < 10
    attempt(tmp_path / "run", monkeypatch, which)
    assert (tmp_path / "run" / NAME).read_bytes() == (tmp_path / "straight" / NAME).read_bytes()
    assert not saved_steps(tmp_path / "run")


def test_files_of_steps_that_no_checkpoint_needs_are_removed_while_training(tmp_path, monkeypatch):
    attempt(tmp_path, monkeypatch, "selected", stop_at=50, error=Killed, checkpoint_every=0)
    recorded = [record["step"] for record in records_of(tmp_path)]
    assert len(recorded) > 6
    assert len(saved_steps(tmp_path)) <= 4  # of the best and the last step, at two checkpoints


def test_a_run_that_resumes_with_other_predictions_wanted_says_which_are_missing(
    tmp_path, monkeypatch, caplog
):
    attempt(tmp_path, monkeypatch, "none", stop_at=20)
    attempt(tmp_path, monkeypatch, "all")
    assert "predictions of steps 0, 1" in caplog.text
    assert "the run began without --save_predictions all" in caplog.text
    assert read_predictions(tmp_path).steps[-1] == 9
    assert 0 not in read_predictions(tmp_path).steps


def test_steps_in_memory_are_few_between_checkpoints(tmp_path):
    config = TrainConfig(dataset="Debug28", save_predictions="selected", output_dir=str(tmp_path))
    run = build(config)
    with RunDir(tmp_path, {}) as directory:
        kept = KeptPredictions(run, directory, {})
        for step in range(200):
            accuracies = {"env0_in_acc": 0.5, "env0_out_acc": 0.5, "env1_out_acc": 1 - abs(step - 70) / 200}
            kept.add({"step": step, "args": {"test_envs": [0]}, **accuracies}, kept.consumers(step))
            assert len(kept._in_memory) < 16
        kept.write_steps()
        assert saved_steps(tmp_path) >= {70, 199}
        assert len(saved_steps(tmp_path)) < 8


def test_a_broken_rule_of_a_plugin_does_not_stop_a_run(tmp_path, monkeypatch, caplog):
    class Broken(SelectionMethod):
        name = "broken"

        @classmethod
        def run_acc(cls, run_records):
            raise KeyError("env7_out_acc")

    monkeypatch.setitem(METHODS, "broken", Broken)
    caplog.set_level(logging.WARNING)
    domainbed.train(output_dir=tmp_path, save_predictions="selected", steps=3, **QUICK)
    assert caplog.text.count("selection rule broken fails ('env7_out_acc')") == 1
    assert 2 in read_predictions(tmp_path).steps


def test_a_run_of_which_no_rule_selects_a_step_says_so(tmp_path, caplog):
    domainbed.train(output_dir=tmp_path, save_predictions="selected", steps=1, holdout_fraction=0, **QUICK)
    assert "no predictions are saved, because no selection rule selects a step of this run" in caplog.text
    assert read_predictions(tmp_path).steps == []


def test_a_run_that_holds_out_several_targets_keeps_the_steps_selected_for_each(tmp_path):
    domainbed.train(output_dir=tmp_path, save_predictions="selected", steps=8, test_envs=[2, 1], **QUICK)
    predictions, records = read_predictions(tmp_path), records_of(tmp_path)
    alone = [record | {"args": {"test_envs": [1]}} for record in records]
    for record in alone:
        del record["env2_out_acc"]
    iid = selected_step(IIDAccuracySelectionMethod, Q(alone))
    assert predictions.about["selected"].items() >= {"iid": iid, "oracle": 7}.items()
    assert {iid, 7} <= set(predictions.steps)
    assert [part.name for part in predictions.environment(1)] == ["env1_in", "env1_out"]


def test_a_sweep_passes_the_setting_on_and_its_runs_keep_their_names(tmp_path):
    args = {"dataset": "Debug28", "algorithm": "ERM", "test_envs": [0], "hparams_seed": 0, "trial_seed": 0}
    plain, kept = Job(args, str(tmp_path)), Job(args | {"save_predictions": "selected"}, str(tmp_path))
    assert kept.name == plain.name
    assert "--save_predictions selected" in kept.command_str
    flags = ["launch", "--datasets", "Debug28", "--algorithms", "ERM", "--n_trials", "1", "--n_hparams", "1"]
    flags += ["--single_test_envs", "--steps", "1", "--skip_confirmation", "--output_dir", str(tmp_path)]
    names = []
    for more in ([], ["--save_predictions", "last"]):
        sweep.main([*flags, "--command_launcher", "dummy", *more])
        names.append(sorted(path.name for path in tmp_path.iterdir() if path.is_dir()))
    assert len(names[0]) == 3
    assert names[0] == names[1]
