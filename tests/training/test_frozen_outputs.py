"""Runs with frozen stages, whose outputs are computed once for each image if images are always the same."""

import json

import pytest
import torch

import domainbed
from domainbed.training.config import TrainConfig
from domainbed.training.frozen_outputs import FrozenOutputs
from domainbed.training.run import build
from domainbed.training.run_description import describe

timm = pytest.importorskip("timm")
CHANGING = ("step_time", "mem_gb", "args")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    return str(path)


@pytest.fixture
def settings(exported, weights, tmp_path):
    """Keywords of a run on EmojiStyles' images as files."""
    hparams = {"featurizer": "timm:test_resnet", "weights_file": weights, "freeze": "layer2", "lr": 1e-3}
    hparams |= {"input_size": 32, "batch_size": 4, "data_augmentation": False}
    return {
        **{"dataset": str(exported["png"]), "hparams": hparams, "test_envs": [1], "steps": 4},
        **{"checkpoint_freq": 3, "cache_dir": str(tmp_path / "cache"), "skip_model_save": True},
    }


def with_hparams(settings, **hparams):
    return settings | {"hparams": settings["hparams"] | hparams}


def losses(settings, path, algorithm="ERM", **more):
    domainbed.train(algorithm=algorithm, output_dir=path, **settings | more)
    records = [json.loads(line) for line in (path / "results.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in CHANGING} for record in records]


def outputs_in(tmp_path):
    return sorted((tmp_path / "cache").glob("*.outputs"))


def note(settings, algorithm="ERM"):
    made = build(TrainConfig(**settings | {"hparams": json.dumps(settings["hparams"])}, algorithm=algorithm))
    (line,) = (line for line in describe(made) if "frozen" in line)
    return made, line.partition(" are ")[2]


@pytest.mark.parametrize("algorithm", ["ERM", "PCGrad", "Fishr"])
def test_cached_outputs_change_no_number(settings, tmp_path, algorithm):
    cached = losses(settings, tmp_path / "cached", algorithm)
    assert len(outputs_in(tmp_path)) == 4
    computed = losses(settings, tmp_path / "computed", algorithm, cache_dir="none")
    for with_cache, without in zip(cached, computed, strict=True):
        for name in (key for key in without if "loss" in key or key in ("penalty", "cosine")):
            assert with_cache[name] == pytest.approx(without[name], rel=1e-3), name


def test_a_second_run_computes_no_outputs(settings, tmp_path):
    first = losses(settings, tmp_path / "one")
    times = {path: path.stat().st_mtime_ns for path in outputs_in(tmp_path)}
    assert losses(settings, tmp_path / "two", test_envs=[1]) == first
    losses(settings, tmp_path / "three", algorithm="AgrSum", test_envs=[2])
    assert {path: path.stat().st_mtime_ns for path in outputs_in(tmp_path)} == times


def test_minibatches_and_evaluated_parts_are_outputs(settings):
    made, line = note(settings)
    assert line == "computed once for each image"
    (x, y), *_ = made.minibatches[0]
    assert x.shape == (4, *made.algorithm.featurizer.frozen_shape)
    assert x.dtype == torch.float32
    assert len(y) == 4
    images = made.splits[0]["in"]
    outputs = made.frozen.part(images)
    assert isinstance(outputs.underlying_dataset, FrozenOutputs)
    expected = made.algorithm.featurizer.frozen_outputs(torch.stack([images[i][0] for i in (2, 0)]))
    torch.testing.assert_close(torch.stack([outputs[i][0] for i in (2, 0)]), expected, rtol=1e-4, atol=1e-5)
    assert [int(outputs[i][1]) for i in range(4)] == [int(images[i][1]) for i in range(4)]


def test_other_stages_sizes_or_weights_have_other_files(settings, tmp_path, weights):
    other = torch.load(weights, weights_only=True)
    other["layer1.0.conv1.weight"] *= 1.5
    torch.save(other, tmp_path / "other.pth")
    changes = [{}, {"freeze": "all"}, {"input_size": 40}, {"weights_file": str(tmp_path / "other.pth")}]
    for count, change in enumerate(changes, start=1):
        note(with_hparams(settings, **change))
        assert len(outputs_in(tmp_path)) == 3 * count  # of the sources


def test_augmented_images_pass_through_the_frozen_stages_in_each_update(settings, tmp_path):
    made, line = note(with_hparams(settings, data_augmentation=True))
    assert line == "computed in each update, because images are augmented or cannot be cached"
    assert made.minibatches[0][0][0].shape == (4, 3, 32, 32)
    # The target's images, which are never augmented, need one pass for all evaluations.
    losses(with_hparams(settings, data_augmentation=True), tmp_path / "run")
    assert len(outputs_in(tmp_path)) == 1


@pytest.mark.parametrize(
    ("algorithm", "hparams", "reason"),
    [
        ("Mixup", {}, "Mixup changes its inputs"),
        ("ERM", {"pretrained": False, "weights_file": ""}, "the weights are random"),
        ("LFME", {"pretrained": False, "weights_file": ""}, "its featurizers have different weights"),
    ],
)
def test_why_outputs_are_not_cached_is_said(settings, tmp_path, algorithm, hparams, reason):
    made, line = note(with_hparams(settings, **hparams), algorithm)
    assert line.startswith(f"computed in each update, because {reason}")
    assert made.minibatches[0][0][0].shape == (4, 3, 32, 32)
    assert outputs_in(tmp_path) == []


def test_without_a_cache_folder_nothing_is_cached(settings):
    assert note(settings | {"cache_dir": "none"})[1] == "computed in each update, because --cache_dir is none"


def test_nothing_is_said_without_frozen_stages(settings):
    made = build(TrainConfig(**settings | {"hparams": json.dumps(settings["hparams"] | {"freeze": "none"})}))
    assert not [line for line in describe(made) if "frozen" in line]


def test_a_cache_folder_that_cannot_be_written_is_a_warning(settings, tmp_path, caplog):
    note(settings)
    for path in outputs_in(tmp_path):
        path.unlink()
        path.mkdir()
    made, line = note(settings)
    assert line.startswith("computed in each update")
    assert "frozen stages are computed in each update, because the cache cannot be used" in caplog.text
    caplog.clear()
    assert made.minibatches[0][0][0].shape == (4, 3, 32, 32)


def test_images_in_memory_are_passed_through_the_frozen_stages_once_too(settings, tmp_path):
    made, line = note(settings | {"dataset": "Debug28"})
    assert line == "computed once for each image"
    assert len(outputs_in(tmp_path)) == 2
    assert made.minibatches[0][0][0].shape == (4, *made.algorithm.featurizer.frozen_shape)


def test_domain_adaptation_uses_outputs_of_the_target_too(settings, tmp_path):
    given = settings | {"task": "domain_adaptation", "uda_holdout_fraction": 0.5, "steps": 1}
    made, line = note(given)
    assert line == "computed once for each image"
    assert made.unlabeled[0][0][0].shape == (4, *made.algorithm.featurizer.frozen_shape)


def test_pooled_minibatches_are_outputs_too(settings):
    made, _ = note(settings | {"grouping": "pooled"})
    assert made.minibatches[0][2][0].shape == (4, *made.algorithm.featurizer.frozen_shape)


def test_averages_swad_and_model_files_work_with_outputs(settings, tmp_path):
    given = with_hparams(settings, weight_averaging="swad", swad_n_s=1, swad_n_e=2)
    found = losses(given, tmp_path / "run", skip_model_save=False, holdout_fraction=0.4, checkpoint_freq=1)
    assert "swad_start" in found[-1]
    model = torch.load(tmp_path / "run/model.pkl", weights_only=True)["model_dict"]
    plain = build(TrainConfig(**settings | {"hparams": json.dumps(settings["hparams"] | {"freeze": "none"})}))
    assert plain.algorithm.state_dict().keys() == model.keys()
