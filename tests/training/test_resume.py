"""A run that stops at some step resumes and ends with the same numbers, whatever its settings."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed.algorithms import ALGORITHMS
from domainbed.errors import UsageError
from domainbed.predictions import accuracy, read_predictions
from domainbed.training import checkpoint
from domainbed.training.run_state import RunState, run_state


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_resumes_in_the_middle_and_its_predictions_give_the_recorded_accuracies(
    name, tmp_path, assert_same, attempt, updates_in
):
    attempt(tmp_path / "straight", algorithm=name)
    attempt(tmp_path / "run", stop_at=8, algorithm=name)
    assert run_state(tmp_path / "run") is RunState.PREEMPTED
    assert 0 < updates_in(tmp_path / "run") < 6
    attempt(tmp_path / "run", algorithm=name)
    assert_same(tmp_path / "run", tmp_path / "straight")
    predictions = read_predictions(tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert predictions.steps == [record["step"] for record in records] == [0, 2, 4, 5]
    for record in records:
        accuracies = {name: accuracy(predictions.part(name, record["step"])) for name in predictions.parts}
        assert accuracies == {name: record[f"{name}_acc"] for name in record["sizes"]}


def test_a_run_resumes_with_its_acceleration_options(tmp_path, assert_same, attempt):
    settings = {"algorithm": "AgrRand", "precision": "bf16", "channels_last": True}
    attempt(tmp_path / "straight", **settings)
    attempt(tmp_path / "run", stop_at=8, **settings)
    with pytest.raises(UsageError, match="precision was 'bf16', now 'fp32'"):
        attempt(tmp_path / "run", algorithm="AgrRand", channels_last=True)
    attempt(tmp_path / "run", **settings)
    assert_same(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize("averaging", ["none", "sma"])
def test_a_run_with_cached_outputs_of_frozen_stages_resumes(
    tmp_path, assert_same, averaging, attempt, updates_in
):
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "mine.pth")
    hparams = {"batch_size": 4, "featurizer": "timm:test_resnet", "weights_file": str(tmp_path / "mine.pth")}
    hparams |= {"freeze": "layer2", "weight_averaging": averaging}
    settings = {"algorithm": "AgrRand", "hparams": json.dumps(hparams), "cache_dir": str(tmp_path / "cache")}
    attempt(tmp_path / "straight", **settings)
    assert list((tmp_path / "cache").glob("*.outputs"))
    attempt(tmp_path / "run", stop_at=8, **settings)
    assert 0 < updates_in(tmp_path / "run") < 6
    attempt(tmp_path / "run", **settings)
    assert_same(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize("averaging", ["sma", "swad"])
def test_a_run_can_be_stopped_at_any_moment_even_during_evaluations(
    tmp_path, assert_same, averaging, attempt
):
    hparams = {
        "batch_size": 4,
        "featurizer": "small_cnn",
        "weight_averaging": averaging,
        "swad_n_s": 1,
        "swad_n_e": 2,
    }
    settings = {"algorithm": "AgrRand", "hparams": json.dumps(hparams), "steps": 7}
    attempt(tmp_path / "straight", **settings)
    stops = 0
    for stop_at in range(1, 70, 5):
        path = tmp_path / f"run{stop_at}"
        attempt(path, stop_at, **settings)
        stops += run_state(path) is RunState.PREEMPTED
        attempt(path, **settings)
        assert_same(path, tmp_path / "straight")
    assert stops > 5


def test_a_swad_run_of_an_earlier_release_keeps_equal_weights(tmp_path, assert_same, attempt):
    hparams = {"batch_size": 4, "featurizer": "mlp", "weight_averaging": "swad", "swad_n_s": 1, "swad_r": 9.0}
    settings = {"algorithm": "ERM", "hparams": json.dumps(hparams), "steps": 9}
    attempt(tmp_path / "straight", earlier_swad=True, **settings)
    attempt(tmp_path / "public", **settings)
    path = tmp_path / "run"
    attempt(path, stop_at=30, earlier_swad=True, **settings)
    # Earlier releases had neither the hyper-parameter nor provisional checkpoints.
    summary = json.loads((path / "run.json").read_text())
    assert summary["hparams"].pop("swad_counting") == "equal"
    (path / "run.json").write_text(json.dumps(summary))
    content = checkpoint.load(path)
    assert content["averaging"].pop("provisional") == []
    checkpoint.save(path, content)
    attempt(path, **settings)
    assert_same(path, tmp_path / "straight")
    files = [torch.load(tmp_path / name / "model.pkl", weights_only=True) for name in ("straight", "public")]
    weights = [file["model_dict"]["network.1.weight"] for file in files]
    assert not torch.equal(*weights)


def group(name):
    if name.endswith("_acc"):
        return "accuracy"
    return "metrics" if name.startswith("env") else "training"


def test_tensorboard_shows_every_step_once(tmp_path, shown, attempt):
    settings = {"algorithm": "ERM", "tensorboard": True, "steps": 7}
    attempt(tmp_path / "run", stop_at=22, **settings)
    assert run_state(tmp_path / "run") is RunState.PREEMPTED
    assert 1 < len({step for _, step in shown(tmp_path / "run")}) < 4
    attempt(tmp_path / "run", **settings)
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    expected = {
        (f"{group(name)}/{name}", record["step"]): value
        for record in map(json.loads, lines)
        for name, value in record.items()
        if isinstance(value, int | float) and name != "step"
    }
    found = {key: event.value for key, event in shown(tmp_path / "run").items()}
    assert found == pytest.approx(expected, rel=1e-6)
    assert {step for _, step in found} == {0, 2, 4, 6}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_sees_the_same_augmented_images(tmp_path, assert_same, num_workers, attempt):
    rng = np.random.default_rng(0)
    for place in (f"{environment}/{label}" for environment in "abc" for label in ("cat", "dog")):
        (tmp_path / "images" / place).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / place / f"{i}.png")
    hparams = {"batch_size": 4, "featurizer": "small_cnn", "input_size": 32}
    settings = {"dataset": str(tmp_path / "images"), "hparams": json.dumps(hparams), "algorithm": "AgrSum"}
    attempt(tmp_path / "straight", **settings, num_workers=0)
    attempt(tmp_path / "run", stop_at=10, **settings, num_workers=num_workers)
    assert run_state(tmp_path / "run") is RunState.PREEMPTED
    attempt(tmp_path / "run", **settings, num_workers=num_workers)
    assert_same(tmp_path / "run", tmp_path / "straight")
