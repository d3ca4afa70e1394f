"""`train` and `sweep` say before they train which sources have no validation images; reports then say so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from domainbed.results.collect import collect_results
from domainbed.sweep.flags import parse
from domainbed.sweep.planned_jobs import make_jobs
from domainbed.sweep.validation_images import validation_warnings
from domainbed.training import api
from domainbed.training.config import TrainConfig

HPARAMS = json.dumps({"input_size": 8, "featurizer": "mlp", "mlp_width": 2, "batch_size": 2})
SHORT = {"hparams": HPARAMS, "steps": 3, "checkpoint_freq": 1, "skip_model_save": True, "cache_dir": "none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Environments of 10 images, and `few` with 3, none of them for validation by default."""
    root = tmp_path_factory.mktemp("data") / "photos"
    drawn = np.random.default_rng(0)
    for environment, images in (("a", 10), ("b", 10), ("few", 3), ("z", 10)):
        for number in range(images):
            path = root / environment / ("cat" if number % 2 else "dog") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return root


def jobs(folder, *flags):
    argv = ["launch", "--datasets", str(folder), "--algorithms", "ERM", "--output_dir", "sweep", *flags]
    return make_jobs(parse([*argv, "--single_test_envs", "--n_hparams", "1", "--n_trials", "1"]))


def test_train_warns_and_selection_leaves_the_source_out(folder, tmp_path, caplog, capsys):
    """3 images and the default holdout: the result is that of the sources that have validation images."""
    run = tmp_path / "sweep" / "run"
    api.train(TrainConfig(dataset=str(folder), test_envs=[0], output_dir=str(run), **SHORT))
    assert (
        "warning: --holdout_fraction 0.2 leaves no validation images in environment 2 (few, 3 images): "
        "selection will average over the validation accuracies of the other sources; increase the share, or "
        "add images"
    ) in caplog.messages
    records = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 1, 2]
    val = [np.mean([record["env1_out_acc"], record["env3_out_acc"]]) for record in records]
    expected = 100 * records[int(np.argmax(val))]["env0_in_acc"]
    capsys.readouterr()
    collect_results(tmp_path / "sweep", selection=["iid"])
    out, err = capsys.readouterr()
    assert out.splitlines()[4].split()[:4] == ["ERM", f"{expected:.1f}", "+/-", "0.0"]
    assert f"which selection leaves out: few of {folder} (iid)" in err


def test_without_any_validation_images_train_warns_and_there_is_no_result(folder, tmp_path, caplog, capsys):
    """--holdout_fraction 0: the network of step 0 is not the result, and the table keeps its columns."""
    run = tmp_path / "sweep" / "run"
    settings = {"dataset": str(folder), "test_envs": [0], "output_dir": str(run), "holdout_fraction": 0.0}
    api.train(TrainConfig(**settings, **SHORT))
    (warning,) = [text for text in caplog.messages if "validation images" in text]
    assert warning.startswith(
        "warning: --holdout_fraction 0 leaves no validation images in environment 1 (b, 10 images), "
        "environment 2 (few, 3 images), environment 3 (z, 10 images): selection by validation accuracy of "
        "the sources will have no result"
    )
    capsys.readouterr()
    collect_results(tmp_path / "sweep", selection=["iid"])
    out, err = capsys.readouterr()
    assert out.splitlines()[3].split() == ["Algorithm", "a", "b", "few", "z", "Avg"]
    assert out.splitlines()[4].split() == ["ERM", "X", "X", "X", "X", "X"]
    assert "cells without a result (X), no validation images (no source environment has any" in err


def test_sweep_warns_before_it_starts(folder, forked_script, tmp_path):
    done = forked_script(
        "sweep",
        "launch",
        *("--datasets", folder, "--algorithms", "ERM", "--n_trials", 1, "--n_hparams", 1),
        *("--single_test_envs", "--command_launcher", "dummy", "--skip_confirmation", "--hparams", HPARAMS),
        *("--output_dir", tmp_path / "sweep"),
    )
    assert done.returncode == 0, done.stderr
    assert (
        f"warning: {folder}: --holdout_fraction 0.2 leaves no validation images in environment 2 (few, 3 "
        "images): selection will average over the validation accuracies of the other sources"
    ) in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--holdout_fraction", "0"], "--holdout_fraction 0 leaves no validation images in any environment"),
        (["--holdout_fraction", "0.4"], ""),
        (["--test_envs", "2"], ""),  # `few` is never a source
        (["--splits", "80/10/10"], "--splits 80/10/10 leaves no validation images in environment 2 (few"),
    ],
    ids=["zero", "enough", "never a source", "splits"],
)
def test_warnings_of_a_sweep(folder, flags, words):
    found = list(validation_warnings(jobs(folder, *flags)))
    assert bool(found) == bool(words)
    assert all(words in line for line in found)
